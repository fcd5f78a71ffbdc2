"""The generalized KL divergence, entropy, and the uniform-like vectors."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np

from genkl.checks import (
    Array,
    as_arrays,
    as_float64,
    as_own_floats,
    check_positive,
    check_probabilities,
)


def uniform_like_vectors(
    num_classes: int, num_vectors: int = 20, sigma: float = 0.05, seed: int = 0
) -> np.ndarray:
    r"""Draw probability vectors scattered around the uniform one.

    Entries are drawn from :math:`\mathcal N(1/k, \sigma)` with NumPy's legacy generator; negative
    entries become 0.005, entries above 1 become 1, and rows are divided by their sums. For the
    same seed these are the vectors of the published scripts.

    Args:
        num_classes: k, at least 2.
        num_vectors: n, at least 1.
        sigma: standard deviation of the entries before normalisation; 0 gives n copies of the
            uniform vector.
        seed: seed of the legacy generator, 0 to 2**32 - 1. No global state is touched.

    Returns:
        Array of shape (n, k), dtype float64, each row a probability vector.

    Raises:
        ValueError: for fewer than 2 classes, no vector, or a negative sigma.

    Source: the published scripts of arXiv 2307.09810, equation :eq:`eq-uniform-like` of the book.

    Example:
        >>> uniform_like_vectors(4, num_vectors=2).round(3).tolist()
        [[0.266, 0.213, 0.236, 0.285], [0.317, 0.185, 0.274, 0.224]]
    """
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; a prediction needs at least 2 classes")
    if num_vectors < 1:
        raise ValueError(f"num_vectors is {num_vectors}; draw at least 1 uniform-like vector")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma is {sigma}; it must be a finite number, 0 or greater")
    draws = np.random.RandomState(seed).normal(1 / num_classes, sigma, (num_vectors, num_classes))
    draws[draws < 0] = 0.005
    draws[draws > 1] = 1.0
    return draws / draws.sum(axis=1, keepdims=True)


def dominance_threshold(num_classes: int, beta: float) -> float:
    r""":math:`\tau = 1/k - \beta`: an entry at or above it is dominant."""
    return 1 / num_classes - beta


def negative_log_dominant(q: Array, beta: float) -> Array:
    r"""Cost of each entry: :math:`-\log q_j` where :math:`q_j \ge \tau`, 0 elsewhere.

    Same shape and kind as q, float64. Whether an entry reaches :math:`\tau` is decided in the
    precision of q, so that an entry stored as :math:`\tau` counts in single precision, too. With
    :math:`\beta \ge 1/k` every entry is dominant and a zero entry costs :math:`+\infty`.
    """
    xp, (q,) = as_arrays(q)
    q = as_own_floats(xp, q)
    dominant = q >= dominance_threshold(q.shape[-1], beta)
    q = as_float64(xp, q)
    positive = q > 0
    cost = -xp.log(xp.where(positive, q, xp.ones_like(q)))
    cost = xp.where(positive, cost, xp.full_like(q, math.inf))
    return xp.where(dominant, cost, xp.zeros_like(q))


def entropy(p: Array) -> Array:
    r"""Shannon entropy :math:`H(p) = -\sum_j p_j \log p_j` in nats, with :math:`0 \log 0 = 0`.

    Args:
        p: probability vectors along the last axis, shape (..., k).

    Returns:
        Shape (...), float64, between 0 and log k; the same kind of array as p.

    Raises:
        ValueError: if p does not hold probability vectors.

    Example:
        >>> float(entropy(np.array([0.5, 0.5])).round(4))
        0.6931
    """
    xp, (p,) = as_arrays(p)
    check_probabilities("p", p)
    return unchecked_entropy(xp, as_float64(xp, p))


def unchecked_entropy(xp: ModuleType, p: Array) -> Array:
    """`entropy` of vectors that were checked, float64."""
    return -xp.sum(p * xp.log(xp.where(p > 0, p, xp.ones_like(p))), axis=-1)


def generalized_kl(p: Array, q: Array, alpha: float, beta: float) -> Array:
    r"""The :math:`(\alpha, \beta)`-generalized KL divergence :math:`D_{\alpha,\beta}(p \,\|\, q)`.

    .. math::

        D_{\alpha,\beta}(p\,\|\,q)
        = \alpha \sum_j p_j \log p_j \;-\!\! \sum_{j:\, q_j \ge \tau}\! p_j \log q_j,
        \qquad \tau = \tfrac1k - \beta .

    Natural logarithm; :math:`0 \log 0 = 0`. Only the dominant entries of q, those at or above
    :math:`\tau`, are counted. With :math:`\alpha = 1` and :math:`\beta \ge 1/k` this is the KL
    divergence itself, and infinite where q is 0 and p is not. Leading axes broadcast, so n vectors
    p of shape (n, 1, k) against N predictions of shape (N, k) give an (n, N) array; to *identify*
    many instances use `identify_nc`, which needs no such array.

    Args:
        p: probability vectors, shape (..., k).
        q: probability vectors, shape (..., k), broadcast against p.
        alpha: weight of p's negative entropy, greater than 0.
        beta: how far below 1/k the dominance threshold lies, 0 or greater.

    Returns:
        D with the broadcast leading shape, float64, in nats; a torch tensor if p or q is one
        (differentiable in q on each fixed set of dominant entries), else a NumPy array.

    Raises:
        ValueError: p or q not probability vectors, different numbers of classes, alpha <= 0,
            beta < 0.

    Source: definition of the divergence in arXiv 2307.09810, equation :eq:`eq-divergence`.

    Example:
        >>> uniform, peaked = np.full(4, 0.25), np.array([0.85, 0.05, 0.05, 0.05])
        >>> float(generalized_kl(uniform, peaked, alpha=0.9, beta=0.05).round(4))
        -1.207
    """
    xp, (p, q) = as_arrays(p, q)
    check_positive("alpha", alpha)
    if not beta >= 0:
        raise ValueError(f"beta is {beta}; it must be 0 or greater")
    check_probabilities("p", p)
    check_probabilities("q", q)
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"p has {p.shape[-1]} classes and q has {q.shape[-1]}; both need the same last axis"
        )
    p, cost = as_float64(xp, p), negative_log_dominant(q, beta)
    # 0 * inf is NaN, so a class that p does not use must not meet an infinite cost.
    terms = p * xp.where(p > 0, cost, xp.zeros_like(cost))
    return xp.sum(terms, axis=-1) - alpha * unchecked_entropy(xp, p)
