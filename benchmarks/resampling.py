"""Intervals over other images, or senders, and other seeds at once; what runs got right, packed."""

from __future__ import annotations

import base64

import numpy as np

from genkl.evaluate import check_level

DRAWS_AT_ONCE = 250


def hierarchical_interval(
    values: np.ndarray,
    groups: np.ndarray | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a mean over images and seeds, both drawn again.

    Every draw takes as many seeds as there are, with replacement, and as many images, or whole
    groups of images. All seeds are judged on the same images, so that one draw of images serves
    them all.

    Args:
        values: of each seed and image, such as 1 where it is right, or a difference of two methods;
            shape (seeds, images).
        groups: of the images, shape (images,), such as who sent them; None draws single images.
        level: in (0, 1).
        draws: how many.
        seed: of the draws.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: a shape that doesn't fit, no seed, no image, NaN, or a bad level.

    Source: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007).
    """
    check_level(level)
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
        raise ValueError(
            f"values has shape {values.shape}; pass a finite number for each seed and image"
        )
    names = np.arange(values.shape[1]) if groups is None else np.asarray(groups)
    if names.shape != values.shape[1:]:
        raise ValueError(f"groups has shape {names.shape}; name one for each of the images")
    owners = np.unique(names, return_inverse=True)[1]
    count = owners.max() + 1
    sizes = np.bincount(owners)
    sums = np.stack([np.bincount(owners, row, count) for row in values])
    rng, found = np.random.default_rng(seed), []
    for first in range(0, draws, DRAWS_AT_ONCE):
        width = min(DRAWS_AT_ONCE, draws - first)
        times = _times_drawn(count, width, rng)
        of_seeds = _times_drawn(len(values), width, rng) / len(values)
        found.append(((times @ sums.T) * of_seeds).sum(axis=1) / (times @ sizes))
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _times_drawn(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of so many is in each draw, shape (draws, count)."""
    drawn = rng.integers(0, count, (draws, count)) + count * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * count).reshape(draws, count) * 1.0


def pack(hits: np.ndarray) -> str:
    """Booleans, shape (models, images), as text: "models:images:bits in base 64"."""
    bits = base64.b64encode(np.packbits(hits).tobytes()).decode()
    return f"{len(hits)}:{hits.shape[1]}:{bits}"


def unpack(text: str) -> np.ndarray:
    """What `pack` was given."""
    models, images, bits = text.split(":")
    shape = int(models), int(images)
    packed = np.frombuffer(base64.b64decode(bits), np.uint8)
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)
