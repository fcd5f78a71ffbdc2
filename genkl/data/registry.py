"""Every data set by name: one line each, one function to load any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from genkl.checks import check_choice
from genkl.data import (
    cifar10,
    clothing1m,
    clothing_dataset,
    digits,
    folder,
    food101n,
    solar_cells,
    webvision,
)
from genkl.data.base import NoisyDataset, Truth
from genkl.data.sources import Source


@dataclass(frozen=True)
class Entry:
    """A data set of this package.

    Attributes:
        load: its loader, ``(seed, **options) -> (NoisyDataset, Truth)``.
        source: what it is, and how to get it.
        also_needs: further sources that its loader reads.
    """

    load: Callable[..., tuple[NoisyDataset, Truth]]
    source: Source
    also_needs: tuple[Source, ...] = ()


DATASETS: dict[str, Entry] = {
    "digits": Entry(digits.load_digits, digits.SOURCE),
    "solar-cells": Entry(solar_cells.load_solar_cells, solar_cells.SOURCE),
    "clothing-dataset": Entry(clothing_dataset.load_clothing_dataset, clothing_dataset.SOURCE),
    "cifar10n": Entry(cifar10.load_cifar10n, cifar10.CIFAR10N, (cifar10.CIFAR10,)),
    "cifar10h": Entry(cifar10.load_cifar10h, cifar10.CIFAR10H, (cifar10.CIFAR10,)),
    "clothing1m": Entry(clothing1m.load_clothing1m, clothing1m.SOURCE),
    "food101n": Entry(food101n.load_food101n, food101n.SOURCE, (food101n.FOOD101_SOURCE,)),
    "mini-webvision": Entry(webvision.load_mini_webvision, webvision.SOURCE),
    "folder": Entry(folder.load_folder, folder.SOURCE),
}
"""Name -> loader and source. A new data set is one file and one line here."""


def load_dataset(name: str, seed: int = 0, **options: Any) -> tuple[NoisyDataset, Truth]:
    """Load a data set by name.

    Args:
        name: one of `DATASETS`.
        seed: decides splits and planted noise.
        options: passed on to the data set's own loader; ``data_root=`` where its files are, if
            they come with no package (default: ``$GENKL_DATA``, then the cache).

    Returns:
        The data set to learn from, and the truth to evaluate with.

    Raises:
        ValueError: unknown name (the message lists the known ones), or a bad option value.
        DataNotFoundError: its files are not on this machine; the message says what to get.

    Example:
        >>> dataset, truth = load_dataset("digits", seed=0)
        >>> dataset.num_classes, dataset.input_shape, len(dataset.noisy) == len(truth.kinds)
        (8, (1, 8, 8), True)
    """
    check_choice("data set", name, DATASETS)
    return DATASETS[name].load(seed, **options)
