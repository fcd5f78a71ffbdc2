"""Identification of non-conforming instances: scores, and thresholds that make a mask of them.

Every rule here has the same shape: a *score* per instance (larger means less conforming) and a
*threshold*; an instance is flagged where score >= threshold. For the generalized KL divergence
the score is the critical alpha and the threshold is alpha itself.
"""

from __future__ import annotations

import math
from typing import Any

from genkl.checks import Array, as_arrays, as_float64, check_positive, check_probabilities
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import unchecked_entropy
from genkl.rule.evaluation import SampledRule, check_rows, evaluate


def nc_score(
    pred_probs: Array,
    beta: float,
    uniform_like: Array,
    *,
    permutation_invariant: bool = False,
    num_threads: int | None = None,
    progress: bool = False,
) -> Array:
    r"""Critical alpha of each instance: the largest alpha at which it is still flagged.

    .. math::

        s(q) = \max_{p \in P} \frac{-\sum_{j:\, q_j \ge \tau} p_j \log q_j}{H(p)},
        \qquad q \text{ is NC} \iff s(q) \ge \alpha .

    One pass serves every alpha, see `alpha_path`. With ``permutation_invariant``, P is closed
    under permutation of the classes: by the rearrangement inequality the largest ratio over all
    permutations of p pairs its entries with the costs of q in the same order, so one sort gives
    it exactly. The names of the classes then don't matter, and the seed of P hardly changes the
    order of the scores; it still moves their level, so choose alpha for the vectors at hand.

    Args:
        pred_probs: averaged predictions, shape (N, k). A memory-mapped file is read strip by
            strip; a tensor on a GPU is evaluated there.
        beta: in [0, 1/k).
        uniform_like: the vectors P, shape (n, k); see `uniform_like_vectors`.
        permutation_invariant: use every permutation of every vector of P.
        num_threads: on the CPU; None uses every core. The result does not depend on it.
        progress: show a bar.

    Returns:
        Shape (N,), float64, at least 0; the same kind of array as pred_probs. A vector p without
        entropy (one-hot) makes every instance NC at every alpha: the score is infinite.

    Raises:
        ValueError: pred_probs or uniform_like not probability vectors, mismatching classes, beta
            outside [0, 1/k).

    Source: derived from the published rule (see the book), equations :eq:`eq-critical-alpha` and
    :eq:`eq-permutation-invariant`.

    Example:
        >>> probs = np.array([[0.97, 0.01, 0.01, 0.01], [0.4, 0.3, 0.2, 0.1]])
        >>> nc_score(probs, 0.05, uniform_like_vectors(4)).round(3).tolist()
        [0.008, 0.759]
    """
    rule = SampledRule.of(uniform_like, beta, check_rows(pred_probs), permutation_invariant)
    return evaluate(pred_probs, rule, num_threads=num_threads, progress=progress)


def identify_nc(
    pred_probs: Array,
    alpha: float | str,
    beta: float,
    uniform_like: Array,
    *,
    permutation_invariant: bool = False,
    conforming_probs: Array | None = None,
    max_flag_rate: float = 0.05,
    confidence: float | None = None,
    **computing: Any,
) -> Array:
    r"""Flag the non-conforming instances.

    An instance is NC where :math:`D_{\alpha,\beta}(p\,\|\,q) \ge 0` for any :math:`p \in P`.
    At a given alpha the votes are those of the published scripts bit for bit, in the precision
    that the predictions are stored in. With ``alpha="auto"``, alpha is chosen from predictions
    that are known to conform, so that at most ``max_flag_rate`` of such instances are flagged.

    Single and double precision give the same votes but where rounding moves an entry across tau or
    D across 0.

    Args:
        pred_probs: averaged predictions q, shape (N, k), as for `nc_score`.
        alpha: greater than 0; larger flags fewer. Or "auto".
        beta: in [0, 1/k); larger flags more.
        uniform_like: the vectors P, shape (n, k); see `uniform_like_vectors`.
        permutation_invariant: use every permutation of every vector of P, see `nc_score`.
        conforming_probs: for "auto", predictions of the same models on instances with verified
            labels that none of them was trained on, shape (m, k).
        max_flag_rate: for "auto", the share of conforming instances that may be flagged.
        confidence: for "auto", see `threshold_for_budget`.
        computing: ``num_threads`` on the CPU (None uses every core; the result does not depend on
            it), and ``progress=True`` to show a bar.

    Returns:
        Boolean mask of shape (N,); the same kind of array as pred_probs.

    Raises:
        ValueError: as `nc_score`; for alpha <= 0; for "auto" without conforming_probs.

    Source: NC identification in arXiv 2307.09810 (the scripts use D >= 0), equation :eq:`eq-vote`.

    Example:
        >>> probs = np.array([[0.97, 0.01, 0.01, 0.01], [0.4, 0.3, 0.2, 0.1]])
        >>> identify_nc(probs, 0.7, 0.05, uniform_like_vectors(4)).tolist()
        [False, True]
    """
    rule = SampledRule.of(uniform_like, beta, check_rows(pred_probs), permutation_invariant)
    if isinstance(alpha, str):
        if alpha != "auto":
            raise ValueError(f"alpha is {alpha!r}; pass a number, or 'auto' to choose it")
        if conforming_probs is None:
            raise ValueError(
                "alpha is 'auto' and conforming_probs is missing; pass predictions on validation "
                "instances with verified labels, or a number for alpha"
            )
        check_rows(conforming_probs)
        conforming = evaluate(conforming_probs, rule, num_threads=computing.get("num_threads"))
        threshold = threshold_for_budget(conforming, max_flag_rate, confidence=confidence)
        scores = evaluate(pred_probs, rule, **computing)
        return flag_above(scores, threshold)
    check_positive("alpha", alpha, "; raise it to flag fewer instances, lower it to flag more")
    return evaluate(pred_probs, rule, alpha, **computing)


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
    xp, (pred_probs,) = as_arrays(pred_probs)
    check_probabilities("pred_probs", pred_probs, ndim=2)
    return unchecked_entropy(xp, as_float64(xp, pred_probs)) / math.log(pred_probs.shape[1])


def flag_above(scores: Array, threshold: float) -> Array:
    """Flag the instances whose score is at least the threshold; shape and kind of scores."""
    return scores >= threshold
