"""Food-101N: 310,009 photographs of food from the web, some verified; Food-101 to test on.

Somebody looked at 52,868 images for training and 4,741 for validation and said whether the class
is right (1) or wrong (0). Right ones are the clean and the validation split. Wrong ones stay in the
noisy split, and the truth says so: which class would be right, or whether any is, nobody said.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genkl.data.base import Kind, NoisyDataset, Split, Truth, make_dataset, make_split
from genkl.data.lists import (
    ListFile,
    find_images,
    find_rows,
    read_keys,
    read_labels,
    without_repeats,
)
from genkl.data.registry import FOOD101, FOOD101N
from genkl.data.sources import find_data, find_neighbour
from genkl.data.splitting import check_limit, draw_rows

VERIFIED_LISTS = {"clean": "meta/verified_train.tsv", "validation": "meta/verified_val.tsv"}
KEY_HEADER = "class_name"
"""How the first line of each of the release's lists begins."""

NOT_RELEASED = "hot_and_sour_soup/a49e6fb26e356c6c41a37b5c18176355.jpg"
"""A verified image that the release does not hold (it has that photograph as filet_mignon)."""


def load_food101n(
    seed: int = 0,
    *,
    data_root: str | os.PathLike[str] | None = None,
    food101_root: str | os.PathLike[str] | None = None,
    clean_limit: int | None = None,
    noisy_limit: int | None = None,
) -> tuple[NoisyDataset, Truth]:
    """Load Food-101N with the test set of Food-101: 101 classes.

    Args:
        seed: decides which instances are drawn where there is a limit, and nothing else.
        data_root: where to look for it instead of ``$GENKL_DATA``.
        food101_root: where to look for Food-101; None looks in the same roots, and beside
            Food-101N.
        clean_limit: draw at most so many clean instances, of each class the same number as far as
            it goes; for trying things out.
        noisy_limit: draw at most so many noisy instances at random.

    Returns:
        The data set, its inputs image files, and the truth about its noisy split. It is WRONG where
        somebody looked, else UNKNOWN. Ids count the lines of ``imagelist.tsv``; those of the test
        set count the lines of Food-101's ``test.txt`` from there on.

    Raises:
        DataNotFoundError: one of the data sets, or its images, are not here; the message says
            what to do.
        ValueError: a bad line in a list; the message says which.
    """
    check_limit("clean_limit", clean_limit)
    check_limit("noisy_limit", noisy_limit)
    folder = find_data(FOOD101N, data_root)
    if food101_root is None:
        test_folder = find_neighbour(FOOD101, data_root, folder)
    else:
        test_folder = find_data(FOOD101, food101_root)
    classes = without_repeats(read_keys(folder / "meta/classes.txt", header=KEY_HEADER)).keys
    listed = without_repeats(read_keys(folder / "meta/imagelist.tsv", header=KEY_HEADER))
    labels = class_of_each(listed, classes)
    verdicts = read_verdicts(folder, listed.keys)

    rows = {split: np.flatnonzero(verdicts[split] == 1) for split in VERIFIED_LISTS}
    used = (verdicts["clean"] == 1) | (verdicts["validation"] == 1)
    noisy = draw_rows(np.flatnonzero(~used), noisy_limit, seed)
    rows["clean"] = draw_rows(rows["clean"], clean_limit, seed, labels[rows["clean"]])
    rows["noisy"] = noisy
    files = find_images([folder / "images"], listed.keys, rows.values())
    wrong = (verdicts["clean"] == 0) | (verdicts["validation"] == 0)
    true = labels.copy()
    true[noisy] = -1
    truth = Truth(np.where(wrong, Kind.WRONG, Kind.UNKNOWN), true, "verified as wrong")
    dataset, truth = make_dataset(
        FOOD101N.name, classes.to_pylist(), files.take, rows, labels, truth
    )
    test = read_food101_test(test_folder, classes, first_id=len(listed))
    return replace(dataset, test=test), truth


def class_of_each(listed: ListFile, classes: pa.StringArray) -> np.ndarray:
    """The label of keys "class name/file".

    Args:
        listed: N keys.
        classes: k names.

    Returns:
        Shape (N,), int64.

    Raises:
        ValueError: a class that is not among the classes; the message says in which line.
    """
    names = pc.list_element(pc.split_pattern(listed.keys, "/", max_splits=1), 0)
    labels = find_rows(names, classes)
    listed.refuse(
        labels < 0,
        f"the class of {{!r}} is none of the {len(classes)} classes of Food-101N's "
        "meta/classes.txt",
        "lines are class/file",
    )
    return labels


def read_verdicts(folder: Path, keys: pa.StringArray) -> dict[str, np.ndarray]:
    """What the two verified lists say of each image.

    Args:
        folder: of Food-101N.
        keys: N keys, all the images.

    Returns:
        For "clean" and "validation", shape (N,) each. 1 where the class is right, 0 where it is
        wrong, -1 where nobody looked. An image is verified in one of them only; the validation list
        has it if both do.

    Raises:
        ValueError: an image that is not listed, or that both lists hold with different verdicts.
    """
    verdicts = {}
    for split, file in VERIFIED_LISTS.items():
        listed = read_labels(folder / file, 2, separator="\t", header=KEY_HEADER)
        rows = find_rows(listed.keys, keys)
        known = rows >= 0
        released = pc.not_equal(listed.keys, NOT_RELEASED).to_numpy(zero_copy_only=False)
        listed.refuse(
            ~known & released, "{} is not in meta/imagelist.tsv", "are both of one release?"
        )
        for earlier, verdict in verdicts.items():
            listed.refuse(
                known & (verdict[rows] == 1 - listed.labels),
                f"{{}} has another label in {VERIFIED_LISTS[earlier]}",
                "keep the right line",
            )
            verdict[rows[known]] = -1
        verdicts[split] = np.full(len(keys), -1)
        verdicts[split][rows[known]] = listed.labels[known]
    return verdicts


def read_food101_test(folder: Path, classes: pa.StringArray, first_id: int) -> Split:
    """The test set of Food-101, with the labels of Food-101N.

    Args:
        folder: of Food-101.
        classes: of Food-101N.
        first_id: id of the first image.

    Raises:
        ValueError: its classes are not those of Food-101N.
        DataNotFoundError: its images are not here.
    """
    listed = without_repeats(read_keys(folder / "meta/test.txt"))
    labels = class_of_each(listed, classes)
    missing = np.setdiff1d(np.arange(len(classes)), labels)
    if len(missing):
        raise ValueError(
            f"{listed.path}: no image of {classes[int(missing[0])]}, a class of Food-101N; both "
            "must have the same classes: get Food-101 again"
        )
    # The list leaves the suffix out.
    names = pc.binary_join_element_wise(listed.keys, ".jpg", "")
    files = find_images([folder / "images"], names)
    return make_split(files, labels, first_id + np.arange(len(names)))
