"""Data sets from arrays: embeddings of any network, or images, with labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genkl.checks import check_labels, to_numpy
from genkl.data.base import Kind, NoisyDataset, Truth, make_dataset
from genkl.data.images import Images, positions


def dataset_from_arrays(
    name: str,
    inputs: np.ndarray | Tensor | Images,
    given_labels: np.ndarray | Tensor | Sequence[int],
    *,
    class_names: Sequence[str] | None = None,
    clean: tuple[Sequence[int], Sequence[int]] | None = None,
    validation: tuple[Sequence[int], Sequence[int]] | None = None,
    test: tuple[Sequence[int], Sequence[int]] | None = None,
) -> tuple[NoisyDataset, Truth]:
    """A data set from arrays: images, or embeddings of CLIP, DINO or any other network.

    Args:
        name: of the data set, for tables and messages.
        inputs: N instances: embeddings (N, d), images (N, C, H, W), or `Images` on disk.
        given_labels: shape (N,), integers from 0. Those of verified instances are not used and may
            be -1.
        class_names: k names; None numbers the classes, up to the largest label.
        clean: (rows, labels) of verified instances, positions in inputs and their true classes.
        validation: the same.
        test: the same.

    Returns:
        The data set and a truth that knows nothing (all UNKNOWN). Instances in none of the three
        are the noisy split. Ids are positions in inputs.

    Raises:
        ValueError: lengths that differ, rows or labels out of range, a row that is named twice, an
            input that is NaN or infinite, or nothing left for the noisy split.
        TypeError: rows or labels that are not integers.

    Example:
        >>> embeddings, found = np.random.rand(5, 16), [0, 1, 1, 0, 1]
        >>> dataset, _ = dataset_from_arrays("mine", embeddings, found, clean=([0, 4], [0, 0]))
        >>> len(dataset.noisy), len(dataset.clean), len(dataset.test)
        (3, 2, 0)
    """
    if not isinstance(inputs, Images):
        inputs = torch.as_tensor(inputs)
        check_finite(inputs)
    given = np.asarray(to_numpy(given_labels))
    check_integers("given_labels", given)
    if len(given) != len(inputs):
        raise ValueError(
            f"{len(inputs)} inputs and {len(given)} given_labels; pass one label for each"
        )
    rows, true = {}, np.full(len(inputs), -1)
    for split, pair in (("clean", clean), ("validation", validation), ("test", test)):
        rows[split], labels = _check_pair(split, pair, len(inputs))
        true[rows[split]] = labels
    times = np.bincount(np.concatenate([*rows.values()]), minlength=1)
    if times.max() > 1:
        raise ValueError(
            f"row {times.argmax()} is named {times.max()} times in clean, validation and test; "
            "name it once"
        )
    noisy = np.setdiff1d(np.arange(len(inputs)), np.flatnonzero(times))
    if len(noisy) == 0:
        raise ValueError("every instance is verified; the noisy split needs some that are not")
    if class_names is None:
        class_names = [str(label) for label in range(1 + max(given[noisy].max(), true.max()))]
    if len(class_names) < 2:
        raise ValueError(f"class_names has {len(class_names)} classes; it takes 2 or more")
    check_labels("given_labels of the noisy instances", given[noisy], len(class_names))

    def read(chosen: np.ndarray) -> Tensor | Images:
        if isinstance(inputs, Images):
            return inputs.take(chosen)
        # A million embeddings are not copied where nothing was taken from them.
        return inputs if len(chosen) == len(inputs) else inputs[torch.from_numpy(chosen)]

    rows["noisy"] = noisy
    truth = Truth(np.full(len(inputs), Kind.UNKNOWN), true, "nobody verified it")
    return make_dataset(name, class_names, read, rows, given, truth)


def _check_pair(split: str, pair: tuple | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows below count, and as many labels."""
    if pair is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{split} is no pair; pass (rows, labels)")
    rows, labels = (np.asarray(to_numpy(column)) for column in pair)
    if rows.dtype == bool:
        rows = positions(rows)
    if len(rows) != len(labels):
        raise ValueError(
            f"{split} has {len(rows)} rows and {len(labels)} labels; pass one label for each"
        )
    if len(rows) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    check_integers(f"rows of {split}", rows)
    check_integers(f"labels of {split}", labels)
    if not 0 <= rows.min() <= rows.max() < count:
        raise ValueError(
            f"rows of {split} reach from {rows.min()} to {rows.max()}; there are {count} inputs"
        )
    return rows, labels


def check_integers(name: str, labels: np.ndarray) -> None:
    """Refuse labels that are not integers, one for each instance."""
    if labels.ndim != 1:
        raise ValueError(f"{name} has shape {labels.shape}; expected (N,), one for each instance")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {labels.dtype}; expected integers from 0")


def check_finite(inputs: Tensor) -> None:
    """Refuse inputs with NaN or infinite entries, in parts: no copy of a large matrix is made."""
    if inputs.ndim < 2:
        raise ValueError(f"inputs has shape {tuple(inputs.shape)}; expected (N, d) or (N, C, H, W)")
    if not inputs.dtype.is_floating_point:
        return
    for start in range(0, len(inputs), 10_000):
        bad = ~torch.isfinite(inputs[start : start + 10_000]).flatten(1).all(dim=1)
        if bad.any():
            row = start + int(bad.nonzero()[0])
            raise ValueError(f"inputs has a NaN or infinite entry in row {row}; leave that row out")
