"""Values as they are typed, and errors in the words of the command line; dry runs that check."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from genkl.cli import main
from genkl.cli.options import typed

RUN = ["run", "--preset", "digits", "--accelerator", "cpu", "--dry-run"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENKL_DATA", raising=False)


@pytest.fixture
def photographs(tmp_path):
    """Two classes of three photographs, in a folder that looks like a number; one is alone."""
    rng = np.random.default_rng(0)
    for name, count in (("cats", 3), ("dogs", 3), ("fish", 1)):
        (tmp_path / "2024" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "2024" / name / f"{number}.png")
    return tmp_path / "2024"


def error(capsys, *arguments):
    """The one line that a command ends with."""
    assert main([*arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def plan(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_whole_number_may_be_typed_in_any_way(capsys):
    changes = ["--set", "train.steps", "1e1", "--set", "train.batch_size", "16.0"]
    config = plan(capsys, *RUN, *changes, "-o", "clean_per_class", "1e1")
    assert config["config"]["train"]["steps"] == 10
    assert type(config["config"]["train"]["batch_size"]) is int
    assert config["instances"]["clean"] == 80


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.steps", "1.5", "--set train.steps is '1.5'; it must be a whole number"),
        ("train.steps", "[1]", "--set train.steps is '[1]'; it must be a whole number"),
        ("train.steps", "null", "--set train.steps is 'null'"),
        ("train.nesterov", "3", "--set train.nesterov is '3'; it must be true or false"),
        ("max_rounds", "true", "--set max_rounds is 'true'"),
        ("alpha", "NaN", "--set alpha is 'NaN'; it must be a number"),
        ("train.weight_decay", "1e999", "--set train.weight_decay is '1e999'"),
        ("omega", "3", "--set omega is '3'"),
        ("train.optimizer", "3", "unknown optimizer '3'"),
    ],
)
def test_values_of_another_kind_are_refused_by_a_dry_run(key, value, words, capsys):
    assert words in error(capsys, *RUN, "--set", key, value)


def test_none_can_be_typed_where_it_means_something(capsys):
    found = plan(capsys, *RUN, "--set", "alpha", "null", "--set", "omega", "[1, 2, 3]")
    assert found["config"]["alpha"] is None
    assert found["config"]["omega"] == [1, 2, 3]


def test_settings_that_belong_together_are_checked_together(capsys):
    crop = '[["resize", 32], ["centre crop", 32]]'
    both = ["--set", "train_transforms", crop, "--set", "test_transforms", crop]
    found = plan(capsys, *RUN, *both)
    assert len(found["config"]["train_transforms"]) == 2
    assert "belong together" in error(capsys, *RUN, *both[:3])


def test_texts_stay_texts_and_lists_are_separated_by_commas():
    path, names = "str | os.PathLike[str]", "Sequence[str] | None"
    assert typed("-o folder", path, "2024") == "2024"
    assert typed("-o label_column", "str", "null") == "null"
    assert typed("-o class_names", names, "cats,dogs") == ["cats", "dogs"]
    assert typed("-o class_names", names, '["cats", "1,5"]') == ["cats", "1,5"]
    assert typed("-o class_names", names, "null") is None
    assert typed("-o no_label", "Sequence[str]", "NaN") == ["NaN"]


def test_a_name_that_is_nothing_is_one_line(photographs, capsys):
    said = error(capsys, "data", "show", "folder", "-o", "folder", "2024", "-o", "class_names", ",")
    assert "',' names a class by nothing" in said


def test_a_folder_called_by_a_number_and_classes_by_commas(photographs, capsys):
    arguments = ["data", "show", "folder", "-o", "folder", "2024", "-o", "class_names"]
    said = error(capsys, *arguments, "cats,dogs")
    assert "'c'" not in said
    assert "fish" in said  # a sub-folder that is none of the classes


def test_an_unknown_option_of_a_loader_is_refused_with_those_there_are(capsys):
    said = error(capsys, "data", "show", "digits", "-o", "colour", "blue")
    assert "-o colour: digits has no such option; it has label_noise, noise_kind" in said
    said = error(capsys, "data", "show", "folder", "-o", "folders", "2024")
    assert "it has folder, labels, class_names" in said
    assert "image_suffix" in said
    assert "-o noisy_limit" in error(capsys, "data", "show", "cifar10n", "-o", "noisy_limit", "x")


def test_a_missing_option_is_named_as_it_is_typed(capsys):
    said = error(capsys, "data", "show", "folder")
    assert said == "error: -o folder is missing; folder needs it: add -o folder FOLDER\n"


def test_errors_of_functions_are_in_the_words_of_the_command_line(photographs, tmp_path, capsys):
    table = tmp_path / "labels.csv"
    table.write_text("image,label\ncats/0.png,cats\ncats/9.png,cats\ndogs/0.png,dogs\n")
    asked = ["-o", "folder", "2024", "-o", "labels", "labels.csv"]
    said = error(capsys, "data", "show", "folder", *asked)
    assert "-o missing" in said
    assert "missing=" not in said
    said = error(capsys, "report", "2024", "--labels", "labels.csv", "--dry-run")
    assert "--missing" in said
    assert "missing=" not in said
    said = error(capsys, "report", "2024", "--classes", "cats,dogs", "--dry-run")
    assert "class_names" not in said
    assert "error: --checkpoint-every is 0" in error(capsys, *RUN, "--checkpoint-every", "0")
    assert "error: --workers is -2" in error(capsys, *RUN, "--workers", "-2")
    assert "error: --rounds is 0" in error(capsys, *RUN, "--rounds", "0")


def test_a_dry_report_of_a_folder_makes_its_checks(photographs, capsys):
    assert "has 1 of 'fish'" in error(capsys, "report", "2024", "--dry-run")
    (photographs / "fish" / "0.png").unlink()
    (photographs / "fish").rmdir()
    assert "error: --beta is 0.5" in error(capsys, "report", "2024", "--dry-run", "--beta", "0.5")
    assert "--size is 0" in error(capsys, "report", "2024", "--dry-run", "--size", "0")
    vit = ["--backbone", "vit_tiny_patch16_224", "--weights", "random", "--size", "64"]
    said = error(capsys, "report", "2024", "--dry-run", *vit)
    assert "--size is 64, which timm/vit_tiny" in said
    assert "its own is 224" in said
    if not torch.cuda.is_available():
        said = error(capsys, "report", "2024", "--dry-run", "--device", "cuda")
        assert "--device is 'cuda', which this machine doesn't have" in said


def test_a_dry_report_of_a_table_makes_its_checks(tmp_path, capsys):
    np.save(tmp_path / "probs.npy", np.full((4, 6), 1 / 6))
    arguments = ["report", "probs.npy", "--dry-run"]
    assert main(arguments) == 0
    assert "--beta is 0.5" in error(capsys, *arguments, "--beta", "0.5")
    assert "--max-distance is 1.0 and no" in error(capsys, *arguments, "--max-distance", "1")


def test_a_dry_run_of_a_folder_without_a_clean_label_is_refused(photographs, capsys):
    arguments = ["run", "--preset", "photographs", "--dataset", "folder", "--accelerator", "cpu"]
    said = error(capsys, *arguments, "-o", "folder", "2024", "--dry-run")
    assert "clean" in said or "verified" in said


def test_ctrl_c_says_what_goes_on(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("genkl.cli.run.load", interrupted)
    assert main(RUN) == 130
    assert "add --resume to go on" in capsys.readouterr().err
    monkeypatch.setattr("genkl.cli.data._list", interrupted)
    assert main(["data", "list"]) == 130
    assert "run it again to go on" in capsys.readouterr().err


def test_without_a_home_the_cache_is_among_the_temporary_files(monkeypatch, tmp_path):
    from genkl.features import cache_folder

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("GENKL_CACHE", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(*_):
        raise KeyError("getpwuid(): uid not found")

    with monkeypatch.context() as nobody:
        nobody.setattr("pwd.getpwuid", unknown)
        assert cache_folder().parent == tmp_path
        assert main(["data", "list"]) == 0
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "genkl"
    monkeypatch.setattr("os.access", lambda *_: False)
    assert cache_folder().parent == tmp_path
