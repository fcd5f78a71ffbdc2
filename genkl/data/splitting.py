"""Splitting instances: draws of so many a class, parts by share, whole groups, and folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def take_stratified(
    labels: np.ndarray, available: np.ndarray, per_class: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the same number of instances of every class, without replacement.

    Args:
        labels: shape (N,).
        available: indices that may be drawn, shape (A,).
        per_class: instances per class.
        rng: source of randomness.

    Returns:
        Indices into labels, sorted.

    Raises:
        ValueError: a class has too few instances left.
    """
    chosen = [available[:0]]
    for label in np.unique(labels[available]):
        members = available[labels[available] == label]
        if len(members) < per_class:
            raise ValueError(
                f"class {label} has {len(members)} instances left and {per_class} are asked for; "
                "ask for fewer clean, validation or test instances"
            )
        chosen.append(rng.choice(members, per_class, replace=False))
    return np.sort(np.concatenate(chosen))


def draw_splits(
    labels: np.ndarray,
    available: np.ndarray,
    per_class: Mapping[str, int],
    rng: np.random.Generator,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw one split after the other, see `take_stratified`.

    Args:
        labels: shape (N,).
        available: indices that may be drawn, shape (A,).
        per_class: instances of each class for each split, by name.
        rng: source of randomness.

    Returns:
        Indices of each split, sorted, by name; and those that are left.

    Raises:
        ValueError: a class has too few instances left.
    """
    rows = {}
    for split, count in per_class.items():
        rows[split] = take_stratified(labels, available, count, rng)
        available = np.setdiff1d(available, rows[split])
    return rows, available


def check_counts(**per_class: int) -> dict[str, int]:
    """The counts by split, none of them below 0."""
    for split, count in per_class.items():
        if count < 0:
            raise ValueError(f"{split}_per_class is {count}; pass 0 or more")
    return per_class


def draw_rows(
    rows: np.ndarray, limit: int | None, seed: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """At most so many of the rows, drawn without replacement, in their order.

    Args:
        rows: shape (N,).
        limit: how many; None is all of them.
        seed: decides which.
        labels: shape (N,); if given, each class gets the same share, as far as it has that many.

    Returns:
        Shape (min(N, limit),).
    """
    if limit is None or limit >= len(rows):
        return rows
    drawn = np.random.default_rng(seed).permutation(len(rows))
    if labels is not None:
        # The first of each class, then the second of each, and so on.
        by_class = np.argsort(labels[drawn], kind="stable")
        sorted_labels = labels[drawn][by_class]
        turn = np.empty(len(rows), np.int64)
        turn[by_class] = np.arange(len(rows)) - np.searchsorted(sorted_labels, sorted_labels)
        drawn = drawn[np.argsort(turn, kind="stable")]
    return rows[np.sort(drawn[:limit])]


def check_limit(name: str, limit: int | None) -> None:
    """Refuse a limit below 1."""
    if limit is not None and limit < 1:
        raise ValueError(f"{name} is {limit}; pass 1 or more, or None for all of them")


def divide(labels: np.ndarray, parts: int, *, seed: int) -> np.ndarray:
    """Divide instances into parts of about the same size, with a share of every label in each.

    Args:
        labels: shape (N,).
        parts: how many.
        seed: of the division.

    Returns:
        The part of each instance, shape (N,), 0..parts-1.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    part = np.empty(len(labels), dtype=np.int64)
    part[order] = np.arange(len(labels)) % parts
    return part


def divide_by_shares(
    labels: np.ndarray, shares: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Divide instances by shares, of each class alike.

    Args:
        labels: shape (N,).
        shares: of S parts; what they lack to 1 is one more part.
        rng: source of randomness.

    Returns:
        Part of each, shape (N,), 0 to S. Counts are exact up to rounding (largest remainders, the
        first part first).
    """
    every = with_rest(shares)
    parts = np.empty(len(labels), np.int64)
    by_class = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[by_class])) + 1
    for members in np.split(by_class, starts) if len(labels) else []:
        exact = every * len(members)
        counts = np.floor(exact + 1e-9).astype(np.int64)
        most_cut = np.argsort(np.round(counts - exact, 9), kind="stable")
        counts[most_cut[: len(members) - counts.sum()]] += 1
        parts[rng.permutation(members)] = np.repeat(np.arange(len(every)), counts)
    return parts


def divide_groups(
    labels: np.ndarray, groups: np.ndarray, shares: Sequence[float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Divide whole groups, so that each part's share of each class comes near the one wanted.

    The largest groups go first, each to the part that lacks most of what the group holds.

    Args:
        labels: shape (N,).
        groups: shape (N,), integers.
        shares: of S parts; what they lack to 1 is one more part.
        rng: breaks ties.

    Returns:
        The groups that occur, and the part of each, 0 to S.
    """
    if len(labels) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    every = with_rest(shares)
    names, owners, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    wanted = every[:, None] * np.bincount(labels)[None, :]
    filled = np.zeros_like(wanted)
    possible = np.flatnonzero(every > 0)
    members = np.split(labels[np.argsort(owners, kind="stable")], np.cumsum(sizes)[:-1])
    parts = np.empty(len(names), np.int64)
    shuffled = rng.permutation(len(names))
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")].tolist():
        mine = members[group]
        lacking = 1 - filled[possible][:, mine] / wanted[possible][:, mine]
        part = possible[int(lacking.sum(axis=1).argmax())]
        np.add.at(filled[part], mine, 1)
        parts[group] = part
    return names, parts


def with_rest(shares: Sequence[float]) -> np.ndarray:
    """The shares, and what they lack to 1."""
    return np.array([*shares, max(0.0, round(1 - sum(shares), 9))])
