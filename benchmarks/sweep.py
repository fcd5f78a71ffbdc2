"""How are hundreds of runs made, interrupted, gone on with, and made again one by one?

A `Cell` names one run by its settings. `run_sweep` calls a function for every cell that has no
current result, on the cores of this machine or of a cluster, and writes each result to a file of
its own as soon as it is there. Nothing here knows what is run.

On one machine the engine is joblib: worker processes that are started once and reused. With
``cluster`` the same calls go to the workers of a Dask scheduler, wherever those run. Their results
come back and are written here: they need the code and the data, but no common folder for results.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import json
import math
import os
import shlex
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

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from genkl.provenance import code_fingerprint, code_fingerprints, provenance
from genkl.storage import DamagedFileError, load_json, save_json

Settings = Mapping[str, Any]
Result = Mapping[str, Any] | Sequence[Mapping[str, Any]]
ADDED = ("seconds", "key", "cell", "state")
"""Columns that `gather` adds; neither settings nor results can have these names."""


class WorkerError(RuntimeError):
    """A worker that can't do the work: it has other code, or several threads share it."""


# -- cells ----------------------------------------------------------------------------------------


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Cell(Mapping[str, Any]):
    """The settings of one run, by name: numbers, text, None, and lists or mappings of those.

    Two cells are the same run if their settings are equal as JSON, in whatever order. So 1, 1.0
    and True are three settings, a tuple is a list, and a NumPy number is the number it holds.

    Args:
        settings: keyword arguments of the function that makes the run.

    Raises:
        TypeError: a value that JSON hasn't, or a name that no argument can have.
        ValueError: NaN or infinity, a column that `gather` adds, or no settings.
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
        object.__setattr__(self, "text", json.dumps(_plain(settings), sort_keys=True))
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


def _plain(value: Any, name: str = "") -> Any:
    """What JSON holds and gives back unchanged."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{name or 'a mapping'} has the name {odd[0]!r}; names are text")
        return {key: _plain(one, f"{name}.{key}".lstrip(".")) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, f"{name}.{at}") for at, one in enumerate(value)]
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
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(constant: str) -> None:
    """NaN and infinity are text here, as in JSON proper."""
    raise ValueError(constant)


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
    cells = list(cells)
    asked = {name: value if isinstance(value, tuple) else (value,) for name, value in only.items()}

    def has(cell: Cell, name: str, values: tuple) -> bool:
        return name in cell and any(_same(cell[name], value) for value in values)

    found = [cell for cell in cells if all(has(cell, *one) for one in asked.items())]
    if found or not only:
        return found
    there = dict.fromkeys(name for cell in cells for name in cell)
    for name in asked:
        if name not in there:
            raise ValueError(f"no cell has a setting {name!r}; there are {', '.join(there)}")
    known = {name: sorted({json.dumps(cell[name]) for cell in cells if name in cell})
             for name in asked}  # fmt: skip
    words = "; ".join(f"{name} is one of {', '.join(values)}" for name, values in known.items())
    raise ValueError(f"no cell has {dict(only)}: {words}")


def _same(one: Any, other: Any) -> bool:
    """1 and 1.0 are the same to somebody who selects; 1 and True are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


# -- the sweep ------------------------------------------------------------------------------------


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
    cells, folder = tuple(cells), Path(folder)
    _check(cells, jobs, rerun)
    name, function = _importable(function)
    prints = code_fingerprints(code)
    folder.mkdir(parents=True, exist_ok=True)

    def is_due(cell: Cell) -> bool:
        found = read_cell(folder, cell)
        if found is None or "result" not in found or rerun == "all":
            return True
        return rerun == "stale" and not is_current(found, prints, name)

    todo = [cell for cell in cells if is_due(cell)]
    work = functools.partial(_run, function, prints)
    keep = functools.partial(_keep, folder.absolute(), name, prints)
    if cluster is None:
        done = _local(work, keep, todo, jobs)
    else:
        done = _on_cluster(work, keep, todo, cluster)
    bar = tqdm(total=len(cells), initial=len(cells) - len(todo), desc=progress, unit="cell",
               smoothing=0, disable=progress is None)  # fmt: skip
    failed: dict[Cell, str] = {}
    try:
        with bar, closing(done):
            for cell, outcome in done:
                if "error" in outcome:
                    failed[cell] = outcome["error"].strip().splitlines()[-1]
                    bar.set_postfix_str(f"{len(failed)} failed")
                bar.update()
    except KeyboardInterrupt:
        print(f"interrupted: finished cells are kept in {folder}; the same command goes on",
              file=sys.stderr)  # fmt: skip
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


def _importable(function: Callable[..., Result] | str) -> tuple[str, Callable[..., Result] | str]:
    """Its name, and what workers get: the name again, or the function if it can't be imported."""
    if isinstance(function, str):
        _load(function)
        return function, function
    module = function.__module__
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if module == "__main__" and spec is not None:
        module = spec.name
    name = f"{module}:{function.__qualname__}"
    by_value = module == "__main__" or "<" in function.__qualname__
    return name, function if by_value else name


def _load(function: Callable[..., Result] | str) -> Callable[..., Result]:
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{function!r} can't be imported ({error}); start in the folder that holds it, or put "
            "that on PYTHONPATH",
            name=error.name,
        ) from error
    except AttributeError as error:
        raise ValueError(f"{module} has no {name!r}; name a function as 'module:name'") from error


def is_current(
    found: Mapping[str, Any] | None,
    fingerprints: Mapping[str, str],
    function: str | None = None,
) -> bool:
    """Whether a cell's file holds a result of this code.

    Args:
        found: from `read_cell`.
        fingerprints: from `code_fingerprints`.
        function: its name; None doesn't mind.
    """
    return (
        found is not None
        and "result" in found
        and found["code"] == dict(fingerprints)
        and function in (None, found["function"])
    )


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
    now = functools.cache(_fingerprint)

    def state(found: Mapping[str, Any] | None) -> str:
        if found is None:
            return "missing"
        if "error" in found:
            return "failed"
        modules = found["code"] if code is None else code
        return "current" if is_current(found, {m: now(m) for m in modules}) else "stale"

    return {cell: state(read_cell(folder, cell)) for cell in cells}


def _fingerprint(module: str) -> str | None:
    """None where there is no such module any more."""
    try:
        return code_fingerprint(module)
    except ValueError:
        return None


def gather(
    folder: str | os.PathLike[str],
    cells: Iterable[Cell],
    *,
    code: Sequence[str] | None = None,
    every: bool = False,
) -> pd.DataFrame:
    """Finished cells as rows: settings, the result's values, ``seconds``, ``key`` and ``cell``.

    Args:
        folder: of `run_sweep`.
        cells: in the order of the rows.
        code: see `status`.
        every: show cells without a result, too, and a column ``state``.

    Returns:
        One row per cell, or as many as its result has. ``cell`` holds the settings as text: a
        table may turn 5 into 5.0 or None into NaN. Results of other code are among them, with a
        warning.
    """
    rows, states = [], status(folder, cells, code)
    for cell, state in states.items():
        found = read_cell(folder, cell) if state != "missing" else None
        if not every and (found is None or "result" not in found):
            continue
        result = (found or {}).get("result", {})
        more = {"seconds": (found or {}).get("seconds"), "key": cell.key, "cell": cell.text}
        if every:
            more["state"] = state
        rows += [{**cell, **row, **more} for row in _rows(result)]
    if stale := list(states.values()).count("stale"):
        warnings.warn(f"{stale} of {len(states)} results are of other code", stacklevel=2)
    return pd.DataFrame(rows)


def _rows(result: Result) -> Sequence[Mapping[str, Any]]:
    return [result] if isinstance(result, Mapping) else result


# -- on the command line --------------------------------------------------------------------------


class _Only(argparse.Action):
    """Settings by name; a name that is repeated allows each of its values."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        only: dict[str, Any] = dict(getattr(namespace, self.dest))
        try:
            pairs = [parse_setting(text) for text in values]
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        for name, value in pairs:
            only[name] = (*only[name], value) if name in only else (value,)
        setattr(namespace, self.dest, only)


def sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every sweep has: what to run, and where."""
    group = parser.add_argument_group("sweep")
    group.add_argument(
        "--jobs", type=int, default=2, metavar="N",
        help="processes on this machine, one thread each (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--cluster", metavar="ADDRESS",
        help="run on the workers of a Dask scheduler: tcp://host:8786, or its scheduler file",
    )  # fmt: skip
    group.add_argument(
        "--only", nargs="+", action=_Only, default={}, metavar="NAME=VALUE",
        help="cells with these settings; a name that is repeated allows each of its values",
    )  # fmt: skip
    group.add_argument(
        "--rerun", choices=("stale", "all", "never"), default="stale",
        help="finished cells to run again: of other code, all, or none (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--cell", metavar="KEY", help="run one again, beside its recorded result")
    group.add_argument("--list", action="store_true", help="list the cells, and run nothing")


def listing(
    folder: str | os.PathLike[str], cells: Iterable[Cell], code: Sequence[str] | None = None
) -> str:
    """A line for each cell, with its state, key and settings, then how many there are of each."""
    states = status(folder, cells, code)
    lines = [f"{state:<8} {cell.key}  {cell.as_options()}" for cell, state in states.items()]
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).items())
    return "\n".join([*lines, f"{len(states)} cells: {counts}"])


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
        now = _numbers(_plain(_load(function)(**cell)))
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
    if isinstance(value, list | tuple):
        value = {str(at): one for at, one in enumerate(value)}
    if not isinstance(value, Mapping):
        return {}
    parts = (_numbers(one, f"{name}.{key}".lstrip(".")) for key, one in value.items())
    return {dotted: number for part in parts for dotted, number in part.items()}


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

Outcome = dict[str, Any]
Work = Callable[[Cell], Outcome]
Keep = Callable[[Cell, Outcome], tuple[Cell, Outcome]]


def _run(function: Callable[..., Result] | str, code: Mapping[str, str], cell: Cell) -> Outcome:
    """In a worker: what a cell comes to."""
    run = _load(function)
    if other := [module for module in code if _as_loaded(module) != code[module]]:
        raise WorkerError(
            f"a worker has another {', '.join(other)} than this sweep: bring both to the same "
            "source, and start Python and the workers anew"
        )
    start = time.perf_counter()
    try:
        with _one_thread():
            outcome = {"result": _plain(run(**cell))}
        _check_names(outcome["result"], cell)
    except (Exception, SystemExit):
        outcome = {"error": traceback.format_exc()}
    seconds = round(time.perf_counter() - start, 3)
    return {**outcome, "seconds": seconds, "provenance": provenance()}


def _keep(
    folder: Path, function: str, code: Mapping[str, str], cell: Cell, outcome: Outcome
) -> tuple[Cell, Outcome]:
    made = {"settings": dict(cell), "function": function, "code": code, **outcome}
    save_json(folder / f"{cell.key}.json", made)
    return cell, outcome


def _run_and_keep(work: Work, keep: Keep, cell: Cell) -> tuple[Cell, Outcome]:
    """In a process of this machine: what is done is kept even if its caller is gone."""
    return keep(cell, work(cell))


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


def _died(error: Exception) -> Outcome:
    why = str(error).strip().splitlines()[0]
    return {"error": f"its process died: {why}", "seconds": None, "provenance": provenance()}


def _local(
    work: Work, keep: Keep, cells: Sequence[Cell], jobs: int
) -> Iterator[tuple[Cell, Outcome]]:
    """In whatever order they are done. If a process dies, the cells it may have had run alone."""
    call = functools.partial(_run_and_keep, work, keep)
    if jobs == 1:
        yield from map(call, cells)
        return
    left, begun = dict.fromkeys(cells), []

    def calls() -> Iterator:
        for cell in tuple(left):
            begun.append(cell)
            yield delayed(call)(cell)

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
                    yield from _pool(jobs)([delayed(call)(suspect)])
                except TerminatedWorkerError as error:
                    yield keep(suspect, _died(error))


def _pool(jobs: int) -> Parallel:
    """Processes that outlive the call: a library is imported once in each."""
    return Parallel(
        jobs, backend="loky", return_as="generator_unordered", batch_size=1, pre_dispatch=jobs,
        inner_max_num_threads=1,
    )  # fmt: skip


def _on_cluster(
    work: Work, keep: Keep, cells: Sequence[Cell], cluster: Any
) -> Iterator[tuple[Cell, Outcome]]:
    """In whatever order they are done; Dask gives a dead worker's cell to three others.

    Not through joblib's own Dask backend: it waits for ever for a cell whose workers die, and
    runs everything in the caller while there is a single worker.
    """
    try:
        from dask.distributed import CancelledError, Client, KilledWorker, as_completed
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a cluster needs Dask; pip install 'genkl[cluster]'", name=error.name
        ) from None
    is_file = isinstance(cluster, os.PathLike) or str(cluster).endswith(".json")
    if is_file and not Path(cluster).exists():
        print(f"waiting for: dask scheduler --scheduler-file {cluster}", file=sys.stderr)
    try:
        client = Client(scheduler_file=cluster) if is_file else Client(cluster)
    except (OSError, TimeoutError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {cluster} ({error}); start one with 'dask scheduler'"
        ) from error
    with client:
        address = client.scheduler.address
        if not client.nthreads():
            print(f"waiting for workers: dask worker --nthreads 1 {address}", file=sys.stderr)
        waiting = {
            client.submit(_run_there, work, cell, key=f"{cell.key}-{uuid.uuid4().hex}"): cell
            for cell in cells
        }
        try:
            for future in as_completed(list(waiting)):
                cell = waiting.pop(future)
                try:
                    outcome = future.result()
                except KilledWorker as error:
                    outcome = _died(error)
                except CancelledError as error:
                    raise ConnectionError(
                        f"the Dask scheduler at {address} went away; start it, and the same "
                        "command goes on"
                    ) from error
                yield keep(cell, outcome)
        finally:
            client.cancel(list(waiting))


def _run_there(work: Work, cell: Cell) -> Outcome:
    """On a worker of Dask: threads would share one random generator."""
    from dask.distributed import get_worker

    if (threads := get_worker().state.nthreads) > 1:
        raise WorkerError(f"a worker has {threads} threads; start it with --nthreads 1")
    return work(cell)
