"""mini WebVision 1.0: what Google's image search found for the first 50 classes of ImageNet.

65,944 images have the label they were searched for with, and no others; WebVision's 2,500
validation images of these classes are verified. The published scripts choose epochs on those. Here
they are the test set and choose nothing: `load_mini_webvision` holds training images out instead.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genkl.data.base import Kind, NoisyDataset, Split, Truth, make_dataset, make_split
from genkl.data.folder import scan_images
from genkl.data.images import ImageFiles
from genkl.data.lists import (
    ListFile,
    find_images,
    read_keys,
    read_labels,
)
from genkl.data.registry import ILSVRC12, WEBVISION
from genkl.data.sources import DataNotFoundError, find_data, find_neighbour
from genkl.data.splitting import check_counts, check_limit, draw_rows, take_stratified

ALL_CLASSES = 1000
TRAINING_LIST = "info/train_filelist_google.txt"
TEST_LIST = "info/val_filelist.txt"
SYNSETS = "info/synsets.txt"
TRAINING_FOLDERS = (".", "train_images_256", "train_images")
TEST_FOLDERS = ("val_images_256", "val_images", ".")
ILSVRC12_LIST = "val.txt"
ILSVRC12_FOLDERS = ("val", ".")


def load_mini_webvision(
    seed: int = 0,
    *,
    data_root: str | os.PathLike[str] | None = None,
    ilsvrc12_root: str | os.PathLike[str] | None = None,
    num_classes: int = 50,
    validation_per_class: int = 20,
    noisy_limit: int | None = None,
) -> tuple[NoisyDataset, Truth]:
    """Load mini WebVision 1.0: the first classes of the Google half.

    Args:
        seed: decides which images are held out for validation, and which are drawn where there is
            a limit.
        data_root: where to look for it instead of ``$GENKL_DATA``.
        ilsvrc12_root: where to look for the ILSVRC 2012 validation images; None looks in the same
            roots, and beside WebVision, and does without.
        num_classes: the first so many of 1000.
        validation_per_class: training images of each class to hold out for validation. Their
            labels are the given ones, which nobody verified: accuracy on them is too low by what
            the labels are wrong, and serves to compare.
        noisy_limit: draw at most so many noisy instances at random.

    Returns:
        The data set, its inputs image files, without a clean split; ``more_tests["ilsvrc12"]`` if
        those images are here. Nothing is known about its noisy split. Ids count the lines of the
        training list (all classes), then those of the validation list; in ``more_tests``, they are
        the numbers in the file names, less 1.

    Raises:
        DataNotFoundError: the data set, or its images, are not here; the message says what to do.
        ValueError: a bad line in a list (the message says which), or an option out of range.
    """
    check_limit("noisy_limit", noisy_limit)
    if not 2 <= num_classes <= ALL_CLASSES:
        raise ValueError(f"num_classes is {num_classes}; WebVision 1.0 has 2 to {ALL_CLASSES}")
    check_counts(validation=validation_per_class)
    folder = find_data(WEBVISION, data_root)
    synsets = read_synsets(folder / SYNSETS, num_classes)
    training = read_labels(folder / TRAINING_LIST, ALL_CLASSES)
    tests = read_labels(folder / TEST_LIST, ALL_CLASSES)
    labels, names, ids = first_classes(training, num_classes)

    rng, every = np.random.default_rng(seed), np.arange(len(labels))
    validation = take_stratified(labels, every, validation_per_class, rng)
    noisy = draw_rows(np.setdiff1d(every, validation), noisy_limit, seed)
    files = find_images([folder / place for place in TRAINING_FOLDERS], names)
    true = labels.copy()
    true[noisy] = -1
    unknown = Truth(np.full(len(labels), Kind.UNKNOWN), true, "nobody looked", ids)
    rows, names = {"noisy": noisy, "validation": validation}, class_names(synsets, num_classes)
    dataset, truth = make_dataset(WEBVISION.name, names, files.take, rows, labels, unknown)
    test_labels, test_names, test_ids = first_classes(tests, num_classes)
    test_files = find_images([folder / place for place in TEST_FOLDERS], test_names)
    test = make_split(test_files, test_labels, training.lines[-1] + test_ids)
    second = find_ilsvrc12(ilsvrc12_root, data_root, folder)
    more = {} if second is None else {"ilsvrc12": read_ilsvrc12(second, synsets, num_classes)}
    return replace(dataset, test=test, more_tests=more), truth


def first_classes(
    listed: ListFile, num_classes: int
) -> tuple[np.ndarray, pa.StringArray, np.ndarray]:
    """Labels, names and ids (line, from 0) of the lines whose label is among the first classes.

    Raises:
        ValueError: there are none.
    """
    rows = np.flatnonzero(listed.labels < num_classes)
    if len(rows) == 0:
        raise ValueError(f"{listed.path}: no line has a label below {num_classes}; is it whole?")
    chosen = listed.take(rows)
    return chosen.labels, chosen.keys, chosen.lines - 1


def read_synsets(path: Path, num_classes: int) -> list[str]:
    """The lines of WebVision's list of synsets ("n01440764 tench, Tinca tinca"); [] without it.

    Raises:
        ValueError: fewer lines than classes, or one that doesn't begin with a synset's number.
    """
    if not path.is_file():
        return []
    listed = read_keys(path)
    if len(listed) < num_classes:
        raise ValueError(
            f"{path} has {len(listed)} lines, and num_classes is {num_classes}; get the list again"
        )
    good = pc.match_substring_regex(listed.keys, r"^n[0-9]{8}( |$)").to_numpy(zero_copy_only=False)
    listed.refuse(~good, "{!r} should begin with a synset, as n01440764", "get it again")
    return listed.keys.to_pylist()


def class_names(synsets: list[str], num_classes: int) -> tuple[str, ...]:
    """The first word for each class, such as "tench"; "class 0" and so on without synsets."""
    if not synsets:
        return tuple(f"class {label}" for label in range(num_classes))
    words = [line[10:].split(",")[0].strip() or line for line in synsets[:num_classes]]
    return tuple(words)


def find_ilsvrc12(
    root: str | os.PathLike[str] | None, data_root: str | os.PathLike[str] | None, folder: Path
) -> Path | None:
    """The folder of the ILSVRC 2012 validation images; None if none was asked for or found.

    Raises:
        DataNotFoundError: a root was given, and there is nothing.
    """
    if root is not None:
        return find_data(ILSVRC12, root)
    try:
        found = find_neighbour(ILSVRC12, data_root, folder)
    except DataNotFoundError:
        return None
    # Many folders have a val/ in them. Unasked, only one that is surely ImageNet's will do.
    if found.name not in ILSVRC12.folders:
        return None
    usable = (found / ILSVRC12_LIST).is_file() or any(found.glob("val/n[0-9]*/"))
    return found if usable else None


def read_ilsvrc12(folder: Path, synsets: list[str], num_classes: int) -> Split:
    """The ILSVRC 2012 validation images of the first classes.

    Args:
        folder: holds ``val.txt`` (lines "ILSVRC2012_val_00000001.JPEG 65", labels in the order of
            the sorted synsets, as usual) and the images, or a folder ``val`` with one folder per
            synset.
        synsets: WebVision's, class by class; may be empty for a list or for all 1000 folders.
        num_classes: the first so many.

    Raises:
        ValueError: a bad list, unknown synsets, or file names without a number.
        DataNotFoundError: no images.
    """
    numbers = [line[:9] for line in synsets]
    if (folder / ILSVRC12_LIST).is_file():
        listed = read_labels(folder / ILSVRC12_LIST, ALL_CLASSES)
        if numbers:  # the list counts sorted synsets, WebVision those of its own list
            of_rank = np.argsort(np.array(numbers))
            listed = listed.take(np.flatnonzero(listed.labels < len(of_rank)))
            listed = replace(listed, labels=of_rank[listed.labels])
        labels, names, _ = first_classes(listed, num_classes)
        files = find_images([folder / place for place in ILSVRC12_FOLDERS], names)
    else:
        names, labels = list_synset_folders(folder / "val", numbers, num_classes)
        files = ImageFiles(folder / "val", names)
    ids = pc.struct_field(pc.extract_regex(names, r"_(?P<number>[0-9]+)\.[^.]+$"), "number")
    if ids.null_count:
        bad = names.filter(pc.is_null(ids))[0]
        raise ValueError(
            f"{files.root / bad.as_py()}: there is no number in the file's name; expected "
            "ILSVRC2012_val_00000001.JPEG"
        )
    return make_split(files, labels, ids.cast(pa.int64()).to_numpy() - 1)


def list_synset_folders(
    root: Path, numbers: list[str], num_classes: int
) -> tuple[pa.StringArray, np.ndarray]:
    """The images in folders named by synset, and their labels.

    Raises:
        ValueError: no list of synsets says which folder is which class, or a folder is missing or
            empty.
    """
    if not numbers:
        numbers = sorted(path.name for path in root.iterdir() if path.is_dir())
        if len(numbers) != ALL_CLASSES:
            raise ValueError(
                f"{root} has {len(numbers)} folders, so which is which class can't be told; put "
                f"WebVision's {SYNSETS} in its place, or all {ALL_CLASSES} folders here"
            )
    names: list[str] = []
    labels: list[int] = []
    for label, number in enumerate(numbers[:num_classes]):
        folder = root / number
        files = [*scan_images(folder)] if folder.is_dir() else []
        if not files:
            raise ValueError(
                f"{folder}: there are no images of class {label}; put the validation images of "
                "each synset into a folder of its own"
            )
        names += [f"{number}/{name}" for name in files]
        labels += [label] * len(files)
    return pa.array(names, pa.string()), np.array(labels, dtype=np.int64)
