"""Statistics of a data set: counts of labels and kinds, and the noise matrix, as tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from genkl.data.base import SPLITS, Kind, NoisyDataset, Truth


def count_labels(dataset: NoisyDataset) -> pd.DataFrame:
    """Instances per class and split.

    Args:
        dataset: any.

    Returns:
        One row per class, one column per split (the given labels in the noisy one).
    """
    counts = {
        name: np.bincount(split.labels.numpy(), minlength=dataset.num_classes)
        for name, split in dataset.splits().items()
    }
    return pd.DataFrame(counts, index=pd.Index(dataset.class_names, name="class"))[list(SPLITS)]


def count_kinds(dataset: NoisyDataset, truth: Truth) -> pd.DataFrame:
    """What the noisy instances really are, by given label.

    Args:
        dataset: its noisy split is counted.
        truth: about that split.

    Returns:
        One row per class, one column per `Kind` that occurs (its name in lower case).

    Raises:
        ValueError: truth of another length than the noisy split.
    """
    _check_truth(dataset, truth)
    given = dataset.noisy.labels.numpy()
    kinds = [kind for kind in Kind if (truth.kinds == kind).any()]
    counts = {
        kind.name.lower(): np.bincount(given[truth.kinds == kind], minlength=dataset.num_classes)
        for kind in kinds
    }
    return pd.DataFrame(counts, index=pd.Index(dataset.class_names, name="given label"))


def noise_matrix(dataset: NoisyDataset, truth: Truth) -> pd.DataFrame:
    """Which class gets which label: the share of true class i that is labelled j.

    Args:
        dataset: its noisy split is counted.
        truth: about that split; instances without a known true class are left out.

    Returns:
        k x k, rows (true classes) sum to 1; a row without instances is NaN.

    Raises:
        ValueError: truth of another length than the noisy split.
    """
    _check_truth(dataset, truth)
    known = truth.labels >= 0
    k = dataset.num_classes
    pairs = truth.labels[known] * k + dataset.noisy.labels.numpy()[known]
    counts = np.bincount(pairs, minlength=k * k).reshape(k, k).astype(float)
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(axis=1, keepdims=True)
    return pd.DataFrame(
        shares,
        index=pd.Index(dataset.class_names, name="true class"),
        columns=pd.Index(dataset.class_names, name="given label"),
    )


def _check_truth(dataset: NoisyDataset, truth: Truth) -> None:
    if len(truth) != len(dataset.noisy):
        raise ValueError(
            f"truth has {len(truth)} entries and the noisy split {len(dataset.noisy)} instances; "
            "use truth.match(dataset.noisy) after instances were dropped"
        )
