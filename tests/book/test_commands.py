"""The command line of ``python -m book``: what reaches the machine, and how errors are told."""

from __future__ import annotations

from pathlib import Path

import pytest

import book.__main__ as commands
from book.machine.execution import Outcome


def test_a_command_reaches_the_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def execute(project, names, **options):
        asked.append((project.root, project.profile, names, options))
        return Outcome(executed=["a"])

    monkeypatch.setattr(commands, "execute", execute)
    arguments = ["execute", "a", "--root", str(tmp_path), "--profile", "long", "--jobs", "2"]
    assert commands.main([*arguments, "--force"]) == 0
    assert asked == [(tmp_path.resolve(), "long", ["a"], {"jobs": 2, "force": True})]
    assert "1 executed" in capsys.readouterr().out


def test_the_pages_are_for_the_audience_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(commands, "render", lambda project, **options: asked.append(options))
    assert commands.main(["render", "--root", str(tmp_path), "--audience", "student"]) == 0
    assert asked == [{"jobs": None, "audience": "student"}]


def test_a_failing_notebook_is_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "execute", lambda *_, **__: Outcome(failed={"a": "a: no"}))
    assert commands.main(["execute", "--root", str(tmp_path)]) == 1


def test_an_error_has_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["execute", "--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no ")
    assert "name it with --root" in error
    assert error.count("\n") == 1


def test_an_interruption_is_status_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "render", interrupted)
    assert commands.main(["render", "--root", str(tmp_path)]) == 130


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        commands.main(["render", "--jobs", "0"])
    assert done.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err
