"""Parameters that a notebook declares: read, checked, and written in their place."""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from book.machine.project import BookError, read_notebook

PARAMETERS = "parameters"
"""The tag of a notebook's parameters cell, which is papermill's."""


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell.

    In ``alpha: float = 1.05  # weight of the entropy [0.4 to 1.4]`` the comment is the
    ``meaning``, and what stands in brackets at its end the ``range`` worth trying.
    """

    name: str
    default: Any
    annotation: str
    meaning: str = ""
    range: str = ""


def tags_of(cell: Mapping[str, Any]) -> set[str]:
    """The tags of a notebook's cell."""
    return set(cell["metadata"].get("tags", []))


def code_cells(template: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook, with ``source`` as one string."""
    notebook = read_notebook(template)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def read_parameters(template: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares in its cell tagged ``parameters``.

    Raises:
        BookError: the cell holds something else than names and literals.
    """
    parameters = {}
    for cell in code_cells(template):
        if PARAMETERS in tags_of(cell):
            comments = _comments(cell["source"])
            for name, annotation, value in _assignments(template, cell["source"]):
                default = ast.literal_eval(value)
                written = ast.unparse(annotation) if annotation else type(default).__name__
                meaning, usual = _explained(comments.get(value.end_lineno or 0, ""))
                parameters[name] = Parameter(name, default, written, meaning, usual)
    return parameters


def assigned_values(source: str) -> dict[str, Any]:
    """The values that a parameters cell assigns."""
    return {
        name: ast.literal_eval(value) for name, _, value in _assignments(Path(PARAMETERS), source)
    }


def _comments(source: str) -> dict[int, str]:
    """The comments of a piece of code, by line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _explained(comment: str) -> tuple[str, str]:
    """A comment's meaning, and the range that it gives in brackets at its end."""
    found = re.fullmatch(r"(.*?)\s*(?:\[([^\[\]]+)\])?", comment)
    return (found[1], found[2] or "") if found else (comment, "")


def _assignments(template: Path, source: str) -> Iterator[tuple[str, ast.expr | None, ast.expr]]:
    try:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", 0)
            value = getattr(node, "value", None)
            if not isinstance(target, ast.Name) or value is None:
                raise ValueError(f"line {node.lineno} assigns no value to a name")
            ast.literal_eval(value)
            yield target.id, getattr(node, "annotation", None), value
    except (SyntaxError, ValueError) as error:
        raise BookError(
            f"{template.name}: its parameters cell holds only literals: {error}"
        ) from None


def with_parameters(source: str, values: Mapping[str, Any]) -> str:
    """A parameters cell with other values in the place of its literals.

    Example:
        >>> with_parameters("alpha: float = 1.05  # paper\\nseed: int = 0", {"alpha": 0.9})
        'alpha: float = 0.9  # paper\\nseed: int = 0'
    """
    lines = source.encode().splitlines(keepends=True)  # ast counts columns in bytes
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    text = source.encode()
    for name, _, value in reversed(list(_assignments(Path(PARAMETERS), source))):
        if name not in values or repr(values[name]) == repr(ast.literal_eval(value)):
            continue  # as it is written
        if value.end_lineno and value.end_col_offset is not None:
            begin = starts[value.lineno - 1] + value.col_offset
            end = starts[value.end_lineno - 1] + value.end_col_offset
            text = text[:begin] + repr(values[name]).encode() + text[end:]
    return text.decode()


def check_parameters(name: str, known: Mapping[str, Parameter], values: Mapping[str, Any]) -> None:
    """Raise if a notebook does not declare these parameters, or declares other types."""
    for key, value in values.items():
        if key not in known:
            names = ", ".join(known) or "none"
            raise BookError(f"{name} has no parameter {key!r}; its parameters: {names}")
        if not _fits(value, ast.parse(known[key].annotation, mode="eval").body):
            raise BookError(
                f"{name}: {key} is declared {known[key].annotation} (such as "
                f"{known[key].default!r}), got {type(value).__name__} {value!r}"
            )


def _fits(value: Any, annotation: ast.expr) -> bool:
    """Whether a literal has the declared type; an int may stand for a float, a bool for nothing."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id="float"):
            # Infinity and NaN have no literal: a notebook would read them as names.
            number = isinstance(value, float | int) and not isinstance(value, bool)
            return number and math.isfinite(value)
        case ast.Name(id="int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case ast.Name(id="list" | "tuple"):
            return isinstance(value, list | tuple)  # YAML and JSON know only lists
        case ast.Name(id="bool" | "str" | "dict" | "NoneType" as known):
            return type(value).__name__ == known
        case ast.Subscript(value=outer, slice=inner):
            kinds = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            items = value.values() if isinstance(value, dict) else value
            kind = kinds[-1] if isinstance(value, dict) else kinds[0]
            return _fits(value, outer) and all(_fits(item, kind) for item in items)
    return True


def as_declared(value: Any, default: Any) -> Any:
    """A YAML or JSON list as the tuple that the notebook declares."""
    return tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
