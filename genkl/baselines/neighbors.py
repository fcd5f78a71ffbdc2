"""Nearest neighbours in frozen features, and what they say about a label."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genkl.checks import check_positive

MAX_DIMENSIONS = 256
"""Features with more are projected on so many directions, those that keep similarities best."""

BLOCK_ENTRIES = 1 << 26
"""Similarities that are held at a time."""


@torch.no_grad()
def nearest_neighbors(
    features: Tensor, among: Tensor, count: int, *, start: int = 0, device: str = "cpu"
) -> np.ndarray:
    """The nearest of some instances to each of others, by cosine similarity, itself left out.

    Args:
        features: N instances, shape (N, ...); axes behind the first are flattened.
        among: M instances to look among, shape (M, ...).
        count: neighbours of each; M - 1 at most.
        start: row of ``among`` that the first of ``features`` is, where they are in it.
        device: where to compute.

    Returns:
        Rows of ``among``, shape (N, count), the nearest first.

    Raises:
        ValueError: count is not in 1..M-1.
    """
    check_positive("count", count)
    if count > len(among) - 1:
        raise ValueError(
            f"count is {count} and there are {len(among)} instances to look among; ask for "
            f"{len(among) - 1} neighbours at most"
        )
    base = F.normalize(among.flatten(1).float().to(device), dim=1)
    asked = F.normalize(features.flatten(1).float().to(device), dim=1)
    if base.shape[1] > MAX_DIMENSIONS:
        _, directions = torch.linalg.eigh(base.T @ base)
        directions = directions[:, -MAX_DIMENSIONS:]
        base, asked = base @ directions, asked @ directions
    found = []
    for at, block in enumerate(asked.split(max(1, BLOCK_ENTRIES // len(base)))):
        similarity = block @ base.T
        rows = torch.arange(len(block), device=base.device)
        first = start + at * max(1, BLOCK_ENTRIES // len(base))
        similarity[rows, first + rows] = -torch.inf
        found.append(similarity.topk(count, dim=1).indices.cpu())
    return torch.cat(found).numpy()


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
