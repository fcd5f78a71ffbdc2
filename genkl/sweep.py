"""How are hundreds of runs made, interrupted, gone on with, and made again one by one?

A `Cell` names one run by its settings. `run_sweep` calls a function for every cell that has no
current result, on the cores of this machine or of a cluster, and writes each result to a file of
its own as soon as it is there. Nothing here knows what is run.

The engine is joblib: worker processes that are started once and reused. With ``cluster`` the same
calls go to the workers of a Dask scheduler, wherever those run; results come back and are written
here, so workers need the code and the data, but no common folder for results.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import shlex
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from genkl.provenance import code_fingerprints, provenance
from genkl.storage import write_json

Settings = Mapping[str, Any]


class Cell(dict):
    """The settings of one run: names and plain values (numbers, text, None, lists, mappings).

    Two cells are the same run if their settings are equal as JSON, in whatever order; 1 and 1.0
    differ, as they do there.

    Raises:
        TypeError: a value that JSON hasn't, or a name that isn't text.
        ValueError: NaN or infinity, or no settings.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings:
            raise ValueError("a cell without settings names no run; state some")
        if any(not isinstance(name, str) for name in settings):
            raise TypeError(f"names of settings are text; got {list(settings)}")
        super().__init__(settings)
        self.text = json.dumps(settings, sort_keys=True, allow_nan=False)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.text == other.text

    def __reduce__(self):
        return Cell, (dict(self),)

    @property
    def key(self) -> str:
        """Short name, the same on every machine; the name of the result's file."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def as_options(self) -> str:
        """Its settings for a command line, see `parse_setting`."""
        return " ".join(shlex.quote(f"{n}={_written(value)}") for n, value in self.items())


def _written(value: Any) -> str:
    """Text stays bare unless it would be read as something else."""
    if isinstance(value, str) and isinstance(_read(value), str) and _read(value) == value:
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
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text!r} is no setting; write name=value")
    return name, _read(value)


def select(cells: Iterable[Cell], only: Settings) -> list[Cell]:
    """Cells that have these settings.

    Raises:
        ValueError: none has; the message says which values there are.
    """
    cells = list(cells)
    found = [cell for cell in cells if all(name in cell and cell[name] == value
                                           for name, value in only.items())]  # fmt: skip
    if found or not only:
        return found
    known = {name: sorted({json.dumps(cell[name]) for cell in cells if name in cell})
             for name in only}  # fmt: skip
    words = "; ".join(f"{name} is one of {', '.join(map(str, v))}" for name, v in known.items())
    raise ValueError(f"no cell has {dict(only)}: {words}")


@dataclass(frozen=True)
class Sweep:
    """What a sweep came to.

    Attributes:
        folder: where the results are.
        cells: all that were asked for.
        failed: those that raised, with the last line of why.
        ran: how many were run now; the others were there.
    """

    folder: Path
    cells: tuple[Cell, ...]
    failed: Mapping[Cell, str]
    ran: int

    def table(self) -> pd.DataFrame:
        """One row per finished cell: settings, then results; see `gather`."""
        return gather(self.folder, self.cells)


def run_sweep(
    cells: Iterable[Cell],
    function: Callable[..., Mapping[str, Any]] | str,
    folder: str | os.PathLike[str],
    *,
    jobs: int = 2,
    cluster: str | None = None,
    code: Sequence[str] = (),
    rerun: bool = False,
    progress: str | None = "cells",
) -> Sweep:
    """Run every cell that has no current result.

    A result is current if it was made with the same settings and the same source of ``code``. A
    cell that raises is reported, kept as a failure, and doesn't stop the others; it is tried again
    next time. Ctrl-C and kill lose the runs in progress and nothing else.

    Args:
        cells: in the order in which they are started.
        function: called with a cell's settings as keyword arguments, returns plain values by
            name. As text, "package.module:function".
        folder: a file per result; made if need be.
        jobs: worker processes on this machine; 1 runs in this process. Each worker has one
            thread, since so many small runs gain nothing from more.
        cluster: address of a Dask scheduler, such as "tcp://host:8786"; its workers run the cells
            instead.
        code: modules whose source decides the results.
        rerun: run even what is current.
        progress: name of the bar; None shows none.

    Returns:
        What there is now.

    Raises:
        ValueError: jobs less than 1, or the same cell twice.
        ModuleNotFoundError: a cluster without the extra ``cluster``.
    """
    cells = tuple(cells)
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; use at least 1")
    if len(set(cells)) < len(cells):
        twice = next(cell for cell in cells if cells.count(cell) > 1)
        raise ValueError(f"{dict(twice)} is there twice; every cell is run once")
    folder, code = Path(folder), tuple(code)
    folder.mkdir(parents=True, exist_ok=True)
    prints = code_fingerprints(code)
    todo = [c for c in cells if rerun or not is_current(read_cell(folder, c), prints)]
    name = function if isinstance(function, str) else f"{function.__module__}:{function.__name__}"
    bar = tqdm(total=len(cells), initial=len(cells) - len(todo), desc=progress, unit="cell",
               disable=progress is None)  # fmt: skip
    failed = {}
    with bar, _workers(jobs, cluster) as parallel:
        for cell, outcome in parallel(delayed(_run)(function, cell) for cell in todo):
            made = {"settings": dict(cell), "function": name, "code": prints, **outcome}
            write_json(folder / f"{cell.key}.json", made)
            if "error" in outcome:
                failed[cell] = outcome["error"].strip().splitlines()[-1]
                bar.set_postfix_str(f"{len(failed)} failed")
            bar.update()
    return Sweep(folder, cells, failed, len(todo))


def read_cell(folder: str | os.PathLike[str], cell: Cell) -> dict[str, Any] | None:
    """A cell's file, or None where there is none, or a damaged one (with a warning)."""
    path = Path(folder) / f"{cell.key}.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["settings"] == dict(cell) and ("result" in found or "error" in found):
            return found
        reason = "it holds another cell"
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it can't be read ({error})"
    warnings.warn(f"{path} is ignored, {reason}; the cell is run again", stacklevel=2)
    return None


def is_current(found: Mapping[str, Any] | None, fingerprints: Mapping[str, str]) -> bool:
    """Whether a cell's file holds a result of this code."""
    return found is not None and "result" in found and found["code"] == dict(fingerprints)


def gather(folder: str | os.PathLike[str], cells: Iterable[Cell]) -> pd.DataFrame:
    """Finished cells as rows: settings, the result's values, ``seconds``, ``key`` and ``cell``.

    ``cell`` holds the settings as text: a table may turn 5 into 5.0 or None into NaN. Cells
    without a result are left out; see `status`.
    """
    rows = []
    for cell in cells:
        found = read_cell(folder, cell)
        if found is not None and "result" in found:
            more = {"seconds": found["seconds"], "key": cell.key, "cell": cell.text}
            rows.append({**cell, **found["result"], **more})
    return pd.DataFrame(rows)


def status(
    folder: str | os.PathLike[str], cells: Iterable[Cell], code: Sequence[str] = ()
) -> dict[str, int]:
    """How many cells are current, stale, failed and missing."""
    prints, counts = code_fingerprints(code), {"current": 0, "stale": 0, "failed": 0, "missing": 0}
    for cell in cells:
        found = read_cell(folder, cell)
        if found is None:
            counts["missing"] += 1
        elif "error" in found:
            counts["failed"] += 1
        else:
            counts["current" if is_current(found, prints) else "stale"] += 1
    return counts


def sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every sweep has: what to run, and where."""
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--cluster", metavar="ADDRESS", help="of a Dask scheduler, tcp://host:8786")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME=VALUE", type=parse_setting,
        help="cells with these settings",
    )  # fmt: skip
    parser.add_argument("--cell", metavar="KEY", help="run one again, beside its recorded result")
    parser.add_argument("--list", action="store_true", help="list the cells, and run nothing")


def compare_cell(
    cell: Cell, function: Callable[..., Mapping[str, Any]], recorded: Mapping[str, Any] | None
) -> pd.DataFrame:
    """Run a cell now, and put its numbers beside the recorded ones.

    Args:
        cell: to run.
        function: see `run_sweep`.
        recorded: the result it had, or None.

    Returns:
        One row per number, columns ``recorded``, ``now``, ``difference``.
    """
    now = function(**cell)
    numbers = {n: v for n, v in now.items() if isinstance(v, int | float)}
    table = pd.DataFrame({"recorded": pd.Series(recorded or {}, dtype=object), "now": numbers})
    table = table.loc[list(numbers)].astype(float)
    return table.assign(difference=table["now"] - table["recorded"])


# -- workers --------------------------------------------------------------------------------------


def _run(function: Callable[..., Mapping[str, Any]] | str, cell: Cell):
    """In a worker: a cell and what it came to."""
    import torch

    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        if isinstance(function, str):
            module, _, name = function.partition(":")
            function = getattr(importlib.import_module(module), name)
        outcome = {"result": dict(function(**cell))}
        json.dumps(outcome, allow_nan=False)
    except Exception:
        outcome = {"error": traceback.format_exc()}
    seconds = round(time.perf_counter() - start, 3)
    return cell, {**outcome, "seconds": seconds, "provenance": provenance()}


@contextmanager
def _workers(jobs: int, cluster: str | None) -> Iterator[Callable[[Iterable], Iterable]]:
    """Calls what it is given, in whatever order it is done."""
    if cluster is not None:
        try:
            from dask.distributed import Client
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "a cluster needs Dask; pip install 'genkl[cluster]'", name=error.name
            ) from None
        with Client(cluster), parallel_config("dask"):
            yield Parallel(return_as="generator_unordered")
    elif jobs == 1:
        yield lambda calls: (call(*args, **options) for call, args, options in calls)
    else:
        with parallel_config("loky", inner_max_num_threads=1):
            parallel = Parallel(jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs",
                                batch_size=1)  # fmt: skip
            yield parallel


def exit_status(sweep: Sweep) -> int:
    """0, or 1 with a list of what failed."""
    for cell, why in sweep.failed.items():
        print(f"failed: {cell.as_options()}: {why}")
    return 1 if sweep.failed else 0


def stop_on_term() -> None:
    """Let SIGTERM, which schedulers send first, end a sweep as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
