"""The book's folder, the places inside it, and errors that its reader can put right."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "genkl"
DEFAULT_PROFILE = "quick"


class BookError(Exception):
    """Something the reader can put right; the message says what."""


@dataclass(frozen=True)
class Project:
    """A book's folder, and the places inside it.

    Args:
        root: the folder that holds ``_config.yml``, ``notebooks/`` and ``genkl/``.
        profile: a profile of the manifest.
    """

    root: Path
    profile: str = DEFAULT_PROFILE

    @property
    def notebooks(self) -> Path:
        """The committed notebooks."""
        return self.root / "notebooks"

    @property
    def executed(self) -> Path:
        """The executed copies of this profile."""
        return self.root / "_executed" / self.profile

    @property
    def html(self) -> Path:
        """The published book."""
        return self.root / "_build" / "html"

    @property
    def overrides(self) -> Path:
        """Parameters changed with `change_chapter`, kept until they are reset."""
        return self.executed / "overrides.json"

    def template(self, name: str) -> Path:
        """The committed notebook."""
        return self.notebooks / f"{name}.ipynb"

    def copy(self, name: str) -> Path:
        """The executed notebook."""
        return self.executed / f"{name}.ipynb"

    def names(self) -> list[str]:
        """The names of all committed notebooks in the order of their numbers."""
        names = sorted(path.stem for path in self.notebooks.glob("*.ipynb"))
        return sorted(names, key=lambda name: int(re.match(r"\d*", name)[0] or 0))


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook, as JSON holds it.

    Raises:
        BookError: it is empty, cut off or something else; the message names it.
    """
    try:
        notebook: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if isinstance(notebook["cells"], list) and isinstance(notebook["metadata"], dict):
            return notebook
        problem = "it holds no cells"
    except (ValueError, KeyError, TypeError) as error:
        problem = str(error)
    raise BookError(
        f"{path} is damaged or no notebook ({problem}): put a copy of it back, such as with "
        f"`git checkout {path.name}` in its folder"
    )


@functools.cache
def need(*modules: str) -> None:
    """Raise if a module of the extra ``book`` is not installed, and say how to install it."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise BookError(f'{module} is not installed: pip install -e ".[book]"')


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def relative(path: Path, root: Path) -> Path:
    """A path as seen from the root, where it lies below."""
    return path.relative_to(root) if path.is_relative_to(root) else path


def search_path(*folders: Path) -> str:
    """PYTHONPATH for processes that are started: these folders, what there is, the machine's."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [*map(str, folders), *inherited, str(Path(__file__).parents[2])]
    return os.pathsep.join(dict.fromkeys(filter(None, paths)))
