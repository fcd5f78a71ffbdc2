"""Comparison of a run's record with the one that the repository keeps."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from book.machine.project import PACKAGE, BookError, Project, read_notebook

NOT_MEASURED = {"seed", "seconds", "clean_labels", "index"}
"""Columns that tell runs apart, or that no two runs share."""

Chosen = Mapping[str, Mapping[str, Sequence[str]]]
"""Table name -> {"by": columns that name a row, "metrics": columns to compare}."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of ``count`` repetitions; nan where there are too few."""

    mean: float
    std: float
    count: int

    def __str__(self) -> str:
        if not self.count:
            return "–"
        return f"{self.mean:.3f}" + ("" if math.isnan(self.std) else f" ± {self.std:.3f}")


@dataclass(frozen=True)
class Compared:
    """One metric of one method, as it was recorded and as it came out now."""

    what: str
    metric: str
    recorded: Spread
    own: Spread

    @property
    def difference(self) -> float:
        """This run's mean minus the recorded one."""
        return self.own.mean - self.recorded.mean

    @property
    def verdict(self) -> str:
        """How far the two means are apart, measured by the recorded spread."""
        if not (self.recorded.count and self.own.count):
            return "only in one of them"
        if math.isclose(self.own.mean, self.recorded.mean, rel_tol=1e-9, abs_tol=1e-12):
            return "the same"
        if math.isnan(self.recorded.std):
            return "no spread was recorded"
        return "within the spread" if abs(self.difference) <= self.recorded.std else "outside it"


def compare_records(
    recorded: Mapping[str, Any], own: Mapping[str, Any], chosen: Chosen | None = None
) -> list[Compared]:
    """Hold two records of one notebook against each other.

    Args:
        recorded: what was measured before.
        own: what was measured now.
        chosen: which columns of which tables; by default, all tables that both have, rows named by
            their columns of text, and the first three columns of numbers.

    Returns:
        A row for every method and metric, in the recorded order.
    """
    tables = {name: rows for name, rows in recorded["tables"].items() if name in own["tables"]}
    chosen = chosen or {name: _main_columns(rows) for name, rows in tables.items() if rows}
    found = []
    for name, columns in chosen.items():
        if name not in tables:
            continue
        by, both = columns["by"], [tables[name], own["tables"][name]]
        for key in dict.fromkeys(_key(row, by) for rows in both for row in rows):
            for metric in columns["metrics"]:
                before, now = (_spread(rows, by, key, metric) for rows in both)
                if before.count or now.count:
                    what = ", ".join(f"round {part}" if part.isdigit() else part for part in key)
                    found.append(Compared(what, metric.replace("_", " "), before, now))
    return found


def _main_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    first = rows[0]
    numbers = [
        name
        for name, value in first.items()
        if isinstance(value, int | float) and name not in NOT_MEASURED
    ]
    return {
        "by": [name for name, value in first.items() if isinstance(value, str)],
        "metrics": numbers[:3],
    }


def _key(row: Mapping[str, Any], by: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in by)


def _spread(
    rows: Sequence[Mapping[str, Any]], by: Sequence[str], key: tuple[str, ...], metric: str
) -> Spread:
    values = [row.get(metric) for row in rows if _key(row, by) == key]
    known = [value for value in values if isinstance(value, int | float)]
    mean = statistics.fmean(known) if known else math.nan
    return Spread(mean, statistics.stdev(known) if len(known) > 1 else math.nan, len(known))


def comparison_table(rows: Sequence[Compared]) -> str:
    """A Markdown table, which a terminal shows as well."""
    cells = [("", "metric", "recorded", "this run", "difference", "")]
    for row in rows:
        both = row.recorded.count and row.own.count
        difference = f"{row.difference:+.3f}" if both else "–"
        kept = str(row.recorded), str(row.own)
        cells.append((row.what, row.metric, *kept, difference, row.verdict))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def changed_settings(recorded: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """What the two runs were told differently, in words; empty if nothing."""
    before, now = recorded.get("settings", {}), own.get("settings", {})
    return ", ".join(
        f"{name} = {now.get(name)!r} (recorded with {before.get(name)!r})"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    )


def recorded_path(project: Project, name: str) -> Path:
    """The record that the repository keeps of a notebook in this profile."""
    return project.root / "results" / project.profile / f"{name}.json"


def own_path(project: Project, name: str) -> Path:
    """The record that the last execution of a notebook wrote."""
    return project.executed / "records" / f"{name}.json"


def read_record(path: Path) -> dict[str, Any]:
    """A record of measured results.

    Raises:
        BookError: no such file, or it is no record.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BookError(f"no record {path}: {error.strerror}") from None
    except ValueError as error:
        raise BookError(f"{path} is no record: {error}; execute its notebook --force") from None
    if not isinstance(record, dict) or not isinstance(record.get("tables"), dict):
        raise BookError(f"{path} is no record: it has no tables")
    return record


def chosen_columns(project: Project, name: str) -> Chosen | None:
    """What a notebook's metadata names for comparison (``genkl: {compare: ...}``)."""
    notebook = read_notebook(project.template(name))
    compare: Chosen | None = notebook["metadata"].get(PACKAGE, {}).get("compare")
    return compare


def compare(project: Project, name: str, own: Path | None = None) -> str:
    """A run of a notebook beside the recorded one, in a table.

    Args:
        project: the book and the profile.
        name: the notebook.
        own: the record of a run; by default that of the last execution.

    Returns:
        Markdown, with a line about settings that differ.

    Raises:
        BookError: one of the records is missing.
    """
    recorded = read_record(recorded_path(project, name))
    mine = read_record(own or own_path(project, name))
    rows = compare_records(recorded, mine, chosen_columns(project, name))
    if not rows:
        raise BookError(
            f"{own or own_path(project, name)} has no table and column in common with "
            f"{recorded_path(project, name)}; is it a record of {name}?"
        )
    table = comparison_table(rows)
    if changed := changed_settings(recorded, mine):
        table += f"\n\nThis run was told something else: {changed}."
    return table
