"""The benchmark of detectors: each on every data set, over plausible labels, with intervals.

    GENKL_DATA=/path/to/data python -m benchmarks.detection             # all, half an hour
    python -m benchmarks.detection digits --seeds 0 1 --folder /tmp/detection
    python -m benchmarks.detection --verify 0        # after a change of code, a seed of each

Each data set's results are a record of their own in results/detection/, with its settings and
fingerprints of the code that made it; one that is current is not made again. Data sets that are
not on this machine are left out, and said to be. Detectors see predictions, features and given
labels; the truth only judges them. How plausible the strangers' given labels are is an axis: each
data set is judged under every way to give them. Thresholds are the detector's own published one,
and one chosen on the held-out conforming instances within a budget; never on the instances that
are judged. Intervals resample images (senders, where there are any) and seeds together.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import spearmanr
from tqdm import tqdm

from benchmarks.combine import combination
from benchmarks.evidence import CASES, CODE, gather
from benchmarks.judging import (
    BUDGET,
    KINDS,
    MODELS,
    Judged,
    Row,
    Scored,
    judged,
    measure_conditions,
    score_all,
)
from benchmarks.refill import keep_as_current
from benchmarks.statistics import (
    Resamples,
    missed_at_noise_rate,
    percentile_interval,
    resampled_auroc,
)
from genkl.detectors import DETECTORS
from genkl.detectors.predictions import BETA_SHARE
from genkl.evaluate import auroc, average_precision, precision_recall_f1, recall_at_share
from genkl.records import load_record, save_record, stale_because
from genkl.rule.divergence import dominance_threshold

FOLDER = Path("results/detection")
SEEDS = (0, 1, 2, 3, 4)
SHARE = 0.05
RESAMPLES = 1000
METHODS = tuple(DETECTORS)
BASE = "entropy"
"""Every detector is compared with this one, pair by pair."""
MODULES = (
    *CODE,
    "genkl.rule.evaluation",
    "genkl.evaluate",
    "benchmarks.statistics",
    "genkl.rule.conformal",
    "genkl.detectors",
    "genkl.rule.divergence",
    "genkl.rule.identify",
    "genkl.rule.kinds",
    "genkl.rule.neighbors",
    "benchmarks.combine",
    "benchmarks.detection",
    "benchmarks.evidence",
    "benchmarks.judging",
)
COMBINED = {
    "entropy": ("entropy",),
    "GenKL": ("GenKL",),
    "entropy + GenKL": ("entropy", "GenKL"),
    "entropy + GenKL invariant": ("entropy", "GenKL invariant"),
    "entropy + DSOS": ("entropy", "DSOS"),
    "KNN": ("KNN",),
    "KNN + entropy": ("KNN", "entropy"),
    "KNN + entropy + GenKL": ("KNN", "entropy", "GenKL"),
    "all but GenKL": tuple(n for n in DETECTORS if DETECTORS[n].family != "divergence"),
    "all": tuple(DETECTORS),
}
"""Does D add to the others? Each is fitted and judged in the same folds."""
ADDED = {
    "entropy + GenKL": "entropy",
    "entropy + GenKL invariant": "entropy",
    "entropy + DSOS": "entropy",
    "KNN + entropy": "entropy",
    "KNN + entropy + GenKL": "KNN + entropy",
    "all": "all but GenKL",
}
"""A combination and the one that lacks the score in question."""
FLAGGED = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of all instances at which the recall is recorded: the paper's own task."""
FIXED = {"GenKL": (0.9, 1.0, 1.05, 1.1), "entropy": (0.8, 0.9, 0.95, 0.99)}
"""Thresholds that nobody adjusted to the data: the paper's range of alpha, and "near 1"."""
FEWEST = 20
"""Positives that a combination is fitted to, at least."""
Chosen = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows that count, which of these are positive, and what each is resampled with."""


def measure(judged: Judged, scored: dict[str, Scored]) -> list[Row]:
    """One row for each detector and each kind of positives."""
    rows = []
    for kind, counts, truth in judged.of_every_kind():
        positive = np.isin(judged.kinds, KINDS[kind][0])
        for name, this in scored.items():
            scores, noisy = this.scores[counts], this.scores[: len(positive)]
            rows.append(
                {
                    "kind": kind,
                    "method": name,
                    "instances": len(truth),
                    "positives": int(truth.sum()),
                    "val_accuracy": judged.val_accuracy,
                    "auroc": auroc(scores, truth),
                    "average_precision": average_precision(scores, truth),
                    "recall_at_share": recall_at_share(noisy, positive, SHARE),
                    "missed": missed_at_noise_rate(scores, truth)[0],
                }
            )
    return rows


def measure_thresholds(judged: Judged, scored: dict[str, Scored]) -> list[Row]:
    """What thresholds flag that were chosen without a look at these instances; NC is positive."""
    rows = []
    for counts, truth in filter(None, [judged.of_kind("NC")]):
        for name, this in scored.items():
            row, scores = {"method": name}, this.scores[counts]
            for threshold, value in this.thresholds.items():
                figures = precision_recall_f1(scores >= value, truth)
                row |= {f"{threshold}_{key}": figure for key, figure in figures.items()}
                row[f"{threshold}_flagged"] = float(
                    (this.scores[: len(judged.kinds)] >= value).mean()
                )
                row[f"{threshold}_false_flags"] = float((scores >= value)[~truth].mean())
            rows.append(row)
    return rows


def measure_intervals(
    kind: str,
    chosen: Sequence[Chosen],
    by_way: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    over: Callable[[str], str | None],
    resamples: int,
) -> list[Row]:
    """Mean over seeds with intervals from the same resamples of images and seeds for all.

    Args:
        kind: who is positive.
        chosen: of each seed, the rows that count, which of these are positive, and their groups.
        by_way: way to give labels -> of each seed, scores by name.
        over: the name of what a name is compared with; None for nothing.
        resamples: how many; 0 for no intervals.
    """
    draws = Resamples.of([groups for *_, groups in chosen], max(resamples, 1))
    kept: dict[bytes, tuple] = {}  # most scores don't depend on the way

    def figures(of_seeds: Sequence[np.ndarray]) -> tuple:
        """AUROC and misses: as they are, (2,), and resampled, (2, R)."""
        key = b"".join(scores.tobytes() for scores in of_seeds)
        if key not in kept:
            parts = [
                (scores[rows], truth, times)
                for scores, (rows, truth, _), times in zip(
                    of_seeds, chosen, draws.times, strict=True
                )
            ]
            plain = [[auroc(s, y), missed_at_noise_rate(s, y)[0]] for s, y, _ in parts]
            again = [
                draws.mean([measure(*part) for part in parts])
                for measure in (resampled_auroc, missed_at_noise_rate)
            ]
            kept[key] = np.mean(plain, axis=0), np.stack(again)
        return kept[key]

    found = {
        (way, name): figures([scores[name] for scores in seeds])
        for way, seeds in by_way.items()
        for name in seeds[0]
        if all(name in scores for scores in seeds)
    }
    rows = []
    for (way, name), (plain, again) in found.items():
        shown = {"auroc": (plain[0], again[0]), "missed": (plain[1], again[1])}
        for title, other in {"over": (way, over(name)), "over_random": ("random", name)}.items():
            if other in found and other != (way, name):
                shown[title] = plain[0] - found[other][0][0], again[0] - found[other][1][0]
        row: Row = {"labels": way, "kind": kind, "method": name}
        for title, (value, resampled) in shown.items():
            interval = percentile_interval(resampled) if resamples else (None, None)
            row |= {title: float(value), f"{title}_low": interval[0], f"{title}_high": interval[1]}
        rows.append(row)
    return rows


def measure_recall(judged: Judged, scored: dict[str, Scored]) -> list[Row]:
    """Recall of the non-conforming beside the share flagged, and at fixed thresholds."""
    rows: list[Row] = []
    is_nc = np.isin(judged.kinds, KINDS["NC"][0])
    for name, this in scored.items():
        scores = this.scores[: len(is_nc)]
        for share in FLAGGED:
            found = recall_at_share(scores, is_nc, share)
            rows.append({"method": name, "flagged": share, "recall": found})
        for value in FIXED.get(name, ()):
            flagged = scores >= value
            shares = {"flagged": float(flagged.mean()), "recall": float(flagged[is_nc].mean())}
            rows.append({"method": name, "threshold": value, **shares})
    return rows


def measure_by_dominant(judged: Judged, scored: dict[str, Scored]) -> list[Row]:
    """Where do D and entropy order differently? By the number of dominant entries."""
    if not {"GenKL", BASE} <= set(scored) or (chosen := judged.of_kind("NC")) is None:
        return []
    counts, truth = chosen
    both = judged.evidence.pred_probs, judged.evidence.reference.pred_probs
    probs = np.concatenate(both)[counts]
    k = probs.shape[1]
    dominant = (probs >= dominance_threshold(k, BETA_SHARE / k)).sum(axis=1)
    scores = {name: scored[name].scores[counts] for name in ("GenKL", BASE)}
    correlation = float(spearmanr(*scores.values()).statistic)
    rows = []
    for label, mask in {"1": dominant == 1, "2": dominant == 2, "3 or more": dominant > 2}.items():
        sizes = {"instances": int(mask.sum()), "positives": int(truth[mask].sum())}
        row = {"dominant_entries": label, **sizes, "rank_correlation": correlation}
        rows.append(row | {f"auroc_{n}": auroc(s[mask], truth[mask]) for n, s in scores.items()})
    return rows


def combine(judged: Judged, scored: dict[str, Scored]) -> dict[str, np.ndarray]:
    """Cross-fitted logistic regressions on several scores; the truth is used to fit them.

    Returns:
        By name of the combination, shape (N + m,); 0 for whom NC is no question.
    """
    mixed: dict[str, np.ndarray] = {}
    for counts, truth in filter(None, [judged.of_kind("NC")]):
        for title, parts in COMBINED.items() if truth.sum() >= FEWEST else ():
            here = [part for part in parts if part in scored]
            if here and (len(here) == len(parts) or title.startswith("all")):
                columns = np.stack([scored[part].scores[counts] for part in here], axis=1)
                mixed[title] = np.zeros(len(judged.groups))
                mixed[title][counts] = combination(columns, truth, seed=judged.seed)
    return mixed


def run_seed(name: str, seed: int, methods: Sequence[str], with_conditions: bool) -> tuple:
    """Tables of one case and seed, who counts by kind, scores by way, and combined ones."""
    found = gather(name, seed)
    seen = judged(seed, found)
    scored = score_all(methods, seen)
    reading = [n for n in methods if "given_labels" in DETECTORS[n].needs]
    by_way = {
        way: scored | score_all(reading if at else (), judged(seed, found, way))
        for at, way in enumerate(found.labels)
    }
    tables = {
        "scores": measure(seen, scored),
        "thresholds": measure_thresholds(seen, scored),
        "recall": measure_recall(seen, scored),
        "dominant": measure_by_dominant(seen, scored),
    }
    if with_conditions:
        tables["conditions"] = measure_conditions(name, seed, found, methods)
    of_this = {"case": name, "seed": seed}
    tables = {table: [of_this | row for row in rows] for table, rows in tables.items()}
    scores = {way: {n: this.scores for n, this in all_.items()} for way, all_ in by_way.items()}
    kinds = {kind: (*counts, seen.groups[counts[0]]) for kind, *counts in seen.of_every_kind()}
    return tables, kinds, scores, combine(seen, scored)


def _base(name: str) -> str | None:
    return BASE if name != BASE else None


def record(
    name: str,
    folder: Path,
    *,
    seeds: Sequence[int] = SEEDS,
    methods: Sequence[str] = METHODS,
    resamples: int = RESAMPLES,
    with_conditions: bool = True,
    jobs: int = 1,
) -> Path:
    """Measure a case on every seed and keep the record; nothing is done where it is current."""
    settings = {"case": name, "title": CASES[name].title, "seeds": list(seeds)}
    settings |= {"methods": list(methods), "models": MODELS, "budget": BUDGET, "share": SHARE}
    settings |= {"resamples": resamples, "conditions": with_conditions}
    settings |= {"labels": list(CASES[name].labels)}
    path = folder / f"{name}.json"
    if path.exists() and not stale_because(load_record(path), **settings):
        return path
    start = time.perf_counter()
    threads = {"inner_max_num_threads": 1} if jobs > 1 else {}
    parallel = Parallel(jobs, return_as="generator", **threads)
    work = (delayed(run_seed)(name, s, methods, with_conditions) for s in seeds)
    done = list(tqdm(parallel(work), desc=name, total=len(seeds), unit="seed"))
    by_way = {way: [scores[way] for _, _, scores, _ in done] for way in done[0][2]}
    mixed = {next(iter(by_way)): [mixed for *_, mixed in done]}
    kinds = [kind for kind in KINDS if all(kind in seen for _, seen, _, _ in done)]
    asked = [("intervals", kind, by_way, _base) for kind in kinds]
    asked += [("combinations", kind, mixed, ADDED.get) for kind in kinds if kind == "NC"]
    chosen = {kind: [seen[kind] for _, seen, _, _ in done] for kind in kinds}
    call = delayed(measure_intervals)
    work = (call(kind, chosen[kind], ways, over, resamples) for _, kind, ways, over in asked)
    tables: dict[str, list] = {}
    for (table, *_), rows in zip(asked, parallel(work), strict=True):
        tables.setdefault(table, []).extend({"case": name, **row} for row in rows)
    for table, rows in (pair for of_seed, *_ in done for pair in of_seed.items()):
        tables.setdefault(table, []).extend(rows)
    settings |= {"seconds": time.perf_counter() - start, "jobs": jobs}
    return save_record(
        path,
        title=f"Identification on {CASES[name].title}",
        tables={key: pd.DataFrame(rows).round(5) for key, rows in tables.items() if rows},
        settings=settings,
        code=MODULES,
        overwrite=True,
    )


def verify(name: str, folder: Path, seed: int) -> bool:
    """Make a seed of a record again, but for conditions and intervals; alike, it is current again.

    Args:
        name: of the case.
        folder: with its record.
        seed: to make again.

    Returns:
        Whether every figure came out as it is recorded, within a unit of its last digit.
    """
    path = folder / f"{name}.json"
    record = load_record(path)
    tables, *_ = run_seed(name, seed, record["settings"]["methods"], with_conditions=False)
    off, count = [], 0
    for table, rows in tables.items():
        then = pd.DataFrame(record["tables"].get(table, [])).query("seed == @seed")
        now = pd.DataFrame(rows).select_dtypes("number").astype(float)
        count += now.size
        if not np.allclose(then[now.columns].astype(float), now, atol=2e-5, equal_nan=True):
            off.append(table)
    print(f"{path}: {count} figures of seed {seed} made again", *("differ:", *off) if off else ())
    if not off:
        keep_as_current(path, record, MODULES, figures=count)
    return not off


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="0: no intervals")
    parser.add_argument("--main-only", action="store_true", help="no conditions")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"default: {FOLDER}")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time (default 2)")
    again = "make this seed of each stale record again; where all agree, it is current again"
    parser.add_argument("--verify", type=int, metavar="SEED", help=again)
    options = parser.parse_args()
    pairs = (("case", options.cases, CASES), ("method", options.methods, METHODS))
    for kind, asked, known in pairs:
        for unknown in set(asked) - set(known):
            parser.error(f"unknown {kind} {unknown!r}; choose from: {', '.join(known)}")
    agree = True
    for name in options.cases or CASES:
        path = options.folder / f"{name}.json"
        if not CASES[name].is_present():
            print(f"{name}: not on this machine, left out (genkl data list)")
            continue
        if options.verify is not None:
            if path.exists() and stale_because(load_record(path)):
                agree &= verify(name, options.folder, options.verify)
            continue
        path = record(
            name,
            options.folder,
            seeds=options.seeds,
            methods=options.methods,
            resamples=options.resamples,
            with_conditions=not options.main_only,
            jobs=options.jobs,
        )
        print(f"recorded in {path}")
    return int(not agree)


if __name__ == "__main__":
    sys.exit(main())
