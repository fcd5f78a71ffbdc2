"""Sphinx extension: students' pages are made without solutions. `GENKL_AUDIENCE` says for whom."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from book._ext.executed_notebooks import FOLDER
from book.machine.audience import AUDIENCES, student_notebook, without_solutions


def hide_solutions(app: Sphinx, docname: str, source: list[str]) -> None:
    """Students' pages are read without solutions, so that nothing made of them holds any."""
    if app.config.genkl_audience == "student":
        source[0] = for_students(source[0], is_notebook=docname.startswith(FOLDER))


def hide_solutions_in_sources(app: Sphinx, error: Exception | None) -> None:
    """The sources that pages can be downloaded as, likewise."""
    if app.config.genkl_audience == "student" and not error:
        for path in Path(app.outdir, "_sources").rglob("*.*"):
            text = path.read_text("utf-8")
            path.write_text(for_students(text, is_notebook=path.suffix == ".ipynb"), "utf-8")


def for_students(text: str, *, is_notebook: bool) -> str:
    if not is_notebook:
        return without_solutions(text)
    return json.dumps(student_notebook(json.loads(text)), indent=1, ensure_ascii=False) + "\n"


def setup(app: Sphinx) -> dict[str, Any]:
    audience = os.environ.get("GENKL_AUDIENCE", AUDIENCES[0])
    app.add_config_value("genkl_audience", audience, "env")  # another one: read all pages again
    app.connect("source-read", hide_solutions)
    app.connect("build-finished", hide_solutions_in_sources)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
