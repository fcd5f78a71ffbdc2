"""The benchmark of learning: GenKL against other methods, and with one piece changed at a time.

    GENKL_DATA=/path/to/data python -m benchmarks.learning             # all of it, about an hour
    python -m benchmarks.learning main --only data=digits method=GenKL
    python -m benchmarks.learning ablations --only study=loss
    python -m benchmarks.learning --cell 0a1b2c3d4e5f                  # one run, beside its record

Every run is a cell of `benchmarks.studies`, with a file of its own in the cache folder: an
interrupted sweep goes on where it was. ``main`` chooses each method's settings first. When a part
is complete, its tables are written to results/learning/, which the book reads. Data sets that are
not on this machine are left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks import studies
from benchmarks.studies import CASES, MODULES, SEARCH_SEEDS, SEEDS, STUDIES, run_cell
from benchmarks.sweep import (
    Cell,
    Sweep,
    compare_cell,
    exit_status,
    listing,
    run_sweep,
    select,
    stop_on_term,
    sweep_arguments,
)
from genkl.features import cache_folder
from genkl.records import load_record, save_record

FOLDER = Path("results/learning")
PARTS = ("main", "ablations")


def kept() -> Path:
    """Where the results of cells are."""
    return cache_folder() / "learning"


def sweep(cells: Sequence[Cell], name: str, options: argparse.Namespace) -> Sweep:
    """Run cells, next to each other those that share data."""
    ordered = sorted(cells, key=lambda cell: (cell["data"], cell["seed"]))
    where = {"jobs": options.jobs, "cluster": options.cluster, "rerun": options.rerun}
    function = "benchmarks.studies:run_cell"
    return run_sweep(ordered, function, kept(), code=MODULES, progress=name, **where)


def run_main(data: Sequence[str], options: argparse.Namespace) -> list[Sweep]:
    """Search, then compare; a selection of cells looks for settings only where it needs them."""
    only = options.only
    asked = {name: only[name] for name in ("data", "method") if name in only}
    searched = sweep(select(studies.search_cells(data), asked), "search", options)
    chosen = studies.chosen_settings(searched.table())
    compared = sweep(select(studies.main_cells(data, chosen), only), "main", options)
    if not only:
        _record("main", {"search": searched, "runs": compared}, options.folder, data)
    else:
        _show(compared.table(), ["data", "method"])
    return [searched, compared]


def run_ablations(data: Sequence[str], options: argparse.Namespace) -> list[Sweep]:
    """Every study, or those that were asked for."""
    only = options.only
    done = sweep(select(studies.ablation_cells(data), only), "ablations", options)
    table = done.table()
    if not only:
        _record("ablations", {"runs": done}, options.folder, data)
    else:
        changed = [c for study in table["study"].unique() for c in STUDIES[study].changes[0]]
        _show(table, ["study", "data", *dict.fromkeys(changed)])
    return [done]


def _show(table: pd.DataFrame, by: list[str]) -> None:
    figures = table.groupby(by, sort=False, dropna=False)[["val_accuracy", "test_accuracy"]]
    print(figures.agg(["mean", "std", "count"]).round(4).to_string())


def _record(part: str, sweeps: dict[str, Sweep], folder: Path, data: Sequence[str]) -> None:
    """One row per run, and one per round."""
    if any(done.failed for done in sweeps.values()):
        return
    tables = {}
    for name, done in sweeps.items():
        table = done.table()
        rounds = table.pop("rounds")
        tables[name] = table.round(5)
        if name == "runs":
            keys = table.drop(columns=["val_accuracy", "test_accuracy", "flagged", "seconds"])
            tables["rounds"] = pd.DataFrame(
                {**dict(zip(keys, row, strict=True)), **a_round}
                for row, of_run in zip(keys.itertuples(index=False), rounds, strict=True)
                for a_round in (of_run if row.study == "rounds" else of_run[:0])
            ).round(5)
    cases = {
        name: {"title": case.title, "options": dict(case.options), "pixels": case.pixels}
        for name, case in CASES.items()
        if name in data
    }
    path = save_record(
        folder / f"{part}.json",
        title=f"End-to-end benchmark: {part}",
        tables={name: table for name, table in tables.items() if len(table)},
        settings={"data": cases, "seeds": list(SEEDS), "search_seeds": list(SEARCH_SEEDS)},
        code=MODULES,
        overwrite=True,
    )
    print(f"recorded in {path}")


def run_again(key: str, folder: Path) -> int:
    """One recorded run, made again."""
    for part in PARTS:
        path = folder / f"{part}.json"
        for table in load_record(path)["tables"].values() if path.exists() else ():
            for row in table:
                if row.get("key") == key:
                    return _beside(row)
    print(f"no recorded run has the key {key}; --list shows them", file=sys.stderr)
    return 2


def _beside(row: dict) -> int:
    cell = Cell(json.loads(row["cell"]))
    print(cell.as_options())
    print(compare_cell(cell, run_cell, row).round(5).to_string())
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    names = "data sets: " + ", ".join(CASES)
    parser.add_argument("--data", nargs="+", default=list(CASES), metavar="NAME", help=names)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"default: {FOLDER}")
    sweep_arguments(parser)
    options = parser.parse_args()
    for kind, asked, known in (("part", options.parts, PARTS), ("data set", options.data, CASES)):
        for unknown in set(asked) - set(known):
            parser.error(f"unknown {kind} {unknown!r}; choose from: {', '.join(known)}")
    if options.cell:
        return run_again(options.cell, options.folder)
    here = [name for name in options.data if CASES[name].is_present()]
    if absent := [name for name in options.data if name not in here]:
        print(f"left out, not on this machine (genkl data list): {', '.join(absent)}")
    wanted = options.only.get("data", ())
    if gone := set(absent) & set(wanted if isinstance(wanted, tuple) else [wanted]):
        names = ", ".join(sorted(gone))
        parser.error(f"--only data: {names} not on this machine; see: python -m genkl data list")
    stop_on_term()
    work = {"main": run_main, "ablations": run_ablations}
    try:
        if options.list:
            cells = [] if options.parts == ["ablations"] else studies.search_cells(here)
            cells += [] if options.parts == ["main"] else studies.ablation_cells(here)
            print(listing(kept(), select(cells, options.only), MODULES))
            return 0
        sweeps = [done for part in options.parts or PARTS for done in work[part](here, options)]
    except ValueError as error:
        parser.error(str(error))
    return max(map(exit_status, sweeps))


if __name__ == "__main__":
    sys.exit(main())
