"""Measuring: memory of this process, the fastest of several calls, and ways that take turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def peak_mb() -> float:
    """Most memory this process ever had resident.

    From Linux's own field for it: what `resource.getrusage` says also counts the process that
    started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def resident_mb() -> float:
    """Memory that this process has resident now, from Linux's own field for it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def take_turns(
    ways: Mapping[str, Callable[[], float]], turns: int, patience: float = math.inf
) -> dict[str, list[float]]:
    """Seconds of each way in each turn; after two turns, none begins when patience is spent."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    started = time.perf_counter()
    for turn in range(turns):
        if turn > 1 and time.perf_counter() - started > patience:
            break
        for name, way in ways.items():
            seconds[name].append(way())
    return seconds
