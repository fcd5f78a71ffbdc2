"""A toy benchmark for `test_sweep.py`: ``python -m sweep_runs --help``."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import sweep

FUNCTION = "sweep_runs:run"


def run(log: str, seed: int, scale: float = 1.0, sleep: float = 0.0, fault: str | None = None):
    """Notes the call in a file of its own, then draws numbers."""
    note(log, f"begun-{seed}")
    if fault == "raises":
        raise ArithmeticError(f"seed {seed} does not converge")
    if fault == "exits":
        sys.exit(3)
    if fault == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "waits for company":
        wait_until(lambda: begun(log) > 1)
        time.sleep(1)
    if fault == "is killed in company" and begun(log, seed) == 1:
        wait_until(lambda: running(log) > 1)
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "gives NaN":
        return {"mean": float("nan")}
    if fault == "repeats a setting":
        return {"seed": seed}
    time.sleep(sleep)
    rng = np.random.default_rng(seed)
    drawn = scale * rng.normal(size=400_000)
    weights = torch.from_numpy(drawn[:250_000]).reshape(500, 500)
    note(log, f"ended-{seed}")
    return {
        "mean": drawn.mean(),
        "trace": float((weights @ weights).trace()),
        "count": np.int64(drawn.size),
        "threads": torch.get_num_threads(),
        "parts": [{"first": float(drawn[0])}],
    }


def rows(seed: int):
    """A result of several rows."""
    return [{"step": step, "value": seed + step} for step in range(2)]


def note(log: str, name: str) -> None:
    Path(log, f"{name}-{os.getpid()}-{time.time_ns()}").touch()


def begun(log, seed="*") -> int:
    """How many runs have been started, of one seed or of all."""
    return len(list(Path(log).glob(f"begun-{seed}-*")))


def wait_until(condition) -> None:
    """At most a minute."""
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


def running(log) -> int:
    """How many seeds have been started and not ended."""
    seeds = [
        {p.name.split("-")[1] for p in Path(log).glob(f"{what}-*")} for what in ("begun", "ended")
    ]
    return len(seeds[0] - seeds[1])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--sleep", type=float, default=0.0)
    sweep.sweep_arguments(parser)
    options = parser.parse_args()
    log, kept = options.folder / "log", options.folder / "kept"
    log.mkdir(parents=True, exist_ok=True)
    cells = [
        sweep.Cell({"log": str(log), "seed": seed, "sleep": options.sleep})
        for seed in range(options.count)
    ]
    if options.cell:
        cell = next(one for one in cells if one.key == options.cell)
        recorded = sweep.read_cell(kept, cell)["result"]
        print(sweep.compare_cell(cell, FUNCTION, recorded).to_string())
        return 0
    cells = sweep.select(cells, options.only)
    if options.list:
        print(sweep.listing(kept, cells))
        return 0
    sweep.stop_on_term()
    done = sweep.run_sweep(
        cells, run, kept, jobs=options.jobs, cluster=options.cluster, rerun=options.rerun
    )
    return sweep.exit_status(done)


if __name__ == "__main__":
    # Whoever started the tests may ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
