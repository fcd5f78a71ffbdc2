"""Who reads it? Students' pages and notebooks hold no solution; the others do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from book.machine.parameters import tags_of
from book.machine.project import BookError

AUDIENCES = ("everyone", "student", "instructor")
"""Whom the book can be rendered for. Everyone gets solutions in drop-downs, as instructors do,
who also get the key."""

SOLUTION = "solution"
"""The tag of a cell that only instructors see."""

_OPENING = re.compile(r"\s*(?P<fence>`{3,}|~{3,}|:{3,})\s*\{solution(?P<gate>-start|-end)?\}")


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
    gate = _Gate()
    kept = "".join(_kept(iter(text.splitlines(keepends=True)), gate))
    if gate.open:
        raise BookError("a {solution-start} has no {solution-end}")
    return kept


def student_notebook(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """A notebook without solutions: neither in its Markdown, nor in cells tagged ``solution``.

    A solution between ``{solution-start}`` and ``{solution-end}`` may span cells.
    """
    gate, cells = _Gate(), []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            before = "".join(cell["source"])
            after = "".join(_kept(iter(before.splitlines(keepends=True)), gate))
            if after.strip() or not before.strip():
                cells.append(cell if after == before else {**cell, "source": after})
        elif not gate.open and SOLUTION not in tags_of(cell):
            cells.append(cell)
    if gate.open:
        raise BookError("a {solution-start} has no {solution-end}")
    return {**notebook, "cells": [c for c in cells if SOLUTION not in tags_of(c)]}


class _Gate:
    """Whether the reader stands between a ``{solution-start}`` and its end."""

    open = False


def _kept(lines: Iterator[str], gate: _Gate) -> Iterator[str]:
    for line in lines:
        found = _OPENING.match(line)
        if not found:
            if not gate.open:
                yield line
            continue
        if found["gate"]:
            gate.open = found["gate"] == "-start"
        _skip_to_end(lines, found["fence"])


def _skip_to_end(lines: Iterator[str], fence: str) -> None:
    """Pass over the lines of a directive, its closing fence included."""
    closing = re.compile(rf"\s*{re.escape(fence[0])}{{{len(fence)},}}\s*$")
    for line in lines:
        if closing.match(line):
            return
    raise BookError(f"a solution that begins with {fence} has no end")
