"""Every command with every option given nonsense once: a status, one line, and nothing written.

The options are those of the parsers, so that a new one is tested as soon as it is there.
"""

import argparse
import os

import numpy as np
import pytest
from PIL import Image

from genkl.cli import build_parser, main

NO_NUMBER, NO_FILE = "nonsense", "no/such/\x01thing"
DRY = ("identify", "report", "run")
HARMLESS = {
    "--title",  # any text is one
    "--run-dir",  # a new folder
    "--no-label",  # a name that no label has
    "--id",
    "--data-root",  # of no use to what comes with a package
}


def commands(parser, path=()):
    """Every command's words and its parser."""
    inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not inner:
        yield path, parser
    for action in inner:
        for name, below in action.choices.items():
            yield from commands(below, (*path, name))


def options():
    """(words of the command, an option) for every option of every command."""
    for path, parser in commands(build_parser()):
        for action in parser._actions:
            if action.option_strings and not isinstance(action, argparse._HelpAction):
                yield path, action


def identifier(value):
    return " ".join(value) if isinstance(value, tuple) else value.option_strings[-1]


@pytest.fixture(scope="module")
def stuff(tmp_path_factory):
    """Predictions, photographs, and where commands are started."""
    root = tmp_path_factory.mktemp("nonsense")
    (root / "cwd").mkdir()
    np.save(root / "probs.npy", np.tile([0.9, 0.1], (4, 1)))
    for name in ("a", "b"):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (90 * number, 0, 0)).save(root / f"photos/{name}/{number}.png")
    return root


@pytest.fixture(autouse=True)
def elsewhere(stuff, monkeypatch):
    monkeypatch.chdir(stuff / "cwd")
    monkeypatch.setenv("GENKL_CACHE", str(stuff / "cwd" / "cache"))
    monkeypatch.setenv("GENKL_DATA", str(stuff / "cwd" / "none"))


def outcome(capsys, stuff, *arguments):
    """Status and stderr; nothing may have been written."""
    try:
        status = main([*arguments])
    except SystemExit as done:
        status = done.code
    said = capsys.readouterr().err
    assert os.listdir(stuff / "cwd") == []
    return status, said


def base(path, stuff, option):
    """A command that is complete without the option, as far as it can be."""
    words = [*path]
    if path[0] == "data" and path[-1] != "list":
        words.append("digits")
    if path[0] == "identify":
        words += [str(stuff / "probs.npy")] + ["--alpha", "1"] * (option != "--alpha")
    if path[0] == "report":
        from genkl.cli.report import FolderOptions

        asks_folder = option.removeprefix("--").replace("-", "_") in FolderOptions.__annotations__
        words.append(str(stuff / ("photos" if asks_folder else "probs.npy")))
    if path[0] == "run":
        words += ["--preset", "digits", "--accelerator", "cpu"]
    return words + ["--dry-run"] * (path[0] in DRY and option != "--dry-run")


@pytest.mark.parametrize(("path", "action"), [*options()], ids=identifier)
def test_nonsense_is_one_line_and_nothing_written(path, action, stuff, capsys):
    option = action.option_strings[-1]
    words = base(path, stuff, option)
    if action.nargs == 0:  # a switch takes no value
        status, said = outcome(capsys, stuff, *words, f"{option}={NO_NUMBER}")
        assert (status, said.count("\n")) == (2, 1)
        return
    status, said = outcome(capsys, stuff, *words, option)  # a value is missing
    assert (status, said.count("\n")) == (2, 1)
    assert option in said
    given = [NO_FILE] * (action.nargs or 1)
    status, said = outcome(capsys, stuff, *words, option, *given)
    if action.choices or action.type in (int, float):
        assert (status, said.count("\n")) == (2, 1)
        assert option in said
    elif option not in HARMLESS or status:
        assert status in (1, 2), said
        assert said.startswith("error: ")
        assert said.count("\n") == 1
    if action.type in (int, float):  # no number of images, of steps, of anything
        for number in ("-1", "nan", "inf", "1e999"):
            status, said = outcome(capsys, stuff, *words, option, number)
            assert status in (1, 2), (number, said)
            assert said.count("\n") == 1


@pytest.mark.parametrize("path", [path for path, _ in commands(build_parser())], ids=" ".join)
def test_an_unknown_option_is_one_line_with_status_2(path, stuff, capsys):
    status, said = outcome(capsys, stuff, *base(path, stuff, ""), "--nonsense", "1")
    assert (status, said.count("\n")) == (2, 1)
    assert "--nonsense" in said
