"""Plant noise whose truth is known."""

from __future__ import annotations

import numpy as np

from genkl.checks import check_choice


def check_rate(name: str, rate: float) -> None:
    """Refuse a rate outside [0, 1]."""
    if not 0 <= rate <= 1:
        raise ValueError(f"{name} is {rate}; it is a share, between 0 and 1")


NOISE_KINDS = ("symmetric", "pair")


def plant_label_noise(
    labels: np.ndarray,
    num_classes: int,
    rate: float,
    rng: np.random.Generator,
    noise_kind: str = "symmetric",
) -> np.ndarray:
    """Replace a share of the labels by another class.

    Exactly ``round(rate * N)`` labels change, and a changed label is always wrong.

    Args:
        labels: true classes, shape (N,).
        num_classes: k, at least 2.
        rate: share of wrong labels, in [0, 1].
        rng: source of randomness.
        noise_kind: "symmetric" (each other class equally likely) or "pair" (always the next
            class: one systematic confusion per class, as between neighbouring search terms).

    Returns:
        Noisy labels, shape (N,); the input is not changed.

    Raises:
        ValueError: rate outside [0, 1], or an unknown kind.
    """
    check_rate("rate", rate)
    check_choice("noise_kind", noise_kind, NOISE_KINDS)
    noisy = labels.copy()
    wrong = rng.choice(len(labels), round(rate * len(labels)), replace=False)
    shift = rng.integers(1, num_classes, len(wrong)) if noise_kind == "symmetric" else 1
    noisy[wrong] = (labels[wrong] + shift) % num_classes
    return noisy


def blend_pairs(
    images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Average pairs of images of two different classes: an image that two labels fit.

    Args:
        images: shape (2P, ...), consumed two by two.
        labels: shape (2P,).
        rng: source of randomness.

    Returns:
        Blends of shape (at most P, ...), and the two classes of each, shape (at most P, 2). Pairs
        of one class are re-dealt; where none can be formed any more the rest is left out.
    """
    left = rng.permutation(len(labels))
    pairs = []
    while len(left) > 1 and len(np.unique(labels[left])) > 1:
        first, rest = left[0], left[1:]
        second = rest[labels[rest] != labels[first]]
        if len(second) == 0:
            left = rest
            continue
        pairs.append((first, second[0]))
        left = rest[rest != second[0]]
    chosen = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return (images[chosen[:, 0]] + images[chosen[:, 1]]) / 2, labels[chosen]
