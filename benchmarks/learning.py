"""The benchmark of learning: GenKL against other methods, and with one piece changed at a time.

    GENKL_DATA=/path/to/data python -m benchmarks.learning             # all of it, some hours
    python -m benchmarks.learning main --only data=digits method=GenKL
    python -m benchmarks.learning ablations --only study=loss
    python -m benchmarks.learning networks --data clothing-blocks
    python -m benchmarks.learning --cell 0a1b2c3d4e5f                  # one run, beside its record
    python -m benchmarks.learning --verify 12                          # after a change of code
    python -m benchmarks.learning main --known                         # only what records lack

Every run is a cell of `benchmarks.studies`, `.ablations`, `.networks` or `.confirmation`, with a
file of its own in the cache folder: an interrupted sweep goes on where it was. ``main`` chooses
each method's settings first, and runs it with those and with its default. When a part is complete
for a data set, its tables are written to results/learning/PART/DATA.json, which the book reads, and
beside them what each run got right, image by image (``DATA-correct.npz``). Data sets that are not
on this machine are left out, and said to be.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import ablations, confirmation, networks, studies
from benchmarks.ablations import STUDIES, run_cell
from benchmarks.confirmation import CLAIMED, FROM, UNSEEN
from benchmarks.networks import NETWORK_SEEDS, NETWORKS
from benchmarks.refill import keep_as_current, refill
from benchmarks.resampling import unpack
from benchmarks.statistics import hierarchical_interval
from benchmarks.studies import CASES, MODULES, SEARCH_SEEDS, TUNINGS, Chosen
from benchmarks.sweep import (
    Cell,
    Sweep,
    compare_cell,
    exit_status,
    gather,
    listing,
    run_sweep,
    select,
    stop_on_term,
    sweep_arguments,
)
from genkl.features import cache_folder
from genkl.records import load_record, save_record, stale_because
from genkl.storage import write_atomically

FOLDER = Path("results/learning")
PARTS = ("main", "ablations", "networks", "confirmation")
ABLATION_CODE = "genkl.detectors", "genkl.published", "benchmarks.ablations", "benchmarks.steps"
CODE = {
    "main": MODULES,
    "ablations": (*MODULES, *ABLATION_CODE),
    "networks": (*MODULES, "benchmarks.networks"),
    "confirmation": (*MODULES, "benchmarks.confirmation"),
}
"""What decides the results of each part."""
OWN_DATA = {"networks": NETWORKS, "confirmation": UNSEEN}
"""Of parts with data sets of their own; the others have `CASES`."""
RUN_CELL = {"networks": networks.run_cell, "confirmation": confirmation.run_cell}
KNOWN = {**CASES, **NETWORKS, **UNSEEN}
ASKED_FOR = ("cifar10n-aggregate-0", "cifar10n-aggregate-5000")
"""Run where they are named, and in no record."""
MEASURED = tuple(name for name in CASES if name not in ASKED_FOR)
"""The data sets of the main comparison."""
BASE = "GenKL"
"""Every method is compared with this one, on the same images and seeds."""


def kept() -> Path:
    """Where the results of cells are."""
    return cache_folder() / "learning"


def sweep(cells: Sequence[Cell], name: str, options: argparse.Namespace) -> Sweep:
    """Run cells, next to each other those that share data."""
    ordered = sorted(cells, key=lambda cell: (cell["data"], cell["seed"]))
    where = {"jobs": options.jobs, "cluster": options.cluster, "rerun": options.rerun}
    function = f"benchmarks.{_module(name)}:run_cell"
    code = CODE.get(name, MODULES)
    return run_sweep(ordered, function, kept(), code=code, progress=name, **where)


def _module(name: str) -> str:
    return name if name in RUN_CELL else "ablations"


def run_main(data: Sequence[str], options: argparse.Namespace) -> list[Sweep]:
    """Search, then compare; a selection of cells looks for settings only where it needs them."""
    only = options.only
    asked = {name: only[name] for name in ("data", "method") if name in only}
    searched = sweep(select(studies.search_cells(data), asked), "search", options)
    table = studies.chosen_settings(searched.table())
    chosen = studies.as_chosen(table)
    compared = sweep(select(studies.main_cells(data, chosen), only), "main", options)
    if only:
        _show(_tuned(compared.table(), chosen), ["data", "method", "tuning"])
    elif not searched.failed and not compared.failed:
        runs = _tuned(compared.table(), chosen)
        tables = {"search": studies.by_candidate(searched.table()), "chosen": table}
        save_part("main", {**tables, "runs": runs}, options.folder)
    return [searched, compared]


def run_ablations(data: Sequence[str], options: argparse.Namespace) -> list[Sweep]:
    """Every study, or those that were asked for, with the settings that the search chose."""
    only, chosen = options.only, known_settings(data, options.folder)
    cells = select(ablations.ablation_cells(data, chosen), only)
    if not cells:
        return []
    _refuse_untuned(cells, chosen)
    done = sweep(cells, "ablations", options)
    table = _tuned(done.table(), chosen)
    if only:
        changed = [c for study in table["study"].unique() for c in STUDIES[study].changes[0]]
        _show(table, ["study", "data", *dict.fromkeys(changed), "tuning"])
    elif not done.failed:
        save_part("ablations", {"runs": table}, options.folder)
    return [done]


def run_networks(data: Sequence[str], options: argparse.Namespace) -> list[Sweep]:
    """Every method with every learning rate, of which validation then chooses each method's."""
    done = sweep(select(networks.network_cells(data), options.only), "networks", options)
    table = done.table()
    if options.only:
        _show(table.assign(rate=table["settings"].map(repr)), ["data", "method", "rate"])
    elif not done.failed and len(table):
        chosen = studies.chosen_settings(table)
        tables = {"search": studies.by_candidate(table), "chosen": chosen}
        save_part("networks", {**tables, "runs": networks.tuned(table, chosen)}, options.folder)
    return [done]


def run_confirmation(data: Sequence[str], options: argparse.Namespace) -> list[Sweep]:
    """Every method with its default and its frozen settings, on images never drawn before."""
    chosen = known_settings([FROM[name] for name in data], options.folder)
    cells = select(confirmation.confirmation_cells(data, chosen), options.only)
    frozen = {
        (name, m): own for name in data for (at, m), own in chosen.items() if at == FROM[name]
    }
    _refuse_untuned(cells, frozen)
    done = sweep(cells, "confirmation", options)
    runs = _tuned(done.table(), frozen)
    if options.only:
        _show(runs, ["data", "method", "tuning"])
    elif not done.failed:
        save_part("confirmation", {"runs": runs}, options.folder)
    return [done]


def known_settings(data: Sequence[str], folder: Path) -> Chosen:
    """What the search chose: from its cells, where all are finished, else from the records."""
    chosen = {}
    for record in recorded(folder, "main"):
        chosen |= studies.as_chosen(pd.DataFrame(record["tables"].get("chosen", [])))
    cells = studies.search_cells([name for name in data if name in CASES])
    done = gather(kept(), cells)
    asked = Counter((cell["data"], cell["method"]) for cell in cells)
    for named, found in done.groupby(["data", "method"]) if len(done) else ():
        if len(found) == asked[named]:
            chosen |= studies.as_chosen(studies.chosen_settings(found))
    return chosen


def _refuse_untuned(cells: Sequence[Cell], chosen: Chosen) -> None:
    for cell in cells:
        method = _tuned_method(cell)
        if method is not None and (cell["data"], method) not in chosen:
            what = f"{method} on {FROM.get(cell['data'], cell['data'])}"
            raise ValueError(f"no settings are chosen for {what} yet; run main first")


def _tuned_method(row: Mapping[str, Any]) -> str | None:
    """The method whose settings were searched for, of a cell or a run; None for none."""
    if row["study"] in STUDIES:
        return ablations.method_of(row["study"], row)
    return row["method"] if row["study"] in ("main", "confirmation") else None


def _tuned(table: pd.DataFrame, chosen: Chosen) -> pd.DataFrame:
    """A row for each tuning that a run stands for, in a column "tuning"."""
    rows = []
    for row in table.to_dict("records"):
        settings = row.get("settings")
        settings = settings if isinstance(settings, Mapping) else None
        method = _tuned_method(row)
        named = TUNINGS[:1]
        if method is not None:
            named = studies.tunings(row["data"], method, settings, chosen)
        rows += [{**row, "tuning": name} for name in named]
    return pd.DataFrame(rows)


def _show(table: pd.DataFrame, by: list[str]) -> None:
    figures = ["val_accuracy", "test_accuracy", "balanced_accuracy", "worst_recall"]
    grouped = table.groupby(by, sort=False, dropna=False)[figures]
    print(grouped.agg(["mean", "std"]).round(4).assign(runs=grouped.size()).to_string())


# -- records --------------------------------------------------------------------------------------


def recorded(folder: Path, part: str) -> list[dict[str, Any]]:
    """The records of a part, in the order of `KNOWN`."""
    paths = [folder / part / f"{name}.json" for name in KNOWN]
    return [load_record(path) for path in paths if path.exists()]


def save_part(part: str, tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Of each data set, one row per run, one per round and comparison; beside it what was right.

    Args:
        part: of `PARTS`; the name of a folder.
        tables: "runs", as `benchmarks.sweep.Sweep.table` has them, with column ``tuning``; and
            others with column ``data``.
        folder: where the parts are.
    """
    for data in tables["runs"]["data"].unique():
        own = {name: table[table["data"] == data] for name, table in tables.items()}
        runs = own["runs"].copy()
        correct, rounds = (
            dict(zip(runs["key"], runs.pop(name), strict=True)) for name in ("correct", "rounds")
        )
        own["runs"] = runs
        keys = runs.drop(columns=["val_accuracy", "test_accuracy", "flagged", "seconds", "cell"])
        own["rounds"] = pd.DataFrame(
            {**row, **a_round}
            for row in keys.to_dict("records")
            if row["study"] == "rounds"
            for a_round in rounds[row["key"]]
        )
        own["intervals"] = intervals(runs, {key: unpack(text) for key, text in correct.items()})
        if data in CLAIMED:
            own["claims"] = confirmation.judged_claims(own["intervals"])
        case = KNOWN[data]
        path = save_record(
            folder / part / f"{data}.json",
            title=f"Benchmark of learning, {part}: {case.title}",
            tables={name: table.round(5) for name, table in own.items() if len(table)},
            settings={
                "title": case.title,
                "options": dict(case.options),
                "pixels": case.pixels,
                "ood_labels": studies.OOD_LABELS,
                "seeds": sorted(runs["seed"].unique().tolist()),
                "search_seeds": list(() if part in OWN_DATA else SEARCH_SEEDS),
            },
            code=CODE[part],
            overwrite=True,
        )
        save_correct(path.with_name(f"{data}-correct.npz"), correct, case.senders())
        print(f"recorded in {path}")


def save_correct(path: Path, correct: Mapping[str, str], groups: np.ndarray | None) -> None:
    """How many of a run's models were right on each test image, and the runs' keys.

    Args:
        path: of the ``.npz``: ``keys`` of shape (runs,), ``right`` of shape (images, runs), and
            ``groups`` of shape (images,) where there are senders.
        correct: of each key, see `benchmarks.resampling.pack`.
        groups: who sent each image.
    """
    hits = [unpack(text).sum(axis=0, dtype=np.uint8) for text in correct.values()]
    arrays = {"keys": np.array([*correct], dtype="U12"), "right": np.stack(hits, axis=1)}
    if groups is not None:
        arrays["groups"] = groups
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


COMPARED = ("study", "data", "tuning")


def intervals(runs: pd.DataFrame, hits: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Test accuracy over other images (or senders) and seeds, of each setting and against the base.

    Args:
        runs: rows of a record, with ``key`` and ``tuning``.
        hits: what each run's models got right, shape (models, images), by key.

    Returns:
        A row for each study, data set, tuning and setting: ``accuracy``, ``low``, ``high``, and of
        the difference to the base ``difference``, ``difference_low``, ``difference_high``, all in
        points; over the seeds that both have.
    """
    rows = []
    for (study, data, tuning), part in runs.groupby(list(COMPARED), sort=False):
        groups = KNOWN[data].senders()
        changes, base = _settings_of(study)
        held = {}
        for values, mine in part.groupby(changes, sort=False, dropna=False):
            seeds = mine.set_index("seed")["key"]
            held[values] = {seed: hits[key].mean(axis=0) for seed, key in seeds.items()}
        for values, of_seed in held.items():
            setting = dict(zip(changes, values, strict=True))
            other = held.get(tuple({**setting, **base}.values()))
            row = {**dict(zip(COMPARED, (study, data, tuning), strict=True)), **setting}
            low, high = points(of_seed, groups)
            mean = 100 * float(np.mean([*of_seed.values()]))
            row |= {"accuracy": mean, "low": low, "high": high}
            if other is not None and other is not of_seed:
                both = {s: of_seed[s] - other[s] for s in of_seed if s in other}
                low, high = points(both, groups)
                row |= {"difference": 100 * float(np.mean([*both.values()]))}
                row |= {"difference_low": low, "difference_high": high}
            rows.append(row)
    return pd.DataFrame(rows).round(4)


def points(of_seed: Mapping[int, np.ndarray], groups: np.ndarray | None) -> tuple[float, float]:
    """The interval of a figure that is known image by image, by seed; in points."""
    low, high = hierarchical_interval(np.stack([*of_seed.values()]), groups)
    return 100 * low, 100 * high


def _settings_of(study: str) -> tuple[list[str], dict[str, Any]]:
    """What a study changes, and what it is held against."""
    if study in ("main", *OWN_DATA):
        return ["method"], {"method": BASE}
    return list(STUDIES[study].changes[0]), dict(STUDIES[study].base)


def run_again(key: str, folder: Path) -> int:
    """One recorded run, made again."""
    for tables in (record["tables"] for part in PARTS for record in recorded(folder, part)):
        for row in tables.get("runs", ()):
            if row["key"] == key:
                return _beside(Cell(json.loads(row["cell"])), row)
        for row in tables.get("search", ()):
            own = {name: row[name] for name in ("data", "method", "settings")}
            for seed, reached in zip(SEARCH_SEEDS, row["val_accuracy"], strict=True):
                cell = Cell({"study": "search", **own, "seed": seed})
                if cell.key == key:
                    return _beside(cell, {"val_accuracy": reached})
    print(f"no recorded run has the key {key}; --list shows them", file=sys.stderr)
    return 2


def _beside(cell: Cell, known: Mapping[str, Any]) -> int:
    print(cell.as_options())
    run = RUN_CELL.get(cell["study"], run_cell)
    print(compare_cell(cell, run, known).round(5).to_string())
    return 0


def verify(folder: Path, count: int) -> int:
    """Make some runs of each stale record again; where all agree, it is current again.

    Code changes more often than what it computes. The record then keeps how many of its runs were
    made again, and with which commit.

    Args:
        folder: where the parts are.
        count: runs of each record, drawn at random.

    Returns:
        The exit status: 1 where a run came out differently; its record stays as it is.
    """
    differing = 0
    for part, name in product(PARTS, KNOWN):
        path = folder / part / f"{name}.json"
        if not path.exists() or not stale_because(record := load_record(path)):
            continue
        runs = record["tables"]["runs"]
        drawn = np.random.default_rng(len(runs)).permutation(len(runs))[:count]
        off = [key for key in map(_differs, (runs[row] for row in drawn)) if key]
        print(f"{path}: {len(drawn)} runs made again, {len(off)} differ {' '.join(off)}".rstrip())
        differing += len(off)
        if not off:
            keep_as_current(path, record, CODE[part], runs=len(drawn))
    return int(differing > 0)


def _differs(row: Mapping[str, Any]) -> str | None:
    """The key of a recorded run that comes out differently now."""
    cell = Cell(json.loads(row["cell"]))
    table = compare_cell(cell, RUN_CELL.get(cell["study"], run_cell), row)
    gaps = table.loc[["val_accuracy", "test_accuracy"], "difference"]
    return None if (gaps.abs() < 1e-5).all() else row["key"]


def refilled(parts: Sequence[str], data: Sequence[str], folder: Path) -> int:
    """Take the runs of current records as done; how many. Records of changed code are left out."""
    count = 0
    for part, name in product(parts, data):
        path = folder / part / f"{name}.json"
        if not path.exists():
            continue
        if stale := stale_because(load_record(path)):
            print(f"{path}: all is run again, {stale}; see --verify")
            continue
        study, seeds = (
            ("networks", NETWORK_SEEDS) if part == "networks" else ("search", SEARCH_SEEDS)
        )
        count += refill(
            path, kept(), f"benchmarks.{_module(part)}:run_cell", CODE[part], study, seeds
        )
    return count


def listed(data: Sequence[str], options: argparse.Namespace) -> list[Cell]:
    """The cells of the parts that were asked for, as far as the chosen settings are known."""
    known, chosen = [n for n in data if n in CASES], known_settings(data, options.folder)
    of_part = {
        "main": lambda: studies.search_cells(known) + studies.main_cells(known, chosen),
        "ablations": lambda: ablations.ablation_cells(known, chosen),
        "networks": lambda: networks.network_cells([n for n in data if n in NETWORKS]),
        "confirmation": lambda: confirmation.confirmation_cells(
            [n for n in data if n in UNSEEN], known_settings([*FROM.values()], options.folder)
        ),
    }
    return [cell for part in options.parts or PARTS for cell in of_part[part]()]


def _options() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    names = "data sets: " + ", ".join(KNOWN)
    every = [*MEASURED, *NETWORKS, *UNSEEN]
    parser.add_argument("--data", nargs="+", default=every, metavar="NAME", help=names)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"default: {FOLDER}")
    again = "make so many runs of each stale record again; where all agree, it is current again"
    parser.add_argument("--verify", type=int, metavar="COUNT", help=again)
    words = "take the runs of current records as done, and run what they lack, such as a new method"
    parser.add_argument("--known", action="store_true", help=words)
    sweep_arguments(parser)
    options = parser.parse_args()
    for kind, asked, known in (("part", options.parts, PARTS), ("data set", options.data, KNOWN)):
        for unknown in set(asked) - set(known):
            parser.error(f"unknown {kind} {unknown!r}; choose from: {', '.join(known)}")
    return parser, options


def main() -> int:
    parser, options = _options()
    if options.verify:
        return verify(options.folder, options.verify)
    if options.cell:
        return run_again(options.cell, options.folder)
    here = [name for name in options.data if KNOWN[name].is_present()]
    if absent := [name for name in options.data if name not in here]:
        print(f"left out, not on this machine (genkl data list): {', '.join(absent)}")
    wanted = options.only.get("data", ())
    if gone := set(absent) & set(wanted if isinstance(wanted, tuple) else [wanted]):
        names = ", ".join(sorted(gone))
        parser.error(f"--only data: {names} not on this machine; see: python -m genkl data list")
    stop_on_term()
    if options.known:
        count = refilled(options.parts or PARTS, here, options.folder)
        print(f"{count} runs are known from records")
    work = {"main": run_main, "ablations": run_ablations, "networks": run_networks}
    work["confirmation"] = run_confirmation
    try:
        if options.list:
            cells = listed(here, options)
            print(listing(kept(), select(cells, options.only)))
            return 0
        at_once = [here] if options.only else [[name] for name in here]
        sweeps = [
            done
            for part in options.parts or PARTS
            for data in at_once
            if (own := [name for name in data if name in OWN_DATA.get(part, CASES)])
            for done in work[part](own, options)
        ]
    except ValueError as error:
        parser.error(str(error))
    if here and not sweeps:
        parser.error(f"{', '.join(options.parts)} is not for {', '.join(here)}")
    return max(map(exit_status, sweeps), default=0)


if __name__ == "__main__":
    sys.exit(main())
