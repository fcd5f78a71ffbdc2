"""Clothing dataset: 5,403 photographs of clothes, sent in by people who were allowed to doubt.

Ten garments are the known classes. Images that people labelled "Not sure", "Other" or "Skip", and
those of seven rarer garments, do not conform; they stand in the noisy split under the label of a
known class. People sent up to hundreds of images each, some of the same garment, so that a sender
is in one split only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genkl.checks import check_choice
from genkl.data.base import Kind, NoisyDataset, Truth, make_dataset
from genkl.data.folder import (
    MISSING,
    NOISY,
    encode_labels,
    find_present,
    refuse,
    refuse_repeats,
)
from genkl.data.images import ImageFiles
from genkl.data.lists import as_integers, find_rows
from genkl.data.planting import STATED, check_rate, plant_label_noise
from genkl.data.registry import CLOTHING_DATASET
from genkl.data.sources import find_data
from genkl.data.splitting import check_counts, take_stratified
from genkl.data.tables import read_texts

CLASS_NAMES = (
    "T-Shirt",
    "Longsleeve",
    "Pants",
    "Shoes",
    "Shirt",
    "Dress",
    "Outwear",
    "Shorts",
    "Hat",
    "Skirt",
)
DOUBT = {"Not sure": Kind.AMBIGUOUS, "Other": Kind.OOD, "Skip": Kind.NC}
GARMENTS = dict.fromkeys(
    ("Polo", "Undershirt", "Blazer", "Hoodie", "Body", "Top", "Blouse"), Kind.OOD
)
NON_CONFORMING = {"doubt": DOUBT, "garments": GARMENTS}
"""Groups of labels that are no class, and what an image with such a label is."""
KIND_OF = {**dict.fromkeys(CLASS_NAMES, Kind.CORRECT), **DOUBT, **GARMENTS}
"""All 20 labels, the classes first."""

NOT_RELEASED = (
    "d028580f-9a98-4fb5-a6c9-5dc362ad3f09",
    "1d0129a1-f29a-4a3f-b103-f651176183eb",
    "784d67d4-b95e-4abb-baf7-8024f18dc3c8",
    "c60e486d-10ed-4f64-abab-5bb698c736dd",
    "040d73b7-21b5-4cf2-84fc-e1a80231b202",
)
"""Images that the table lists, as "Skip", and that were never published."""

LARGE_SENDER = 60
"""Who sent more images than this is in the noisy split."""

log = logging.getLogger(__name__)


def load_clothing_dataset(
    seed: int = 0,
    *,
    data_root: str | os.PathLike[str] | None = None,
    label_noise: float = 0.0,
    noise_kind: str = "symmetric",
    clean_per_class: int = 25,
    validation_per_class: int = 15,
    test_per_class: int = 25,
    non_conforming: str | Sequence[str] = ("doubt", "garments"),
    missing: str = "raise",
) -> tuple[NoisyDataset, Truth]:
    """Load the clothing dataset: 10 classes, people's own doubts as non-conformity.

    Senders are drawn for the clean, validation and test split until each class has enough; who is
    left, and whoever sent more than `LARGE_SENDER` images, is in the noisy split. Non-conforming
    images of the senders drawn are left out, as are their conforming ones that the clean split has
    too many of.

    Args:
        seed: decides splits, planted noise, and the labels of non-conforming images.
        data_root: where to look for it instead of ``$GENKL_DATA``.
        label_noise: share of wrong labels planted among the conforming images of the noisy split;
            0 keeps people's labels, which count as right.
        noise_kind: "symmetric" or "pair", see `plant_label_noise`.
        clean_per_class: clean images of each class, exactly.
        validation_per_class: validation images of each class, at least: all conforming images of
            its senders are in it.
        test_per_class: test images of each class, at least.
        non_conforming: which non-conforming images the noisy split has: "doubt" ("Not sure",
            "Other" and "Skip"), "garments" (of none of the ten classes), both, or ().
        missing: "raise" refuses a copy that lacks images; "skip" leaves them out and logs how
            many. `NOT_RELEASED` are left out in any case.

    Returns:
        The data set, its inputs image files, and the truth about its noisy split. AMBIGUOUS for
        "Not sure", OOD for "Other" and other garments, NC for "Skip". The given label of a
        non-conforming image is drawn from those of the conforming ones in the noisy split: at
        random, see `label_strangers` for others. Ids count the rows of ``images.csv``.

    Raises:
        DataNotFoundError: the data set is not here, or images are missing; the message says what
            to do.
        ValueError: an option out of range, more asked for than there is, or a bad line.
    """
    check_rate("label_noise", label_noise)
    needs = check_counts(
        clean=clean_per_class, validation=validation_per_class, test=test_per_class
    )
    chosen = non_conforming_labels(non_conforming)
    check_choice("missing", missing, MISSING)
    folder = find_data(CLOTHING_DATASET, data_root)
    names, labels, senders = read_clothing_dataset(folder)
    classes = np.where(labels < len(CLASS_NAMES), labels, -1)
    present = find_released(folder, names, missing)
    rng = np.random.default_rng(seed)

    parts = np.full(len(names), -1)
    parts[present] = divide_senders(classes[present], senders[present], needs, rng)
    rows = {split: np.flatnonzero((parts == at) & (classes >= 0)) for at, split in enumerate(needs)}
    rows["clean"] = take_stratified(classes, rows["clean"], clean_per_class, rng)
    plain = np.flatnonzero((parts == NOISY) & (classes >= 0))
    if len(plain) == 0:
        raise ValueError("no sender is left for the noisy split; ask for fewer images elsewhere")
    strange = np.flatnonzero((parts == NOISY) & np.isin(labels, chosen))

    given = classes.copy()
    given[plain] = plant_label_noise(classes[plain], len(CLASS_NAMES), label_noise, rng, noise_kind)
    given[strange] = rng.choice(given[plain], len(strange))
    kinds = np.array(list(KIND_OF.values()), dtype=np.int64)[labels]
    kinds[plain[given[plain] != classes[plain]]] = Kind.MISLABELLED
    rows["noisy"] = rng.permutation(np.concatenate([plain, strange]))
    files = ImageFiles(folder, pc.binary_join_element_wise("images/", names, ".jpg", ""))
    source = "the senders' own labels" + (", and planted" if label_noise else "")
    source += STATED + "random" if len(strange) else ""
    truth = Truth(kinds, classes, source)
    return make_dataset(CLOTHING_DATASET.name, CLASS_NAMES, files.take, rows, given, truth)


def non_conforming_labels(groups: str | Sequence[str]) -> list[int]:
    """Positions in the keys of `KIND_OF` of the labels of these groups of `NON_CONFORMING`."""
    groups = (groups,) if isinstance(groups, str) else groups
    for group in groups:
        check_choice("group in non_conforming", group, NON_CONFORMING)
    return [list(KIND_OF).index(label) for group in groups for label in NON_CONFORMING[group]]


def read_clothing_dataset(folder: Path) -> tuple[pa.StringArray, np.ndarray, np.ndarray]:
    """What ``images.csv`` lists.

    Args:
        folder: of the data set.

    Returns:
        Names without suffix, labels as positions in the keys of `KIND_OF`, and senders; N each.

    Raises:
        ValueError: a bad line; the message says which.
    """
    table = read_texts(folder / "images.csv", ("image", "label", "sender_id"))
    refuse_repeats(table, "image")
    labels = encode_labels(table, "label", table.texts("label"), tuple(KIND_OF))
    refuse(table, "label", labels < 0, "is empty", "get the file again")
    senders = as_integers(table.texts("sender_id"))
    refuse(table, "sender_id", senders < 0, "has {!r}, not a number", "get the file again")
    return table.texts("image"), labels, senders


def find_released(folder: Path, names: pa.StringArray, missing: str) -> np.ndarray:
    """Which images are there, see `load_clothing_dataset`: positions, ascending."""
    published = find_rows(names, pa.array(NOT_RELEASED)) < 0
    listed = np.flatnonzero(published)
    log.info("%d images that were never published are left out", len(names) - len(listed))
    files = pc.binary_join_element_wise("images/", names.take(pa.array(listed)), ".jpg", "")
    return listed[find_present(folder, files, folder / "images.csv", missing)]


def divide_senders(
    classes: np.ndarray, senders: np.ndarray, needs: Mapping[str, int], rng: np.random.Generator
) -> np.ndarray:
    """Give whole senders to splits until each has enough of every class.

    The rarest class comes first, and the splits take turns, so that none takes what another needs.

    Args:
        classes: shape (N,), -1 for an image of no class.
        senders: shape (N,), integers.
        needs: images of each class that a split must have.
        rng: source of randomness.

    Returns:
        The split of each image, shape (N,), a position in needs, or `NOISY`.

    Raises:
        ValueError: too few senders for a class.
    """
    _, owners = np.unique(senders, return_inverse=True)
    counts = np.zeros((owners.max(initial=-1) + 1, len(CLASS_NAMES)), dtype=np.int64)
    known = classes >= 0
    np.add.at(counts, (owners[known], classes[known]), 1)
    free = np.bincount(owners) <= LARGE_SENDER
    parts = np.full(len(counts), NOISY)
    lacking = np.repeat(np.array(list(needs.values()))[:, None], len(CLASS_NAMES), axis=1)
    for label in np.argsort(counts[free].sum(axis=0), kind="stable"):
        while (lacking[:, label] > 0).any():
            for part in np.flatnonzero(lacking[:, label] > 0):
                candidates = np.flatnonzero(free & (counts[:, label] > 0))
                if len(candidates) == 0:
                    split = list(needs)[part]
                    raise ValueError(
                        f"{split}_per_class is {needs[split]}, but too few senders of up to "
                        f"{LARGE_SENDER} images have a {CLASS_NAMES[label]}: {lacking[part, label]}"
                        " are lacking; ask for fewer clean, validation or test images"
                    )
                sender = rng.choice(candidates)
                free[sender] = False
                parts[sender] = part
                lacking[part] -= counts[sender]
    return parts[owners]
