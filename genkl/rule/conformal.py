"""The threshold that keeps a budget of false flags: split conformal prediction."""

from __future__ import annotations

import math

import numpy as np

from genkl.checks import Array, aligned, to_numpy


def threshold_for_budget(
    conforming_scores: Array,
    max_flag_rate: float,
    *,
    confidence: float | None = None,
    weights: Array | None = None,
    classes: Array | None = None,
) -> float | np.ndarray:
    r"""The lowest threshold that flags at most a stated share of conforming instances.

    With m held-out conforming scores, the threshold lies just above the r-th smallest. With
    :math:`r = \lceil (m+1)(1-\epsilon) \rceil` and a new conforming instance that is exchangeable
    with those, the chance that it is flagged is at most :math:`\epsilon`: on average over held-out
    sets, for any score, at any m. With a ``confidence`` r is the smallest rank for which the share
    flagged by *this* threshold is at most :math:`\epsilon` in that proportion of held-out sets
    (independent draws: given the held-out set, the share is at most Beta(m+1-r, r) distributed).
    Ties are never flagged, which keeps either promise and may use less than the budget.

    Where new conforming instances are *not* like the held-out ones:

    * With ``weights`` :math:`w_i`, proportional to how much commoner an instance like the i-th is
      among the new ones, r is the smallest rank with :math:`\sum_{i \le r} w_{(i)} \ge (1-\epsilon)
      (\sum_i w_i + \max_i w_i)`, and the promise on average holds for the new ones. Under label
      shift, where classes have other shares but look the same, :math:`w_i` is the share of its
      class there over its share here. The largest weight stands for that of the new instance,
      whose class nobody knows; a class without a held-out instance is not covered.
    * With ``classes`` every class c gets a threshold of its own, from its own instances. If
      classes are known of new instances, too (the predicted ones), the promise holds within each,
      whatever their shares. If they are verified labels, the largest of the thresholds keeps the
      promise under *any* label shift.

    Args:
        conforming_scores: scores of validation instances known to conform, shape (m,).
        max_flag_rate: epsilon, the share that may be flagged, in (0, 1).
        confidence: None for the promise on average; in (0, 1) for the promise with that
            probability, which needs a higher threshold.
        weights: at least 0, shape (m,); None for equal ones.
        classes: integers from 0, shape (m,); None for one threshold.

    Returns:
        The threshold for `flag_above`; infinite (nothing flagged) where m is too small for the
        budget: m < 1/epsilon - 1, or with a confidence :math:`(1-\epsilon)^m` > 1 - confidence.
        With classes an array of thresholds, one for each up to the largest: flag
        ``scores >= thresholds[predicted]``, or ``scores >= thresholds.max()``.

    Raises:
        ValueError: no scores, NaN among them, or a rate or confidence outside (0, 1); weights or
            classes of another shape, negative, or without sum; weights with a confidence.

    Source: split conformal prediction :cite:p:`vovk2005algorithmic`, equations :eq:`eq-budget` and
    :eq:`eq-budget-confidence`; weights :cite:p:`tibshirani2019conformal,podkopaev2021distribution`,
    equation :eq:`eq-budget-weighted`; classes are Vovk's Mondrian categories.

    Example:
        >>> scores = np.arange(1.0, 100.0)
        >>> threshold_for_budget(scores, 0.1) > 90, threshold_for_budget(scores, 0.1) < 91
        (True, True)
        >>> labels = np.arange(99) // 50  # class 1 scores higher, and is commoner there
        >>> weights = np.array([0.25, 0.75])[labels] / (np.bincount(labels) / 99)[labels]
        >>> round(threshold_for_budget(scores, 0.1, weights=weights))
        94
        >>> threshold_for_budget(scores, 0.1, classes=labels).round().tolist()
        [46.0, 95.0]
    """
    if not 0 < max_flag_rate < 1:
        raise ValueError(f"max_flag_rate is {max_flag_rate}; state a share between 0 and 1")
    if confidence is not None and not 0 < confidence < 1:
        raise ValueError(
            f"confidence is {confidence}; state a probability between 0 and 1, or None for the "
            "promise on average"
        )
    scores = to_numpy(conforming_scores).astype(np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"conforming_scores has shape {scores.shape}; pass at least one score")
    if np.isnan(scores).any():
        raise ValueError("conforming_scores contains NaN; check the predictions behind it")
    mass = np.ones(scores.size) if weights is None else aligned("weights", weights, scores.size)
    if confidence is not None and weights is not None:
        raise ValueError("confidence and weights exclude each other; drop one")
    if classes is None:
        return _threshold(scores, mass, max_flag_rate, confidence)
    groups = aligned("classes", classes, scores.size).astype(int)
    members = (groups == group for group in range(groups.max() + 1))
    return np.array([_threshold(scores[m], mass[m], max_flag_rate, confidence) for m in members])


def _threshold(
    scores: np.ndarray, mass: np.ndarray, max_flag_rate: float, confidence: float | None
) -> float:
    """Just above the lowest score that has enough mass at or below it; infinite if none has."""
    if not mass.sum() > 0:
        return math.inf
    order = np.argsort(scores, kind="stable")
    if confidence is None:
        needed = (1 - max_flag_rate) * (mass.sum() + mass.max())
        # The small slack keeps (m+1)(1-epsilon) from being rounded past an integer it equals.
        place = int(np.searchsorted(np.cumsum(mass[order]), needed - 1e-9 * mass.max()))
    else:
        from scipy.special import betainc

        ranks = np.arange(1, len(scores) + 1)
        kept = betainc(len(scores) + 1 - ranks, ranks, max_flag_rate)
        place = int(np.searchsorted(kept, confidence))
    return float(np.nextafter(scores[order[place]], math.inf)) if place < len(scores) else math.inf
