"""Executed copies of notebooks: what is computed in them, and their prose of today."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from book.machine.parameters import PARAMETERS, assigned_values, tags_of, with_parameters
from book.machine.project import PACKAGE, read_notebook

SETUP = "setup"
"""The tag of a cell that prepares a foreign machine, and that computes nothing."""

_EXECUTION_TAGS = {"raises-exception", "skip-execution"}


def code_fingerprint(template: Path) -> str:
    """A digest of what a notebook computes.

    It changes with the code, and not with prose, comments, layout, or how a cell is shown. The
    parameters cell is left out: its values are a job's own affair.

    Args:
        template: a notebook.

    Returns:
        A hexadecimal digest.
    """
    cells = computing_cells(read_notebook(template))
    return hashlib.sha256("\n".join(map(_computed, cells)).encode()).hexdigest()


def computing_cells(notebook: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The code cells of a notebook that compute something, those of the setup left out."""
    return [
        cell
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and SETUP not in tags_of(cell)
    ]


def _computed(cell: Mapping[str, Any]) -> str:
    """What a cell computes: its syntax tree, and the tags that decide how it is run."""
    tags = sorted(_EXECUTION_TAGS & tags_of(cell))
    if PARAMETERS in tags_of(cell):
        return f"{PARAMETERS} {tags}"
    source = "".join(cell["source"])
    try:
        return f"{ast.dump(ast.parse(source))} {tags}"
    except SyntaxError:  # IPython's own lines
        return f"{source} {tags}"


def up_to_date(template: Mapping[str, Any], copy: Mapping[str, Any]) -> dict[str, Any]:
    """An executed copy with the prose, the comments and the metadata that its template has today.

    Args:
        template: the committed notebook.
        copy: its executed copy.

    Returns:
        The template with the copy's outputs and parameters, and without its setup cells. If the
        two compute different things, the copy itself.
    """
    wanted, done = computing_cells(template), computing_cells(copy)
    if list(map(_computed, wanted)) != list(map(_computed, done)):
        return dict(copy)
    executed = iter(done)
    cells = []
    for cell in template["cells"]:
        if cell["cell_type"] != "code":
            cells.append(cell)
        elif SETUP not in tags_of(cell):
            cells.append(_with_outputs(cell, next(executed)))
    own = {**copy["metadata"].get(PACKAGE, {}), **template["metadata"].get(PACKAGE, {})}
    metadata = {**template["metadata"], **copy["metadata"], PACKAGE: own}
    return {**template, "cells": cells, "metadata": metadata}


def _with_outputs(cell: Mapping[str, Any], executed: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: executed[name] for name in ("outputs", "execution_count")}
    if PARAMETERS in tags_of(cell):
        values = assigned_values("".join(executed["source"]))
        made["source"] = with_parameters("".join(cell["source"]), values)
    return {**cell, **made}
