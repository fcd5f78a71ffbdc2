"""``python -m book``: commands reach the machine, and statuses say what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

import book.__main__ as book_main
from book.__main__ import main
from book.machine.execution import Outcome
from book.machine.project import BookError


def test_these_are_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    for name in ("execute", "chapter", "render", "slides", "compare", "online"):
        assert f"    {name} " in shown


def test_a_command_reaches_the_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def execute(project, names, **options):
        asked.append((project.root, project.profile, names, options))
        return Outcome(executed=["a"])

    monkeypatch.setattr(book_main, "execute", execute)
    arguments = ["execute", "a", "--root", str(tmp_path), "--profile", "long", "--jobs", "2"]
    assert main([*arguments, "--force"]) == 0
    assert asked == [(tmp_path.resolve(), "long", ["a"], {"jobs": 2, "force": True})]
    assert "1 executed" in capsys.readouterr().out


def test_the_pages_are_for_the_audience_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(book_main, "render", lambda project, **options: asked.append(options))
    assert main(["render", "--root", str(tmp_path), "--audience", "student"]) == 0
    assert asked == [{"jobs": None, "audience": "student"}]


def test_an_interruption_is_status_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(book_main, "render", interrupted)
    assert main(["render", "--root", str(tmp_path)]) == 130


def test_a_failing_notebook_is_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_main, "execute", lambda *_, **__: Outcome(failed={"a": "a: no"}))
    assert main(["execute", "--root", str(tmp_path)]) == 1


def test_an_error_is_said_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["execute", "--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no ")
    assert "name it with --root" in error

    def failing(*_, **__):
        raise BookError("no page")

    monkeypatch.setattr(book_main, "render", failing)
    assert main(["render", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: no page\n"


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["render", "--jobs", "0"])
    assert done.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err


def test_a_changed_chapter_ends_with_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(book_main, "change_chapter", lambda *_, **__: Outcome(executed=["a"]))
    monkeypatch.setattr(book_main, "render", lambda project: project.html / "index.html")
    assert main(["chapter", "a", "-p", "alpha", "2", "--root", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "executed first" in said[0]
    assert said[1].endswith("/notebooks/a.html")
