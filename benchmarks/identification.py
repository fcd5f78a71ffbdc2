"""Time and memory of identification: against the published formulation and this machine's floor.

    python -m benchmarks.identification                 # minutes; writes results/benchmarks/
    python -m benchmarks.identification --large         # and 100,000,000 rows from files

Every case is a process of its own, started in turn, several times over; medians are kept.
"seconds" run from the moment the predictions are loaded until the votes are there, the package's
own imports included; "call_seconds" are those of another call. A whole process's time and peak
memory have those of a process subtracted that only imports NumPy and loads the predictions
("extra"). All ratios are between processes of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import genkl
from benchmarks.measuring import fastest, peak_mb, take_turns


@dataclass(frozen=True)
class Size:
    """Predictions as large as a data set's, and the preset they are identified with."""

    rows: int
    classes: int
    alpha: float
    beta: float
    sigma: float


SIZES = {
    "Clothing1M": Size(1_000_000, 14, 1.05, 0.03, 0.05),
    "Food101N": Size(250_000, 101, 1.1, 0.008, 0.0),
    "mini WebVision": Size(66_000, 50, 0.9, 0.015, 0.05),
}
VECTORS = 20
LARGE_ROWS = 100_000_000
RECORD = Path("results/benchmarks/identification.json")


def draw_predictions(rows: int, classes: int, seed: int = 0) -> np.ndarray:
    """Softmax outputs, single precision, as a data set's file holds them.

    Five in six are more or less sure; one in six has a leader, and the other classes share what
    is left almost equally: such predictions are flagged, or nearly.
    """
    rng = np.random.default_rng(seed)
    probs = rng.standard_normal((rows, classes), dtype=np.float32)
    torn = rng.random(rows) < 1 / 6
    probs *= np.where(torn, 0.15, rng.uniform(1, 4, rows)).astype(np.float32)[:, None]
    leader = np.log(classes) * rng.uniform(0, 1.5, rows)
    probs[:, 0] += np.where(torn, leader, 0).astype(np.float32)
    probs -= probs.max(axis=1, keepdims=True)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=1, keepdims=True)
    return probs


# -- one case, in its own process ----------------------------------------------------------------


def run_case(case: str, name: str, file: str, again: bool) -> dict[str, float]:
    """Load the predictions and do what the case says; seconds of the first call, or of another."""
    probs, size = np.load(file), SIZES[name]
    vectors = genkl.uniform_like_vectors(size.classes, VECTORS, size.sigma)
    arguments = (probs, size.alpha, size.beta, vectors)
    threads = 1 if case == "genkl, 1 thread" else None
    closed = case == "genkl, permutation-invariant"

    def work() -> np.ndarray:
        if case == "published":
            from benchmarks import published

            return published.identify_nc(*arguments)
        return genkl.identify_nc(*arguments, num_threads=threads, permutation_invariant=closed)

    if case == "load":
        return {"seconds": 0.0, "flagged": float("nan"), "peak_mb": peak_mb()}
    start = time.perf_counter()
    flagged = float(work().mean())  # the package's own imports are a part of this
    seconds = time.perf_counter() - start
    if again:
        seconds = fastest(work, 3)
    return {"seconds": seconds, "flagged": flagged, "peak_mb": peak_mb()}


CASES = ("load", "published", "genkl, 1 thread", "genkl, all threads")
CASES += ("genkl, permutation-invariant",)


def measure_process(arguments: list[str]) -> dict[str, float]:
    """Run this module with arguments; its printed results, whole time, and peak memory."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.identification", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return {
        **json.loads(printed.splitlines()[-1]),
        "process_seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }


def measure_sizes(folder: Path, repeats: int) -> list[dict]:
    """Every case at every size, in turn; medians over the repeats."""
    rows = []
    for name, size in SIZES.items():
        file = folder / f"{size.rows}.npy"
        np.save(file, draw_predictions(size.rows, size.classes))
        runs: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
        for _ in range(repeats):
            for case in CASES:
                arguments = ["--case", case, name, str(file)]
                runs[case].append(measure_process(arguments))
                call = measure_process([*arguments, "--again"])["seconds"]
                runs[case][-1]["call_seconds"] = call
        middle = {
            case: {key: statistics.median(run[key] for run in made) for key in made[0]}
            for case, made in runs.items()
        }
        base = middle["load"]
        for case in CASES:
            rows.append({"size": name, "case": case, **middle[case]})
            rows[-1]["extra_mb"] = middle[case]["peak_mb"] - base["peak_mb"]
            rows[-1]["extra_seconds"] = middle[case]["process_seconds"] - base["process_seconds"]
        reference = next(row for row in rows if (row["size"], row["case"]) == (name, "published"))
        for row in rows[-len(CASES) + 1 :]:
            row["call_times_faster"] = reference["call_seconds"] / row["call_seconds"]
            row["times_faster"] = reference["seconds"] / row["seconds"]
            row["process_times_faster"] = reference["extra_seconds"] / row["extra_seconds"]
            row["share_of_memory"] = row["extra_mb"] / reference["extra_mb"]
            print(
                f"{name:15} {row['case']:30} {row['call_seconds']:7.3f} s "
                f"{row['call_times_faster']:6.1f} x (first {row['times_faster']:6.1f} x) "
                f"(process {row['extra_seconds']:7.3f} s {row['process_times_faster']:6.1f} x) "
                f"extra {row['extra_mb']:6.0f} MB = {row['share_of_memory']:.3f}"
            )
        file.unlink()
    return rows


# -- the floor of this machine -------------------------------------------------------------------


def measure_floor(repeats: int) -> list[dict]:
    """One read, one logarithm per dominant entry, one product, each alone; and the rule itself.

    In turn, fastest of the repeats; with one thread, and with as many as there are cores (which
    of the three parts only the product can use).
    """
    from itertools import product

    from threadpoolctl import threadpool_limits

    rows = []
    for name, size in SIZES.items():
        for dtype, threads in product((np.float32, np.float64), (1, os.cpu_count())):
            probs = draw_predictions(size.rows, size.classes).astype(dtype)
            vectors = genkl.uniform_like_vectors(size.classes, VECTORS, size.sigma)
            narrow = vectors.T.astype(dtype)
            dominant = probs[probs >= dtype(1 / size.classes - size.beta)]
            parts = {
                "read": lambda probs=probs: probs.sum(),
                "logarithms": lambda dominant=dominant: np.log(dominant),
                "product": lambda probs=probs, narrow=narrow: probs @ narrow,
                "genkl": lambda probs=probs, size=size, vectors=vectors, t=threads: (
                    genkl.identify_nc(probs, size.alpha, size.beta, vectors, num_threads=t)
                ),
            }
            with threadpool_limits(threads):
                ways = {part: partial(fastest, work, 1) for part, work in parts.items()}
                seconds = {part: min(taken) for part, taken in take_turns(ways, repeats).items()}
            floor = seconds["read"] + seconds["logarithms"] + seconds["product"]
            row = {"size": name, "precision": np.dtype(dtype).name, "threads": threads, **seconds}
            row |= {"floor": floor, "times_the_floor": seconds["genkl"] / floor}
            rows.append(row | {"dominant_share": dominant.size / probs.size})
            print(
                f"{name:15} {np.dtype(dtype).name} {threads} thread(s) "
                + "  ".join(f"{part} {1e3 * s:6.1f} ms" for part, s in seconds.items())
                + f"  = {rows[-1]['times_the_floor']:.2f} x the floor"
            )
    return rows


# -- how it grows --------------------------------------------------------------------------------

GROWTH = {
    "N": [62_500, 125_000, 250_000, 500_000, 1_000_000, 2_000_000],
    "k": [7, 14, 28, 56, 112, 224],
    "n": [5, 10, 20, 40, 80, 160],
}


def measure_growth(repeats: int) -> list[dict]:
    """Seconds with one thread while one of N, k and n grows."""
    rows = []
    for letter, values in GROWTH.items():
        for value in values:
            shape = {"N": 200_000, "k": 14, "n": VECTORS, letter: value}
            probs = draw_predictions(shape["N"], shape["k"])
            vectors = genkl.uniform_like_vectors(shape["k"], shape["n"])
            beta = 0.4 / shape["k"]
            seconds = fastest(
                lambda probs=probs, beta=beta, vectors=vectors: genkl.identify_nc(
                    probs, 1.0, beta, vectors, num_threads=1
                ),
                repeats,
            )
            rows.append({"grows": letter, **shape, "seconds": seconds})
            print(f"{letter} = {value:9,}: {1e3 * seconds:8.1f} ms")
    return rows


# -- larger than memory allows -------------------------------------------------------------------


def write_large(file: Path, rows: int) -> None:
    """Predictions for 14 classes, single precision, a million different ones over and over."""
    part = draw_predictions(1_000_000, 14)
    if file.suffix == ".npy":
        with open(file, "wb") as out:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, 14)}
            np.lib.format.write_array_header_1_0(out, header)
            for start in range(0, rows, len(part)):
                part[: rows - start].tofile(out)
        return
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({f"class_{c}": part[:, c] for c in range(14)})
    with parquet.ParquetWriter(file, table.schema, compression="none") as out:
        for start in range(0, rows, len(part)):
            out.write_table(table.slice(0, rows - start))


def run_large(file: str) -> dict[str, float]:
    """Identify a whole file; in its own process."""
    start = time.perf_counter()
    vectors = genkl.uniform_like_vectors(14)
    done = genkl.identify_file(file, f"{file}.nc.npy", 0.9, 0.03, vectors, overwrite=True)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "rows": done.rows, "flagged": done.flagged, "peak_mb": peak_mb()}


def measure_large(folder: Path, rows: int) -> list[dict]:
    made = []
    for suffix in (".npy", ".parquet"):
        file = folder / f"large{suffix}"
        print(f"writing {rows:,} x 14 predictions to {file.name}")
        write_large(file, rows)
        result = {"file": suffix, "gigabytes": file.stat().st_size / 1e9}
        result |= measure_process(["--large-case", str(file)])
        made.append(result)
        print(
            f"{suffix}: {rows:,} rows in {result['seconds']:.1f} s, peak {result['peak_mb']:.0f} MB"
        )
        file.unlink()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="of every case (default 7)")
    parser.add_argument("--large", action="store_true", help="also 100,000,000 rows from files")
    parser.add_argument("--large-rows", type=int, default=LARGE_ROWS)
    parser.add_argument("--folder", type=Path, help="for the files it makes (default: temporary)")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--large-case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(*options.case, options.again)))
        return
    if options.large_case:
        print(json.dumps(run_large(options.large_case)))
        return
    import pandas as pd

    from genkl.records import load_record, save_record

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        tables = {
            "sizes": pd.DataFrame(measure_sizes(Path(folder), options.repeats)),
            "floor": pd.DataFrame(measure_floor(options.repeats)),
            "growth": pd.DataFrame(measure_growth(options.repeats)),
        }
        if options.large:
            tables["large"] = pd.DataFrame(measure_large(Path(folder), options.large_rows))
        elif options.record.exists():
            tables["large"] = pd.DataFrame(load_record(options.record)["tables"].get("large", []))
    save_record(
        options.record,
        title="Time and memory of NC identification",
        tables=tables,
        settings={"vectors": VECTORS, "repeats": options.repeats},
        overwrite=True,
    )
    print(f"recorded in {options.record}")


if __name__ == "__main__":
    main()
