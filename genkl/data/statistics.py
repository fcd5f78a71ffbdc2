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
    names = pd.Index(dataset.class_names, name="given label")
    found = pd.crosstab(dataset.noisy.labels.numpy(), truth.kinds)
    found = found.reindex(range(len(names)), fill_value=0).set_axis(names)
    return found.set_axis([Kind(kind).name.lower() for kind in found], axis=1)


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
    known, every = truth.labels >= 0, range(dataset.num_classes)
    given = dataset.noisy.labels.numpy()[known]
    shares = pd.crosstab(truth.labels[known], given, normalize="index")
    shares = shares.reindex(columns=every, fill_value=0).reindex(every)
    rows, columns = (pd.Index(dataset.class_names, name=n) for n in ("true class", "given label"))
    return shares.set_axis(rows).set_axis(columns, axis=1)


def _check_truth(dataset: NoisyDataset, truth: Truth) -> None:
    if len(truth) != len(dataset.noisy):
        raise ValueError(
            f"truth has {len(truth)} entries and the noisy split {len(dataset.noisy)} instances; "
            "use truth.match(dataset.noisy) after instances were dropped"
        )
