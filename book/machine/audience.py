"""Audiences of the book: students' pages and notebooks hold no solution, the others do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from book.machine.parameters import tags_of
from book.machine.project import BookError

AUDIENCES = ("everyone", "student", "instructor")
"""Whom the book can be rendered for. Everyone gets solutions in drop-downs, as instructors do,
who also get the key."""

SOLUTION = "solution"
"""The tag of a cell that only instructors see."""

_CELL = "\0"
"""What stands for the beginning of a cell where a notebook is looked at as one text."""


def _directive(name: str, fence: str) -> str:
    """A pattern for a directive within one cell; ``fence`` names its group."""
    begins = rf"^[ \t]*(?P<{fence}>`{{3,}}|~{{3,}}|:{{3,}})[ \t]*\{{{name}\}}"
    return rf"{begins}[^{_CELL}]*?^[ \t]*(?P={fence})[`~:]*[ \t]*(?:\n|\Z)"


_SOLUTION = re.compile(_directive("solution", "fence"), re.MULTILINE)
_GATED = re.compile(
    f"{_directive('solution-start', 'opens')}.*?{_directive('solution-end', 'closes')}",
    re.MULTILINE | re.DOTALL,
)
_OPEN = re.compile(r"^[ \t]*[`~:]{3,}[ \t]*\{solution(-start|-end)?\}.*", re.MULTILINE)


def check_audience(audience: str) -> str:
    """The audience, if there is such a one.

    Raises:
        BookError: there is not.
    """
    if audience not in AUDIENCES:
        raise BookError(f"no audience {audience!r}; there are {', '.join(AUDIENCES)}")
    return audience


def without_solutions(text: str) -> str:
    """MyST Markdown without its solutions.

    A solution is a directive ``{solution}``, in a fence of backticks, tildes or colons, or all
    that stands between ``{solution-start}`` and ``{solution-end}``.

    Args:
        text: a page's source.

    Returns:
        The other lines, unchanged.

    Raises:
        BookError: a solution has a beginning and no end.

    Example:
        >>> without_solutions("Why?\\n```{solution} ex\\nSo.\\n```\\nNext.")
        'Why?\\nNext.'
    """
    left = _SOLUTION.sub("", _GATED.sub("", text))
    if found := _OPEN.search(left):
        raise BookError(f"a solution that begins with {found[0].strip()!r} has no end")
    return left


def student_notebook(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """A notebook without solutions: neither in its Markdown, nor in cells tagged ``solution``.

    A solution between ``{solution-start}`` and ``{solution-end}`` may span cells.
    """
    shown = [cell for cell in notebook["cells"] if SOLUTION not in tags_of(cell)]
    prose = ["".join(cell["source"]) if cell["cell_type"] == "markdown" else "" for cell in shown]
    whole = "".join(f"{_CELL}{number}\n{text}\n" for number, text in enumerate(prose))
    cells = []
    for piece in without_solutions(whole).split(_CELL)[1:]:
        number, _, left = piece.partition("\n")
        cell, before = shown[int(number)], prose[int(number)]
        if before and left != f"{before}\n":
            cell = {**cell, "source": left.removesuffix("\n")}
        if left.strip() or not before.strip():
            cells.append(cell)
    return {**notebook, "cells": cells}
