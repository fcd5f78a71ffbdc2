"""The executor on small books made here: what is executed, what is refused, what is published."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from book.__main__ import main
from book.machine import execution, rendering
from book.machine.dependencies import Modules
from book.machine.execution import change_chapter, execute
from book.machine.parameters import check_parameters, read_parameters, with_parameters
from book.machine.profiles import read_overrides
from book.machine.project import BookError, Project
from book.machine.rendering import render

REPOSITORY = Path(__file__).parents[2]

LAZY = (
    "import importlib\n"
    "_EXPORTS = {exports}\n"
    "def __getattr__(name):\n"
    "    if name not in _EXPORTS:\n"
    "        raise AttributeError(name)\n"
    "    return getattr(importlib.import_module(_EXPORTS[name]), name)\n"
)
"""A package whose names are loaded on first use."""

PACKAGE_FILES = {
    "__init__.py": LAZY.format(exports={"to_left": "genkl.left", "to_right": "genkl.right"}),
    "base.py": "one = 1\n",
    "late.py": "late = 1\n",
    "left.py": "from .base import one\ndef to_left():\n    return one\n",
    "right.py": "def to_right():\n    from genkl.late import late\n    return 2 * late\n",
    "alone.py": "x = 0\n",
    "sub/__init__.py": "from genkl.sub.deep import deep\n",
    "sub/deep.py": "deep = 3\n",
    "../notebooks/figures/__init__.py": LAZY.format(exports={"draw_bars": "figures.bars"}),
    "../notebooks/figures/bars.py": "from genkl.alone import x\ndef draw_bars():\n    return x\n",
    "../notebooks/figures/pies.py": "",
    "../book/machine.py": "",
}


def notebook(*cells: str, parameters: str = "alpha: float = 1.05") -> dict[str, Any]:
    """A notebook with a title, a parameters cell and these code cells."""
    code = [("parameters", parameters), *((None, cell) for cell in cells)]
    made = [
        {
            "cell_type": "code",
            "id": f"code-{number}",
            "execution_count": None,
            "metadata": {"tags": [tag]} if tag else {},
            "outputs": [],
            "source": source,
        }
        for number, (tag, source) in enumerate(code)
    ]
    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# A chapter\n\nIt."}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [title, *made],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def write(project: Project, name: str, *cells: str, **options: str) -> None:
    project.template(name).write_text(json.dumps(notebook(*cells, **options)))


def manifest(project: Project, text: str) -> None:
    (project.notebooks / "manifest.yml").write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for name, text in PACKAGE_FILES.items():
        path = (tmp_path / "genkl" / name).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    made = Project(tmp_path)
    write(made, "a", "import genkl", "genkl.to_left() + alpha")
    write(
        made,
        "b",
        "import figures as plots",
        "from genkl import to_right",
        "to_right(), plots.draw_bars",
    )
    manifest(made, "quick: {a: {}, b: {}}\nlong: {a: {alpha: 2}, b: {}}\n")
    return made


class Started:
    """What stands for a process of papermill that has ended."""

    def __init__(self, returncode: int):
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notebooks are copied instead of executed; the names of those that would be."""
    ran: list[str] = []

    def copy_only(prepared: Path, copy: Path, log: Path, **_: object) -> Started:
        ran.append(copy.stem)
        shutil.copy(prepared, copy)
        return Started(0)

    monkeypatch.setattr(execution, "start_papermill", copy_only)
    return ran


def failing(prepared: Path, copy: Path, log: Path, **_: object) -> Started:
    """A process of papermill that comes to nothing."""
    log.write_text(f"{copy.stem}: no")
    return Started(1)


def command(project: Project, *arguments: str) -> int:
    return main([*arguments, "--root", str(project.root)])


# --- What is executed ------------------------------------------------------------------------


def test_what_has_not_changed_is_not_executed_again(project: Project, instant: list[str]) -> None:
    assert sorted(execute(project).executed) == ["a", "b"]
    again = execute(project)
    assert again.executed == []
    assert sorted(again.unchanged) == ["a", "b"]
    assert sorted(instant) == ["a", "b"]


def test_touching_a_file_executes_nothing(project: Project, instant: list[str]) -> None:
    execute(project)
    for path in [project.template("a"), *project.root.glob("genkl/*.py")]:
        os.utime(path, (path.stat().st_atime + 60, path.stat().st_mtime + 60))
    assert execute(project).executed == []


@pytest.mark.parametrize(
    ("file", "executed"),
    [
        ("left.py", ["a"]),
        ("base.py", ["a"]),  # imported by left, relatively
        ("right.py", ["b"]),
        ("late.py", ["b"]),  # imported by right, inside a function
        ("alone.py", ["b"]),  # by way of a figure
        ("sub/deep.py", []),
        ("../notebooks/figures/bars.py", ["b"]),
        ("../notebooks/figures/pies.py", []),
        ("../book/machine.py", []),
        ("__init__.py", []),  # only a table of names
    ],
)
def test_editing_a_package_file_executes_the_notebooks_that_use_it(
    project: Project, instant: list[str], file: str, executed: list[str]
) -> None:
    execute(project)
    with (project.root / "genkl" / file).open("a") as stream:
        stream.write("# edited\n")
    assert sorted(execute(project).executed) == executed


def test_other_parameters_content_or_versions_execute_again(
    project: Project, instant: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(project)
    manifest(project, "quick: {a: {alpha: 0.9}, b: {}}")
    assert execute(project).executed == ["a"]
    write(project, "b", "from genkl import to_right", "to_right() + 1")
    assert execute(project).executed == ["b"]
    project.copy("b").unlink()
    assert execute(project).executed == ["b"]
    monkeypatch.setattr(execution, "_versions", lambda root: {"torch": "99"})
    assert sorted(execute(project).executed) == ["a", "b"]


def test_a_file_that_a_notebook_names_is_a_dependency(project: Project, instant: list[str]) -> None:
    data = project.root / "data.csv"
    data.write_text("1")
    write(project, "a", "open('../data.csv')")
    execute(project)
    data.write_text("2")
    assert execute(project).executed == ["a"]


def test_profiles_are_kept_apart(project: Project, instant: list[str]) -> None:
    execute(project)
    long = Project(project.root, "long")
    assert sorted(execute(long).executed) == ["a", "b"]
    assert execute(project).executed == []
    assert "alpha: float = 2" in long.copy("a").read_text()
    assert "alpha: float = 1.05" in project.copy("a").read_text()


def test_only_the_named_are_executed_and_force_executes_anyway(
    project: Project, instant: list[str]
) -> None:
    assert execute(project, ["b"]).executed == ["b"]
    assert execute(project, ["b"]).executed == []
    assert execute(project, ["b"], force=True).executed == ["b"]


def test_threads_do_not_depend_on_how_many_are_stale(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def remember(
        prepared: Path, copy: Path, log: Path, *, cwd: Path, env: dict[str, str]
    ) -> object:
        threads.append(env["OMP_NUM_THREADS"])
        shutil.copy(prepared, copy)
        return Started(0)

    monkeypatch.setattr(execution, "start_papermill", remember)
    monkeypatch.setattr(execution, "usable_cores", lambda: 8)
    execute(project)
    execute(project, ["a"], force=True)
    assert threads == ["4", "4", "4"]


def test_a_kernel_that_did_not_start_is_started_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []

    def start(prepared: Path, copy: Path, log: Path, **_: object) -> Started:
        attempts.append(copy.stem)
        log.write_text("no")
        made = json.loads(prepared.read_text())
        if copy.stem == "b":  # fails in a cell: another attempt would do the same
            made["cells"][1]["metadata"]["papermill"] = {"start_time": "now"}
        copy.write_text(json.dumps(made))
        return Started(0 if attempts.count("a") == 2 and copy.stem == "a" else 1)

    monkeypatch.setattr(execution, "start_papermill", start)
    outcome = execute(project, jobs=1)
    assert outcome.executed == ["a"]
    assert outcome.failed.keys() == {"b"}
    assert attempts == ["a", "a", "b"]


def test_no_more_run_at_once_than_were_asked_for(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[Started] = []
    counts: list[int] = []

    class Slow(Started):
        looks = 0

        def poll(self) -> int | None:
            self.looks += 1
            if self.looks == 3:
                running.remove(self)
            return None if self.looks < 3 else 0

    def start(prepared: Path, copy: Path, log: Path, **_: object) -> Started:
        running.append(Slow(0))
        counts.append(len(running))
        shutil.copy(prepared, copy)
        return running[-1]

    monkeypatch.setattr(execution, "start_papermill", start)
    monkeypatch.setattr(execution, "POLL_SECONDS", 0)
    execute(project, jobs=1)
    assert counts == [1, 1]
    execute(project, jobs=2, force=True)
    assert counts == [1, 1, 1, 2]


# --- What a notebook depends on --------------------------------------------------------------

EVERYTHING = {
    "__init__.py", "alone.py", "base.py", "late.py", "left.py", "right.py",
    "sub/__init__.py", "sub/deep.py", "figures/__init__.py", "figures/bars.py", "figures/pies.py",
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("import numpy", set()),
        ("import genkl\ngenkl.to_left()", {"left.py", "base.py"}),
        ("import genkl as g\ng.to_right", {"right.py", "late.py"}),
        ("import genkl\ngenkl.__version__", set()),
        ("from genkl import to_left as l, to_right", {"left.py", "base.py", "right.py", "late.py"}),
        ("import genkl.alone", {"alone.py"}),
        ("import genkl.alone as x\nprint(x)", {"alone.py"}),
        ("from genkl import alone", {"alone.py"}),
        ("from genkl.left import to_left", {"left.py", "base.py"}),
        ("def f():\n    from genkl import alone", {"alone.py"}),
        ("from genkl.sub import deep", {"sub/__init__.py", "sub/deep.py"}),
        ("from genkl.sub.deep import deep", {"sub/__init__.py", "sub/deep.py"}),
        ("%matplotlib inline\n!ls\nfrom genkl import alone", {"alone.py"}),
        ("model.eval()\nfrom genkl import alone", {"alone.py"}),
        ("from genkl import *\nto_left()", {"left.py", "base.py"}),
        ("from genkl import unknown", set()),
        ("import figures\nfigures.draw_bars()", {"figures/bars.py", "alone.py"}),
        ("from figures import pies, draw_bars", {"figures/bars.py", "figures/pies.py", "alone.py"}),
        ("import genkl\nprint(vars(genkl))", EVERYTHING),
        ("import importlib\nimportlib.import_module('genkl.left')", EVERYTHING),
        ("this is no Python", EVERYTHING),
    ],
)
def test_dependencies_are_read_from_the_code(project: Project, code: str, files: set[str]) -> None:
    write(project, "a", code)
    found = Modules(project).used_by(project.template("a"))
    names = {path.relative_to(project.root).as_posix().partition("/")[2] for path in found}
    assert names == files


def test_a_table_of_modules_with_their_names_is_read_without_being_run(project: Project) -> None:
    init = project.root / "genkl" / "sub" / "__init__.py"
    init.write_text("_MODULES: dict = {'genkl.sub.deep': ('deep',)}\nraise RuntimeError\n")
    write(project, "a", "from genkl.sub import deep")
    (found,) = Modules(project).used_by(project.template("a"))
    assert found.name == "deep.py"


# --- Parameters ------------------------------------------------------------------------------


def test_values_replace_literals_and_nothing_else() -> None:
    source = (
        "# α is the paper's\n"
        "alpha: float = 1.05  # stays, β too\n"
        "name: str = 'β'; seed = 0\n"
        "sizes: tuple[int, ...] = (\n    1,\n    2,\n)\n"
        "off: bool = False"
    )
    values = {"alpha": 0.9, "name": "it's", "seed": 7, "sizes": (3,), "off": True}
    assert with_parameters(source, values) == (
        "# α is the paper's\n"
        "alpha: float = 0.9  # stays, β too\n"
        'name: str = "it\'s"; seed = 7\n'
        "sizes: tuple[int, ...] = (3,)\n"
        "off: bool = True"
    )
    assert with_parameters(source, {}) == source


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("x: float = 1.0", 2),
        ("x: float = 1.0", 0.5),
        ("x = 1.0", 3),
        ("x: bool = False", True),
        ("x: float | None = None", None),
        ("x: float | None = None", 0.5),
        ("x: tuple[int, ...] = (1, 2)", [3, 4, 5]),
        ("x: list[float] = [1.0]", [1, 2.5]),
        ("x: dict[str, int] = {}", {"a": 1}),
    ],
)
def test_values_of_the_declared_type_are_taken(
    project: Project, declared: str, value: object
) -> None:
    write(project, "a", parameters=declared)
    known = read_parameters(project.template("a"))
    check_parameters("a", known, {"x": value})


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("x: float = 1.0", "2"),
        ("x: float = 1.0", True),
        ("x: float = 1.0", float("inf")),  # a notebook would read the bare names inf and nan
        ("x: float | None = None", float("nan")),
        ("x: list[float] = [1.0]", [1.0, -float("inf")]),
        ("x: int = 1", 1.5),
        ("x: int = 1", True),
        ("x = 1", 1.5),
        ("x: bool = False", 1),
        ("x: str = ''", 1),
        ("x: float | None = None", "no"),
        ("x: tuple[int, ...] = (1, 2)", [1.5]),
        ("x: list[float] = [1.0]", 1.0),
        ("x: dict[str, int] = {}", {"a": "b"}),
    ],
)
def test_values_of_another_type_are_refused(project: Project, declared: str, value: object) -> None:
    write(project, "a", parameters=declared)
    known = read_parameters(project.template("a"))
    with pytest.raises(BookError, match="declared"):
        check_parameters("a", known, {"x": value})


@pytest.mark.parametrize(
    ("text", "profile", "names", "message"),
    [
        ("quick: {a: {}, b: {}}", "slow", [], "no profile 'slow'; the profiles: quick"),
        ("quick: {a: {}, b: {}}", "quick", ["c"], "no notebook 'c'; the notebooks: a, b"),
        ("quick: {a: {}, b: {}, c: {}}", "quick", [], "no notebook 'c'"),
        ("quick: {a: {}}", "quick", [], "does not name b"),
        ("quick: {a: {alhpa: 1}, b: {}}", "quick", [], "no parameter 'alhpa'.*: alpha"),
        ("quick: {a: {}, b: {alpha: high}}", "quick", ["a"], "b: alpha is declared float"),
        ("quick: [", "quick", [], "manifest.yml"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_any_work(
    project: Project,
    instant: list[str],
    text: str,
    profile: str,
    names: list[str],
    message: str,
) -> None:
    manifest(project, text)
    with pytest.raises(BookError, match=message):
        execute(Project(project.root, profile), names)
    assert instant == []
    assert command(project, "execute", "--profile", profile, *names) == 1


def test_parameters_are_literals(project: Project) -> None:
    write(project, "a", parameters="x: int = 1\ny: int = x + 1")
    with pytest.raises(BookError, match="literals"):
        execute(project)


def test_a_notebook_that_keeps_a_record_is_told_where(project: Project, instant: list[str]) -> None:
    write(project, "a", parameters='record_path: str = ""')
    execute(project)
    told = "\"record_path: str = '../_executed/quick/records/a.json'\""
    assert told in project.copy("a").read_text()


# --- Changed parameters ----------------------------------------------------------------------


def test_a_changed_parameter_is_kept_until_it_is_reset(
    project: Project, instant: list[str]
) -> None:
    execute(project)
    assert change_chapter(project, "a", {"alpha": "0.9"}).executed == ["a"]
    made = json.loads(project.copy("a").read_text())
    assert made["metadata"]["genkl"]["changed"] == {"alpha": [0.9, 1.05]}
    assert execute(project).executed == []
    assert "alpha: float = 0.9" in project.copy("a").read_text()
    assert change_chapter(project, "a", {}, reset=True).executed == ["a"]
    assert "alpha: float = 1.05" in project.copy("a").read_text()
    assert execute(project).executed == []
    assert read_overrides(project) == {}


def test_without_changes_a_chapter_is_executed_as_it_is(
    project: Project, instant: list[str]
) -> None:
    change_chapter(project, "a", {"alpha": "0.9"})
    assert change_chapter(project, "a", {}).executed == ["a"]
    assert read_overrides(project) == {"a": {"alpha": 0.9}}


def test_a_change_to_the_usual_value_is_no_change(project: Project, instant: list[str]) -> None:
    change_chapter(project, "a", {"alpha": "1.05"})
    assert read_overrides(project) == {}


def test_a_change_that_fails_is_not_kept(
    project: Project, instant: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change_chapter(project, "a", {"alpha": "0.9"})
    good = project.copy("a").read_bytes()
    monkeypatch.setattr(execution, "start_papermill", failing)
    assert change_chapter(project, "a", {"alpha": "0.1"}).failed
    assert read_overrides(project) == {"a": {"alpha": 0.9}}
    assert project.copy("a").read_bytes() == good


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "-p", "alhpa", "1"], "no parameter 'alhpa'; its parameters: alpha"),
        (["a", "-p", "alpha", "high"], "alpha is declared float"),
        (["z", "-p", "alpha", "1"], "no notebook 'z'; the notebooks: a, b"),
        (["a", "-p", "alpha", "1", "--reset"], "--reset forgets"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(
    project: Project,
    instant: list[str],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert command(project, "chapter", *arguments) == 1
    assert message in capsys.readouterr().err
    assert instant == []


# --- Cut state files and full disks ----------------------------------------------------------


@pytest.mark.parametrize("left", ["", "{", "null", "[]", '{"cells": 3}', '{"a": "two"}'])
def test_a_cut_file_is_named_with_the_remedy_or_made_again(
    project: Project, instant: list[str], capsys: pytest.CaptureFixture[str], left: str
) -> None:
    change_chapter(project, "a", {"alpha": "0.9"})
    for path, remedy in [
        (project.overrides, "delete it to return to the chapters' own"),
        (project.template("b"), "put a copy of it back, such as with `git checkout b.ipynb`"),
        (project.notebooks / "manifest.yml", ""),
    ]:
        good = path.read_bytes()
        path.write_text(left)
        capsys.readouterr()
        done, said = command(project, "execute"), capsys.readouterr().err
        assert done == 1
        assert str(path) in said or (path.suffix == ".yml" and "profile" in said)
        assert remedy in said
        assert len(said.splitlines()) == 1 or path.suffix == ".yml"  # YAML's own has several
        path.write_bytes(good)
    project.copy("a").write_text(left)  # a copy is made again
    instant.clear()
    assert command(project, "execute") == 0
    assert "a" in instant
    assert "alpha: float = 0.9" in project.copy("a").read_text()


@pytest.mark.parametrize("left", ["", "null", "7", '["x"]', "{}"])
def test_a_cut_memory_of_a_build_costs_a_build(
    project: Project, built: list[str], left: str
) -> None:
    render(project)
    (project.root / "_build" / ".staging" / "quick" / rendering.WHOLE).write_text(left)
    assert render(project).read_text() == "quick 2"


def test_pages_that_a_kill_left_aside_are_published_again(
    project: Project, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = render(project)
    project.html.rename(project.html.with_name("html.old"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", full)
        assert command(project, "render") == 1
    assert page.read_text() == "quick 1"


def test_a_notebook_that_ends_without_a_word_is_told_of_the_space_that_is_left(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(prepared: Path, copy: Path, log: Path, **_: object) -> Started:
        log.write_text("")
        return Started(1)

    monkeypatch.setattr(execution, "start_papermill", silent)
    failed = execute(project, ["a"]).failed["a"]
    assert re.search(r"no message; if the disk is full \([\d,]+ MB are free\), free some", failed)


@pytest.mark.parametrize("cut", ["", '{"cells": ['])
def test_a_copy_that_was_cut_off_replaces_no_good_one(
    project: Project, instant: list[str], monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    execute(project, ["a"])
    good = project.copy("a").read_bytes()

    def half(prepared: Path, copy: Path, log: Path, **_: object) -> Started:
        copy.write_text(cut)
        log.write_text("")
        return Started(0)

    monkeypatch.setattr(execution, "start_papermill", half)
    assert "is damaged or no notebook" in execute(project, ["a"], force=True).failed["a"]
    assert project.copy("a").read_bytes() == good


def test_a_copy_that_cannot_be_replaced_is_kept_aside(
    project: Project, instant: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where another program has the old one open."""
    execute(project)
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target) == project.copy("a"):
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    outcome = execute(project, force=True)
    assert outcome.executed == ["b"]
    assert "a.ipynb can't be written (Permission denied)" in outcome.failed["a"]
    assert (project.executed / "failed" / "a.ipynb").exists()


# --- Pages that are whole ----------------------------------------------------------------------


@pytest.fixture
def built(instant: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pages are written without Sphinx; the profiles that were built."""
    made: list[str] = []

    def build_html(project: Project, output: Path, *, audience: str) -> Path:
        made.append(project.profile)
        page = output / rendering.PAGES / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"{project.profile} {len(made)}")
        return page.parent

    monkeypatch.setattr(rendering, "build_html", build_html)
    return made


def test_pages_are_built_again_only_when_something_behind_them_has_changed(
    project: Project, instant: list[str], built: list[str]
) -> None:
    page = project.root / "book" / "page.md"
    page.write_text("words")
    record = project.executed / "records" / "a.json"
    render(project)
    executed = len(instant)
    os.utime(page, (1, 1))
    (project.root / "book" / "__pycache__").mkdir()
    (project.root / "book" / "__pycache__" / "machine.pyc").write_text("compiled")
    (project.root / "book" / ".page.md.swp").write_text("an editor's")
    assert render(project).read_text() == "quick 1"
    assert built == ["quick"]

    changes = [page, project.root / "_config.yml", project.root / "genkl" / "alone.py", record]
    for count, path in enumerate(changes, 2):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# changed {count}")
        render(project)
        assert render(project).read_text() == f"quick {count}"
    template = json.loads(project.template("a").read_text())
    template["cells"][0]["source"] = "# Other words"
    before = len(instant)
    project.template("a").write_text(json.dumps(template))
    assert render(project).read_text() == f"quick {len(changes) + 2}"
    assert len(instant) == before
    assert before == executed + 1  # alone.py is behind a figure of b


def test_a_clone_that_was_moved_is_whole(
    project: Project,
    instant: list[str],
    built: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    render(project)
    moved = Project(Path(shutil.move(project.root, tmp_path_factory.mktemp("other") / "book")))
    assert render(moved).is_relative_to(moved.root)
    assert sorted(instant) == ["a", "b"]
    assert built == ["quick"]


def test_cores_and_jobs_decide_threads_and_so_count(
    project: Project, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    render(project)
    render(project, jobs=1)
    monkeypatch.setattr(rendering, "usable_cores", lambda: 64)
    render(project)
    assert len(built) == 3


def test_what_is_published_is_mended_from_what_was_built(
    project: Project, built: list[str]
) -> None:
    page = render(project)
    page.unlink()
    assert render(project).read_text() == "quick 1"
    assert render(Project(project.root, "long")).read_text() == "long 2"
    assert render(project).read_text() == "quick 1"
    assert built == ["quick", "long"]
    damaged = project.root / "_build/.staging/quick" / rendering.PAGES / "index.html"
    damaged.write_text("half")
    assert render(project).read_text() == "quick 3"


def test_after_a_failure_pages_are_built_again(
    project: Project, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    render(project)
    whole = rendering.build_html
    (project.root / "book" / "page.md").write_text("{ref}`nowhere`")

    def fail(*_: object, **__: object) -> Path:
        raise BookError("a warning")

    monkeypatch.setattr(rendering, "build_html", fail)
    for _ in range(2):
        with pytest.raises(BookError, match="a warning"):
            render(project)
    monkeypatch.setattr(rendering, "build_html", whole)
    assert render(project).read_text() == "quick 2"


# --- With real kernels -----------------------------------------------------------------------


@pytest.mark.book
def test_a_failing_notebook_hides_nothing_and_destroys_nothing(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(project, "execute") == 0
    good = project.copy("a").read_bytes()
    assert b"2.05" in good  # genkl.to_left() + alpha, of this package and not of another
    write(project, "a", "print('so far')", "x = 1\ny = x / 0", "print('never')")
    write(project, "b", "print('finished')")
    capfd.readouterr()

    assert command(project, "execute") == 1

    said = capfd.readouterr().out
    assert "a: code cell 3 of 4, which begins `x = 1`, failed" in said
    assert "ZeroDivisionError: division by zero" in said
    assert "1 executed, 0 unchanged, 1 FAILED" in said
    assert "finished" in project.copy("b").read_text()
    assert project.copy("a").read_bytes() == good
    partial = project.executed / "failed" / "a.ipynb"
    assert "so far" in partial.read_text()
    assert str(partial.relative_to(project.root)) in said
    assert not list(project.executed.glob(".running-*"))

    write(project, "a", "print('mended')")
    outcome = execute(project)
    assert (outcome.executed, outcome.unchanged) == (["a"], ["b"])
    assert not partial.exists()


@pytest.mark.book
def test_a_kernel_that_dies_is_a_failure(project: Project) -> None:
    write(project, "a", "import os", "os._exit(3)")
    outcome = execute(project, ["a"])
    assert "a: code cell 3 of 3, which begins `os._exit(3)`, failed" in outcome.failed["a"]
    assert "Kernel died" in outcome.failed["a"]
    assert not project.copy("a").exists()


# --- Rendering, with Jupyter Book ------------------------------------------------------------


@pytest.fixture
def small_book(project: Project) -> Project:
    """The toy project with the real configuration and extension, and two pages."""
    root = project.root
    shutil.copy(REPOSITORY / "_config.yml", root)
    for folder in ("_ext", "_static"):
        shutil.copytree(REPOSITORY / "book" / folder, root / "book" / folder)
    (root / "book" / "references.bib").write_text("")
    (root / "book" / "index.md").write_text("# Start\n")
    (root / "book" / "quote.md").write_text(
        "# Quote\n\nIt is {glue:text}`../notebooks/a.ipynb::number:.1f`.\n"
    )
    files = "[{file: notebooks/a}, {file: notebooks/b}, {file: book/quote}]"
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters: {files}\n")
    write(project, "a", "from myst_nb import glue\nglue('number', alpha)")
    return project


def page(project: Project, name: str) -> str:
    """The words of a published page, without its tags."""
    return re.sub(r"<[^>]*>", "", (project.html / f"{name}.html").read_text())


def pages(project: Project) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in project.html.rglob("*.html")}


@pytest.mark.book
def test_nothing_is_published_unless_everything_succeeds(
    small_book: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project = small_book
    assert command(project, "render") == 0
    assert "It is 1.1" in page(project, "book/quote")
    assert "changed parameters" not in page(project, "notebooks/a")

    # Another parameter shows on its page, and on the page that quotes its number.
    assert command(project, "chapter", "a", "-p", "alpha", "7.5") == 0
    shown = page(project, "notebooks/a")
    assert "Executed with changed parameters" in shown
    assert "alpha = 7.5" in shown
    assert "default" in shown
    assert "1.05" in shown
    assert "It is 7.5" in page(project, "book/quote")
    assert "chapter a --reset" in capfd.readouterr().out

    # Nothing is published when a notebook fails.
    published, folder = pages(project), project.html.stat().st_ino
    good = project.template("b").read_text()
    write(project, "b", "1 / 0")
    assert command(project, "render") == 1
    assert "ZeroDivisionError" in capfd.readouterr().out

    # Nor when a page warns, this time or the next.
    warning = json.loads(good)
    warning["cells"][0]["source"] = "# Other\n\n{ref}`nowhere`"
    project.template("b").write_text(json.dumps(warning))
    for _ in range(2):
        assert command(project, "render") == 1
        assert "nowhere" in capfd.readouterr().err
    assert (pages(project), project.html.stat().st_ino) == (published, folder)

    # Mended, and the change taken back.
    project.template("b").write_text(good)
    assert command(project, "chapter", "a", "--reset") == 0
    assert "It is 1.1" in page(project, "book/quote")
    assert "changed parameters" not in page(project, "notebooks/a")


@pytest.mark.book
def test_jupyter_book_by_itself_executes_first(small_book: Project) -> None:
    project = small_book
    run = "from jupyter_book.cli.main import main; main()"

    def build() -> int:
        build = [sys.executable, "-P", "-c", run, "build", ".", "-W", "-n", "--keep-going"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GENKL_")}
        environment["PYTHONPATH"] = str(REPOSITORY)  # the toy has no machine of its own
        return subprocess.run(build, cwd=project.root, env=environment).returncode

    write(project, "b", "print(6 * 7)")
    assert build() == 0
    assert "42" in page(project, "notebooks/b")
    published = pages(project)
    write(project, "b", "1 / 0")
    assert build() != 0
    assert pages(project) == published
