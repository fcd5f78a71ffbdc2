"""Sweeps: many runs on the cores of a machine or of a cluster, kept one by one and gone on with.

A `Cell` names one run by its settings. `run_sweep` calls a function for every cell that has no
current result, and writes each result to a file of its own as soon as it is there. Nothing here
knows what is run.

On one machine the engine is joblib: worker processes that are started once and reused. With
``cluster`` the same calls go to the workers of a Dask scheduler, wherever those run. Their results
come back and are written here: they need the code and the data, but no common folder for results.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import signal
import sys
import time
import traceback
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from benchmarks.cells import ADDED, Cell, as_json, parse_setting, select
from genkl.provenance import changed_modules, code_fingerprint, code_fingerprints, provenance
from genkl.storage import DamagedFileError, load_json, save_json

__all__ = ["Cell", "Sweep", "WorkerError", "compare_cell", "gather", "listing", "parse_setting"]
__all__ += ["read_cell", "run_sweep", "select", "status", "sweep_arguments"]

Result = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Outcome = dict[str, Any]
Call = Callable[[Cell], Outcome]


class WorkerError(RuntimeError):
    """A worker that can't do the work: it has other code, or several threads share it."""


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
    cells: Iterable[Cell | Mapping[str, Any]],
    function: Callable[..., Result] | str,
    folder: str | os.PathLike[str],
    *,
    jobs: int = 2,
    cluster: Any = None,
    code: Sequence[str] = (),
    rerun: Literal["stale", "all", "never"] = "stale",
    progress: str | None = "cells",
) -> Sweep:
    """Run every cell that has no current result.

    A result is current if it was made by the same function with the same settings and the same
    source of ``code``. A cell that raises, or whose process dies, is kept as a failure and doesn't
    stop the others; it is tried again next time. Ctrl-C and kill lose the runs in progress and
    nothing else. Every run has one thread, wherever it runs: many small runs gain nothing from
    more, and their last digits would depend on the number.

    Args:
        cells: in the order in which they are started.
        function: called with a cell's settings as keyword arguments, returns plain values by
            name, or several such rows. As text, "package.module:function". It has to seed itself.
        folder: a file per result; made if need be.
        jobs: worker processes on this machine; 1 runs in this process.
        cluster: address of a Dask scheduler, such as "tcp://host:8786", its scheduler file, or a
            cluster object of Dask. Its workers run the cells, as many at once as there are.
        code: modules whose source decides the results.
        rerun: which finished cells are run again: those of other code, all, or none.
        progress: name of the bar; None shows none.

    Returns:
        What there is now.

    Raises:
        ValueError: jobs less than 1, the same cell twice, or an unknown ``rerun``.
        ModuleNotFoundError: no such function, or a cluster without the extra ``cluster``.
        ConnectionError: no scheduler answers, or it went away.
        WorkerError: a worker has other code than this process, or several threads.
    """
    cells = tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)
    folder = Path(folder).absolute()
    _check(cells, jobs, rerun)
    _load(function)
    job = _Job(_name(function), function, code_fingerprints(code), folder)
    folder.mkdir(parents=True, exist_ok=True)
    todo = [cell for cell in cells if job.is_due(cell, rerun)]
    done = _local(job, todo, jobs) if cluster is None else _on_cluster(job, todo, cluster)
    bar = tqdm(
        total=len(cells),
        initial=len(cells) - len(todo),
        desc=progress,
        unit="cell",
        smoothing=0,
        disable=progress is None,
    )
    failed: dict[Cell, str] = {}
    try:
        with bar, closing(done):
            for cell, outcome in done:
                if "error" in outcome:
                    failed[cell] = outcome["error"].strip().splitlines()[-1]
                    bar.set_postfix_str(f"{len(failed)} failed")
                bar.update()
    except KeyboardInterrupt:
        words = f"interrupted: finished cells are kept in {folder}; the same command goes on"
        print(words, file=sys.stderr)
        raise
    return Sweep(folder, cells, failed, len(todo))


def _check(cells: Sequence[Cell], jobs: int, rerun: str) -> None:
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; use at least 1")
    if rerun not in ("stale", "all", "never"):
        raise ValueError(f"rerun is {rerun!r}; use 'stale', 'all' or 'never'")
    cell, times = Counter(cells).most_common(1)[0] if cells else (None, 1)
    if times > 1:
        raise ValueError(f"{cell} is there {times} times; every cell is run once")


def _load(function: Callable[..., Result] | str) -> Callable[..., Result]:
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except ModuleNotFoundError as error:
        words = "start in the folder that holds it, or put that on PYTHONPATH"
        raise ModuleNotFoundError(
            f"{function!r} can't be imported ({error}); {words}", name=error.name
        ) from error
    except AttributeError as error:
        raise ValueError(f"{module} has no {name!r}; name a function as 'module:name'") from error


def _name(function: Callable[..., Result] | str) -> str:
    """The function's, which is the same whether its module is run or imported."""
    if isinstance(function, str):
        return function
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    is_run = function.__module__ == "__main__" and spec is not None
    return f"{spec.name if is_run else function.__module__}:{function.__qualname__}"


# -- results --------------------------------------------------------------------------------------


def read_cell(folder: str | os.PathLike[str], cell: Cell) -> dict[str, Any] | None:
    """A cell's file, or None where there is none, or a damaged one (with a warning)."""
    path = Path(folder) / f"{cell.key}.json"
    try:
        found = load_json(path)
        if Cell(found["settings"]) == cell and ("result" in found or "error" in found):
            return found
        reason = f"{path} holds another cell"
    except FileNotFoundError:
        return None
    except (DamagedFileError, KeyError, TypeError, ValueError) as error:
        reason = str(error)
    warnings.warn(f"{reason}; it is ignored, and the cell run again", stacklevel=2)
    return None


def status(
    folder: str | os.PathLike[str], cells: Iterable[Cell], code: Sequence[str] | None = None
) -> dict[Cell, str]:
    """Whether each cell is "current", "stale", "failed" or "missing".

    Args:
        folder: of `run_sweep`.
        cells: to look for.
        code: modules that should have made the results; None takes those that each file names.
    """
    prints = None if code is None else code_fingerprints(code)
    return {cell: _state(read_cell(folder, cell), prints) for cell in cells}


def _state(found: Mapping[str, Any] | None, prints: Mapping[str, str] | None) -> str:
    if found is None:
        return "missing"
    if "error" in found:
        return "failed"
    changed = changed_modules(found["code"]) if prints is None else found["code"] != prints
    return "stale" if changed else "current"


def gather(folder: str | os.PathLike[str], cells: Iterable[Cell]) -> pd.DataFrame:
    """Finished cells as rows: settings, the result's values, ``seconds``, ``key`` and ``cell``.

    Args:
        folder: of `run_sweep`.
        cells: in the order of the rows.

    Returns:
        One row per cell, or as many as its result has. ``cell`` holds the settings as text: a
        table may turn 5 into 5.0 or None into NaN. Results of other code are among them, with a
        warning.
    """
    found = {cell: read_cell(folder, cell) for cell in cells}
    states = [_state(file, None) for file in found.values()]
    if stale := states.count("stale"):
        warnings.warn(f"{stale} of {len(states)} results are of other code", stacklevel=2)
    return pd.DataFrame(
        {**cell, **row, "seconds": file["seconds"], "key": cell.key, "cell": cell.text}
        for cell, file in found.items()
        if file is not None
        for row in _rows(file.get("result", []))
    )


def _rows(result: Result) -> Sequence[Mapping[str, Any]]:
    return [result] if isinstance(result, Mapping) else result


def compare_cell(
    cell: Cell, function: Callable[..., Result] | str, recorded: Result | None
) -> pd.DataFrame:
    """Run a cell now, and put its numbers beside the recorded ones.

    Args:
        cell: to run.
        function: see `run_sweep`.
        recorded: the result it had, or None.

    Returns:
        One row per number, columns ``recorded``, ``now``, ``difference``. Numbers in lists and
        mappings have dotted names; they are left out if none was recorded.
    """
    with _one_thread():
        now = _numbers(as_json(_load(function)(**cell)))
    then = _numbers(recorded or {})
    names = [name for name in now if name in then or "." not in name or not recorded]
    table = pd.DataFrame(
        {"recorded": [then.get(name) for name in names], "now": [now[name] for name in names]},
        index=names,
        dtype=float,
    )
    return table.assign(difference=table["now"] - table["recorded"])


def _numbers(value: Any, name: str = "") -> dict[str, float]:
    """Every number in it, by dotted name."""
    if isinstance(value, int | float):
        return {name: value}
    parts = enumerate(value) if isinstance(value, list | tuple) else ()
    parts = value.items() if isinstance(value, Mapping) else parts
    found = [_numbers(part, f"{name}.{key}".lstrip(".")) for key, part in parts]
    return {dotted: number for numbers in found for dotted, number in numbers.items()}


# -- on the command line --------------------------------------------------------------------------


class _Only(argparse.Action):
    """Settings by name; a name that is repeated allows each of its values."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        only: dict[str, Any] = dict(getattr(namespace, self.dest))
        for text in values:
            try:
                name, value = parse_setting(text)
            except ValueError as error:
                raise argparse.ArgumentError(self, str(error)) from error
            only[name] = (*only.get(name, ()), value)
        setattr(namespace, self.dest, only)


def sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every sweep has: what to run, and where."""
    option = parser.add_argument_group("sweep").add_argument
    words = "processes on this machine, one thread each (default: %(default)s)"
    option("--jobs", type=int, default=2, metavar="N", help=words)
    words = "run on the workers of a Dask scheduler: tcp://host:8786, or its scheduler file"
    option("--cluster", metavar="ADDRESS", help=words)
    words = "cells with these settings; a name that is repeated allows each of its values"
    option("--only", nargs="+", action=_Only, default={}, metavar="NAME=VALUE", help=words)
    words = "finished cells to run again: of other code, all, or none (default: %(default)s)"
    option("--rerun", choices=("stale", "all", "never"), default="stale", help=words)
    option("--cell", metavar="KEY", help="run one again, beside its recorded result")
    option("--list", action="store_true", help="list the cells, and run nothing")


def listing(
    folder: str | os.PathLike[str], cells: Iterable[Cell], code: Sequence[str] | None = None
) -> str:
    """A line for each cell, with its state, key and settings, then how many there are of each."""
    states = status(folder, cells, code)
    lines = [f"{state:<8} {cell.key}  {cell.as_options()}" for cell, state in states.items()]
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).items())
    return "\n".join([*lines, f"{len(states)} cells: {counts}"])


def exit_status(sweep: Sweep) -> int:
    """0, or 1 with a list of what failed."""
    for cell, why in sweep.failed.items():
        print(f"failed: {cell.as_options()}: {why} ({sweep.folder / cell.key}.json)")
    return 1 if sweep.failed else 0


def stop_on_term() -> None:
    """Let SIGTERM, which schedulers send first, end a sweep as Ctrl-C does.

    A process that a shell put into the background ignores SIGINT; it ends, too.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


# -- workers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What is done with every cell: run in a worker, kept by a process of this machine."""

    name: str
    function: Callable[..., Result] | str
    code: Mapping[str, str]
    folder: Path

    def is_due(self, cell: Cell, rerun: str) -> bool:
        """Whether it has no result that will do."""
        found = read_cell(self.folder, cell)
        state = _state(found, self.code)
        is_stale = state == "stale" or (found is not None and found["function"] != self.name)
        return state in ("missing", "failed") or rerun == "all" or (rerun == "stale" and is_stale)

    def run(self, cell: Cell) -> Outcome:
        """In a worker: what a cell comes to."""
        function = _load(self.function)
        if changed := [module for module in self.code if _as_loaded(module) != self.code[module]]:
            raise WorkerError(
                f"a worker has another {', '.join(changed)} than this sweep: bring both to the "
                "same source, and start Python and the workers anew"
            )
        start = time.perf_counter()
        try:
            with _one_thread():
                outcome = {"result": as_json(function(**cell))}
            _check_names(outcome["result"], cell)
        except (Exception, SystemExit):
            outcome = {"error": traceback.format_exc()}
        seconds = round(time.perf_counter() - start, 3)
        return {**outcome, "seconds": seconds, "provenance": provenance()}

    def keep(self, cell: Cell, outcome: Outcome) -> tuple[Cell, Outcome]:
        made = {"settings": dict(cell), "function": self.name, "code": self.code, **outcome}
        save_json(self.folder / f"{cell.key}.json", made)
        return cell, outcome

    def run_and_keep(self, cell: Cell) -> tuple[Cell, Outcome]:
        """In a process of this machine: what is done is kept even if its caller is gone."""
        return self.keep(cell, self.run(cell))

    def keep_death(self, cell: Cell, error: Exception) -> tuple[Cell, Outcome]:
        why = f"its process died: {str(error).strip().splitlines()[0]}"
        return self.keep(cell, {"error": why, "seconds": None, "provenance": provenance()})


_as_loaded = functools.cache(code_fingerprint)
"""A module's fingerprint when this process first asked: what is edited later isn't what runs."""


def _check_names(result: Any, cell: Cell) -> None:
    rows = _rows(result)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise TypeError(f"a result has values by name, or is a list of such rows; got {result!r}")
    for name in (name for row in rows for name in row):
        if name in cell or name in ADDED:
            raise ValueError(f"a result can't be called {name!r}: the table has such a column")


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _local(job: _Job, cells: Sequence[Cell], jobs: int) -> Iterator[tuple[Cell, Outcome]]:
    """In whatever order they are done. If a process dies, the cells it may have had run alone."""
    if jobs == 1:
        yield from map(job.run_and_keep, cells)
        return
    left, begun = dict.fromkeys(cells), []

    def calls() -> Iterator:
        for cell in tuple(left):
            begun.append(cell)
            yield delayed(job.run_and_keep)(cell)

    while left:
        begun.clear()
        try:
            for cell, outcome in _pool(jobs)(calls()):
                del left[cell]
                yield cell, outcome
        except TerminatedWorkerError:
            for suspect in [cell for cell in begun if cell in left]:
                del left[suspect]
                try:
                    yield from _pool(jobs)([delayed(job.run_and_keep)(suspect)])
                except TerminatedWorkerError as error:
                    yield job.keep_death(suspect, error)


def _pool(jobs: int) -> Parallel:
    """Processes that outlive the call: a library is imported once in each."""
    order = {"return_as": "generator_unordered", "batch_size": 1, "pre_dispatch": jobs}
    return Parallel(jobs, backend="loky", inner_max_num_threads=1, **order)


def _on_cluster(job: _Job, cells: Sequence[Cell], cluster: Any) -> Iterator[tuple[Cell, Outcome]]:
    """In whatever order they are done; Dask gives a dead worker's cell to three others.

    Not through joblib's own Dask backend: it waits for ever for a cell whose workers die, and
    runs everything in the caller while there is a single worker.
    """
    try:
        from dask.distributed import CancelledError, KilledWorker, as_completed
    except ModuleNotFoundError as error:
        words = "a cluster needs Dask; pip install 'genkl[cluster]'"
        raise ModuleNotFoundError(words, name=error.name) from None
    with _connected(cluster) as client:
        address = client.scheduler.address
        if not client.nthreads():
            print(f"waiting for workers: dask worker --nthreads 1 {address}", file=sys.stderr)
        waiting = {
            client.submit(_run_there, job.run, cell, key=f"{cell.key}-{uuid.uuid4().hex}"): cell
            for cell in cells
        }
        try:
            for future in as_completed(list(waiting)):
                cell = waiting.pop(future)
                try:
                    yield job.keep(cell, future.result())
                except KilledWorker as error:
                    yield job.keep_death(cell, error)
        except CancelledError as error:
            words = f"the Dask scheduler at {address} went away; start it, and the same command "
            raise ConnectionError(words + "goes on") from error
        finally:
            client.cancel(list(waiting))


def _connected(cluster: Any) -> Any:
    """A client of the scheduler."""
    from dask.distributed import Client

    is_file = isinstance(cluster, os.PathLike) or str(cluster).endswith(".json")
    if is_file and not Path(cluster).exists():
        print(f"waiting for: dask scheduler --scheduler-file {cluster}", file=sys.stderr)
    try:
        return Client(scheduler_file=cluster) if is_file else Client(cluster)
    except (OSError, TimeoutError) as error:
        words = f"no Dask scheduler answers at {cluster} ({error}); start one with 'dask scheduler'"
        raise ConnectionError(words) from error


def _run_there(run: Call, cell: Cell) -> Outcome:
    """On a worker of Dask: threads would share one random generator."""
    from dask.distributed import get_worker

    if (threads := get_worker().state.nthreads) > 1:
        raise WorkerError(f"a worker has {threads} threads; start it with --nthreads 1")
    return run(cell)
