"""Sphinx extension: the pages of notebooks show their executed copies.

`jupyter-book build .` works by itself: the stale notebooks are executed first, and if one fails
nothing is written. `GENKL_PROFILE` names the profile.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

from book.machine.comparison import own_path, recorded_path
from book.machine.copies import up_to_date
from book.machine.online import read_repository
from book.machine.parameters import PARAMETERS, assigned_values, tags_of
from book.machine.project import Project, search_path
from book.machine.rerun import rerun_section

FOLDER = "notebooks/"


def execute_stale(app: Sphinx) -> None:
    """Execute what is stale, unless the caller has just done it."""
    if os.environ.get("GENKL_ALREADY_EXECUTED"):
        return
    command = [sys.executable, "-P", "-m", "book", "execute"]
    command += ["--profile", app.config.genkl_profile, "--root", str(app.srcdir)]
    environment = os.environ | {"PYTHONPATH": search_path()}
    if subprocess.run(command, env=environment).returncode:
        raise ExtensionError("a notebook failed (see above); no page was written")


def executed_copy(app: Sphinx, docname: str) -> Path:
    name = docname.removeprefix(FOLDER)
    return Path(app.srcdir) / "_executed" / app.config.genkl_profile / f"{name}.ipynb"


def read_executed(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace a notebook's source by its executed copy, with the prose that it has now."""
    if not docname.startswith(FOLDER):
        return
    copy = executed_copy(app, docname)
    app.env.note_dependency(str(copy))
    notebook = up_to_date(json.loads(source[0]), json.loads(copy.read_text("utf-8")))
    note = parameters_note(notebook["metadata"].get("genkl", {}).get("changed", {}))
    ending = run_it_yourself(app, docname, notebook)
    notebook["cells"] = [*with_anchors_and_note(notebook["cells"], note), prose("run-it", ending)]
    source[0] = json.dumps(notebook)


def prose(name: str, text: str) -> dict[str, Any]:
    """A Markdown cell."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def figure_of(cell: dict[str, Any]) -> str | None:
    """The name that a cell gives its figure (``genkl: {figure: ...}``)."""
    name: str | None = cell["metadata"].get("genkl", {}).get("figure")
    return name


def with_anchors_and_note(cells: list[dict[str, Any]], note: str) -> Iterator[dict[str, Any]]:
    """A note below the title, and a target before each cell that names its figure."""
    for cell in cells:
        if name := figure_of(cell):
            yield prose(name, f"({name})=")
        text = "".join(cell["source"])
        title = re.search(r"^# .*$", text, re.MULTILINE)
        if note and title and cell["cell_type"] == "markdown":
            text = f"{text[: title.end()]}\n\n{note}\n{text[title.end() :]}"
            note = ""
        yield {**cell, "source": text}


def run_it_yourself(app: Sphinx, docname: str, notebook: dict[str, Any]) -> str:
    """The section that ends a chapter; the page is read again when a record behind it changes."""
    name = docname.removeprefix(FOLDER)
    project = Project(Path(app.srcdir), app.config.genkl_profile)
    for path in (recorded_path(project, name), own_path(project, name)):
        app.env.note_dependency(str(path))
    (cell,) = (cell for cell in notebook["cells"] if PARAMETERS in tags_of(cell))
    values = assigned_values("".join(cell["source"]))
    return rerun_section(project, name, values, read_repository(project.root))


def parameters_note(changed: dict[str, list[Any]]) -> str:
    """The note on a page whose parameters the reader changed; empty for any other."""
    if not changed:
        return ""
    listing = ", ".join(
        f"`{key} = {value!r}` (default `{usual!r}`)" for key, (value, usual) in changed.items()
    )
    return f":::{{important}}\nExecuted with changed parameters: {listing}\n:::\n"


def pages_that_quote(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Pages that quote a notebook's numbers are read again when a notebook has changed."""
    if not any(name.startswith(FOLDER) for name in added | changed):
        return []
    return [
        name
        for name in env.found_docs - added - changed
        if "glue:" in Path(env.doc2path(name)).read_text("utf-8")
    ]


def style_digest(folder: Path) -> str:
    """Changes with any style sheet or picture, which Sphinx alone would not copy again."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def setup(app: Sphinx) -> dict[str, Any]:
    profile = os.environ.get("GENKL_PROFILE", "quick")
    app.add_config_value("genkl_profile", profile, "env")  # another one: read all pages again
    written_from = f"{profile} {style_digest(Path(app.srcdir) / 'book' / '_static')}"
    app.add_config_value("genkl_written_from", written_from, "html")  # another: write them again
    app.connect("builder-inited", execute_stale)
    app.connect("source-read", read_executed, priority=400)  # before book/_ext/audience.py
    app.connect("env-get-outdated", pages_that_quote)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
