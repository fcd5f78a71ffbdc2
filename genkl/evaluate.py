"""How good is it? Accuracy of predictions, and of a rule that flags instances."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from genkl.checks import check_labels, check_probabilities
from genkl.data import Kind, Truth


def accuracy(pred_probs: np.ndarray, labels: np.ndarray) -> float:
    """Share of instances whose most probable class is the label.

    Args:
        pred_probs: shape (N, k).
        labels: integers in 0..k-1, shape (N,).

    Raises:
        ValueError: bad probabilities or labels out of range.
    """
    labels = np.asarray(labels)
    check_probabilities("pred_probs", pred_probs, ndim=2)
    check_labels("labels", labels, pred_probs.shape[1], pred_probs.shape[0])
    return float((pred_probs.argmax(axis=1) == labels).mean())


def identification_report(
    scores: np.ndarray, is_flagged: np.ndarray, truth: Truth
) -> dict[str, float]:
    """Hold a score and the mask it led to against the truth; NC is the positive class.

    Args:
        scores: larger means less conforming, shape (N,).
        is_flagged: boolean mask, shape (N,).
        truth: of the same N instances.

    Returns:
        ``flagged`` (share of all instances), ``precision``, ``recall``, ``f1``,
        ``false_flags`` (share of conforming instances flagged), ``auroc`` and
        ``average_precision`` of the score, ``recall_ood`` and ``recall_ambiguous``, ``auroc_ood``
        and ``auroc_ambiguous`` (that kind against the conforming ones). A figure whose class is
        absent is NaN; precision is NaN where nothing is flagged.

    Raises:
        ValueError: shapes that differ.
    """
    scores, is_flagged, is_nc = np.asarray(scores), np.asarray(is_flagged), truth.is_nc
    if not scores.shape == is_flagged.shape == is_nc.shape:
        raise ValueError(
            f"scores {scores.shape}, is_flagged {is_flagged.shape} and the truth {is_nc.shape} "
            "must describe the same instances"
        )
    precision, recall = _share(is_nc, is_flagged), _share(is_flagged, is_nc)
    report = {
        "flagged": float(is_flagged.mean()),
        "precision": precision,
        "recall": recall,
        "f1": _harmonic(precision, recall),
        "false_flags": _share(is_flagged, ~is_nc),
        "auroc": _auroc(scores, is_nc, np.ones_like(is_nc)),
        "average_precision": (
            float(average_precision_score(is_nc, _finite(scores))) if is_nc.any() else float("nan")
        ),
    }
    for kind in (Kind.OOD, Kind.AMBIGUOUS):
        of_kind = truth.kinds == kind
        report[f"recall_{kind.name.lower()}"] = _share(is_flagged, of_kind)
        report[f"auroc_{kind.name.lower()}"] = _auroc(scores, of_kind, of_kind | ~is_nc)
    return report


def mean_and_std(frame: pd.DataFrame, by: str | list[str]) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds of every numeric column.

    Args:
        frame: one row per run, with a column ``seed``.
        by: the columns that name a method; rows keep their first-seen order.

    Returns:
        One row per group; columns (name, "mean"), (name, "std"), and ("seeds", "count").
    """
    keys = [by] if isinstance(by, str) else list(by)
    numeric = frame.drop(columns=["seed"]).select_dtypes("number").columns.difference(keys)
    ordered = [column for column in frame.columns if column in numeric]
    groups = frame.groupby(keys, sort=False)
    table = groups[ordered].agg(["mean", "std"])
    table[("seeds", "count")] = groups["seed"].nunique()
    return table


def _share(hits: np.ndarray, among: np.ndarray) -> float:
    return float(hits[among].mean()) if among.any() else float("nan")


def _harmonic(a: float, b: float) -> float:
    if np.isnan(b):
        return float("nan")
    a = 0.0 if np.isnan(a) else a
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def _finite(scores: np.ndarray) -> np.ndarray:
    return np.nan_to_num(scores.astype(np.float64), posinf=np.finfo(np.float64).max)


def _auroc(scores: np.ndarray, positive: np.ndarray, among: np.ndarray) -> float:
    positive = positive[among]
    if positive.all() or not positive.any():
        return float("nan")
    return float(roc_auc_score(positive, _finite(scores[among])))
