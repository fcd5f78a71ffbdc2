"""Binder and Colab: links that open a notebook there, and Colab's first cell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from book.machine.copies import SETUP
from book.machine.parameters import tags_of
from book.machine.project import BookError, Project, need, read_notebook
from genkl.storage import write_atomically


@dataclass(frozen=True)
class Repository:
    """The public repository that ``_config.yml`` names under ``repository``.

    Args:
        url: such as ``https://github.com/OWNER/NAME``.
        branch: the branch to open.
    """

    url: str
    branch: str = "main"

    @property
    def slug(self) -> str:
        """``OWNER/NAME``."""
        return "/".join(self.url.removesuffix(".git").rstrip("/").split("/")[-2:])

    def binder(self, name: str) -> str:
        """The address that opens a notebook on Binder."""
        at = f"urlpath=lab/tree/notebooks/{name}.ipynb"
        return f"https://mybinder.org/v2/gh/{self.slug}/{self.branch}?{at}"

    def colab(self, name: str) -> str:
        """The address that opens a notebook on Colab."""
        at = f"{self.slug}/blob/{self.branch}/notebooks/{name}.ipynb"
        return f"https://colab.research.google.com/github/{at}"


def read_repository(root: Path) -> Repository | None:
    """The repository of ``_config.yml``; None if it names none.

    Raises:
        BookError: it is none of GitHub's, which Binder and Colab open by this kind of link.
    """
    need("yaml")
    import yaml

    path = root / "_config.yml"
    config = yaml.safe_load(path.read_text("utf-8")) if path.exists() else {}
    named = (config or {}).get("repository") or {}
    url = str(named.get("url") or "")
    if not url:
        return None
    if not url.startswith("https://github.com/") or url.count("/") < 4:
        raise BookError(
            f"{path}: repository.url is {url!r}; write https://github.com/OWNER/NAME, or nothing"
        )
    return Repository(url, str(named.get("branch") or "main"))


def setup_source(repository: Repository) -> str:
    """The code that fetches and installs the package where it is missing, as on Colab."""
    folder = repository.slug.split("/")[-1]
    clone = f"git clone --quiet --depth 1 --branch {repository.branch} {repository.url}"
    return "\n".join(
        [
            "import importlib.util",
            "",
            'if importlib.util.find_spec("genkl") is None:  # not on your machine: on Colab',
            "    import os",
            "    import subprocess",
            "",
            f'    fetch = "{clone} {folder}"',
            f"    install = \"pip install --quiet './{folder}[train,plots]' myst-nb\"",
            '    subprocess.run(f"{fetch} && {install}", shell=True, check=True)',
            f'    os.chdir("{folder}/notebooks")',
        ]
    )


def with_setup(notebook: dict[str, Any], repository: Repository | None) -> dict[str, Any]:
    """A notebook with the setup cell of this repository below its title; without, if None.

    The cell isn't shown in the book, and is skipped when the book executes the notebook.
    """
    cells = [cell for cell in notebook["cells"] if SETUP not in tags_of(cell)]
    if repository:
        cell = {
            "cell_type": "code",
            "execution_count": None,
            "id": SETUP,
            "metadata": {"tags": ["remove-cell", SETUP]},
            "outputs": [],
            "source": setup_source(repository).splitlines(keepends=True),
        }
        cells.insert(1, cell)
    return {**notebook, "cells": cells}


def write_setup_cells(project: Project) -> list[str]:
    """Write the setup cell that ``_config.yml`` calls for; return the notebooks it changed."""
    repository = read_repository(project.root)
    changed = []
    for name in project.names():
        path = project.template(name)
        before = read_notebook(path)
        made = with_setup(before, repository)
        after = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        if json.loads(after) != before:
            write_atomically(path, after.encode())
            changed.append(name)
    return changed
