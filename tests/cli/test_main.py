"""The command line: what is here, what isn't, and what to do about it."""

import json
import subprocess
import sys

import pytest

from genkl.cli import main
from genkl.data.registry import DATASETS
from tests.official_trees import write_clothing1m


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    monkeypatch.delenv("GENKL_DATA", raising=False)
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path / "cache"))


def test_the_list_has_every_data_set_with_licence_size_and_what_to_do(capsys):
    assert main(["data", "list"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, entry in DATASETS.items():
        for text in (name, entry.source.title, entry.source.licence, entry.source.size):
            assert " ".join(text.split()) in shown
    assert "genkl data get cifar10n" in shown
    assert " ".join(DATASETS["clothing1m"].source.how_to_get.split()) in shown


def test_what_is_here_is_said_to_be_here(tmp_path, capsys):
    write_clothing1m(tmp_path / "clothing1m")
    assert main(["data", "list", "--json", "--data-root", str(tmp_path)]) == 0
    facts = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert facts["digits"]["present"]
    assert facts["clothing1m"]["present"]
    assert facts["clothing1m"]["where"] == str(tmp_path / "clothing1m")
    assert not facts["food101n"]["present"]
    assert not facts["cifar10h"]["present"]


def test_show_counts_classes_and_noise(capsys):
    assert main(["data", "show", "digits", "-o", "num_ood", "7", "-o", "noise_kind", "pair"]) == 0
    out = capsys.readouterr().out
    assert "validation" in out
    assert "planted" in out
    ood = [line.split()[-1] for line in out.splitlines()[-8:]]
    assert sum(int(count) for count in ood) == 7


def test_check_names_the_images_that_cannot_be_read(tmp_path, capsys):
    root = tmp_path / "clothing1m"
    write_clothing1m(root)
    run = ["data", "check", "clothing1m", "--data-root", str(tmp_path), "--workers", "0"]
    assert main(run) == 0
    broken = sorted(root.rglob("*.jpg"))[0]
    broken.write_bytes(broken.read_bytes()[:40])
    capsys.readouterr()
    assert main(run) == 1
    assert broken.name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "show", "clothing1m"], "Ask its authors"),
        (["data", "get", "clothing1m"], "Ask its authors"),
        (["data", "show", "digits", "-o", "label_noise", "2"], "label_noise is 2"),
        (["data", "show", "digits", "-o", "colour", "blue"], "colour"),
    ],
)
def test_errors_are_short_and_have_a_remedy(arguments, message, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["get", "show", "check"])
def test_an_unknown_data_set_is_refused_with_the_known_ones(command, capsys):
    with pytest.raises(SystemExit) as done:
        main(["data", command, "mnist"])
    assert done.value.code == 2
    error = capsys.readouterr().err
    assert all(repr(name) in error for name in DATASETS)


def test_help_names_the_data_sets(capsys):
    with pytest.raises(SystemExit):
        main(["data", "show", "--help"])
    assert ", ".join(DATASETS) in " ".join(capsys.readouterr().out.split())


def test_the_module_runs_the_same_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "genkl", "data", "list", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [one["name"] for one in json.loads(done.stdout)] == list(DATASETS)
