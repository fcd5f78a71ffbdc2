"""CIFAR-10H: CIFAR-10's test images under some 51 votes each.

Where people disagree, the image is ambiguous.
"""

from __future__ import annotations

import os

import numpy as np

from genkl.data.base import Kind, NoisyDataset, Truth, make_dataset
from genkl.data.cifar10 import CLASS_NAMES, numbered_images, read_cifar10_labels
from genkl.data.planting import check_rate
from genkl.data.registry import CIFAR10, CIFAR10H
from genkl.data.sources import find_data, find_neighbour
from genkl.data.splitting import check_counts, check_limit, draw_rows, draw_splits

FILE = "cifar10h-counts.npy"


def load_cifar10h(
    seed: int = 0,
    *,
    data_root: str | os.PathLike[str] | None = None,
    clean_per_class: int = 50,
    validation_per_class: int = 50,
    test_per_class: int = 500,
    noisy_limit: int | None = None,
    ambiguous_below: float = 0.8,
) -> tuple[NoisyDataset, Truth]:
    """Load CIFAR-10 with the votes of CIFAR-10H: 10 classes, real ambiguity.

    The noisy split is CIFAR-10's *test* set, since that is what people voted on; the other splits
    are drawn from its training set. The given label of a noisy image is one vote, drawn at random.

    Args:
        seed: decides splits and votes.
        data_root: where to look for both instead of ``$GENKL_DATA``.
        clean_per_class: training images of each class, under CIFAR-10's labels.
        validation_per_class: the same, for validation.
        test_per_class: the same, for testing.
        noisy_limit: draw at most so many noisy instances at random.
        ambiguous_below: an image is ambiguous where its most frequent vote has a smaller share.

    Returns:
        The data set, inputs of shape (N, 3, 32, 32), uint8, and the truth about its noisy
        split. It is AMBIGUOUS; or CORRECT or MISLABELLED where people and CIFAR-10 agree on the
        class; or UNKNOWN where most people agree on another class than CIFAR-10's (6 images). Ids
        count the training images from 0, then the test images.

    Raises:
        DataNotFoundError: CIFAR-10 or CIFAR-10H is not here; the message says what to do.
        ValueError: a bad option, files that are damaged or that don't belong together.
    """
    check_rate("ambiguous_below", ambiguous_below)
    check_limit("noisy_limit", noisy_limit)
    per_class = check_counts(
        clean=clean_per_class, validation=validation_per_class, test=test_per_class
    )
    folder = find_data(CIFAR10H, data_root)
    counts, shares = read_cifar10h(folder)
    cifar = find_neighbour(CIFAR10, data_root, folder)
    label = read_cifar10_labels("test", cifar)
    if len(label) != len(counts) or (counts.argmax(axis=1) == label).mean() < 0.5:
        raise ValueError(
            f"{folder / FILE}: the votes on {len(counts)} images don't fit CIFAR-10's "
            f"{len(label)} test images in {cifar}; both must be in their original order: get the "
            "official files"
        )
    rng = np.random.default_rng(seed)
    trained = read_cifar10_labels("train", cifar)
    rows, _ = draw_splits(trained, np.arange(len(trained)), per_class, rng)
    votes = draw_votes(counts, rng)
    agreed = counts[np.arange(len(label)), label] == counts.max(axis=1)
    kinds = np.where(votes == label, Kind.CORRECT, Kind.MISLABELLED)
    kinds[~agreed] = Kind.UNKNOWN
    kinds[shares.max(axis=1) < ambiguous_below] = Kind.AMBIGUOUS
    told = np.where(np.isin(kinds, (Kind.CORRECT, Kind.MISLABELLED)), label, -1)
    rows["noisy"] = len(trained) + draw_rows(np.arange(len(label)), noisy_limit, seed)

    # The training images first, which nobody voted on.
    given = np.concatenate([trained, votes])
    kinds = np.concatenate([np.full(len(trained), Kind.CORRECT), kinds])
    source = "people's votes, and CIFAR-10's own labels"
    read = numbered_images(len(trained), cifar)
    truth = Truth(kinds, np.concatenate([trained, told]), source)
    return make_dataset(CIFAR10H.name, CLASS_NAMES, read, rows, given, truth)


def draw_votes(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One vote for each image, drawn from all that were given: (N, k) counts -> (N,) labels."""
    drawn = rng.integers(0, counts.sum(axis=1))
    return (counts.cumsum(axis=1) <= drawn[:, None]).sum(axis=1)


def read_cifar10h(
    data_root: str | os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10H's votes.

    Args:
        data_root: where to look instead of ``$GENKL_DATA``.

    Returns:
        Votes for each class, (N, 10), int64, and their shares, (N, 10), which sum to 1.

    Raises:
        DataNotFoundError: it is not here; the message says what to do.
        ValueError: not the official file.
    """
    path = find_data(CIFAR10H, data_root) / FILE
    remedy = f"get the official file again (python -m genkl data get {CIFAR10H.name})"
    try:
        counts = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: no plain NumPy array ({error}); {remedy}") from None
    if counts.ndim != 2 or counts.shape[1] != len(CLASS_NAMES) or counts.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: shape {counts.shape}, {counts.dtype}; expected integers (N, 10): {remedy}"
        )
    bad = (counts < 0).any(axis=1) | (counts.sum(axis=1) == 0)
    if bad.any():
        raise ValueError(f"{path}: image {int(bad.argmax())} has no votes, or negative; {remedy}")
    counts = counts.astype(np.int64)
    return counts, counts / counts.sum(axis=1, keepdims=True)
