"""``genkl run``: the same as the function, in a folder, with errors of one line."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from official_trees import write_clothing1m
from PIL import Image
from scipy.stats import binomtest

import genkl
from genkl.cli import main
from genkl.cli.run import _show_comparison

SHORT = [
    "run", "--preset", "digits", "--rounds", "1", "--set", "pretrain.steps", "30",
    "--set", "train.steps", "40", "--set", "finetune.steps", "10", "--set", "ensemble", "2",
    "--set", "first_ensemble", "2", "--set", "max_flag_rate", "0.2", "--accelerator", "cpu",
]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENKL_DATA", raising=False)


def one_error(capsys, *arguments):
    """The one line that a command ends with."""
    assert main([*arguments]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_it_is_run_genkl_and_goes_on(tmp_path, capsys):
    assert main([*SHORT, "--run-dir", "here"]) == 0
    shown = capsys.readouterr().out
    assert "chosen on validation" in shown
    record = json.loads((tmp_path / "here" / "record.json").read_text())
    dataset, _ = genkl.load_dataset("digits", seed=0)
    config = replace(
        genkl.DIGITS,
        pretrain=replace(genkl.DIGITS.pretrain, steps=30),
        train=replace(genkl.DIGITS.train, steps=40),
        finetune=replace(genkl.DIGITS.finetune, steps=10),
        ensemble=2,
        first_ensemble=2,
        max_rounds=1,
        max_flag_rate=0.2,
    )
    run = genkl.run_genkl(dataset, config, seed=0, engine="cpu", progress=False)
    assert record["rounds"][0]["test_accuracy"] == run.best.test_accuracy
    assert record["rounds"][0]["threshold"] == run.best.threshold
    assert main([*SHORT, "--run-dir", "here", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == record["rounds"]


def test_a_folder_of_ones_own_is_compared_with_its_labels_as_they_are(tmp_path, capsys):
    rng, lines = np.random.default_rng(0), ["image,label,verified"]
    for row in range(90):
        color = np.eye(3)[row % 3] * 180 + 40
        pixels = np.clip(color + rng.normal(scale=25, size=(16, 16, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{row:02}.png")
        given = (row + (row % 5 == 0)) % 3  # a fifth of the labels is wrong
        lines.append(f"{row:02}.png,{'rgb'[given]},{'rgb'[row % 3] if row < 45 else ''}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    asked = [*SHORT, "--dataset", "folder", "-o", "folder", str(tmp_path), "-o", "labels"]
    asked += ["labels.csv", "--run-dir", "here", "--json"]
    assert main(asked) == 0
    shown, said = capsys.readouterr()
    accuracy = json.loads(shown)["rounds"][0]["test_accuracy"]
    beside = json.loads((tmp_path / "here" / "given-labels" / "record.json").read_text())
    plain = beside["rounds"][0]["test_accuracy"]
    low, high = binomtest(round(12 * plain), 12).proportion_ci(method="wilson")
    assert f"table has them): {plain:.1%} of 12 test images [{low:.1%}, {high:.1%}]" in said
    assert f"GenKL: {accuracy:.1%} of 12 test images" in said
    assert ("! GenKL is not better" in said) == (accuracy <= plain)
    assert main([*asked, "--resume"]) == 0  # both go on
    assert f"table has them): {plain:.1%} of 12" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [(0.5, 0.5, "is not better"), (0.6, 0.5, "than chance"), (0.9, 0.5, "")],
)
def test_a_lead_is_said_to_be_one_where_chance_would_not_give_it(own, other, said, capsys):
    runs = [
        SimpleNamespace(method=name, best=SimpleNamespace(test_accuracy=share))
        for name, share in (("GenKL", own), ("given labels", other))
    ]
    _show_comparison(*runs, 30)
    told = capsys.readouterr().err
    assert ("!" in told) == bool(said)
    assert said in told


def test_a_folder_in_use_and_another_run_are_refused_before_anything_is_loaded(capsys, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.txt").write_text("precious")
    said = one_error(capsys, *SHORT, "--run-dir", "here")
    assert "--run-dir here is in use; add --resume" in said
    assert "holds files that are no run" in one_error(
        capsys, *SHORT, "--run-dir", "here", "--resume"
    )
    assert [file.name for file in (tmp_path / "here").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "method", ["given-labels", "given-labels-tuned", "clean-alone", "genkl-calibrated", "gce"]
)
def test_methods_have_folders_of_their_own(method, tmp_path, capsys):
    assert main([*SHORT, "--method", method]) == 0
    record = json.loads(
        (tmp_path / "runs" / f"digits-digits-{method}-seed0" / "record.json").read_text()
    )
    assert record["method"].lower().startswith(method.split("-")[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "train.stps", "3"], "unknown setting 'stps'; choose one of: steps"),
        (["--set", "alpha", "-1"], "alpha is -1"),
        (["--set", "train", "3"], "set one of its parts, such as train.steps"),
        (["--set", "max_rounds", "x"], "--set max_rounds is 'x'"),
        (["--set", "beta", "0.5"], "beta"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--dataset", "imagenet"], "--dataset is 'imagenet'; name one of: digits"),
        (["--network", "resnet18", "--backbone", "resnet18"], "name one of the two"),
        (["--network", "resnet1"], "resnet1"),
        (["--weights", "a.safetensors"], "name their --network or --backbone"),
        (["--method", "given-labels", "--losses", "mae"], "leave --identify and --losses out"),
        (["--method", "magic"], "--method is 'magic'; name one of: clean-set-alone, given-labels"),
        (["--devices", "0"], "devices is 0"),
        (["--workers", "-2"], "--workers is -2"),
        (["--checkpoint-every", "0"], "--checkpoint-every is 0"),
        (["-o", "label_noise", "7"], "label_noise"),
        (["-o", "nonsense", "7"], "nonsense"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(capsys, tmp_path, arguments, words):
    assert words in one_error(capsys, *SHORT, *arguments)
    assert not (tmp_path / "runs").exists()


def test_a_preset_must_be_named(capsys):
    with pytest.raises(SystemExit) as done:
        main(["run", "--rounds", "1"])
    assert done.value.code == 2
    assert "required: --preset" in capsys.readouterr().err


def test_a_data_set_that_is_not_here_is_said_with_how_to_get_it(capsys):
    said = one_error(capsys, "run", "--preset", "clothing1m", "--data-root", "nowhere")
    assert "Clothing1M" in said
    assert "clothing1m" in said


def test_dry_run_resolves_everything_and_does_nothing(tmp_path, capsys):
    write_clothing1m(tmp_path / "data" / "clothing1m")
    arguments = ["run", "--preset", "clothing1m", "--data-root", "data", "--weights", "random"]
    assert main([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for words in ("42 noisy", "28 clean", "resnet50", "clean_batch_size 32", "random crop", "1.05"):
        assert words in shown
    assert main([*arguments, "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["config"]["alpha"] == 1.05
    plan = {row["phase"]: row for row in facts["plan"]}
    assert plan["train"] == {
        "phase": "train", "models": 9, "steps each": 20, "instances each": 20 * 64,
    }  # fmt: skip
    assert plan["pretrain"]["models"] == 5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data"]


def test_help_explains_every_option():
    done = subprocess.run(
        [sys.executable, "-m", "genkl", "run", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    for option in ("--preset", "--data-root", "--resume", "--dry-run", "--set", "--precision"):
        assert option in done.stdout
    assert done.stdout.count("default") >= 20
    assert "torchrun" in done.stdout
