"""What the benchmark of detectors judges: instances, who is positive, scores, and conditions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from benchmarks.evidence import CASES, NUM_MODELS, Gathered, gather, retrained
from genkl.data import Kind
from genkl.data.base import NON_CONFORMING
from genkl.detectors import DETECTORS, Detector, Evidence, genkl_detector
from genkl.evaluate import auroc
from genkl.rule.conformal import threshold_for_budget

MODELS = 5
"""Averaged in the main table, as the paper does before its first round."""
BUDGET = 0.05
CONFORMING = (Kind.CORRECT, Kind.MISLABELLED)
KINDS = {
    "NC": ((*NON_CONFORMING, Kind.WRONG), CONFORMING),
    "ambiguous": ((Kind.AMBIGUOUS,), CONFORMING),
    "OOD": ((Kind.OOD,), CONFORMING),
    "wrong label": ((Kind.MISLABELLED,), (Kind.CORRECT,)),
    "any": ((*NON_CONFORMING, Kind.MISLABELLED, Kind.WRONG), (Kind.CORRECT,)),
}
"""Who is positive, and who is negative; the others don't count."""
QUADRATIC = ("SelfClean",)
MOST_PAIRED = 30_000
"""These hold all distances, and are left out of data sets with more instances."""
FEW = ("GenKL", "GenKL invariant", "entropy", "max softmax", "mutual information")
"""What the conditions are looked at with: they act on predictions."""
BETA_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of 1/k, of the divergence."""
TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0)
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
        groups: what is resampled together, of those and then of the reference, shape (N + m,).
        val_accuracy: of the averaged prediction.
    """

    seed: int
    evidence: Evidence
    kinds: np.ndarray
    groups: np.ndarray
    val_accuracy: float

    def of_kind(self, kind: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows that count, and which of those are positive; None where one side is missing.

        Where nobody looked at the others (Clothing1M's list has positives only), the held-out
        conforming instances are the negatives: they come after the N noisy ones.
        """
        count, held_out = len(self.kinds), len(self.evidence.reference)
        positive, negative = (np.isin(self.kinds, kinds) for kinds in KINDS[kind])
        rows = np.flatnonzero(positive | negative)
        if not negative.any():
            rows = np.concatenate([rows, count + np.arange(held_out)])
        truth = np.concatenate([positive, np.zeros(held_out, dtype=bool)])[rows]
        return (rows, truth) if 0 < truth.sum() < len(truth) else None

    def of_every_kind(self) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
        """Each kind that can be judged, with the rows that count and which are positive."""
        for kind in KINDS:
            if (chosen := self.of_kind(kind)) is not None:
                yield kind, *chosen


def judged(
    seed: int,
    found: Gathered,
    way: str | None = None,
    models: int = MODELS,
    temperature: float = 1.0,
) -> Judged:
    """What detectors see: labels given in this way, so many models averaged at a temperature."""
    evidence, count = None, len(found.kinds)
    way = way or next(iter(found.labels))
    heads = None if found.heads is None else found.heads[:models].mean(axis=0)
    for rows, seen in ((slice(count, None), found.reference), (slice(0, count), found.noisy)):
        logits = seen.logits[:models].astype(np.float64) / temperature
        view = seen.view_logits[:models].astype(np.float64) / temperature
        evidence = Evidence(
            pred_probs=softmax(logits, axis=-1).mean(0),
            member_logits=logits,
            features=seen.features,
            given_labels=found.labels[way][rows],
            view_probs=softmax(view, axis=-1).mean(0),
            reference=evidence,
            training_logits=found.learning[way][:, rows] if way in found.learning else None,
            head=heads,
        )
    groups = np.concatenate([found.noisy.groups, found.reference.groups])
    return Judged(seed, evidence, found.kinds, groups, found.val_accuracy)


def usable(names: Iterable[str], evidence: Evidence) -> list[Detector]:
    """Those detectors whose needs the evidence meets."""
    models = len(evidence.member_logits)
    return [
        detector
        for detector in map(DETECTORS.__getitem__, names)
        if not evidence.missing(detector.needs)
        and (models > 1 or detector.family != "ensemble")
        and (len(evidence) <= MOST_PAIRED or detector.name not in QUADRATIC)
    ]


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
        if (own := detector.published_threshold(judged.evidence)) is not None:
            thresholds["published"] = own
        scores = np.concatenate([detector.score(judged.evidence), held_out])
        found[detector.name] = Scored(detector, scores, thresholds)
    return found


def fitted_temperature(found: Gathered, models: int = MODELS) -> float:
    """The temperature at which the averaged prediction is most likely on held-out labels."""
    logits = found.reference.logits[:models].astype(np.float64)
    labels = next(iter(found.labels.values()))[len(found.kinds) :]

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=-1)
        mean = np.logaddexp.reduce(scaled, axis=0) - np.log(len(scaled))
        return -float(mean[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def conditions(name: str, seed: int, found: Gathered, retrain: bool) -> Iterable[tuple]:
    """(condition, its value, what detectors see) for every condition of a case and seed."""
    for models in (1, 2, 3, 5, 7, NUM_MODELS):
        yield "models", models, judged(seed, found, models=models)
    for temperature in TEMPERATURES:
        yield "temperature", temperature, judged(seed, found, temperature=temperature)
    fitted = fitted_temperature(found)
    yield "calibrated", fitted, judged(seed, found, temperature=fitted)
    if retrain:
        for condition, value, changes in retrained(CASES[name]):
            yield condition, value, judged(seed, gather(name, seed, **changes))


def measure_conditions(name: str, seed: int, found: Gathered, methods: Sequence[str]) -> list[Row]:
    """AUROC of the few detectors that read predictions, under every condition; and over beta."""
    rows, retrain = [], seed < RETRAINED_SEEDS
    few = [method for method in FEW if method in methods]
    plain = judged(seed, found)
    k = plain.evidence.num_classes
    of_beta = {share: [genkl_detector(share / k), DETECTORS["entropy"]] for share in BETA_SHARES}
    asked = chain(
        (
            (*this, usable(few, this[-1].evidence))
            for this in conditions(name, seed, found, retrain)
        ),
        (("beta", share, plain, detectors) for share, detectors in of_beta.items()),
    )
    for condition, value, seen, detectors in asked:
        if (chosen := seen.of_kind("NC")) is None:
            continue
        counts, truth = chosen
        for detector in detectors:
            scores = detector.score(seen.evidence), detector.conforming_scores(seen.evidence)
            row: Row = {"condition": condition, "value": value, "method": detector.name}
            row["val_accuracy"] = seen.val_accuracy
            rows.append(row | {"auroc": auroc(np.concatenate(scores)[counts], truth)})
    return rows
