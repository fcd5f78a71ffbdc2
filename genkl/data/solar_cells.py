"""Solar cells: 2,624 photographs of solar cells, graded by an expert who was allowed to doubt.

The ELPV data set ships with the PyPI package ``elpv-dataset`` (CC BY-NC-SA 4.0). Each 300x300
electroluminescence image has a cell type (mono- or polycrystalline) and a probability of being
defective: 0 or 1 where the expert was sure, 1/3 or 2/3 where not. The 401 doubtful cells are real,
expert-graded ambiguity; their given label is the grade rounded to 0 or 1.
"""

from __future__ import annotations

import functools

import numpy as np

from genkl.data.base import Kind, NoisyDataset, Truth, make_dataset
from genkl.data.planting import check_rate, plant_label_noise
from genkl.data.registry import SOLAR_CELLS
from genkl.data.splitting import check_counts, draw_splits

CLASS_NAMES = ("mono functional", "mono defective", "poly functional", "poly defective")


def load_solar_cells(
    seed: int = 0,
    *,
    label_noise: float = 0.0,
    clean_per_class: int = 50,
    validation_per_class: int = 50,
    test_per_class: int = 100,
) -> tuple[NoisyDataset, Truth]:
    """Load the solar cells: 4 classes (type x defect), expert doubt as non-conformity.

    Args:
        seed: decides splits and planted noise.
        label_noise: share of wrong labels planted among the sure cells of the noisy split; 0
            keeps the expert's labels.
        clean_per_class: verified training images of each class, all of them sure.
        validation_per_class: validation images of each class, all sure.
        test_per_class: test images of each class, all sure.

    Returns:
        The data set, inputs of shape (N, 1, 300, 300), uint8, and the truth about its noisy split
        (AMBIGUOUS where the grade is 1/3 or 2/3).

    Raises:
        ValueError: label_noise outside [0, 1], or more instances asked for than there are.
    """
    check_rate("label_noise", label_noise)
    per_class = check_counts(
        clean=clean_per_class, validation=validation_per_class, test=test_per_class
    )
    images, grades, types = read_elpv()
    true = 2 * (types == "poly").astype(np.int64) + (grades > 0.5)
    sure = np.flatnonzero((grades < 0.1) | (grades > 0.9))
    doubtful = np.setdiff1d(np.arange(len(grades)), sure)
    rng = np.random.default_rng(seed)
    rows, left = draw_splits(true, sure, per_class, rng)
    if len(left) == 0:
        raise ValueError("no sure cell is left for the noisy split; ask for fewer elsewhere")
    given = true.copy()
    given[left] = plant_label_noise(true[left], len(CLASS_NAMES), label_noise, rng)
    rows["noisy"] = rng.permutation(np.concatenate([left, doubtful]))
    kinds = np.where(given != true, Kind.MISLABELLED, Kind.CORRECT)
    kinds[doubtful], true[doubtful] = Kind.AMBIGUOUS, -1
    truth = Truth(kinds, true, "graded by an expert")
    read = images[:, None].__getitem__
    return make_dataset(SOLAR_CELLS.name, CLASS_NAMES, read, rows, given, truth)


@functools.cache
def read_elpv() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ELPV images (2624, 300, 300) uint8, grades (2624,) and types (2624,) as shipped.

    Read once per process; the arrays are read-only.

    Raises:
        ModuleNotFoundError: the package is not installed; the message says how to get it.
    """
    try:
        from elpv_dataset.utils import load_dataset
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the solar cells come with the package elpv-dataset: pip install elpv-dataset"
        ) from error
    arrays = load_dataset()
    for array in arrays:
        array.flags.writeable = False
    return arrays
