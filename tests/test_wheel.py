"""A wheel in an environment of its own: what the bare package does, and says of what it lacks."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import genkl

ROOT = Path(__file__).parents[1]


PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


def needed(requirements: list[str], seen: set[str]) -> Iterator[importlib.metadata.Distribution]:
    """The distributions that requirements come to, each once."""
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        if name in seen or not (requirement.marker is None or requirement.marker.evaluate()):
            continue
        seen.add(name)
        found = importlib.metadata.distribution(name)
        yield found
        yield from needed(found.requires or [], seen)


def started(program: str | Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A program that has ended; nothing of this environment leads it to this checkout."""
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=without, capture_output=True, text=True
    )


def python(*arguments: str, cwd: Path) -> None:
    """Run this Python, which must succeed."""
    done = started(sys.executable, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with a wheel of the package and the bare dependencies alone.

    These are not installed anew: links to them stand in a folder that the environment looks in.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "genkl", source / "genkl", ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    python(*PIP, "wheel", "--no-deps", "--no-build-isolation", str(source), cwd=folder)
    home = folder / "environment"
    python("-m", "venv", "--without-pip", str(home), cwd=folder)
    programs = home / "bin"
    wheel = next(folder.glob("genkl-*.whl")).name
    into = ("--python", str(programs / "python"))
    python(*PIP, *into, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    links = folder / "dependencies"
    links.mkdir()
    bare = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for distribution in needed(bare, set()):
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            (links / name).symlink_to(distribution.locate_file(name))
    (site_packages,) = (path.parent for path in home.rglob("genkl/__init__.py"))
    (site_packages.parent / "dependencies.pth").write_text(f"{links}\n")
    return programs


def test_it_identifies_in_a_file_of_predictions(environment: Path, tmp_path: Path) -> None:
    probs = np.random.default_rng(0).dirichlet(np.full(10, 2.0), 200)
    np.save(tmp_path / "probs.npy", probs)
    vectors = genkl.uniform_like_vectors(10, 20, 0.05, 0)
    is_nc = genkl.identify_nc(probs, 1.05, 0.03, vectors)
    rule = ["--alpha", "1.05", "--beta", "0.03", "--num-vectors", "20", "--sigma", "0.05"]
    done = started(
        environment / "genkl", "identify", "probs.npy", *rule, "--out", "nc.npy", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "nc.npy"), is_nc)
    code = (
        "import sys, genkl, numpy as np; v = genkl.uniform_like_vectors(10, 20, .05, 0); "
        "print(genkl.identify_nc(np.load('probs.npy'), 1.05, .03, v).sum(), genkl.__file__)"
    )
    done = started(environment / "python", "-c", code, cwd=tmp_path)
    found, file = done.stdout.split()
    assert 0 < int(found) == is_nc.sum() < len(is_nc)
    assert Path(file).is_relative_to(environment.parent)


@pytest.mark.parametrize(
    "arguments", [["run", "--preset", "digits"], ["data", "show", "digits"], ["report", "."]]
)
def test_it_says_in_one_line_what_to_install_for_more(
    environment: Path, tmp_path: Path, arguments: list[str]
) -> None:
    done = started(environment / "genkl", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith(' is not installed: pip install "genkl[train]"\n')
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_function_that_needs_more_says_so_when_it_is_asked_for(
    environment: Path, tmp_path: Path
) -> None:
    done = started(environment / "python", "-c", "import genkl; genkl.run_genkl", cwd=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last == 'ModuleNotFoundError: torch is not installed: pip install "genkl[train]"'


def test_it_lists_data_sets_and_carries_the_page_of_a_report(
    environment: Path, tmp_path: Path
) -> None:
    done = started(environment / "genkl", "data", "list", cwd=tmp_path)
    assert done.returncode == 0
    assert "clothing1m" in done.stdout
    (assets,) = environment.parent.rglob("genkl/report/assets")
    assert {path.name for path in assets.iterdir()} >= {"report.css", "report.html", "report.js"}
