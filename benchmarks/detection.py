"""The benchmark of detectors: each on every data set, over seeds, with intervals and tests.

    GENKL_DATA=/path/to/data python -m benchmarks.detection             # all, under an hour
    python -m benchmarks.detection digits --seeds 0 1 --folder /tmp/detection

Each data set's results are a record of their own in results/detection/, with its settings and
fingerprints of the code that made it. Data sets that are not on this machine are left out, and
said to be. Detectors see predictions, features and given labels; the truth only judges them.
Thresholds are the detector's own published one, and one chosen on the held-out conforming
instances within a budget; never on the instances that are judged.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import spearmanr
from tqdm import tqdm

from benchmarks.choosing import choose_alpha_beta
from benchmarks.evidence import CASES, CODE, NUM_MODELS, Gathered, Seen, gather, retrained
from benchmarks.statistics import bootstrap_interval, paired_comparison
from genkl.data import Kind
from genkl.data.base import NON_CONFORMING
from genkl.detectors import DETECTORS, Detector, Evidence, combination, genkl_detector
from genkl.detectors.predictions import BETA_SHARE
from genkl.evaluate import auroc, average_precision, precision_recall_f1, recall_at_share
from genkl.records import save_record
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import dominance_threshold

FOLDER = Path("results/detection")
SEEDS = (0, 1, 2, 3, 4)
MODELS = 5
"""Averaged in the main table, as the paper does before its first round."""
BUDGET = 0.05
SHARE = 0.05
RESAMPLES = 1000
AUTO = "GenKL auto"
"""Alpha and beta by `choose_alpha_beta`: from the held-out instances and the unlabelled ones."""
METHODS = (*list(DETECTORS)[:2], AUTO, *list(DETECTORS)[2:])
KINDS = {"NC": (*NON_CONFORMING, Kind.WRONG), "ambiguous": (Kind.AMBIGUOUS,), "OOD": (Kind.OOD,)}
"""Who is positive; the conforming ones are always the negatives."""
BASE = "entropy"
"""Every detector is compared with this one, pair by pair."""
MODULES = (
    *CODE,
    "genkl.rule.evaluation",
    "genkl.rule.choose",
    "genkl.evaluate",
    "benchmarks.statistics",
    "genkl.rule.conformal",
    "genkl.detectors",
    "genkl.rule.divergence",
    "genkl.rule.identify",
    "genkl.rule.kinds",
    "genkl.rule.neighbors",
    "benchmarks.choosing",
    "benchmarks.detection",
    "benchmarks.evidence",
)
COMBINED = {
    "entropy": ("entropy",),
    "GenKL": ("GenKL",),
    "entropy + GenKL": ("entropy", "GenKL"),
    "entropy + GenKL invariant": ("entropy", "GenKL invariant"),
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
    "KNN + entropy": "entropy",
    "KNN + entropy + GenKL": "KNN + entropy",
    "all": "all but GenKL",
}
"""A combination and the one that lacks the score in question."""
FEW = ("GenKL", "GenKL invariant", "entropy", "max softmax", "mutual information")
"""What the conditions are looked at with: they act on predictions."""
TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0)
FLAGGED = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of all instances at which the recall is recorded: the paper's own task."""
FIXED = {"GenKL": (0.9, 1.0, 1.05, 1.1), "entropy": (0.8, 0.9, 0.95, 0.99)}
"""Thresholds that nobody adjusted to the data: the paper's range of alpha, and "near 1"."""
RETRAINED_SEEDS = 3
"""Of the seeds, so many for conditions that need new predictions."""


Row = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """Instances of one case and seed, ready to be scored.

    Attributes:
        seed: of everything.
        evidence: about the noisy instances, with a reference.
        kinds: what those are, shape (N,).
        val_accuracy: of the averaged prediction.
    """

    seed: int
    evidence: Evidence
    kinds: np.ndarray
    val_accuracy: float

    def of_kind(self, kind: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows that count, and which of those are positive; None where one side is missing.

        Where nobody looked at the others (Clothing1M's list has positives only), the held-out
        conforming instances are the negatives: they come after the N noisy ones.
        """
        count, held_out = len(self.kinds), len(self.evidence.reference)
        positive = np.isin(self.kinds, KINDS[kind])
        conforms = np.isin(self.kinds, (Kind.CORRECT, Kind.MISLABELLED))
        rows = np.flatnonzero(positive | conforms)
        if not conforms.any():
            rows = np.concatenate([rows, count + np.arange(held_out)])
        truth = np.concatenate([positive, np.zeros(held_out, dtype=bool)])[rows]
        return (rows, truth) if 0 < truth.sum() < len(truth) else None

    def of_every_kind(self) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
        """Each kind that can be judged, with the rows that count and which are positive."""
        for kind in KINDS:
            if (chosen := self.of_kind(kind)) is not None:
                yield kind, *chosen


def judged(seed: int, found: Gathered, models: int = MODELS, temperature: float = 1.0) -> Judged:
    """What detectors see when so many models are averaged at a temperature."""
    evidence = None
    for seen in (found.reference, found.noisy):
        logits = seen.logits[:models].astype(np.float64) / temperature
        view = seen.view_logits[:models].astype(np.float64) / temperature
        evidence = Evidence(
            pred_probs=softmax(logits, axis=-1).mean(0),
            member_logits=logits,
            features=seen.features,
            given_labels=seen.labels,
            view_probs=softmax(view, axis=-1).mean(0),
            reference=evidence,
        )
    return Judged(seed, evidence, found.kinds, found.val_accuracy)


def usable(names: Iterable[str], evidence: Evidence) -> list[Detector]:
    """Those detectors whose needs the evidence meets; "GenKL auto" is chosen for it here."""
    found = [_auto(evidence) if name == AUTO else DETECTORS[name] for name in names]
    models = len(evidence.member_logits)
    return [
        detector
        for detector in found
        if not evidence.missing(detector.needs) and (models > 1 or detector.family != "ensemble")
    ]


def _auto(evidence: Evidence) -> Detector:
    probs, known = evidence.pred_probs, evidence.reference.pred_probs
    alpha, beta = choose_alpha_beta(probs, known, BUDGET)
    return genkl_detector(beta, alpha=alpha if 0 < alpha < np.inf else None, name=AUTO)


@dataclass(frozen=True)
class Scored:
    """Scores of one detector: of the noisy instances, then of the held-out conforming ones."""

    detector: Detector
    scores: np.ndarray
    thresholds: dict[str, float]


def score_all(names: Iterable[str], judged: Judged) -> dict[str, Scored]:
    """Every usable detector's scores and thresholds."""
    found = {}
    for detector in usable(names, judged.evidence):
        held_out = detector.conforming_scores(judged.evidence)
        thresholds = {"budget": threshold_for_budget(held_out, BUDGET)}
        if detector.name == AUTO:
            thresholds["budget"] = float(detector.threshold or np.inf)
        elif (own := detector.published_threshold(judged.evidence)) is not None:
            thresholds["published"] = own
        scores = np.concatenate([detector.score(judged.evidence), held_out])
        found[detector.name] = Scored(detector, scores, thresholds)
    return found


def measure(judged: Judged, scored: dict[str, Scored], resamples: int) -> list[Row]:
    """One row for each detector and each kind of positives."""
    rows = []
    for kind, counts, truth in judged.of_every_kind():
        positive = np.isin(judged.kinds, KINDS[kind])
        for name, this in scored.items():
            scores, noisy = this.scores[counts], this.scores[: len(positive)]
            row: Row = {
                "kind": kind,
                "method": name,
                "family": this.detector.family,
                "instances": len(truth),
                "positives": int(truth.sum()),
                "val_accuracy": judged.val_accuracy,
                "auroc": auroc(scores, truth),
                "average_precision": average_precision(scores, truth),
                "recall_at_share": recall_at_share(noisy, positive, SHARE),
            }
            draws = {"seed": judged.seed, "resamples": resamples}
            if resamples:
                interval = bootstrap_interval(auroc, scores, truth, **draws)
                row |= dict(zip(("auroc_low", "auroc_high"), interval, strict=True))
            if resamples and name != BASE and BASE in scored:
                pair = paired_comparison(scores, scored[BASE].scores[counts], truth, **draws)
                row |= {f"over_{BASE}": pair.difference}
                row |= {f"over_{BASE}_low": pair.low, f"over_{BASE}_high": pair.high}
            for threshold, value in this.thresholds.items():
                figures = precision_recall_f1(scores >= value, truth)
                row |= {f"{threshold}_{key}": figure for key, figure in figures.items()}
                row[f"{threshold}_flagged"] = float((noisy >= value).mean())
                row[f"{threshold}_false_flags"] = float((scores >= value)[~truth].mean())
            rows.append(row)
    return rows


def measure_recall(judged: Judged, scored: dict[str, Scored]) -> list[Row]:
    """Recall of the non-conforming beside the share flagged, and at fixed thresholds."""
    rows: list[Row] = []
    is_nc = np.isin(judged.kinds, KINDS["NC"])
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


def measure_combinations(judged: Judged, scored: dict[str, Scored], resamples: int) -> list[Row]:
    """Cross-fitted logistic regressions on several scores; the truth is used to fit them."""
    rows = []
    for kind, counts, truth in judged.of_every_kind():
        if truth.sum() < 20:
            continue
        mixed: dict[str, np.ndarray] = {}
        for title, parts in COMBINED.items():
            here = [part for part in parts if part in scored]
            if here and (len(here) == len(parts) or title.startswith("all")):
                columns = np.stack([scored[part].scores[counts] for part in here], axis=1)
                mixed[title] = combination(columns, truth, seed=judged.seed)
        for title, scores in mixed.items():
            row: Row = {"kind": kind, "method": title, "auroc": auroc(scores, truth)}
            row["average_precision"] = average_precision(scores, truth)
            if resamples and (less := ADDED.get(title)) in mixed:
                draws = {"seed": judged.seed, "resamples": resamples}
                pair = paired_comparison(scores, mixed[less], truth, **draws)
                row |= {"over": less, "added": pair.difference}
                row |= {"added_low": pair.low, "added_high": pair.high}
            rows.append(row)
    return rows


def fitted_temperature(reference: Seen, models: int = MODELS) -> float:
    """The temperature at which the averaged prediction is most likely on held-out labels."""
    logits, rows = reference.logits[:models].astype(np.float64), np.arange(len(reference.labels))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=-1)
        mean = np.logaddexp.reduce(scaled, axis=0) - np.log(len(scaled))
        return -float(mean[rows, reference.labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def conditions(name: str, seed: int, found: Gathered, retrain: bool) -> Iterable[tuple]:
    """(condition, its value, what detectors see) for every condition of a case and seed."""
    for models in (1, 2, 3, 5, 7, NUM_MODELS):
        yield "models", models, judged(seed, found, models=models)
    for temperature in TEMPERATURES:
        yield "temperature", temperature, judged(seed, found, temperature=temperature)
    fitted = fitted_temperature(found.reference)
    yield "calibrated", fitted, judged(seed, found, temperature=fitted)
    if retrain:
        for condition, value, changes in retrained(CASES[name]):
            yield condition, value, judged(seed, gather(name, seed, **changes))


def measure_conditions(
    name: str, seed: int, found: Gathered, methods: Sequence[str], retrain: bool
) -> list[Row]:
    """AUROC of the few detectors that read predictions, under every condition."""
    rows = []
    few = [method for method in FEW if method in methods]
    for condition, value, seen in conditions(name, seed, found, retrain):
        if (chosen := seen.of_kind("NC")) is None:
            continue
        counts, truth = chosen
        for detector in usable(few, seen.evidence):
            scores = detector.score(seen.evidence), detector.conforming_scores(seen.evidence)
            row: Row = {"condition": condition, "value": value, "method": detector.name}
            row["val_accuracy"] = seen.val_accuracy
            rows.append(row | {"auroc": auroc(np.concatenate(scores)[counts], truth)})
    return rows


def run_seed(
    name: str, seed: int, methods: Sequence[str], resamples: int, with_conditions: bool
) -> dict[str, list[Row]]:
    """All tables of one case and one seed."""
    found = gather(name, seed)
    seen = judged(seed, found)
    scored = score_all(methods, seen)
    tables = {
        "scores": measure(seen, scored, resamples),
        "recall": measure_recall(seen, scored),
        "dominant": measure_by_dominant(seen, scored),
        "combinations": measure_combinations(seen, scored, resamples),
    }
    if with_conditions:
        retrain = seed < RETRAINED_SEEDS
        tables["conditions"] = measure_conditions(name, seed, found, methods, retrain)
    of_this = {"case": name, "seed": seed}
    return {table: [of_this | row for row in rows] for table, rows in tables.items()}


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
    """Measure a case on every seed and keep the record."""
    start = time.perf_counter()
    work = (delayed(run_seed)(name, s, methods, resamples, with_conditions) for s in seeds)
    threads = {"inner_max_num_threads": 1} if jobs > 1 else {}
    done = Parallel(jobs, return_as="generator", **threads)(work)
    tables: dict[str, list] = {}
    for of_seed in tqdm(done, desc=name, total=len(seeds), unit="seed"):
        for key, rows in of_seed.items():
            tables.setdefault(key, []).extend(rows)
    settings = {"case": name, "title": CASES[name].title, "seeds": list(seeds)}
    settings |= {"methods": list(methods), "models": MODELS, "budget": BUDGET, "share": SHARE}
    settings |= {"resamples": resamples, "conditions": with_conditions}
    settings |= {"seconds": time.perf_counter() - start, "jobs": jobs}
    return save_record(
        folder / f"{name}.json",
        title=f"Identification on {CASES[name].title}",
        tables={key: pd.DataFrame(rows).round(5) for key, rows in tables.items() if rows},
        settings=settings,
        code=MODULES,
        overwrite=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="0: no intervals")
    parser.add_argument("--main-only", action="store_true", help="no conditions")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"default: {FOLDER}")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time (default 2)")
    options = parser.parse_args()
    pairs = (("case", options.cases, CASES), ("method", options.methods, METHODS))
    for kind, asked, known in pairs:
        for unknown in set(asked) - set(known):
            parser.error(f"unknown {kind} {unknown!r}; choose from: {', '.join(known)}")
    for name in options.cases or CASES:
        if not CASES[name].is_present():
            print(f"{name}: not on this machine, left out (genkl data list)")
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


if __name__ == "__main__":
    main()
