"""Commands and calls that README and the book show: each is one that exists, with these options."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import inspect
import json
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genkl
from book.machine.parameters import read_parameters

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").rglob("*.md"))]
PROGRAMS = ("genkl ", "python -m ", "papermill ", "make ", "torchrun ", "pip install ")
OTHERS = {  # programs of others, and what they are given
    "jupyter-book build .",
    "nbstripout --keep-id notebooks/*.ipynb",
    "conda env create -f environment.yml",
}
LONG = {"run_genkl", "run_method", "featurize"}  # their arguments are checked, and others run them


def texts() -> Iterator[str]:
    for page in PAGES:
        yield page.read_text("utf-8")
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                yield "".join(cell["source"])


def shown() -> list[str]:
    """What is shown in code spans and in blocks, a line each."""
    found = []
    for text in texts():
        text = text.replace("\\\n", " ")
        for block in re.findall(r"^```(?:console|bash|sh)?\n(.*?)^```", text, re.M | re.S):
            found += block.splitlines()
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        found += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose)
    found = [line.removeprefix("$ ").replace(".venv/bin/", "").strip() for line in found]
    return list(dict.fromkeys(found))


COMMANDS = [line for line in shown() if line.startswith(PROGRAMS) and "..." not in line]


class Accepted(Exception):
    """A parser took the arguments."""


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch):
    """Start a module's command line, to the point where its arguments are parsed."""
    parse_args = argparse.ArgumentParser.parse_args

    def parsed(self, *arguments, **options):
        parse_args(self, *arguments, **options)
        raise Accepted

    def start(module: str, arguments: list[str]) -> None:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        if len(arguments) < 2:  # the name of a command, with what it needs left out
            sys.argv.append("--help")
        with pytest.raises((Accepted, SystemExit)) as done:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        assert done.type is Accepted or done.value.code == 0

    return start


@functools.cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_shown_exists_and_takes_these_options(line: str, parse) -> None:
    words = shlex.split(line, comments=True)
    program, *rest = words
    if program == "make":
        assert {word for word in rest if "=" not in word} <= targets()
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        named = ",".join(re.findall(r"\[([a-z,]+)\]", line)).split(",")
        assert set(filter(None, named)) <= set(extras["optional-dependencies"])
    elif program == "papermill":
        notebook = next(ROOT / word for word in rest if word.endswith(".ipynb"))
        known = read_parameters(notebook) if notebook.parent.name == "notebooks" else None
        given = [rest[at + 1] for at, word in enumerate(rest) if word in ("-p", "-r", "-y")]
        assert notebook.exists()
        assert known is None or set(given) <= known.keys()
    elif "-m" in words:
        module, *arguments = words[words.index("-m") + 1 :]
        if module.startswith("tests."):
            assert importlib.util.find_spec(module)
        else:
            parse(module, arguments)
    elif program == "genkl":
        parse("genkl", rest)
    else:
        assert program == "torchrun", line


def test_commands_of_others_are_known() -> None:
    programs = {line.split()[0] for line in OTHERS}
    assert {line for line in shown() if line.split()[:1] and line.split()[0] in programs} <= OTHERS


# --- Python in README ----------------------------------------------------------------------------

README = (ROOT / "README.md").read_text("utf-8")
EXPRESSIONS = [
    line
    for line in re.findall(r"`([^`]*(?:genkl|run_sweep)[^`]*\([^`]*\))`", README)
    if not line.startswith((*PROGRAMS, ".venv"))
]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a reader of README has: predictions, photographs with labels, cells of a sweep."""
    import benchmarks.sweep

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pred_probs = rng.dirichlet(np.ones(14), 50)
    np.save("probs.npy", pred_probs)
    Path("photos").mkdir()
    lines = ["image,label,verified"]
    for number in range(24):
        image = Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8))
        image.save(f"photos/{number}.png")
        label = "cat" if number % 2 else "dog"
        lines.append(f"{number}.png,{label},{label if number < 12 else ''}")
    Path("photos", "labels.csv").write_text("\n".join(lines))
    digits, truth = genkl.load_dataset("digits")
    images = torch.zeros(200, 1, 8, 8, dtype=torch.uint8)
    known = {"genkl": genkl, "pred_probs": pred_probs, "alpha": 1.05, "beta": 0.03}
    known |= {"dataset": digits, "truth": truth, "images": images, "benchmarks": benchmarks}
    return known | {"cells": [{"seed": 0}, {"seed": 1}]}


def check_arguments(call: ast.Call, names: dict[str, object]) -> str:
    """Bind a call's arguments to its function; the function's name."""
    function = eval(ast.unparse(call.func), dict(names))
    inspect.signature(function).bind(*call.args, **{word.arg: 0 for word in call.keywords})
    return getattr(function, "__name__", "")


@pytest.mark.parametrize("line", EXPRESSIONS)
def test_python_that_is_shown_runs(line: str, names: dict[str, object]) -> None:
    calls = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call)]
    if "..." in line or {check_arguments(call, names) for call in calls} & LONG:
        return
    exec(line.replace('"package.module:function"', '"builtins:dict"'), names)
