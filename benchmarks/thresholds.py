"""Thresholds on every data set: who keeps the promise about false flags, and what choosing beta is.

    GENKL_DATA=/path/to/data python -m benchmarks.thresholds          # two minutes after detection

The record, results/benchmarks/thresholds.json, is what chapter 8 shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.choosing import default_betas
from benchmarks.detection import MODULES, SEEDS
from benchmarks.evidence import CASES, gather
from benchmarks.judging import BUDGET, Judged, judged
from genkl.detectors import DETECTORS
from genkl.detectors.predictions import BETA_SHARE
from genkl.evaluate import auroc
from genkl.records import save_record
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import uniform_like_vectors
from genkl.rule.identify import nc_score

RECORD = Path("results/benchmarks/thresholds.json")
SCORES = ("GenKL", "GenKL invariant", "entropy")
BUDGETS = (0.05, 0.1, 0.2, 0.3)
"""Another way to choose beta: by the mean share flagged at these; a third is by area."""
HALVINGS = 40
"""How often beta is chosen anew, with other halves of the held-out images."""


def flags(seen: Judged, scores: np.ndarray, held_out: np.ndarray) -> Mapping[str, np.ndarray]:
    """Whom each way to set a threshold flags, by its name; labels of the held-out are verified."""
    k, there = seen.evidence.num_classes, seen.evidence.given_labels
    labels, known = seen.evidence.reference.given_labels, seen.evidence.reference.pred_probs
    predicted, held_out_predicted = (p.argmax(1) for p in (seen.evidence.pred_probs, known))
    shares = [np.bincount(part, minlength=k) / len(part) for part in (there, labels)]
    weights = (shares[0] / np.maximum(shares[1], 1e-12))[labels]
    own = np.full(k, np.inf)
    each = threshold_for_budget(held_out, BUDGET, classes=held_out_predicted)
    own[: len(each)] = each
    return {
        "plain": scores >= threshold_for_budget(held_out, BUDGET),
        "class weights": scores >= threshold_for_budget(held_out, BUDGET, weights=weights),
        "each predicted class": scores >= own[predicted],
        "any class": scores >= threshold_for_budget(held_out, BUDGET, classes=labels).max(),
    }


def measure_promises(seen: Judged) -> Iterable[dict[str, Any]]:
    """Shares flagged of the conforming and of the others, for each score and way."""
    conforms, others = _sides(seen)
    for name in SCORES:
        detector = DETECTORS[name]
        scores = detector.score(seen.evidence), detector.conforming_scores(seen.evidence)
        for threshold, flagged in flags(seen, *scores).items():
            found = {"false_flags": flagged[conforms].mean(), "recall": flagged[others].mean()}
            yield {"score": name, "threshold": threshold, **found}


def measure_choice(seen: Judged) -> dict[str, Any]:
    """What a choice of beta could gain, what it gains, and how much it depends on the halves.

    Recalls "at the budget" take the threshold from the noisy conforming instances themselves, so
    that they tell one beta from another and nothing else.
    """
    conforms, others = _sides(seen)
    noisy, known = seen.evidence.pred_probs, seen.evidence.reference.pred_probs
    vectors = uniform_like_vectors(seen.evidence.num_classes)
    betas = [*default_betas(seen.evidence.num_classes), BETA_SHARE / seen.evidence.num_classes]
    scores = [[nc_score(part, beta, vectors) for beta in betas] for part in (noisy, known)]
    recalls = [(s[others] >= threshold_for_budget(s[conforms], BUDGET)).mean() for s in scores[0]]
    rng, shares, spent = np.random.default_rng(seen.seed), [], []
    for _ in range(HALVINGS):
        half = rng.permutation(len(known))[: len(known) // 2]
        limits = [threshold_for_budget(s[half], BUDGET) for s in scores[1][:-1]]
        shares.append([(s >= limit).mean() for s, limit in zip(scores[0], limits, strict=False)])
        best = int(np.argmax(shares[-1]))
        spent.append((scores[0][best][conforms] >= limits[best]).mean())
    everybody = np.repeat([True, False], [len(noisy), len(known)])
    areas = [auroc(np.concatenate(pair), everybody) for pair in zip(*scores, strict=True)][:-1]
    budgets = [
        np.mean([(s >= threshold_for_budget(r, rate)).mean() for rate in BUDGETS])
        for s, r in zip(*scores, strict=True)
    ][:-1]
    relative = np.array(shares) - np.mean(shares, axis=1, keepdims=True)
    picked = np.argmax(shares, axis=1)
    share = others.sum() / (others.sum() + conforms.sum())
    return {
        "held_out": len(known),
        "recall_fixed": recalls[-1],
        "recall_lot": np.mean(recalls[:-1]),
        "recall_best": np.max(recalls[:-1]),
        "recall_chosen": np.mean(np.take(recalls, picked)),
        "recall_by_area": recalls[int(np.argmax(areas))],
        "recall_by_budgets": recalls[int(np.argmax(budgets))],
        "spread_of_betas": share * np.std(recalls[:-1]),
        "spread_of_halves": relative.std(axis=0).mean(),
        "betas_picked": len(set(picked)),
        "false_flags_of_choice": np.mean(spent),
    }


def _sides(seen: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Who conforms and who doesn't, among the noisy instances."""
    rows, truth = seen.of_kind("NC")
    masks = np.zeros((2, len(seen.kinds)), dtype=bool)
    masks[truth.astype(int), rows] = True
    return masks[0], masks[1]


def record(names: Sequence[str], seeds: Sequence[int], path: Path) -> Path:
    """Measure on every data set and seed, and keep the record."""
    promises, betas = [], []
    for name in names:
        for seed in seeds:
            seen, of_this = judged(seed, gather(name, seed)), {"case": name, "seed": seed}
            promises += [of_this | row for row in measure_promises(seen)]
            betas.append(of_this | measure_choice(seen))
    return save_record(
        path,
        title="Thresholds within a budget, and the choice of beta",
        tables={"promises": pd.DataFrame(promises).round(5), "betas": pd.DataFrame(betas).round(5)},
        settings={"titles": {n: CASES[n].title for n in names}, "budget": BUDGET},
        code=(*MODULES, "benchmarks.thresholds"),
        overwrite=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--record", type=Path, default=RECORD, help=f"default: {RECORD}")
    options = parser.parse_args()
    for unknown in set(options.cases) - set(CASES):
        parser.error(f"unknown case {unknown!r}; choose from: {', '.join(CASES)}")
    names = [name for name in options.cases or CASES if CASES[name].is_present()]
    print(f"recorded in {record(names, options.seeds, options.record)}")


if __name__ == "__main__":
    main()
