"""Each fact is written in one place: dependencies, versions, commands, chapters."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from book.machine.project import Project
from genkl import extras
from tests import mutations

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GROUPS = {"dependencies": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
REQUIREMENTS = [
    requirement
    for group in GROUPS.values()
    for requirement in map(Requirement, group)
    if requirement.name != "genkl"  # an extra that holds another
]


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [re.fullmatch(r"([\w.-]+)==([\w.+!-]+)", line) for line in lines]
    assert all(pinned), "constraints.txt holds name==version lines only"
    return {canonicalize_name(match[1]): match[2] for match in pinned if match}


def test_every_dependency_is_named_once() -> None:
    names = [canonicalize_name(requirement.name) for requirement in REQUIREMENTS]
    assert sorted(names) == sorted(set(names))


def test_the_bare_package_needs_few_others() -> None:
    assert len(PROJECT["dependencies"]) <= 12


def distributions(group: str) -> set[str]:
    """Names of what a group installs itself."""
    return {canonicalize_name(requirement.name) for requirement in map(Requirement, GROUPS[group])}


def test_a_missing_module_is_said_to_come_with_the_extra_that_brings_it() -> None:
    brought_by = packages_distributions()
    for extra, modules in extras.MODULES.items():
        for module in modules:
            assert {canonicalize_name(name) for name in brought_by[module]} & distributions(extra)


def test_whatever_the_package_imports_is_a_dependency_or_comes_with_an_extra() -> None:
    brought_by = packages_distributions()
    imported = {
        module.partition(".")[0]
        for path in (ROOT / "genkl").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in imports_of(node)
    }
    bare = {
        module
        for module in imported
        if {canonicalize_name(name) for name in brought_by.get(module, ())}
        & distributions("dependencies")
    }
    optional = {module for modules in extras.MODULES.values() for module in modules}
    assert imported - set(sys.stdlib_module_names) - {"genkl"} - bare - optional == set()


def imports_of(node: ast.AST) -> list[str]:
    """Modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_constraints_fix_every_dependency_to_a_version_it_allows() -> None:
    pinned = constraints()
    assert "genkl" not in pinned
    for requirement in REQUIREMENTS:
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is fixed to {version}"


def test_the_conda_environment_repeats_no_dependency() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["dependencies"] == [
        "python=3.11",
        "pip",
        {"pip": ["-c constraints.txt", "-e .[book,test]"]},
    ]


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text().splitlines()


def test_the_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make book" in readme
    assert "make test" in readme


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_test_runs_every_check() -> None:
    made = subprocess.run(
        ["make", "--dry-run", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for check in ("ruff check", "ruff format --check", "lint-imports", "nbstripout --verify"):
        assert check in made
    assert "pytest" in made


def test_every_chapter_stands_in_the_table_of_contents() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    pages = [toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]
    chapters = [page for page in pages if page.startswith("notebooks/")]
    assert chapters == [f"notebooks/{name}" for name in Project(ROOT).names()]
    written = sorted(f"book/{path.stem}" for path in (ROOT / "book").glob("*.md"))
    assert sorted(set(pages) - set(chapters)) == written


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    forbidden = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    texts = {path: path.read_bytes().decode(errors="replace") for path in files if path.is_file()}
    assert texts
    guilty = [path.name for path, text in texts.items() if any(word in text for word in forbidden)]
    assert guilty == []


def test_every_line_that_is_to_be_broken_stands_in_the_package():
    for mutation in mutations.MUTATIONS:
        assert mutations.file_of(mutation, ROOT)
        assert mutation.before != mutation.after
        for name in mutation.tests:
            assert [*(ROOT / "tests").rglob(f"test_{name}.py")]
