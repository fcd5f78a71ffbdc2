"""Kinds of non-conforming instances: signs of ambiguous ones and of those out of distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genkl.checks import Array, check_beta, check_probabilities, to_numpy
from genkl.rule.divergence import dominance_threshold
from genkl.rule.neighbors import neighbor_distance

if TYPE_CHECKING:
    import pandas as pd


def nc_evidence(
    pred_probs: Array,
    beta: float,
    *,
    features: Array | None = None,
    conforming_features: Array | None = None,
    neighbors: int = 5,
) -> pd.DataFrame:
    """What speaks for "ambiguous" (two classes fit) and what for "out of distribution" (none does).

    An ambiguous instance should share its probability between few classes and lie where
    conforming instances lie; one out of distribution should spread it and lie apart. How far that
    is true is an empirical question: see the chapter on choosing.

    Args:
        pred_probs: averaged predictions, shape (N, k).
        beta: in [0, 1/k), for the dominance threshold.
        features: of the same instances, shape (N, d), from whatever sees more than the k
            classes; optional.
        conforming_features: of instances that are known to conform, shape (m, d).
        neighbors: the distance is to the so-many-th nearest of them, in cosine distance.

    Returns:
        One row per instance, columns ``dominant_entries``, ``dominant_mass`` (their probability),
        ``top_two_mass``, ``peak``, and ``distance`` if features are given.

    Raises:
        ValueError: bad predictions or beta; features without conforming_features or the other
            way round; shapes that don't fit; more neighbors than conforming instances.

    Source: distance to the nearest neighbours :cite:p:`sun2022knn`.
    """
    import pandas as pd

    probs = to_numpy(pred_probs)
    check_probabilities("pred_probs", probs, ndim=2)
    check_beta(beta, probs.shape[1])
    dominant = probs >= dominance_threshold(probs.shape[1], beta)
    largest = -np.partition(-probs, 1, axis=1)[:, :2]
    evidence = pd.DataFrame(
        {
            "dominant_entries": dominant.sum(axis=1),
            "dominant_mass": np.where(dominant, probs, 0).sum(axis=1),
            "top_two_mass": largest.sum(axis=1),
            "peak": largest[:, 0],
        }
    )
    if (features is None) != (conforming_features is None):
        raise ValueError("pass features and conforming_features together, or neither")
    if features is not None:
        if len(features) != len(evidence):
            raise ValueError(
                f"features has {len(features)} rows and pred_probs has {len(evidence)}"
            )
        evidence["distance"] = neighbor_distance(features, conforming_features, neighbors)
    return evidence


def looks_ambiguous(
    evidence: pd.DataFrame,
    *,
    min_top_two_mass: float = 0.9,
    max_distance: float | None = None,
) -> np.ndarray:
    """Call each instance ambiguous (True) or out of distribution (False).

    Where the evidence has a distance and ``max_distance`` is given, the distance decides. Without
    features the predictions do: ambiguous is what gives two classes most of the probability. That
    is a weak sign; the book measures how weak.

    Args:
        evidence: from `nc_evidence`, shape (N, columns); usually its flagged rows.
        min_top_two_mass: in (0, 1].
        max_distance: such as the median of `neighbor_distance` over conforming validation
            instances.

    Returns:
        Boolean, shape (N,).

    Raises:
        ValueError: max_distance without a distance in the evidence; a mass outside (0, 1].
    """
    if max_distance is not None:
        if "distance" not in evidence:
            raise ValueError(
                "max_distance is given but the evidence has no distance; pass features"
            )
        return (evidence["distance"] <= max_distance).to_numpy()
    if not 0 < min_top_two_mass <= 1:
        raise ValueError(f"min_top_two_mass is {min_top_two_mass}; state a share in (0, 1]")
    return (evidence["top_two_mass"] >= min_top_two_mass).to_numpy()
