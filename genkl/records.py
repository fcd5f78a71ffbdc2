"""Records of results: runs as rows, tables with their provenance, and whether they are stale."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from genkl.learn import Run, round_to_dict, run_to_dict
from genkl.provenance import changed_modules, code_fingerprints, provenance
from genkl.storage import load_json, plain, write_json

SCHEMA = 1


def runs_to_frame(runs: Iterable[Run], *, every_round: bool = False) -> pd.DataFrame:
    """One row per run (its best round), or one per round.

    Args:
        runs: from `run_genkl` and `run_method`.
        every_round: keep all rounds.

    Returns:
        Columns method, dataset, seed, clean_labels, and every scalar of `Round`.
    """
    rows = []
    for run in runs:
        about = {
            "method": run.method,
            "dataset": run.dataset,
            "seed": run.seed,
            "clean_labels": run.clean_labels,
        }
        for chosen in run.rounds if every_round else (run.best,):
            values = round_to_dict(chosen).items()
            rows.append(about | {name: v for name, v in values if isinstance(v, int | float)})
    return pd.DataFrame(rows)


def save_record(
    path: str | os.PathLike[str],
    *,
    title: str,
    runs: Iterable[Run] = (),
    tables: dict[str, pd.DataFrame] | None = None,
    settings: dict[str, Any] | None = None,
    code: Iterable[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a results record: what was run, with what, where, and what came out.

    Args:
        path: the JSON file to write; its folder is made.
        title: what was measured, in words.
        runs: saved with configuration, seed and every round.
        tables: measured tables that are not runs, by name.
        settings: further parameters behind the tables.
        code: modules that made the numbers; their fingerprints are kept, for `stale_because`.
        overwrite: replace an existing file.

    Returns:
        The path.

    Raises:
        FileExistsError: the file exists and overwrite is False.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True or another path")
    record = {
        "schema": SCHEMA,
        "title": title,
        "provenance": provenance(),
        "settings": settings or {},
        "code": code_fingerprints(code),
        "runs": [run_to_dict(run) for run in runs],
        "tables": {
            name: json.loads(table.to_json(orient="records", double_precision=15))
            for name, table in (tables or {}).items()
        },
    }
    return write_json(path, plain(record))


def stale_because(record: Mapping[str, Any], **settings: Any) -> tuple[str, ...]:
    """Why a record is no longer that of the present code and settings.

    Args:
        record: from `load_record`.
        settings: what its settings of these names should be now.

    Returns:
        Reasons in words, one for each setting that differs, and one for all code that changed
        (it says of a module that it is gone); none where the record is
        current.

    Example:
        >>> stale_because({"settings": {"seeds": [0, 1]}, "code": {}}, seeds=[0, 1, 2])
        ('seeds is [0, 1] there and [0, 1, 2] here',)
    """
    there, here = record["settings"], plain(settings)
    reasons = [
        f"{name} is {there.get(name)} there and {value} here"
        for name, value in here.items()
        if there.get(name) != value
    ]
    if changed := changed_modules(record.get("code", {})):
        names = (name if is_there else f"{name} (gone)" for name, is_there in changed.items())
        reasons.append(f"its code has changed since: {', '.join(names)}")
    return tuple(reasons)


def load_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a record that `save_record` wrote.

    Raises:
        ValueError: not such a record, or written in another schema.
    """
    record = load_json(path)
    if record.get("schema") != SCHEMA:
        raise ValueError(
            f"{path} has schema {record.get('schema')}, this version reads {SCHEMA}; write it anew"
        )
    return record
