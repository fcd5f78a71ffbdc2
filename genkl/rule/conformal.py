"""The threshold that keeps a budget of false flags: split conformal prediction."""

from __future__ import annotations

import math

import numpy as np

from genkl.checks import Array, to_numpy


def threshold_for_budget(
    conforming_scores: Array, max_flag_rate: float, *, confidence: float | None = None
) -> float:
    r"""The lowest threshold that flags at most a stated share of conforming instances.

    With m held-out conforming scores, the threshold lies just above the r-th smallest. With
    :math:`r = \lceil (m+1)(1-\epsilon) \rceil` and a new conforming instance that is exchangeable
    with those, the chance that it is flagged is at most :math:`\epsilon`: on average over held-out
    sets, for any score, at any m. With a ``confidence`` r is the smallest rank for which the share
    flagged by *this* threshold is at most :math:`\epsilon` in that proportion of held-out sets
    (independent draws: given the held-out set, the share is at most Beta(m+1-r, r) distributed).
    Ties are never flagged, which keeps either promise and may use less than the budget.

    Args:
        conforming_scores: scores of validation instances known to conform, shape (m,).
        max_flag_rate: epsilon, the share that may be flagged, in (0, 1).
        confidence: None for the promise on average; in (0, 1) for the promise with that
            probability, which needs a higher threshold.

    Returns:
        The threshold for `flag_above`; infinite (nothing flagged) where m is too small for the
        budget: m < 1/epsilon - 1, or with a confidence :math:`(1-\epsilon)^m` > 1 - confidence.

    Raises:
        ValueError: no scores, NaN among them, or a rate or confidence outside (0, 1).

    Source: split conformal prediction :cite:p:`vovk2005algorithmic`, equations :eq:`eq-budget` and
    :eq:`eq-budget-confidence`.

    Example:
        >>> scores = np.arange(1.0, 100.0)
        >>> threshold_for_budget(scores, 0.1) > 90, threshold_for_budget(scores, 0.1) < 91
        (True, True)
    """
    if not 0 < max_flag_rate < 1:
        raise ValueError(f"max_flag_rate is {max_flag_rate}; state a share between 0 and 1")
    if confidence is not None and not 0 < confidence < 1:
        raise ValueError(
            f"confidence is {confidence}; state a probability between 0 and 1, or None for the "
            "promise on average"
        )
    scores = np.sort(to_numpy(conforming_scores).astype(np.float64))
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"conforming_scores has shape {scores.shape}; pass at least one score")
    if np.isnan(scores).any():
        raise ValueError("conforming_scores contains NaN; check the predictions behind it")
    rank = _rank(scores.size, max_flag_rate, confidence)
    if rank > scores.size:
        return math.inf
    return float(np.nextafter(scores[rank - 1], math.inf))


def _rank(count: int, max_flag_rate: float, confidence: float | None) -> int:
    """Which of the ordered scores the threshold lies above; count + 1 for none."""
    if confidence is None:
        # The small slack keeps (m+1)(1-epsilon) from being rounded past an integer it equals.
        return math.ceil((count + 1) * (1 - max_flag_rate) - 1e-9)
    from scipy.special import betainc

    ranks = np.arange(1, count + 1)
    kept = betainc(count + 1 - ranks, ranks, max_flag_rate)
    return 1 + int(np.searchsorted(kept, confidence))
