"""Which instances are non-conforming? Scores, and the thresholds that turn them into a mask.

Every rule here has the same shape: a *score* per instance (larger means less conforming) and a
*threshold*; an instance is flagged where score >= threshold. For the generalized KL divergence
the score is the critical alpha and the threshold is alpha itself.
"""

from __future__ import annotations

import math

import numpy as np

from genkl.checks import (
    Array,
    as_arrays,
    as_float64,
    check_beta,
    check_positive,
    check_probabilities,
)
from genkl.divergence import entropy, negative_log_dominant


def _cross_costs(
    pred_probs: Array, beta: float, uniform_like: Array
) -> tuple[object, Array, Array]:
    """Check the input; return the namespace, the (N, n) dominant costs and the (n,) entropies."""
    xp, (pred_probs, uniform_like) = as_arrays(pred_probs, uniform_like)
    check_probabilities("pred_probs", pred_probs, ndim=2)
    check_probabilities("uniform_like", uniform_like, ndim=2)
    num_classes = pred_probs.shape[1]
    if uniform_like.shape[1] != num_classes:
        raise ValueError(
            f"uniform_like has {uniform_like.shape[1]} classes and pred_probs has {num_classes}; "
            f"draw it with uniform_like_vectors({num_classes}, ...)"
        )
    if uniform_like.shape[0] == 0:
        raise ValueError("uniform_like has no rows; draw at least one uniform-like vector")
    check_beta(beta, num_classes)
    costs = negative_log_dominant(pred_probs, beta) @ as_float64(xp, uniform_like).T
    return xp, costs, entropy(uniform_like)


def nc_score(pred_probs: Array, beta: float, uniform_like: Array) -> Array:
    r"""Critical alpha of each instance: the largest alpha at which it is still flagged.

    .. math::

        s(q) = \max_{p \in P} \frac{-\sum_{j:\, q_j \ge \tau} p_j \log q_j}{H(p)},
        \qquad q \text{ is NC} \iff s(q) \ge \alpha .

    One pass serves every alpha: sort the scores and read off the NC set.

    Args:
        pred_probs: averaged predictions, shape (N, k).
        beta: in [0, 1/k).
        uniform_like: the vectors P, shape (n, k); see `uniform_like_vectors`.

    Returns:
        Shape (N,), float64, at least 0; the same kind of array as pred_probs. A vector p without
        entropy (one-hot) makes every instance NC at every alpha: the score is infinite.

    Raises:
        ValueError: pred_probs or uniform_like not probability vectors, mismatching classes, beta
            outside [0, 1/k).

    Source: derived from the published rule (see the book), equation :eq:`eq-critical-alpha`.

    Example:
        >>> probs = np.array([[0.97, 0.01, 0.01, 0.01], [0.4, 0.3, 0.2, 0.1]])
        >>> nc_score(probs, 0.05, uniform_like_vectors(4)).round(3).tolist()
        [0.008, 0.759]
    """
    xp, costs, entropies = _cross_costs(pred_probs, beta, uniform_like)
    positive = entropies > 0
    ratios = costs / xp.where(positive, entropies, xp.ones_like(entropies))
    ratios = xp.where(positive, ratios, xp.full_like(ratios, math.inf))
    return xp.max(ratios, axis=1)


def identify_nc(pred_probs: Array, alpha: float, beta: float, uniform_like: Array) -> Array:
    r"""Flag the non-conforming instances.

    An instance is NC where :math:`D_{\alpha,\beta}(p\,\|\,q) \ge 0` for any :math:`p \in P`.

    Args:
        pred_probs: averaged predictions q, shape (N, k).
        alpha: greater than 0; larger flags fewer.
        beta: in [0, 1/k); larger flags more.
        uniform_like: the vectors P, shape (n, k); see `uniform_like_vectors`.

    Returns:
        Boolean mask of shape (N,); the same kind of array as pred_probs.

    Raises:
        ValueError: as `nc_score`, and for alpha <= 0.

    Source: NC identification in arXiv 2307.09810 (the scripts use D >= 0), equation :eq:`eq-vote`.

    Example:
        >>> probs = np.array([[0.97, 0.01, 0.01, 0.01], [0.4, 0.3, 0.2, 0.1]])
        >>> identify_nc(probs, 0.7, 0.05, uniform_like_vectors(4)).tolist()
        [False, True]
    """
    check_positive("alpha", alpha, "; raise it to flag fewer instances, lower it to flag more")
    xp, costs, entropies = _cross_costs(pred_probs, beta, uniform_like)
    return xp.any(costs - alpha * entropies >= 0, axis=1)


def entropy_score(pred_probs: Array) -> Array:
    r"""Normalised entropy :math:`H(q) / \log k`, the score of entropy maximisation.

    Args:
        pred_probs: shape (N, k).

    Returns:
        Shape (N,), float64, from 0 (one-hot) to 1 (uniform); the same kind as pred_probs.

    Raises:
        ValueError: if pred_probs does not hold probability vectors.

    Source: the rule the paper compares with, equation :eq:`eq-entropy-rule`.
    """
    _, (pred_probs,) = as_arrays(pred_probs)
    check_probabilities("pred_probs", pred_probs, ndim=2)
    return entropy(pred_probs) / math.log(pred_probs.shape[1])


def flag_above(scores: Array, threshold: float) -> Array:
    """Flag the instances whose score is at least the threshold; shape and kind of scores."""
    return scores >= threshold


def threshold_for_budget(conforming_scores: Array, max_flag_rate: float) -> float:
    r"""The lowest threshold that flags at most a stated share of conforming instances.

    With m held-out conforming scores, the threshold lies just above the
    :math:`\lceil (m+1)(1-\epsilon) \rceil`-th smallest. If a new conforming instance is
    exchangeable with those, the chance that it is flagged is at most :math:`\epsilon`: on average
    over held-out sets, for any score, at any m. Ties are never flagged, which keeps the promise
    and may use less than the budget.

    Args:
        conforming_scores: scores of validation instances known to conform, shape (m,).
        max_flag_rate: epsilon, the share that may be flagged, in (0, 1).

    Returns:
        The threshold for `flag_above`; infinite (nothing flagged) where m is too small for the
        budget, that is m < 1/epsilon - 1.

    Raises:
        ValueError: no scores, NaN among them, or a rate outside (0, 1).

    Source: split conformal prediction :cite:p:`vovk2005algorithmic`, equation :eq:`eq-budget`.
    """
    if not 0 < max_flag_rate < 1:
        raise ValueError(f"max_flag_rate is {max_flag_rate}; state a share between 0 and 1")
    if hasattr(conforming_scores, "detach"):
        conforming_scores = conforming_scores.detach().cpu().numpy()
    scores = np.sort(np.asarray(conforming_scores, dtype=np.float64))
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"conforming_scores has shape {scores.shape}; pass at least one score")
    if np.isnan(scores).any():
        raise ValueError("conforming_scores contains NaN; check the predictions behind it")
    # The small slack keeps (m+1)(1-epsilon) from being rounded past an integer it equals.
    rank = math.ceil((scores.size + 1) * (1 - max_flag_rate) - 1e-9)
    if rank > scores.size:
        return math.inf
    return float(np.nextafter(scores[rank - 1], math.inf))
