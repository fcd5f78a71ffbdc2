"""Figures of predictions and scores: accuracy, AUROC, average precision, recall, means over seeds.

Non-conforming is the positive class, and a higher score says "less conforming" throughout. A
figure whose class is absent is NaN.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from genkl.checks import check_labels, check_probabilities, to_numpy
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


def auroc(scores: np.ndarray, is_nc: np.ndarray) -> float:
    """Chance that a non-conforming instance scores higher than a conforming one, ties half.

    Args:
        scores: shape (N,); infinite ones are allowed.
        is_nc: boolean, shape (N,).

    Returns:
        In [0, 1]; NaN where one kind is absent.

    Raises:
        ValueError: shapes that differ, or NaN among the scores.
    """
    scores, is_nc = check_scores(scores, is_nc)
    if is_nc.all() or not is_nc.any():
        return float("nan")
    return float(roc_auc_score(is_nc, _ranks(scores)))


def average_precision(scores: np.ndarray, is_nc: np.ndarray) -> float:
    """Precision averaged over the recall gained at each threshold, as scikit-learn does.

    A score that knows nothing has about the share of non-conforming instances.

    Args:
        scores: shape (N,); infinite ones are allowed.
        is_nc: boolean, shape (N,).

    Returns:
        In (0, 1]; NaN where no instance is non-conforming.

    Raises:
        ValueError: as `auroc`.
    """
    scores, is_nc = check_scores(scores, is_nc)
    if not is_nc.any():
        return float("nan")
    return float(average_precision_score(is_nc, _ranks(scores)))


def recall_at_share(scores: np.ndarray, is_nc: np.ndarray, share: float = 0.05) -> float:
    """Share of the non-conforming instances among the highest-scored share of all.

    Where the cut falls into a tie, or between two instances, this is the expectation over a fair
    draw. A constant score has exactly ``share``.

    Args:
        scores: shape (N,); infinite ones are allowed.
        is_nc: boolean, shape (N,).
        share: of all instances that is flagged, in [0, 1].

    Returns:
        In [0, 1], and at most share * N over the number of non-conforming instances; NaN where
        there is none.

    Raises:
        ValueError: share outside [0, 1], and as `auroc`.

    Example:
        >>> scores, is_nc = np.array([3.0, 2.0, 2.0, 1.0]), np.array([False, True, False, True])
        >>> recall_at_share(scores, is_nc, share=0.5)  # the first, and one of the next two
        0.25
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; state a share between 0 and 1")
    scores, is_nc = check_scores(scores, is_nc)
    if not is_nc.any():
        return float("nan")
    falling, fallen_nc = np.sort(-scores), -scores[is_nc]
    above, at_least = (np.searchsorted(falling, fallen_nc, side) for side in ("left", "right"))
    flagged = np.clip((share * len(scores) - above) / (at_least - above), 0, 1)
    return float(flagged.mean())


def precision_recall_f1(is_flagged: np.ndarray, is_nc: np.ndarray) -> dict[str, float]:
    """Precision, recall and their harmonic mean.

    Args:
        is_flagged: boolean mask, shape (N,).
        is_nc: boolean, shape (N,).

    Returns:
        ``precision`` (NaN where nothing is flagged), ``recall`` and ``f1`` (NaN where nothing is
        non-conforming; f1 is 0 where nothing is flagged).

    Raises:
        ValueError: shapes that differ.
    """
    is_flagged, is_nc = to_numpy(is_flagged).astype(bool), to_numpy(is_nc).astype(bool)
    check_same("is_flagged", is_flagged, is_nc)
    hits, flagged, present = (int(x.sum()) for x in (is_flagged & is_nc, is_flagged, is_nc))
    return {
        "precision": hits / flagged if flagged else float("nan"),
        "recall": hits / present if present else float("nan"),
        "f1": 2 * hits / (flagged + present) if present else float("nan"),
    }


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
    figures = {
        "flagged": float(is_flagged.mean()),
        **precision_recall_f1(is_flagged, is_nc),
        "false_flags": precision_recall_f1(is_flagged, ~is_nc)["recall"],
        "auroc": auroc(scores, is_nc),
        "average_precision": average_precision(scores, is_nc),
    }
    for kind in (Kind.OOD, Kind.AMBIGUOUS):
        of_kind = truth.kinds == kind
        among = of_kind | ~is_nc
        name = kind.name.lower()
        figures[f"recall_{name}"] = precision_recall_f1(is_flagged, of_kind)["recall"]
        figures[f"auroc_{name}"] = auroc(scores[among], of_kind[among])
    return figures


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


def check_scores(
    scores: np.ndarray, is_nc: np.ndarray, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (float64) and truth (boolean) of the same instances; refuses NaN and other shapes."""
    scores, is_nc = to_numpy(scores).astype(np.float64), to_numpy(is_nc).astype(bool)
    check_same(name, scores, is_nc)
    if np.isnan(scores).any():
        row = int(np.argmax(np.isnan(scores)))
        raise ValueError(f"{name} contains NaN in row {row}; it has no place in an order")
    return scores, is_nc


def check_same(
    name: str, values: np.ndarray, reference: np.ndarray, reference_name: str = "is_nc"
) -> None:
    """Refuse two arrays that don't have one axis of the same length."""
    if values.ndim != 1 or values.shape != reference.shape:
        raise ValueError(
            f"{name} has shape {values.shape} and {reference_name} {reference.shape}; both need "
            "one axis, and the same instances"
        )


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks instead of scores: the same order and ties, and finite."""
    return np.unique(scores, return_inverse=True)[1]
