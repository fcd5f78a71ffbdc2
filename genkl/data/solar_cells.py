"""Solar cells: 2,624 photographs of solar cells, graded by an expert who was allowed to doubt.

The ELPV data set ships with the PyPI package ``elpv-dataset`` (CC BY-NC-SA 4.0). Each 300x300
electroluminescence image has a cell type (mono- or polycrystalline) and a probability of being
defective: 0 or 1 where the expert was sure, 1/3 or 2/3 where not. The 401 doubtful cells are real,
expert-graded ambiguity; their given label is the grade rounded to 0 or 1.
"""

from __future__ import annotations

import functools

import numpy as np

from genkl.data.base import Kind, NoisyDataset, Truth, make_split, take_stratified
from genkl.data.planting import check_rate, plant_label_noise

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
    images, grades, types = read_elpv()
    poly = (types == "poly").astype(np.int64)
    labels = 2 * poly + (grades > 0.5)
    sure = np.flatnonzero((grades < 0.1) | (grades > 0.9))
    doubtful = np.setdiff1d(np.arange(len(grades)), sure)
    rng = np.random.default_rng(seed)

    clean = take_stratified(labels, sure, clean_per_class, rng)
    left = np.setdiff1d(sure, clean)
    validation = take_stratified(labels, left, validation_per_class, rng)
    left = np.setdiff1d(left, validation)
    test = take_stratified(labels, left, test_per_class, rng)
    left = np.setdiff1d(left, test)
    if len(left) == 0:
        raise ValueError("no sure cell is left for the noisy split; ask for fewer elsewhere")

    given = labels.copy()
    given[left] = plant_label_noise(labels[left], len(CLASS_NAMES), label_noise, rng)
    noisy = rng.permutation(np.concatenate([left, doubtful]))
    kinds = np.where(given != labels, Kind.MISLABELLED, Kind.CORRECT).astype(np.int64)
    kinds[doubtful] = Kind.AMBIGUOUS
    true = labels.copy()
    true[doubtful] = -1

    inputs = images[:, None]
    dataset = NoisyDataset(
        name="solar-cells",
        class_names=CLASS_NAMES,
        clean=make_split(inputs[clean], labels[clean], clean),
        noisy=make_split(inputs[noisy], given[noisy], noisy),
        validation=make_split(inputs[validation], labels[validation], validation),
        test=make_split(inputs[test], labels[test], test),
    )
    return dataset, Truth(kinds[noisy], true[noisy], "graded by an expert", noisy.copy())


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
