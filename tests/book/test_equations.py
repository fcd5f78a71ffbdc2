"""The equation index: what it names exists, and every citation of an equation is defined there."""

import importlib
import re
from pathlib import Path

import genkl

ROOT = Path(__file__).parents[2]
INDEX = (ROOT / "book" / "equations.md").read_text("utf-8")
LABELS = set(re.findall(r"^:label: (eq-[\w-]+)$", INDEX, flags=re.MULTILINE))


def test_every_named_test_exists_in_its_file():
    named = re.findall(r"test `(test_\w+)` in `(tests/[\w/]+\.py)`", INDEX)
    assert len(named) >= len(LABELS)
    for test, file in named:
        assert f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{test} is not in {file}"


def test_every_named_function_is_public_and_is_the_one_that_is_quoted():
    for public, defined in re.findall(r"\{py:func\}`genkl\.(\w+) <([\w.]+)>`", INDEX):
        module, _, name = defined.rpartition(".")
        assert getattr(importlib.import_module(module), name) is getattr(genkl, public)
    for file, name in re.findall(r"literalinclude\} \.\./(\S+)\n:pyobject: ([\w.]+)", INDEX):
        assert f"def {name.rpartition('.')[2]}(" in (ROOT / file).read_text("utf-8")


def test_every_chapter_that_is_named_exists():
    for chapter in re.findall(r"\{doc\}`\.\./(notebooks/\w+)`", INDEX):
        assert (ROOT / f"{chapter}.ipynb").exists()


def test_every_equation_is_cited_by_the_function_that_computes_it():
    source = "".join(path.read_text("utf-8") for path in (ROOT / "genkl").rglob("*.py"))
    cited = set(re.findall(r":eq:`(eq-[\w-]+)`", source))
    assert cited == LABELS
