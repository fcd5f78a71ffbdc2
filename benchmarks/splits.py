"""Splits of the benchmark of learning: one test set for each data set, whatever the seed.

A seed draws the clean and the validation instances, and the noise, from what the test set leaves.
So no seed, whether it chooses settings or is reported, trains on a test image or validates on one,
and runs of all seeds are judged on the same images.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import genkl
from genkl.data import Kind, NoisyDataset, Split, Truth
from genkl.data.clothing_dataset import divide_senders, read_clothing_dataset
from genkl.data.registry import CLOTHING_DATASET
from genkl.data.sources import find_data
from genkl.data.splitting import draw_splits, take_stratified

TEST_SEED = 1000
EVERYTHING: dict[str, dict[str, Any]] = {
    "digits": {"label_noise": 0.0, "num_ambiguous": 0, "num_ood": 354},
    "solar-cells": {},
    "clothing-dataset": {},
}
"""Data set -> options of its loader that leave all images in the noisy split, nothing planted."""


@dataclass(frozen=True)
class Whole:
    """A data set whose test split is drawn, and nothing else.

    Attributes:
        dataset: all that is left is in its noisy split.
        truth: about that.
        groups: of the noisy split and of the test split: who sent the image; None where each is
            its own.
    """

    dataset: NoisyDataset
    truth: Truth
    groups: tuple[np.ndarray, np.ndarray] | None


@functools.cache
def whole(name: str, test_per_class: int, pixels: int | None = None) -> Whole:
    """The data set with its test split, the same for all seeds; as frozen features of that size."""
    if pixels is not None:
        images = whole(name, test_per_class)
        return replace(images, dataset=genkl.featurize(images.dataset, size=pixels, progress=False))
    sizes = {"clean_per_class": 0, "validation_per_class": 0, "test_per_class": test_per_class}
    dataset, truth = genkl.load_dataset(name, seed=TEST_SEED, **sizes, **EVERYTHING[name])
    groups = None
    if name == "clothing-dataset":
        senders = read_clothing_dataset(find_data(CLOTHING_DATASET))[2]
        groups = senders[dataset.noisy.ids], senders[dataset.test.ids]
    return Whole(dataset, truth, groups)


def draw(
    name: str,
    seed: int,
    *,
    clean_per_class: int,
    validation_per_class: int,
    test_per_class: int,
    pixels: int | None = None,
    stranger_share: float = 1.0,
    **noise: Any,
) -> tuple[NoisyDataset, Truth]:
    """Draw the other splits, and plant noise in what is left.

    Args:
        name: of `EVERYTHING`.
        seed: of splits and noise.
        clean_per_class, validation_per_class: as the data set's loader has them.
        test_per_class: the same; it decides the test split, together with `TEST_SEED`.
        pixels: of frozen features, see `whole`; noise is then planted among features.
        stranger_share: at most this share of the noisy split, before blends, is non-conforming
            images, drawn at random; 1 keeps all.
        noise: see `genkl.plant_noise`.

    Returns:
        The data set and the truth about its noisy split.
    """
    pool = whole(name, test_per_class, pixels)
    noisy, truth = pool.dataset.noisy, pool.truth
    rng = np.random.default_rng([seed, TEST_SEED])
    classes = np.where(truth.kinds == Kind.CORRECT, truth.labels, -1)
    needs = {"clean": clean_per_class, "validation": validation_per_class}
    rows, rest = _divide(classes, None if pool.groups is None else pool.groups[0], needs, rng)
    if stranger_share < 1:
        strange, conforming = rest[classes[rest] < 0], (classes[rest] >= 0).sum()
        most = round(stranger_share / (1 - stranger_share) * conforming)
        rest = np.setdiff1d(rest, rng.permutation(strange)[most:])
    splits = {part: _verified(noisy.take(chosen), truth, chosen) for part, chosen in rows.items()}
    dataset = replace(pool.dataset, noisy=noisy.take(rest), **splits)
    left = Truth(truth.kinds[rest], truth.labels[rest], truth.source, noisy.ids.numpy()[rest])
    return genkl.plant_noise(dataset, left, seed=seed, **noise)


def are_strangers(name: str, test_per_class: int, truth: Truth) -> np.ndarray:
    """Who of a drawn noisy split is of no class, shape (N,): not blends, nor cells with a grade."""
    pool = whole(name, test_per_class)
    strange = pool.dataset.noisy.ids.numpy()[pool.truth.is_nc & (name != "solar-cells")]
    return np.isin(truth.ids, strange)


def _divide(
    classes: np.ndarray,
    groups: np.ndarray | None,
    needs: dict[str, int],
    rng: np.random.Generator,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows of each split, and of those that are left; whole groups where there are any."""
    if groups is None:
        rows, _ = draw_splits(classes, np.flatnonzero(classes >= 0), needs, rng)
        return rows, np.setdiff1d(np.arange(len(classes)), np.concatenate([*rows.values()]))
    parts = divide_senders(classes, groups, needs, rng)
    rows = {part: np.flatnonzero((parts == at) & (classes >= 0)) for at, part in enumerate(needs)}
    rows["clean"] = take_stratified(classes, rows["clean"], needs["clean"], rng)
    return rows, np.flatnonzero(~np.isin(parts, range(len(needs))))


def _verified(split: Split, truth: Truth, rows: np.ndarray) -> Split:
    """The same instances under their true labels."""
    return replace(split, labels=split.labels.new_tensor(truth.labels[rows]))


def groups_of_test(name: str, test_per_class: int) -> np.ndarray | None:
    """Who sent each test image, shape (images,); None where each is its own group."""
    groups = whole(name, test_per_class).groups if name in EVERYTHING else None
    return None if groups is None else groups[1]
