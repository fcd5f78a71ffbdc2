"""Cells: the settings of single runs, with keys, on the command line, and selected by value."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Settings = Mapping[str, Any]
ADDED = ("seconds", "key", "cell")
"""Columns that `benchmarks.sweep.gather` adds; no setting or result can have these names."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Cell(Mapping[str, Any]):
    """The settings of one run, by name: numbers, text, None, and lists or mappings of those.

    Two cells are the same run if their settings are equal as JSON, in whatever order. So 1, 1.0
    and True are three settings, a tuple is a list, and a NumPy number is the number it holds.

    Args:
        settings: keyword arguments of the function that makes the run.

    Raises:
        TypeError: a value that JSON hasn't, or a name that no argument can have.
        ValueError: NaN or infinity, a column that `benchmarks.sweep.gather` adds, or no settings.
    """

    text: str
    names: tuple[str, ...]

    def __init__(self, settings: Settings) -> None:
        if not settings:
            raise ValueError("a cell without settings names no run; state some")
        for name in settings:
            if not isinstance(name, str) or not name.isidentifier():
                raise TypeError(f"{name!r} is no name of an argument; settings are passed by name")
            if name in ADDED:
                raise ValueError(f"a setting can't be called {name!r}: the table has such a column")
        object.__setattr__(self, "text", json.dumps(as_json(settings), sort_keys=True))
        object.__setattr__(self, "names", tuple(settings))

    def __getitem__(self, name: str) -> Any:
        return json.loads(self.text)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.text == other.text

    def __repr__(self) -> str:
        return f"Cell({dict(self)})"

    @property
    def key(self) -> str:
        """Short name, the same on every machine; the name of the result's file."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def as_options(self) -> str:
        """Its settings for a command line, quoted for the shell; see `parse_setting`."""
        return " ".join(shlex.quote(f"{n}={_written(value)}") for n, value in self.items())


def as_json(value: Any, name: str = "") -> Any:
    """What JSON holds and gives back unchanged.

    Raises:
        TypeError: something else; the message has its dotted name.
        ValueError: NaN or infinity.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{name or 'a mapping'} has the name {odd[0]!r}; names are text")
        return {key: as_json(part, f"{name}.{key}".lstrip(".")) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part, f"{name}.{place}") for place, part in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, which JSON hasn't; use None or text")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; use numbers, text, None, lists, mappings")


def _written(value: Any) -> str:
    """Text stays bare unless it would be read as something else."""
    if isinstance(value, str) and value.isprintable() and _read(value) == value:
        return value
    return json.dumps(value)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def parse_setting(text: str) -> tuple[str, Any]:
    """``name=value`` as a name and a value; what is JSON is read as JSON, the rest is text.

    Raises:
        ValueError: no equals sign.

    Example:
        >>> parse_setting("q=0.7"), parse_setting("method=GCE"), parse_setting('fold="3"')
        (('q', 0.7), ('method', 'GCE'), ('fold', '3'))
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text!r} is no setting; write name=value")
    return name, _read(value)


def select(cells: Iterable[Cell], only: Settings) -> list[Cell]:
    """Cells that have these settings; a tuple of values means any of them.

    Raises:
        ValueError: none has; the message says which values there are.

    Example:
        >>> select([Cell({"seed": 0}), Cell({"seed": 1}), Cell({"seed": 2})], {"seed": (0, 2)})
        [Cell({'seed': 0}), Cell({'seed': 2})]
    """
    found = cells = list(cells)
    known = []
    for name, asked in only.items():
        values = asked if isinstance(asked, tuple) else (asked,)
        having = [cell for cell in cells if name in cell]
        if not having:
            there = ", ".join(dict.fromkeys(name for cell in cells for name in cell))
            raise ValueError(f"no cell has a setting {name!r}; there are {there}")
        known.append(
            f"{name} is one of " + ", ".join(sorted({json.dumps(c[name]) for c in having}))
        )
        found = [c for c in found if name in c and any(_is_same(c[name], v) for v in values)]
    if only and not found:
        raise ValueError(f"no cell has {dict(only)}: {'; '.join(known)}")
    return found


def _is_same(value: Any, asked: Any) -> bool:
    """1 and 1.0 are the same to somebody who selects; 1 and True are not."""
    return value == asked and isinstance(value, bool) == isinstance(asked, bool)
