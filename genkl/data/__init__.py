"""Which data? One file per data set, one function to load any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genkl.checks import check_choice
from genkl.data.base import Kind, NoisyDataset, Split, Truth
from genkl.data.images import ImageError, ImageFiles, Images
from genkl.data.digits import load_digits
from genkl.data.solar_cells import load_solar_cells

LOADERS: dict[str, Callable[..., tuple[NoisyDataset, Truth]]] = {
    "digits": load_digits,
    "solar-cells": load_solar_cells,
}
"""Name -> loader. A new data set is one file and one line here."""


def load_dataset(name: str, seed: int = 0, **options: Any) -> tuple[NoisyDataset, Truth]:
    """Load a data set by name.

    Args:
        name: one of `LOADERS`.
        seed: decides splits and planted noise.
        options: passed on to the data set's own loader.

    Returns:
        The data set to learn from, and the truth to evaluate with.

    Raises:
        ValueError: unknown name (the message lists the known ones), or a bad option value.

    Example:
        >>> dataset, truth = load_dataset("digits", seed=0)
        >>> dataset.num_classes, dataset.input_shape, len(dataset.noisy) == len(truth.kinds)
        (8, (1, 8, 8), True)
    """
    check_choice("data set", name, LOADERS)
    return LOADERS[name](seed, **options)


__all__ = [
    "LOADERS",
    "Kind",
    "NoisyDataset",
    "Split",
    "Truth",
    "load_dataset",
    "load_digits",
    "load_solar_cells",
]
