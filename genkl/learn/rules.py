"""Rules that flag: the divergence, and what takes its place in an ablation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from genkl.checks import to_numpy
from genkl.learn.config import GenKLConfig
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import uniform_like_vectors
from genkl.rule.identify import entropy_score, flag_above, nc_score


@dataclass(frozen=True)
class Decision:
    """Scores of the noisy instances, shape (N,), and the threshold they are flagged at."""

    scores: np.ndarray
    threshold: float

    def __post_init__(self) -> None:
        if np.isnan(self.scores).any() or math.isnan(self.threshold):
            raise ValueError("identify: NaN among scores or threshold flags nothing; give numbers")

    @property
    def is_nc(self) -> np.ndarray:
        """Boolean mask, shape (N,)."""
        return flag_above(self.scores, self.threshold)


IdentifyRule = Callable[[np.ndarray, np.ndarray], Decision | np.ndarray]
"""``(pred_probs of the noisy split, pred_probs of the validation split) -> Decision``, or a boolean
mask of what is flagged, shape (N,)."""


def decide(rule: IdentifyRule, pred_probs: np.ndarray, validation_probs: np.ndarray) -> Decision:
    """What a rule decides; a mask stands for scores of 0 and 1.

    Raises:
        ValueError: neither a `Decision` nor a boolean mask, or not one value an instance.
    """
    found = rule(pred_probs, validation_probs)
    if not isinstance(found, Decision) and (mask := to_numpy(found)).dtype == bool:
        found = Decision(mask.astype(np.float64), 1.0)
    if not isinstance(found, Decision) or np.shape(found.scores) != (len(pred_probs),):
        raise ValueError(
            f"identify: it gives {found!r:.60}; return Decision(scores, threshold) or a boolean "
            f"mask, of shape ({len(pred_probs)},)"
        )
    return found


def divergence_rule(config: GenKLConfig) -> IdentifyRule:
    """NC identification by the generalized KL divergence, as the configuration says.

    The score is the critical alpha; the threshold is ``config.alpha`` or, where that is None, the
    lowest one within the flag budget on validation predictions.
    """

    def rule(pred_probs: np.ndarray, validation_probs: np.ndarray) -> Decision:
        vectors = uniform_like_vectors(
            pred_probs.shape[1], config.num_vectors, config.sigma, config.vector_seed
        )
        threshold = config.alpha
        if threshold is None:
            conforming = nc_score(validation_probs, config.beta, vectors)
            threshold = threshold_for_budget(conforming, config.max_flag_rate)
        return Decision(nc_score(pred_probs, config.beta, vectors), threshold)

    return rule


def entropy_rule(max_flag_rate: float, threshold: float | None = None) -> IdentifyRule:
    """NC identification by normalised entropy, the paper's foil.

    Args:
        max_flag_rate: flag budget on validation predictions.
        threshold: a fixed threshold on the normalised entropy instead.
    """

    def rule(pred_probs: np.ndarray, validation_probs: np.ndarray) -> Decision:
        chosen = threshold
        if chosen is None:
            chosen = threshold_for_budget(entropy_score(validation_probs), max_flag_rate)
        return Decision(entropy_score(pred_probs), chosen)

    return rule


def flag_nothing(pred_probs: np.ndarray, validation_probs: np.ndarray) -> Decision:
    """The ablation without an NC stage: every noisy instance gets its double-hot target."""
    return Decision(np.zeros(len(pred_probs)), math.inf)
