"""Notebooks are thin, clean and honest about what they depend on."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from book.machine.dependencies import Modules
from book.machine.parameters import check_parameters, read_parameters
from book.machine.profiles import plan, read_manifest
from book.machine.project import Project

ROOT = Path(__file__).parents[2]
PROJECT = Project(ROOT)
NAMES = PROJECT.names()
MODULES = Modules(PROJECT)
EXERCISE = re.compile(r"\{exercise(?:-start)?\}[^\n]*\n(?::[^\n]*\n)*?:label: (\S+)")
SOLUTION = re.compile(r"\{solution(?:-start)?\} (\S+)\n((?::[^\n]*\n)*)")

every_notebook = pytest.mark.parametrize("name", NAMES)


def read(name: str) -> dict[str, Any]:
    return json.loads(PROJECT.template(name).read_text("utf-8"))


def sources(name: str, cell_type: str) -> list[str]:
    return ["".join(c["source"]) for c in read(name)["cells"] if c["cell_type"] == cell_type]


def test_there_are_notebooks() -> None:
    assert len(NAMES) == 17


@every_notebook
def test_committed_without_outputs(name: str) -> None:
    notebook = read(name)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@every_notebook
def test_one_parameters_cell_of_annotated_literals(name: str) -> None:
    cells = [c for c in read(name)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(cells) == 1
    for node in ast.parse("".join(cells[0]["source"])).body:
        assert isinstance(node, ast.AnnAssign), ast.unparse(node)
        assert node.value is not None
        ast.literal_eval(node.value)
    known = read_parameters(PROJECT.template(name))
    assert known
    check_parameters(name, known, {key: one.default for key, one in known.items()})


@every_notebook
def test_cells_and_functions_are_short(name: str) -> None:
    for source in sources(name, "code"):
        assert sum(bool(line.strip()) for line in source.splitlines()) <= 15, source
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                assert node.end_lineno - node.body[0].lineno < 10, f"{node.name} is too long"


def test_prose_carries_the_argument() -> None:
    words = sum(len(text.split()) for name in NAMES for text in sources(name, "markdown"))
    lines = sum(
        bool(line.strip())
        for name in NAMES
        for source in sources(name, "code")
        for line in source.splitlines()
    )
    assert words > 5 * lines


@every_notebook
def test_begins_with_a_title_and_ends_with_exercises_that_have_solutions(name: str) -> None:
    cells = read(name)["cells"]
    prose = sources(name, "markdown")
    assert cells[0]["cell_type"] == cells[-1]["cell_type"] == "markdown"
    assert re.match(r"(\([\w-]+\)=\n)?# \S", prose[0])
    ending = "\n".join(prose).partition("## Exercises")[2]
    exercises = EXERCISE.findall(ending)
    solutions = SOLUTION.findall(ending)
    assert 2 <= len(exercises) <= 3
    assert [label for label, _ in solutions] == exercises
    assert all(":class: dropdown" in options for _, options in solutions)


@pytest.mark.parametrize("profile", read_manifest(ROOT))
def test_every_profile_is_valid(profile: str) -> None:
    planned = plan(Project(ROOT, profile), overrides={})
    assert sorted(job.name for job in planned) == sorted(NAMES)


def test_the_usual_profiles_exist() -> None:
    assert set(read_manifest(ROOT)) == {"quick", "full", "tiny"}


# Runs each piece of code in a fork of one process, and tells which modules of ours it has loaded.
LOADED = """
import json, os, sys
import matplotlib.pyplot, pandas, sklearn.metrics, timm  # once for all
sys.path[:0] = json.loads(sys.argv[1])
for name, code in json.load(sys.stdin).items():
    if not os.fork():
        exec(code)
        mine = [m.__file__ for n, m in sys.modules.items() if n.startswith(("genkl.", "figures"))]
        print(json.dumps([name, mine]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, name
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[Path]]:
    """The files of the checkout that each notebook's imports load."""
    codes = {}
    for name in NAMES:
        nodes = list(ast.walk(ast.parse("\n".join(sources(name, "code")))))
        imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [
            node
            for node in nodes
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "genkl"
        ]
        codes[name] = "\n".join(map(ast.unparse, [*imports, *names]))
    folders = json.dumps([str(ROOT), str(PROJECT.notebooks)])
    run = [sys.executable, "-P", "-c", LOADED, folders]
    done = subprocess.run(run, input=json.dumps(codes), capture_output=True, text=True, check=True)
    return {
        name: {Path(path).resolve() for path in paths}
        for name, paths in map(json.loads, done.stdout.splitlines())
    }


@every_notebook
def test_dependencies_cover_what_is_loaded(name: str, loaded: dict[str, set[Path]]) -> None:
    known = {path.resolve() for path in MODULES.used_by(PROJECT.template(name))}
    assert loaded[name]
    lazy = {MODULES.files[package].resolve() for package in MODULES.exports}
    assert loaded[name] - lazy <= known


def test_a_chapter_does_not_depend_on_what_it_does_not_use() -> None:
    names = {path.name for path in MODULES.used_by(PROJECT.template("1_geometry"))}
    assert "divergence.py" in names
    assert not names & {"networks.py", "models.py", "pipeline.py", "train.py"}
