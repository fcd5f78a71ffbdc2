"""Does it find them? Every detector on every data set, over seeds, with intervals and tests.

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

import genkl
from benchmarks.evidence import CASES, CODE, NUM_MODELS, Case, Gathered, Seen, gather
from benchmarks.statistics import bootstrap_interval, paired_comparison
from genkl.data import Kind
from genkl.data.base import NON_CONFORMING
from genkl.detectors import DETECTORS, Detector, Evidence, combination, genkl_detector
from genkl.detectors.predictions import BETA_SHARE
from genkl.evaluate import auroc, average_precision, precision_recall_f1, recall_at_share
from genkl.records import save_record
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import dominance_threshold, uniform_like_vectors

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
KINDS = {
    "NC": (*NON_CONFORMING, Kind.WRONG),
    "ambiguous": (Kind.AMBIGUOUS,),
    "OOD": (Kind.OOD,),
}
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
CLEAN_SIZES = {
    "digits": (4, 8, 16, 32),
    "solar-cells": (12, 25, 50),
    "clothing-dataset": (5, 10, 25),
    "cifar10h": (5, 10, 25, 50),
    "cifar10n": (5, 10, 25, 50),
}
"""Data set -> clean images of each class; clothes have too few skirts for more."""
FEWER = 2000
"""Noisy images of CIFAR-10 in those conditions: each draws others, whose features take time."""
IMBALANCES = (1.0, 5.0, 20.0)
FLAGGED = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of all instances at which the recall is recorded: the paper's own task."""
FIXED = {"GenKL": (0.9, 1.0, 1.05, 1.1), "entropy": (0.8, 0.9, 0.95, 0.99)}
"""Thresholds that nobody adjusted to the data: the paper's range of alpha, and "near 1"."""
RETRAINED_SEEDS = 3
"""Of the seeds, so many for conditions that need new predictions."""


@dataclass(frozen=True)
class Judged:
    """One seed of one case, ready to be scored.

    Attributes:
        case: its name.
        seed: of everything.
        evidence: about the noisy instances, with a reference.
        kinds: what those are, shape (N,).
        val_accuracy: of the averaged prediction.
    """

    case: str
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


def judged(
    name: str,
    seed: int,
    found: Gathered,
    models: int = MODELS,
    temperature: float = 1.0,
) -> Judged:
    """What detectors see when so many models are averaged at a temperature."""
    reference = _evidence(found.reference, models, temperature)
    noisy = _evidence(found.noisy, models, temperature, reference)
    return Judged(name, seed, noisy, found.kinds, found.val_accuracy)


def _evidence(
    seen: Seen, models: int, temperature: float, reference: Evidence | None = None
) -> Evidence:
    logits = seen.logits[:models].astype(np.float64) / temperature
    view = seen.view_logits[:models].astype(np.float64) / temperature
    return Evidence(
        pred_probs=softmax(logits, axis=-1).mean(0),
        member_logits=logits,
        features=seen.features,
        given_labels=seen.labels,
        view_probs=softmax(view, axis=-1).mean(0),
        reference=reference,
    )


def usable(names: Iterable[str], evidence: Evidence) -> list[Detector]:
    """Those detectors whose needs the evidence meets; "GenKL auto" is chosen for it here."""
    found = [_auto(evidence) if name == AUTO else DETECTORS[name] for name in names]
    models = len(evidence.member_logits)
    return [
        one
        for one in found
        if not evidence.missing(one.needs) and (models > 1 or one.family != "ensemble")
    ]


def _auto(evidence: Evidence) -> Detector:
    choice = genkl.choose_alpha_beta(
        evidence.pred_probs,
        evidence.reference.pred_probs,
        uniform_like_vectors(evidence.num_classes),
        max_flag_rate=BUDGET,
    )
    alpha = choice.alpha if 0 < choice.alpha < np.inf else None
    return genkl_detector(choice.beta, alpha=alpha, name=AUTO)


@dataclass(frozen=True)
class Scored:
    """Scores of one detector: of the noisy instances, then of the held-out conforming ones."""

    detector: Detector
    scores: np.ndarray
    thresholds: dict[str, float]


def score_all(names: Iterable[str], one: Judged) -> dict[str, Scored]:
    """Every usable detector's scores and thresholds."""
    found = {}
    for detector in usable(names, one.evidence):
        held_out = detector.conforming_scores(one.evidence)
        thresholds = {"budget": threshold_for_budget(held_out, BUDGET)}
        if detector.name == AUTO:
            thresholds["budget"] = float(detector.threshold or np.inf)
        elif (own := detector.published_threshold(one.evidence)) is not None:
            thresholds["published"] = own
        scores = np.concatenate([detector.score(one.evidence), held_out])
        found[detector.name] = Scored(detector, scores, thresholds)
    return found


def measure(one: Judged, scored: dict[str, Scored], resamples: int) -> list[dict[str, Any]]:
    """One row for each detector and each kind of positives."""
    rows = []
    count = len(one.kinds)
    for kind in KINDS:
        if (chosen := one.of_kind(kind)) is None:
            continue
        counts, truth = chosen
        for name, this in scored.items():
            scores = this.scores[counts]
            row: dict[str, Any] = {
                "case": one.case, "seed": one.seed, "kind": kind, "method": name,
                "family": this.detector.family, "instances": len(truth),
                "positives": int(truth.sum()), "val_accuracy": one.val_accuracy,
                "auroc": auroc(scores, truth),
                "average_precision": average_precision(scores, truth),
                "recall_at_share": recall_at_share(
                    this.scores[:count], np.isin(one.kinds, KINDS[kind]), SHARE
                ),
            }  # fmt: skip
            if resamples:
                row |= _intervals(scores, scored, counts, truth, one.seed, resamples, name)
            for threshold, value in this.thresholds.items():
                figures = precision_recall_f1(scores >= value, truth)
                row |= {f"{threshold}_{key}": figure for key, figure in figures.items()}
                row[f"{threshold}_flagged"] = float((this.scores[:count] >= value).mean())
                row[f"{threshold}_false_flags"] = float((scores >= value)[~truth].mean())
            rows.append(row)
    return rows


def _intervals(
    scores: np.ndarray,
    scored: dict[str, Scored],
    counts: np.ndarray,
    truth: np.ndarray,
    seed: int,
    resamples: int,
    name: str,
) -> dict[str, float]:
    """Bootstrap intervals of the AUROC and of its distance to that of `BASE`."""
    low, high = bootstrap_interval(auroc, scores, truth, seed=seed, resamples=resamples)
    row = {"auroc_low": low, "auroc_high": high}
    if name != BASE and BASE in scored:
        base = scored[BASE].scores[counts]
        pair = paired_comparison(scores, base, truth, seed=seed, resamples=resamples)
        row |= {f"over_{BASE}": pair.difference, f"over_{BASE}_low": pair.low,
                f"over_{BASE}_high": pair.high}  # fmt: skip
    return row


def measure_recall(one: Judged, scored: dict[str, Scored]) -> list[dict[str, Any]]:
    """Recall of the non-conforming beside the share flagged, and at fixed thresholds."""
    rows = []
    count, is_nc = len(one.kinds), np.isin(one.kinds, KINDS["NC"])
    for name, this in scored.items():
        scores = this.scores[:count]
        row = {"case": one.case, "seed": one.seed, "method": name}
        rows += [
            {**row, "flagged": share, "recall": recall_at_share(scores, is_nc, share)}
            for share in FLAGGED
        ]
        rows += [
            {**row, "threshold": value, "flagged": float((scores >= value).mean()),
             "recall": float((scores >= value)[is_nc].mean())}
            for value in FIXED.get(name, ())
        ]  # fmt: skip
    return rows


def measure_by_dominant(one: Judged, scored: dict[str, Scored]) -> list[dict[str, Any]]:
    """Where do D and entropy order differently? By the number of dominant entries."""
    if not {"GenKL", BASE} <= set(scored) or (chosen := one.of_kind("NC")) is None:
        return []
    counts, truth = chosen
    probs = np.concatenate([one.evidence.pred_probs, one.evidence.reference.pred_probs])[counts]
    k = probs.shape[1]
    dominant = (probs >= dominance_threshold(k, BETA_SHARE / k)).sum(axis=1)
    scores = {name: scored[name].scores[counts] for name in ("GenKL", BASE)}
    correlation = float(spearmanr(*scores.values()).statistic)
    rows = []
    for label, mask in {"1": dominant == 1, "2": dominant == 2, "3 or more": dominant > 2}.items():
        row = {"case": one.case, "seed": one.seed, "dominant_entries": label,
               "instances": int(mask.sum()), "positives": int(truth[mask].sum()),
               "rank_correlation": correlation}  # fmt: skip
        rows.append(row | {f"auroc_{n}": auroc(s[mask], truth[mask]) for n, s in scores.items()})
    return rows


def measure_combinations(
    one: Judged, scored: dict[str, Scored], resamples: int
) -> list[dict[str, Any]]:
    """Cross-fitted logistic regressions on several scores; the truth is used to fit them."""
    rows = []
    for kind in KINDS:
        if (chosen := one.of_kind(kind)) is None or chosen[1].sum() < 20:
            continue
        counts, truth = chosen
        mixed = {}
        for title, parts in COMBINED.items():
            here = [part for part in parts if part in scored]
            if here and (len(here) == len(parts) or title.startswith("all")):
                columns = np.stack([scored[part].scores[counts] for part in here], axis=1)
                mixed[title] = combination(columns, truth, seed=one.seed)
        for title, scores in mixed.items():
            row = {"case": one.case, "seed": one.seed, "kind": kind, "method": title,
                   "auroc": auroc(scores, truth),
                   "average_precision": average_precision(scores, truth)}  # fmt: skip
            if ADDED.get(title) in mixed and resamples:
                pair = paired_comparison(
                    scores, mixed[ADDED[title]], truth, seed=one.seed, resamples=resamples
                )
                row |= {"over": ADDED[title], "added": pair.difference, "added_low": pair.low,
                        "added_high": pair.high}  # fmt: skip
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
        yield "models", models, judged(name, seed, found, models=models)
    for temperature in TEMPERATURES:
        yield "temperature", temperature, judged(name, seed, found, temperature=temperature)
    fitted = fitted_temperature(found.reference)
    yield "calibrated", fitted, judged(name, seed, found, temperature=fitted)
    if retrain:
        for condition, value, changes in retrained(CASES[name]):
            yield condition, value, judged(name, seed, gather(name, seed, **changes))


def retrained(case: Case) -> Iterable[tuple[str, float | str, dict[str, Any]]]:
    """Conditions that need new predictions, as changes to the case."""
    fewer = {"noisy_limit": FEWER} if case.dataset.startswith("cifar") else {}
    for size in CLEAN_SIZES.get(case.dataset, ()):
        yield "clean per class", size, {"options": {**fewer, "clean_per_class": size}}
    for imbalance in IMBALANCES:
        yield "imbalance", imbalance, {"imbalance": imbalance, "options": fewer}
    if case.pixels is None:
        for network in ("linear_head", "small_cnn", "small_resnet"):
            yield "network", network, {"network": network, "options": fewer}
    else:
        for pixels in (64, 96) if fewer else (64, 96, 160):
            yield "pixels", pixels, {"pixels": pixels, "options": fewer}


def measure_conditions(
    name: str, seed: int, found: Gathered, methods: Sequence[str], retrain: bool
) -> list[dict[str, Any]]:
    """AUROC of the few detectors that read predictions, under every condition."""
    rows = []
    few = [method for method in FEW if method in methods]
    for condition, value, one in conditions(name, seed, found, retrain):
        if (chosen := one.of_kind("NC")) is None:
            continue
        counts, truth = chosen
        for detector in usable(few, one.evidence):
            scores = np.concatenate(
                [detector.score(one.evidence), detector.conforming_scores(one.evidence)]
            )
            rows.append(
                {"case": name, "seed": seed, "condition": condition, "value": value,
                 "method": detector.name, "val_accuracy": one.val_accuracy,
                 "auroc": auroc(scores[counts], truth)}
            )  # fmt: skip
    return rows


def run_seed(
    name: str, seed: int, methods: Sequence[str], resamples: int, with_conditions: bool
) -> dict[str, list[dict[str, Any]]]:
    """All tables of one case and one seed."""
    found = gather(name, seed)
    one = judged(name, seed, found)
    scored = score_all(methods, one)
    tables = {
        "scores": measure(one, scored, resamples),
        "recall": measure_recall(one, scored),
        "dominant": measure_by_dominant(one, scored),
        "combinations": measure_combinations(one, scored, resamples),
    }
    if with_conditions:
        retrain = seed < RETRAINED_SEEDS
        tables["conditions"] = measure_conditions(name, seed, found, methods, retrain)
    return tables


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
    done = Parallel(jobs, return_as="generator", inner_max_num_threads=1)(work) if jobs > 1 else (
        run_seed(name, s, methods, resamples, with_conditions) for s in seeds
    )  # fmt: skip
    tables: dict[str, list] = {}
    for of_seed in tqdm(done, desc=name, total=len(seeds), unit="seed"):
        for key, rows in of_seed.items():
            tables.setdefault(key, []).extend(rows)
    return save_record(
        folder / f"{name}.json",
        title=f"Identification on {CASES[name].title}",
        tables={key: pd.DataFrame(rows).round(5) for key, rows in tables.items() if rows},
        settings={
            "case": name, "title": CASES[name].title, "seeds": list(seeds),
            "methods": list(methods), "models": MODELS, "budget": BUDGET, "share": SHARE,
            "resamples": resamples, "conditions": with_conditions,
            "seconds": time.perf_counter() - start, "jobs": jobs,
        },
        code=MODULES,
        overwrite=True,
    )  # fmt: skip


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
    for kind, asked, known in (
        ("case", options.cases, CASES),
        ("method", options.methods, METHODS),
    ):
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
