"""Nearest neighbours in features, by cosine similarity: how far away, which, and near copies.

`neighbor_distance` is exact. `nearest_neighbors` is for large sets: in single precision, on any
device, and of wide features the directions that matter most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genkl.checks import Array, to_numpy

if TYPE_CHECKING:
    import torch

MAX_DIMENSIONS = 256
"""Features with more are projected on so many directions, those that keep similarities best."""

BLOCK_ENTRIES = 1 << 26
"""Similarities that are held at a time."""

NEAR_COPY = 0.2
"""Share of the usual distance to the tenth neighbour within which two images are near copies."""


def neighbor_distance(features: Array, reference: Array, neighbors: int = 5) -> np.ndarray:
    """Cosine distance of each row to its so-many-th nearest row of a reference.

    Args:
        features: shape (N, d).
        reference: shape (m, d).
        neighbors: 1 to m.

    Returns:
        Shape (N,), from 0 (the same direction) to 2.

    Raises:
        ValueError: shapes that don't fit, NaN, or more neighbors than reference rows.

    Source: :cite:t:`sun2022knn`.
    """
    from sklearn.neighbors import NearestNeighbors

    features, reference = to_numpy(features), to_numpy(reference)
    if features.ndim != 2 or reference.ndim != 2 or features.shape[1] != reference.shape[1]:
        raise ValueError(
            f"features has shape {features.shape} and the reference {reference.shape}; both need "
            "two axes, and as many columns"
        )
    if not 1 <= neighbors <= len(reference):
        raise ValueError(
            f"neighbors is {neighbors}; choose from 1 to {len(reference)}, the reference's rows"
        )
    search = NearestNeighbors(n_neighbors=neighbors, metric="cosine").fit(reference)
    return search.kneighbors(features)[0][:, -1]


def nearest_neighbors(
    features: torch.Tensor, among: torch.Tensor, count: int, *, start: int = 0, device: str = "cpu"
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
    import torch
    from torch.nn.functional import normalize

    if not 1 <= count < len(among):
        raise ValueError(
            f"count is {count} and there are {len(among)} instances to look among; ask for "
            f"{len(among) - 1} neighbours at most"
        )
    base, asked = (
        normalize(rows.detach().flatten(1).float().to(device), dim=1) for rows in (among, features)
    )
    if base.shape[1] > MAX_DIMENSIONS:
        _, directions = torch.linalg.eigh(base.T @ base)
        directions = directions[:, -MAX_DIMENSIONS:]
        base, asked = base @ directions, asked @ directions
    found = []
    for block in asked.split(max(1, BLOCK_ENTRIES // len(base))):
        similarity = block @ base.T
        rows = torch.arange(len(block), device=base.device)
        similarity[rows, start + rows] = -torch.inf
        found.append(similarity.topk(count, dim=1).indices.cpu())
        start += len(block)
    return torch.cat(found).numpy()


def near_copies(features: np.ndarray, closeness: float = NEAR_COPY) -> np.ndarray:
    """Groups of rows that are nearly the same: an image saved again, smaller, or slightly cut.

    A group is its first row and those that are closer to it than a share of the median distance to
    the tenth neighbour; nobody is in it for being close to another member alone.

    Args:
        features: shape (N, d).
        closeness: the share; 0 groups rows that are equal.

    Returns:
        The first row of each one's group, shape (N,); its own number where it has no copy.
    """
    import torch

    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.divide(features, lengths, where=lengths > 0, out=np.zeros(features.shape, np.float32))
    seen: dict[bytes, int] = {}
    first = np.array([seen.setdefault(row.tobytes(), at) for at, row in enumerate(unit)])
    kept = np.unique(first)
    if len(kept) < 3 or closeness == 0:
        return first
    unit = unit[kept]
    near = nearest_neighbors(*[torch.from_numpy(unit)] * 2, min(10, len(kept) - 1))
    distance = np.stack([1 - (unit * unit[column]).sum(axis=1) for column in near.T], axis=1)
    radius = closeness * np.median(distance[:, -1])
    leader = np.arange(len(kept))
    for row in np.flatnonzero(distance[:, 0] <= radius).tolist():
        for other in near[row, distance[row] <= radius].tolist():
            if other < row and 1 - unit[row] @ unit[leader[other]] <= radius:
                leader[row] = leader[other]
                break
    return kept[leader][np.searchsorted(kept, first)]
