"""``genkl data``, and what holds for every command: quick start, errors of one line."""

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
    facts = {fact["name"]: fact for fact in json.loads(capsys.readouterr().out)}
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


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["book", "execute", "1_geometry", "--force"], "python -m book"),
        (["book", "--help"], "python -m book"),
        (["homework", "--students", "roster.csv"], "python -m teaching homework"),
        (["labs"], "python -m teaching labs"),
    ],
)
def test_a_command_that_moved_says_in_one_line_where_it_went(arguments, instead, capsys):
    assert main(arguments) == 1
    shown, said = capsys.readouterr()
    assert shown == ""
    assert said == (
        f"error: genkl {arguments[0]} is now `{instead}`: run it in a checkout of the book\n"
    )


def test_an_error_of_several_lines_is_one(capsys, monkeypatch):
    def failing(_):
        raise ValueError("one\n  two\n\nthree")

    monkeypatch.setattr("genkl.cli.data._list", failing)
    assert main(["data", "list"]) == 1
    assert capsys.readouterr().err == "error: one two three\n"


START = """
import re, sys
from pathlib import Path
from genkl.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    assert not done.code
large = {"torch", "timm", "pandas", "numpy", "pyarrow", "scipy", "sklearn", "PIL", "requests"}
print(sorted(large & set(sys.modules)), file=sys.stderr)
status = Path("/proc/self/status")  # on Linux; getrusage counts what forked this process, too
peak = re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1] if status.exists() else 0
print(peak, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["data", "list"], ["data", "show", "--help"], ["run", "--help"]]
)
def test_help_and_the_list_start_without_any_large_library(arguments):
    done = subprocess.run(
        [sys.executable, "-c", START, *arguments], capture_output=True, text=True, check=True
    )
    modules, peak = done.stderr.splitlines()
    assert modules == "[]"
    assert int(peak) < 120_000  # KiB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--preset", "digits"], 'torch is not installed: pip install "genkl[train]"'),
        (["data", "show", "digits"], 'torch is not installed: pip install "genkl[train]"'),
    ],
)
def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(arguments, message):
    code = "import sys; sys.modules['torch'] = None; from genkl.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"error: {message}\n"


def test_the_module_runs_the_same_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "genkl", "data", "list", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [fact["name"] for fact in json.loads(done.stdout)] == list(DATASETS)
