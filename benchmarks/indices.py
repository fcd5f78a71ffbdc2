"""Time and memory of opening a data set of a million images, and of looking up its NC instances.

    python -m benchmarks.indices        # two minutes; writes results/benchmarks/indices.json

The lists are made, with the numbers of lines and the form of keys of Clothing1M; the images are not
needed. Opening is a process of its own each time: "seconds" and "extra_mb" (most memory resident,
less what was resident before) begin when the package's loader is imported. The published scripts
ask of each instance whether it is in a list of NC instances; that and the package's look-up run in
turn, on the same keys, all of them. Medians are kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measuring import peak_mb, resident_mb, take_turns

RECORD = Path("results/benchmarks/indices.json")
NOISY = 1_000_000
VERIFIED = {"clean_train": 47_570, "clean_val": 14_313, "clean_test": 10_526}
BOTH = 37_497
"""Verified images of Clothing1M that also have a given label."""
NC_LISTED = 200
NC_SHARE = 0.1
MEMBERSHIP_SIZES = (25_000, 50_000, 100_000)


def make_keys(count: int, seed: int = 0) -> list[str]:
    """Different keys such as those of Clothing1M: "images/0/99/3710193965,1691541099.jpg"."""
    rng = np.random.default_rng(seed)
    shops, photos = rng.integers(10**8, 4 * 10**9, (2, count))
    return [
        f"images/{i % 10}/{i // 10 % 10}{i % 10}/{shop},{photo}{i:07d}.jpg"
        for i, (shop, photo) in enumerate(zip(shops.tolist(), photos.tolist(), strict=True))
    ]


def write_index(folder: Path, noisy: int, verified: dict[str, int], both: int) -> int:
    """Write the six lists of a data set like Clothing1M and a list of NC instances.

    Args:
        folder: where to.
        noisy: images of the noisy split.
        verified: images of each clean split.
        both: verified images that also have a given label.

    Returns:
        How many lines were written.
    """
    keys = make_keys(noisy + sum(verified.values()))
    labels = np.random.default_rng(1).integers(0, 14, len(keys)).tolist()
    order = np.random.default_rng(2).permutation(noisy + both).tolist()
    lines = 0

    def write(name: str, content: Iterable[str]) -> None:
        nonlocal lines
        rows = list(content)
        lines += len(rows)
        (folder / name).write_text("\n".join(rows) + "\n")

    write("noisy_label_kv.txt", (f"{keys[i]} {labels[i]}" for i in order))
    write("clean_label_kv.txt", (f"{keys[i]} {labels[i]}" for i in range(noisy, len(keys))))
    write("noisy_train_key_list.txt", keys[:noisy])
    write("NC_instances.txt", (key.removeprefix("images/") for key in keys[:NC_LISTED]))
    start = noisy
    firsts = [keys[0]]
    for split, count in verified.items():
        write(f"{split}_key_list.txt", keys[start : start + count])
        firsts.append(keys[start])
        start += count
    for key in firsts:  # the loader looks for the first image of each split
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).touch()
    return lines


def run_opening(folder: str) -> dict[str, float]:
    """Open the data set; in its own process."""
    from genkl.data.clothing1m import load_clothing1m

    before = resident_mb()
    start = time.perf_counter()
    dataset, truth = load_clothing1m(data_root=folder)
    seconds = time.perf_counter() - start
    memory = {"extra_mb": peak_mb() - before, "before_mb": before, "peak_mb": peak_mb()}
    names = ("noisy", "clean", "validation", "test")
    sizes = {name: len(getattr(dataset, name)) for name in names}
    return {"seconds": seconds, **memory, **sizes, "nc": int(truth.is_nc.sum())}


def measure_opening(folder: Path, repeats: int) -> list[dict]:
    """Medians over processes."""
    lines = write_index(folder, NOISY, VERIFIED, BOTH)
    runs = []
    for _ in range(repeats):
        command = [sys.executable, "-m", "benchmarks.indices", "--open", str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    row = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    taken = [run["seconds"] for run in runs]
    spread = {"least_seconds": min(taken), "most_seconds": max(taken)}
    print(
        f"opening {lines:,} lines: {row['seconds']:.2f} s "
        f"({spread['least_seconds']:.2f} to {spread['most_seconds']:.2f}), "
        f"{row['extra_mb']:.0f} MB above {row['before_mb']:.0f} MB"
    )
    return [{"lines": lines, **row, **spread}]


def measure_membership(repeats: int) -> list[dict]:
    """Which instances are NC? By list, as published; by set; by the package's look-up."""
    import pyarrow as pa

    from genkl.data.lists import find_rows

    rows = []
    for size in MEMBERSHIP_SIZES:
        keys = make_keys(size)
        chosen = np.random.default_rng(3).permutation(size)[: round(NC_SHARE * size)]
        nc = [keys[i] for i in chosen]
        key_array, nc_array = pa.array(keys), pa.array(nc)
        ways: dict[str, Callable[[], np.ndarray]] = {
            "list, as published": lambda keys=keys, nc=nc: np.array([key in nc for key in keys]),
            "set": lambda keys=keys, nc=nc: by_set(keys, nc),
            "genkl": lambda keys=key_array, nc=nc_array: find_rows(keys, nc) >= 0,
            "genkl, from Python strings": lambda keys=keys, nc=nc: (
                find_rows(pa.array(keys), pa.array(nc)) >= 0
            ),
        }
        expected = np.zeros(size, bool)
        expected[chosen] = True
        timed = {way: partial(seconds_of, way, work, expected) for way, work in ways.items()}
        seconds = take_turns(timed, repeats)
        published = statistics.median(seconds["list, as published"])
        for way, times in seconds.items():
            middle = statistics.median(times)
            row = {"instances": size, "nc": len(nc), "way": way, "seconds": middle}
            rows.append(row | {"times_faster": published / middle})
            print(
                f"{size:7,} instances, {len(nc):6,} NC  {way:27} {1e3 * middle:10.2f} ms "
                f"{published / middle:8.0f} x"
            )
    return rows


def seconds_of(way: str, work: Callable[[], np.ndarray], expected: np.ndarray) -> float:
    """Of one call, whose result is checked."""
    start = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - start
    if not np.array_equal(found, expected):
        raise RuntimeError(f"{way} found other instances than there are")
    return seconds


def by_set(keys: list[str], nc: list[str]) -> np.ndarray:
    """What one more line in the published scripts would have done."""
    members = set(nc)
    return np.array([key in members for key in keys])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of everything (default 3)")
    parser.add_argument("--folder", type=Path, help="for the files it makes (default: temporary)")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--open", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(run_opening(options.open)))
        return
    import pandas as pd

    from genkl.records import save_record

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        tables = {"opening": pd.DataFrame(measure_opening(Path(folder), options.repeats))}
    tables["membership"] = pd.DataFrame(measure_membership(options.repeats))
    save_record(
        options.record,
        title="Opening a data set of a million images, and looking up its NC instances",
        tables=tables,
        settings={"repeats": options.repeats, "nc_share": NC_SHARE, "nc_listed": NC_LISTED},
        overwrite=True,
    )
    print(f"recorded in {options.record}")


if __name__ == "__main__":
    main()
