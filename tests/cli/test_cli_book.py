"""``genkl book``: the commands of ``python -m book``, and nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

import book.__main__ as book_main
from book.machine import BookError, Outcome
from genkl.cli import build_parser, main


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def own_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    book_main.add_commands(parser)
    return parser


def test_both_have_the_same_commands_and_options() -> None:
    ours, theirs = subcommands(own_parser()), subcommands(subcommands(build_parser())["book"])
    assert list(ours) == list(theirs)
    assert set(ours) == {"execute", "chapter", "render", "slides", "compare", "online"}
    for name, parser in ours.items():
        options = [(a.dest, a.option_strings, a.help, a.default) for a in parser._actions]
        assert options == [
            (a.dest, a.option_strings, a.help, a.default) for a in theirs[name]._actions
        ]


@pytest.mark.parametrize("start", ["genkl", "book.machine"])
def test_a_command_reaches_the_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], start: str
) -> None:
    asked = []

    def execute(project, names, **options):
        asked.append((project.root, project.profile, names, options))
        return Outcome(executed=["a"])

    monkeypatch.setattr(book_main, "execute", execute)
    arguments = ["execute", "a", "--root", str(tmp_path), "--profile", "long", "--jobs", "2"]
    run = {"genkl": lambda given: main(["book", *given]), "book.machine": book_main.main}[start]
    assert run([*arguments, "--force"]) == 0
    assert asked == [(tmp_path.resolve(), "long", ["a"], {"jobs": 2, "force": True})]
    assert "1 executed" in capsys.readouterr().out


def test_a_failing_notebook_is_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_main, "execute", lambda *_, **__: Outcome(failed={"a": "a: no"}))
    assert main(["book", "execute", "--root", str(tmp_path)]) == 1


def test_an_error_is_one_line_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GENKL_DEBUG", raising=False)
    assert main(["book", "execute", "--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no ")
    assert "name it with --root" in error
    assert error.count("\n") == 1

    def several_lines(*_, **__):
        raise BookError("one\n  two\n\nthree")

    monkeypatch.setattr(book_main, "render", several_lines)
    assert main(["book", "render", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: one two three\n"


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["book", "render", "--jobs", "0"])
    assert done.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err
