"""CIFAR-10 under human labels: one label each for training, some 51 votes each for testing.

CIFAR-10N gives the 50,000 training images labels from people on the web: real label noise, of 9 to
40 %, whose truth is CIFAR-10's own label. CIFAR-10H gives the 10,000 test images some 51 votes
each: where people disagree, the image is ambiguous.
"""

from __future__ import annotations

import _codecs
import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from genkl.checks import check_choice
from genkl.data.base import Kind, NoisyDataset, Truth, make_split, take_stratified
from genkl.data.images import ImageError, positions
from genkl.data.lists import check_limit, draw_rows, find_neighbour
from genkl.data.planting import check_rate
from genkl.data.registry import CIFAR10, CIFAR10H, CIFAR10N
from genkl.data.sources import find_data

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
BINARY_FILES = {"train": CIFAR10.layouts[0][:5], "test": CIFAR10.layouts[0][5:]}
PARQUET_FILES = dict(zip(("train", "test"), CIFAR10.layouts[1], strict=True))
PIXELS = 32
ROW_BYTES = 1 + 3 * PIXELS * PIXELS
"""In the binary files: a label, then a plane each of red, green and blue."""

ROWS_AT_ONCE = 2000

N_LABELS = {
    "worst": "worse_label",
    "aggregate": "aggre_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
}
"""Our names of CIFAR-10N's labels -> the file's."""
N_FILE, N_TRUE = "CIFAR-10_human.pt", "clean_label"
H_FILE = "cifar10h-counts.npy"


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
            OOD, each under a known label drawn at random. A human label of a held-out class on an
            image of a known one is replaced by another wrong known one, drawn at random.

    Returns:
        The data set, inputs of shape (N, 3, 32, 32), uint8, and the truth about its noisy split
        (CORRECT, MISLABELLED, and OOD for held-out classes) according to CIFAR-10. Ids count the
        training images from 0, then the test images.

    Raises:
        DataNotFoundError: CIFAR-10 or CIFAR-10N is not here; the message says what to do.
        ValueError: a bad option, files that are damaged or that don't belong together.
    """
    check_choice("labels", labels, N_LABELS)
    _check_counts(clean_per_class, validation_per_class, test_per_class, noisy_limit)
    known = known_classes(held_out)
    folder = find_data(CIFAR10N, data_root)
    human = read_cifar10n(folder)
    cifar = find_neighbour(CIFAR10, data_root, folder)
    true = read_cifar10_labels("train", cifar)
    check_same_order(folder / N_FILE, human["true"], true)
    rng = np.random.default_rng(seed)

    of_known = np.flatnonzero(np.isin(true, known))
    clean = take_stratified(true, of_known, clean_per_class, rng)
    left = np.setdiff1d(of_known, clean)
    validation = take_stratified(true, left, validation_per_class, rng)
    used = np.concatenate([clean, validation])
    noisy = draw_rows(np.setdiff1d(np.arange(len(true)), used), noisy_limit, seed)
    position = np.full(len(CLASS_NAMES), -1)
    position[known] = np.arange(len(known))
    # Drawn for every image, so that a limit changes no image's label.
    given = redraw_unknown(position[human[labels]], position[true], len(known), rng)
    kinds = np.where(given == position[true], Kind.CORRECT, Kind.MISLABELLED).astype(np.int64)
    kinds[position[true] < 0] = Kind.OOD

    test_true = read_cifar10_labels("test", cifar)
    test = np.flatnonzero(np.isin(test_true, known))
    if test_per_class is not None:
        test = take_stratified(test_true, test, test_per_class, rng)
    images, _ = read_cifar10("train", np.concatenate([clean, validation, noisy]), data_root=cifar)
    sizes = [len(clean), len(validation), len(noisy)]
    clean_images, validation_images, noisy_images = images.split(sizes)
    dataset = NoisyDataset(
        name=CIFAR10N.name,
        class_names=tuple(CLASS_NAMES[label] for label in known),
        clean=make_split(clean_images, position[true[clean]], clean),
        noisy=make_split(noisy_images, given[noisy], noisy),
        validation=make_split(validation_images, position[true[validation]], validation),
        test=make_split(
            read_cifar10("test", test, data_root=cifar)[0],
            position[test_true[test]],
            len(true) + test,
        ),
    )
    source = "CIFAR-10's own labels"
    return dataset, Truth(kinds[noisy], position[true[noisy]], source, noisy.copy())


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
    _check_counts(clean_per_class, validation_per_class, test_per_class, noisy_limit)
    folder = find_data(CIFAR10H, data_root)
    counts, shares = read_cifar10h(folder)
    cifar = find_neighbour(CIFAR10, data_root, folder)
    label = read_cifar10_labels("test", cifar)
    if len(label) != len(counts) or (counts.argmax(axis=1) == label).mean() < 0.5:
        raise ValueError(
            f"{folder / H_FILE}: the votes on {len(counts)} images don't fit CIFAR-10's "
            f"{len(label)} test images in {cifar}; both must be in their original order: get the "
            "official files"
        )
    rng = np.random.default_rng(seed)
    true = read_cifar10_labels("train", cifar)
    rows: dict[str, np.ndarray] = {}
    left = np.arange(len(true))
    per_class = {
        "clean": clean_per_class, "validation": validation_per_class, "test": test_per_class,
    }  # fmt: skip
    for split, count in per_class.items():
        rows[split] = take_stratified(true, left, count, rng)
        left = np.setdiff1d(left, rows[split])

    votes = draw_votes(counts, rng)
    agreed = counts[np.arange(len(label)), label] == counts.max(axis=1)
    kinds = np.where(votes == label, Kind.CORRECT, Kind.MISLABELLED).astype(np.int64)
    kinds[~agreed] = Kind.UNKNOWN
    kinds[shares.max(axis=1) < ambiguous_below] = Kind.AMBIGUOUS
    truth_labels = np.where(np.isin(kinds, (Kind.CORRECT, Kind.MISLABELLED)), label, -1)
    noisy = draw_rows(np.arange(len(label)), noisy_limit, seed)

    images, _ = read_cifar10("train", np.concatenate(list(rows.values())), data_root=cifar)
    parts = images.split([len(some) for some in rows.values()])
    dataset = NoisyDataset(
        name=CIFAR10H.name,
        class_names=CLASS_NAMES,
        noisy=make_split(
            read_cifar10("test", noisy, data_root=cifar)[0], votes[noisy], len(true) + noisy
        ),
        **{
            split: make_split(part, true[some], some)
            for (split, some), part in zip(rows.items(), parts, strict=True)
        },
    )
    source = "people's votes, and CIFAR-10's own labels"
    return dataset, Truth(kinds[noisy], truth_labels[noisy], source, len(true) + noisy)


def _check_counts(clean: int, validation: int, test: int | None, noisy_limit: int | None) -> None:
    per_class = {"clean": clean, "validation": validation, "test": test}
    for split, count in per_class.items():
        if count is not None and count < 0:
            raise ValueError(f"{split}_per_class is {count}; pass 0 or more")
    check_limit("noisy_limit", noisy_limit)


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
            f"{path}: {N_TRUE}[{at}] is {true[at]}, but CIFAR-10's training image {at} has label "
            f"{labels[at]}; {remedy}"
        )


def draw_votes(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One vote for each image, drawn from all that were given: (N, k) counts -> (N,) labels."""
    drawn = rng.integers(0, counts.sum(axis=1))
    return (counts.cumsum(axis=1) <= drawn[:, None]).sum(axis=1)


# Images


def read_cifar10(
    part: str = "train",
    rows: np.ndarray | Sequence[int] | None = None,
    *,
    data_root: str | os.PathLike[str] | None = None,
) -> tuple[Tensor, np.ndarray]:
    """CIFAR-10's images and labels.

    Only the rows asked for are decoded. The binary version is read where there is one, else the
    Parquet files.

    Args:
        part: "train" or "test".
        rows: positions; None is all of them.
        data_root: where to look instead of ``$GENKL_DATA``.

    Returns:
        Images (N, 3, 32, 32), uint8, and labels (N,), int64, of the rows, in their order.

    Raises:
        DataNotFoundError: it is not here; the message says what to do.
        ValueError: a damaged file.
        ImageError: a damaged image, or one of another size.
    """
    check_choice("part", part, BINARY_FILES)
    folder = find_data(CIFAR10, data_root)
    labels = read_cifar10_labels(part, folder)
    rows = np.arange(len(labels)) if rows is None else positions(rows)
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(labels):
        raise ValueError(f"rows reach from {rows.min()} to {rows.max()}; there are {len(labels)}")
    if _is_binary(folder):
        images = _read_planes(folder, part, rows)
    else:
        images = _decode_rows(folder / PARQUET_FILES[part], rows)
    return torch.from_numpy(images), labels[rows]


def read_cifar10_labels(
    part: str = "train", data_root: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """CIFAR-10's labels, without decoding any image.

    Args:
        part: "train" or "test".
        data_root: where to look instead of ``$GENKL_DATA``.

    Returns:
        Shape (N,), int64.

    Raises:
        DataNotFoundError: it is not here; the message says what to do.
        ValueError: a damaged file.
    """
    check_choice("part", part, BINARY_FILES)
    folder = find_data(CIFAR10, data_root)
    if _is_binary(folder):
        path = folder / BINARY_FILES[part][0]
        labels = np.concatenate([one[:, 0] for one in _binary_rows(folder, part)]).astype(np.int64)
    else:
        path = folder / PARQUET_FILES[part]
        labels = np.concatenate([one.to_numpy() for one in _read_parts(path, "label")])
    bad = (labels < 0) | (labels >= len(CLASS_NAMES))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{path}: image {row} has label {labels[row]}, outside 0..9; get it again")
    return labels


def decode_small(encoded: bytes, name: str) -> np.ndarray:
    """Decode an image of CIFAR-10's size.

    Args:
        encoded: a JPEG or PNG file.
        name: for messages.

    Returns:
        (3, 32, 32), uint8.

    Raises:
        ImageError: damaged, or of another size.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
            width, height = image.size
            pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(name, f"damaged ({error})") from None
    if (width, height) != (PIXELS, PIXELS):
        raise ImageError(name, f"{width}x{height} pixels instead of {PIXELS}x{PIXELS}")
    return pixels.transpose(2, 0, 1)


def _decode_rows(path: Path, rows: np.ndarray) -> np.ndarray:
    """Images of a Parquet file, (N, 3, 32, 32), uint8, read a part at a time.

    In this thread: for images so small, several threads were measured to be no faster.
    """
    images = np.empty((len(rows), 3, PIXELS, PIXELS), np.uint8)
    ascending = np.argsort(rows, kind="stable")
    first = 0
    for part in _read_parts(path, "img.bytes"):
        ends = np.searchsorted(rows[ascending], (first, first + len(part)))
        for at in ascending[slice(*ends)].tolist():
            encoded = part[int(rows[at]) - first].as_py()
            images[at] = decode_small(encoded, f"{path}, image {rows[at]}")
        first += len(part)
    return images


def _read_parts(path: Path, name: str) -> Iterator[pa.Array]:
    """One column of a Parquet file, in parts; a field of a struct is "struct.field"."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=[name]):
                if batch.num_columns != 1:
                    raise ValueError(f"{path}: there is no column {name!r}; get the file again")
                column = batch.column(0)
                yield pc.struct_field(column, 0) if pa.types.is_struct(column.type) else column
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: {error}; get the file again") from None


def _is_binary(folder: Path) -> bool:
    return all((folder / name).is_file() for names in BINARY_FILES.values() for name in names)


def _binary_rows(folder: Path, part: str) -> list[np.ndarray]:
    """The rows of each binary file, (N, 3073), mapped into memory and not read yet."""
    mapped = []
    for name in BINARY_FILES[part]:
        size = (folder / name).stat().st_size
        if size == 0 or size % ROW_BYTES:
            raise ValueError(
                f"{folder / name}: {size} bytes, which is no multiple of {ROW_BYTES}; get it again"
            )
        mapped.append(np.memmap(folder / name, np.uint8, "r").reshape(-1, ROW_BYTES))
    return mapped


def _read_planes(folder: Path, part: str, rows: np.ndarray) -> np.ndarray:
    images = np.empty((len(rows), ROW_BYTES - 1), np.uint8)
    first = 0
    for mapped in _binary_rows(folder, part):
        mine = np.flatnonzero((rows >= first) & (rows < first + len(mapped)))
        images[mine] = mapped[rows[mine] - first, 1:]
        first += len(mapped)
    return images.reshape(-1, 3, PIXELS, PIXELS)


# Labels that people gave


def read_cifar10n(data_root: str | os.PathLike[str] | None = None) -> dict[str, np.ndarray]:
    """CIFAR-10N's labels.

    The file is a pickle, which could run code. It is read by PyTorch's restricted reader, which
    makes plain arrays and refuses everything else without running it.

    Args:
        data_root: where to look instead of ``$GENKL_DATA``.

    Returns:
        Labels by name, each (N,), int64. They are "true", CIFAR-10's own, and those of `N_LABELS`.

    Raises:
        DataNotFoundError: it is not here; the message says what to do.
        ValueError: not the official file.
    """
    path = find_data(CIFAR10N, data_root) / N_FILE
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
    for name, key in {"true": N_TRUE, **N_LABELS}.items():
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
    allowed: list = [np.ndarray, np.dtype, *integers, _codecs.encode]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1 and 2

        def rebuild(kind: type, shape: tuple, code: bytes) -> np.ndarray:
            if kind is not np.ndarray:
                raise pickle.UnpicklingError(f"{kind} is not an array")
            return np.ndarray.__new__(np.ndarray, shape, code)

        rebuild.__module__, rebuild.__qualname__ = module, "_reconstruct"
        rebuild.__name__ = "_reconstruct"
        allowed.append(rebuild)
    return allowed


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
    path = find_data(CIFAR10H, data_root) / H_FILE
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
