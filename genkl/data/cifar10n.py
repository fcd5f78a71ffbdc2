"""CIFAR-10N: CIFAR-10's training images under labels of people on the web.

Real label noise, of 9 to 40 %, whose truth is CIFAR-10's own label.
"""

from __future__ import annotations

import _codecs
import os
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from genkl.checks import check_choice
from genkl.data.base import Kind, NoisyDataset, Truth, make_dataset
from genkl.data.cifar10 import CLASS_NAMES, numbered_images, read_cifar10_labels
from genkl.data.planting import STATED
from genkl.data.registry import CIFAR10, CIFAR10N
from genkl.data.sources import find_data, find_neighbour
from genkl.data.splitting import check_counts, check_limit, draw_rows, draw_splits, take_stratified

LABELS = {
    "worst": "worse_label",
    "aggregate": "aggre_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
}
"""Our names of CIFAR-10N's labels -> the file's."""
FILE, TRUE = "CIFAR-10_human.pt", "clean_label"


def load_cifar10n(
    seed: int = 0,
    *,
    data_root: str | os.PathLike[str] | None = None,
    labels: str = "worst",
    clean_per_class: int = 50,
    validation_per_class: int = 50,
    test_per_class: int | None = None,
    noisy_limit: int | None = None,
    held_out: str | Sequence[str] = (),
    held_out_labels: str = "random",
) -> tuple[NoisyDataset, Truth]:
    """Load CIFAR-10 with the labels of CIFAR-10N: up to 10 classes, real label noise.

    Args:
        seed: decides splits and drawn labels.
        data_root: where to look for both instead of ``$GENKL_DATA``.
        labels: which human labels: "worst" (of three, a wrong one where there is one; 40 % wrong),
            "aggregate" (their majority; 9 %), "random1", "random2" or "random3" (17 to 18 %).
        clean_per_class: training images of each class, under their true labels.
        validation_per_class: the same, for validation.
        test_per_class: test images of each class; None is all of them.
        noisy_limit: draw at most so many noisy instances at random.
        held_out: classes that are not known, by name. Their images are in the noisy split only, as
            OOD. A human label of a held-out class on an image of a known one is replaced by
            another wrong known one, drawn at random.
        held_out_labels: of the images of held-out classes: "random", a known label drawn at random;
            or "human", the chosen label where it is a known one, else a single person's; images
            that nobody gave a known label are left out.

    Returns:
        The data set, inputs of shape (N, 3, 32, 32), uint8, and the truth about its noisy split
        (CORRECT, MISLABELLED, and OOD for held-out classes) according to CIFAR-10. Ids count the
        training images from 0, then the test images.

    Raises:
        DataNotFoundError: CIFAR-10 or CIFAR-10N is not here; the message says what to do.
        ValueError: a bad option, files that are damaged or that don't belong together.
    """
    check_choice("labels", labels, LABELS)
    check_choice("held_out_labels", held_out_labels, ("random", "human"))
    check_limit("noisy_limit", noisy_limit)
    per_class = check_counts(clean=clean_per_class, validation=validation_per_class)
    check_counts(test=test_per_class or 0)
    known = known_classes(held_out)
    folder = find_data(CIFAR10N, data_root)
    human = read_cifar10n(folder)
    cifar = find_neighbour(CIFAR10, data_root, folder)
    trained, tested = (read_cifar10_labels(part, cifar) for part in ("train", "test"))
    check_same_order(folder / FILE, human["true"], trained)
    rng = np.random.default_rng(seed)
    rows, _ = draw_splits(trained, np.flatnonzero(np.isin(trained, known)), per_class, rng)
    left = np.setdiff1d(np.arange(len(trained)), np.concatenate([*rows.values()]))
    position = np.full(len(CLASS_NAMES), -1)
    position[known] = np.arange(len(known))
    true = position[np.concatenate([trained, tested])]
    # Drawn for every image, so that a limit changes no image's label.
    drawn = redraw_unknown(position[human[labels]], position[trained], len(known), rng)
    if held_out_labels == "human":
        drawn = np.where(position[trained] < 0, first_known(human, labels, position), drawn)
    given = np.concatenate([drawn, true[len(trained) :]])
    rows["noisy"] = draw_rows(left[given[left] >= 0], noisy_limit, seed)
    kinds = np.where(given == true, Kind.CORRECT, Kind.MISLABELLED)
    kinds[true < 0] = Kind.OOD
    test = np.flatnonzero(np.isin(tested, known))
    if test_per_class is not None:
        test = take_stratified(tested, test, test_per_class, rng)
    rows["test"] = len(trained) + test
    names = [CLASS_NAMES[label] for label in known]
    read = numbered_images(len(trained), cifar)
    stated = STATED + held_out_labels if len(known) < len(CLASS_NAMES) else ""
    truth = Truth(kinds, true, "CIFAR-10's own labels" + stated)
    return make_dataset(CIFAR10N.name, names, read, rows, given, truth)


def known_classes(held_out: str | Sequence[str]) -> np.ndarray:
    """The classes that are not held out, as positions in `CLASS_NAMES`.

    Raises:
        ValueError: an unknown class, or fewer than two left.
    """
    held_out = (held_out,) if isinstance(held_out, str) else tuple(held_out)
    for name in held_out:
        check_choice("class in held_out", name, CLASS_NAMES)
    known = [label for label, name in enumerate(CLASS_NAMES) if name not in held_out]
    if len(known) < 2:
        raise ValueError(f"held_out leaves {len(known)} classes; leave 2 or more")
    return np.array(known)


def first_known(human: dict[str, np.ndarray], labels: str, position: np.ndarray) -> np.ndarray:
    """The chosen human label, or else the first single person's, that is a known class; or -1."""
    said = position[[human[name] for name in (labels, "random1", "random2", "random3")]]
    return np.take_along_axis(said, (said >= 0).argmax(axis=0)[None], axis=0)[0]


def redraw_unknown(
    given: np.ndarray, true: np.ndarray, num_classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Known labels at random where the given one or the class itself is held out.

    Args:
        given: shape (N,), -1 for a held-out class.
        true: shape (N,), the same.
        num_classes: k, of the known classes.
        rng: source of randomness.

    Returns:
        Shape (N,), all in 0..k-1, any for an image of a held-out class, a wrong one for an image of
        a known class whose label was held out.
    """
    drawn = given.copy()
    strange, wrong = np.flatnonzero(true < 0), np.flatnonzero((true >= 0) & (given < 0))
    drawn[strange] = rng.integers(0, num_classes, len(strange))
    drawn[wrong] = (true[wrong] + rng.integers(1, num_classes, len(wrong))) % num_classes
    return drawn


def check_same_order(path: Path, true: np.ndarray, labels: np.ndarray) -> None:
    """Refuse CIFAR-10N's labels for images in another order.

    Args:
        path: of CIFAR-10N's file, for the message.
        true: what it has for CIFAR-10's labels, shape (N,).
        labels: CIFAR-10's labels, shape (N,).

    Raises:
        ValueError: they differ; the message names the first index.
    """
    remedy = "both must be complete and in their original order: get the official files"
    if len(true) != len(labels):
        raise ValueError(
            f"{path}: {len(true)} labels for CIFAR-10's {len(labels)} training images; {remedy}"
        )
    if (true != labels).any():
        at = int((true != labels).argmax())
        raise ValueError(
            f"{path}: {TRUE}[{at}] is {true[at]}, but CIFAR-10's training image {at} has label "
            f"{labels[at]}; {remedy}"
        )


def read_cifar10n(data_root: str | os.PathLike[str] | None = None) -> dict[str, np.ndarray]:
    """CIFAR-10N's labels.

    The file is a pickle, which could run code. It is read by PyTorch's restricted reader, which
    makes plain arrays and refuses everything else without running it.

    Args:
        data_root: where to look instead of ``$GENKL_DATA``.

    Returns:
        Labels by name, each (N,), int64. They are "true", CIFAR-10's own, and those of `LABELS`.

    Raises:
        DataNotFoundError: it is not here; the message says what to do.
        ValueError: not the official file.
    """
    path = find_data(CIFAR10N, data_root) / FILE
    remedy = f"get the official file again (python -m genkl data get {CIFAR10N.name})"
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: this is no file of PyTorch's, or a part of one; {remedy}")
    try:
        with torch.serialization.safe_globals(array_parts()):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f" (it asks for {wanted[1]})" if wanted else ""
        raise ValueError(
            f"{path}: there is more in it than arrays of integers{reason}; nothing in it was run. "
            f"Delete it and {remedy}"
        ) from None
    except (RuntimeError, EOFError, TypeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: damaged ({reason}); {remedy}") from None
    labels = {}
    for name, key in {"true": TRUE, **LABELS}.items():
        array = found.get(key) if isinstance(found, dict) else None
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"{path}: there is no array of integers {key!r}; {remedy}")
        if len(array) == 0 or array.min() < 0 or array.max() >= len(CLASS_NAMES):
            raise ValueError(f"{path}: {key} is empty or has a label outside 0..9; {remedy}")
        labels[name] = array.astype(np.int64)
    lengths = {name: len(array) for name, array in labels.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: arrays of different lengths ({lengths}); {remedy}")
    return labels


def array_parts() -> list:
    """What a pickle of integer arrays is made of, for `torch.serialization.safe_globals`."""
    integers = [type(np.dtype(name)) for name in ("int8", "uint8", "int16", "int32", "int64")]

    def rebuild(kind: type, shape: tuple, code: bytes) -> np.ndarray:
        if kind is not np.ndarray:
            raise pickle.UnpicklingError(f"{kind} is not an array")
        return np.ndarray.__new__(np.ndarray, shape, code)

    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # NumPy 1 and 2
    named = [(rebuild, f"{module}._reconstruct") for module in modules]
    return [np.ndarray, np.dtype, *integers, _codecs.encode, *named]
