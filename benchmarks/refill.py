"""Records that stay: known runs as finished cells, and records of code that computes the same.

A sweep then runs only what a record lacks, such as a method that is added: minutes, not hours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import ADDED, Cell
from benchmarks.resampling import pack, read_correct
from benchmarks.sweep import status
from genkl.provenance import code_fingerprints, provenance
from genkl.records import load_record
from genkl.storage import save_json, write_json


def keep_as_current(
    path: Path, record: Mapping[str, Any], code: Sequence[str], **again: Any
) -> None:
    """Give a record the fingerprints of the present code, which made parts of it again alike.

    Args:
        path, record: of the record; its tables stay.
        code: modules whose source decides the results.
        again: what was made again, in numbers; kept beside the commit that did.
    """
    made_again = {**again, "commit": provenance()["commit"]}
    source = {**record["provenance"], "made_again": made_again}
    write_json(path, {**record, "provenance": source, "code": code_fingerprints(code)})


def refill(
    path: Path, folder: Path, function: str, code: Sequence[str], study: str, seeds: Sequence[int]
) -> int:
    """Write a cell's file for each run of a record that has no current one.

    What each run got right is known as a count for each image, not for each model: the models are
    given it in turn, which changes no mean. Rounds are known where the record has them.

    Args:
        path: of the record, which is current.
        folder: of the sweep.
        function: that makes the runs, as text.
        code: modules whose source decides the results.
        study: of the cells that the record's search stands for.
        seeds: of the search.

    Returns:
        How many files were written.
    """
    record = load_record(path)
    right, _ = read_correct(path)
    found: dict[Cell, dict[str, Any]] = {}
    for row in record["tables"].get("search", ()):
        own = {name: row[name] for name in ("data", "method", "settings")}
        seconds = row["seconds"] / len(seeds)
        for seed, reached in zip(seeds, row["val_accuracy"], strict=True):
            cell = Cell({"study": study, **own, "seed": seed})
            found[cell] = {"result": {"val_accuracy": reached}, "seconds": seconds}
    rounds: dict[str, list[dict[str, Any]]] = {}
    for row in record["tables"].get("rounds", ()):
        rounds.setdefault(row["key"], []).append(row)
    for row in record["tables"]["runs"]:
        cell = Cell(json.loads(row["cell"]))
        result = {n: v for n, v in row.items() if n not in {*cell, *ADDED, "tuning"}}
        result |= {"correct": _packed(right[row["key"]], row["test_accuracy"])}
        result |= {"rounds": rounds.get(row["key"], [])}
        found[cell] = {"result": result, "seconds": row["seconds"]}
    made = {"function": function, "code": code_fingerprints(code)}
    states = status(folder, found, code)
    new = {cell: outcome for cell, outcome in found.items() if states[cell] != "current"}
    folder.mkdir(parents=True, exist_ok=True)
    for cell, outcome in new.items():
        about = {"settings": dict(cell), "provenance": record["provenance"], **made}
        save_json(folder / f"{cell.key}.json", about | outcome)
    return len(new)


def _packed(right: np.ndarray, accuracy: float) -> str:
    """As many models as the accuracy says, of which so many were right on each image."""
    models = max(int(right.max()), round(right.sum() / (len(right) * accuracy)))
    return pack(np.arange(models)[:, None] < right[None])
