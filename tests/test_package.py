"""The package as a whole: its public names, its examples, its quick import."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys

import numpy as np
import pytest

import genkl
from genkl.extras import explain_missing

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(genkl.__path__, "genkl.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", sorted(genkl.__all__))
def test_every_public_name_loads_from_where_it_is_defined_and_is_documented(name):
    value = getattr(genkl, name)
    assert getattr(importlib.import_module(genkl._EXPORTS[name]), name) is value
    if callable(value):
        assert value.__doc__, f"{name} has no docstring"
        defined_in = value.__module__
        assert defined_in == genkl._EXPORTS[name] or defined_in.startswith(genkl._EXPORTS[name])


def test_names_that_do_not_exist_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        genkl.nonsense  # noqa: B018
    assert set(genkl.__all__) <= set(dir(genkl))


@pytest.mark.parametrize("name", sorted(genkl._MOVED))
def test_a_module_that_moved_says_where_it_went(name):
    where = re.escape(genkl._MOVED[name])
    with pytest.raises(ModuleNotFoundError, match=rf"genkl\.{name} is now {where}"):
        importlib.import_module(f"genkl.{name}")
    with pytest.raises(AttributeError, match=rf"genkl\.{name} is now {where}"):
        getattr(genkl, name)
    with pytest.raises(ModuleNotFoundError, match=f"genkl.{name} is now"):
        exec(f"from genkl import {name}")


def test_the_old_command_of_the_book_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "genkl.book", "execute"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "python -m book" in done.stderr


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("torch", 'torch is not installed: pip install "genkl[train]"'),
        ("PIL.Image", 'PIL is not installed: pip install "genkl[train]"'),
        ("seaborn", 'seaborn is not installed: pip install "genkl[plots]"'),
        ("cleanlab.rank", 'cleanlab is not installed: pip install "genkl[benchmark]"'),
        ("torchmetrics", None),
        (None, None),
    ],
)
def test_what_a_missing_module_comes_with(module, said):
    assert explain_missing(ModuleNotFoundError("missing", name=module)) == said


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name):
    names = {n: getattr(genkl, n) for n in genkl.__all__} | {"np": np}
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_public_functions_have_examples_that_run():
    finder = doctest.DocTestFinder()
    with_examples = [
        name
        for name in ("generalized_kl", "uniform_like_vectors", "nc_score", "identify_nc")
        if any(test.examples for test in finder.find(getattr(genkl, name)))
    ]
    assert len(with_examples) == 4


def test_importing_the_package_loads_nothing_large():
    code = "import sys, genkl; print({'torch', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_fingerprint_of_code_follows_the_code(tmp_path, monkeypatch):
    from genkl import provenance

    first = provenance.code_fingerprint("genkl.losses", "genkl.data")
    assert first == provenance.code_fingerprint("genkl.data", "genkl.losses")
    assert first != provenance.code_fingerprint("genkl.data")
    (tmp_path / "genkl").mkdir()
    (tmp_path / "genkl" / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "genkl" / "provenance.py"))
    before = provenance.code_fingerprint("genkl.a")
    (tmp_path / "genkl" / "a.py").write_text("x = 2\n")
    assert before != provenance.code_fingerprint("genkl.a")
    with pytest.raises(ValueError, match=r"no module 'genkl\.b'"):
        provenance.code_fingerprint("genkl.b")
