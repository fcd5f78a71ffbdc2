"""Choosing beta by what it flags: the benchmark's "GenKL auto", withdrawn from the package.

It was `genkl.choose_alpha_beta`. `benchmarks.thresholds` measures why it went: the choice depends
more on which held-out images it saw than on beta.
"""

from __future__ import annotations

import numpy as np

from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import uniform_like_vectors
from genkl.rule.identify import nc_score


def default_betas(num_classes: int) -> list[float]:
    """Ten betas from 0 to 0.95/k."""
    return [float(beta) for beta in np.linspace(0, 0.95, 10) / num_classes]


def choose_alpha_beta(
    pred_probs: np.ndarray, conforming_probs: np.ndarray, max_flag_rate: float, seed: int = 0
) -> tuple[float, float]:
    """The beta that flags most of pred_probs within a budget, and alpha for it.

    At equal false flags, more flagged is more found. One half of conforming_probs chooses beta,
    the other then sets alpha, so that the promise of `threshold_for_budget` is not spent on the
    search.

    Args:
        pred_probs: averaged predictions on the noisy instances, shape (N, k).
        conforming_probs: of instances that are known to conform, shape (m, k), at least 2.
        max_flag_rate: share of those that may be flagged.
        seed: of the halves.

    Returns:
        alpha, infinite if there were too few, and beta.
    """
    k, order = pred_probs.shape[1], np.random.default_rng(seed).permutation(len(conforming_probs))
    choosing, setting = (conforming_probs[rows] for rows in np.split(order, [len(order) // 2]))
    vectors = uniform_like_vectors(k)

    def alpha_at(beta: float, conforming: np.ndarray) -> float:
        return threshold_for_budget(nc_score(conforming, beta, vectors), max_flag_rate)

    def flagged(beta: float) -> float:
        return float((nc_score(pred_probs, beta, vectors) >= alpha_at(beta, choosing)).mean())

    beta = max(default_betas(k), key=flagged)
    return alpha_at(beta, setting), beta
