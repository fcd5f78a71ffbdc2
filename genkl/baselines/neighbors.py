"""Votes of nearest neighbours on a label."""

from __future__ import annotations

import numpy as np

from genkl.rule.neighbors import nearest_neighbors

__all__ = ["nearest_neighbors", "neighbor_labels"]


def neighbor_labels(
    neighbors: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    given_labels: np.ndarray,
    num_classes: int,
) -> np.ndarray:
    """The labels that most neighbours have; the given one where it has as many votes as any.

    Args:
        neighbors: rows of ``labels``, shape (N, K), see `nearest_neighbors`.
        labels: of the instances looked among, shape (M,).
        weights: of their votes, shape (M,).
        given_labels: shape (N,).
        num_classes: k.

    Returns:
        Shape (N,), integers.
    """
    rows = np.arange(len(neighbors))
    votes = np.zeros((len(neighbors), num_classes))
    np.add.at(votes, (rows[:, None], labels[neighbors]), weights[neighbors])
    agrees = votes[rows, given_labels] >= votes.max(axis=1)
    return np.where(agrees, given_labels, votes.argmax(axis=1))
