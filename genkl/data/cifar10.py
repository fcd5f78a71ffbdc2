"""CIFAR-10: its images and labels, from the binary files or from Parquet files.

`genkl.data.cifar10n` and `genkl.data.cifar10h` give them labels and votes of people. The version
for Python is a pickle, which could run code; it is not read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from genkl.checks import check_choice
from genkl.data.images import ImageError, decode_image, positions
from genkl.data.registry import CIFAR10
from genkl.data.sources import find_data

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
BINARY_FILES = {"train": CIFAR10.layouts[0][:5], "test": CIFAR10.layouts[0][5:]}
PARQUET_FILES = dict(zip(("train", "test"), CIFAR10.layouts[1], strict=True))
SHAPE = (3, 32, 32)
ROW_BYTES = 1 + 3 * 32 * 32
"""In the binary files: a label, then a plane each of red, green and blue."""

ROWS_AT_ONCE = 2000


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
    labels = read_cifar10_labels(part, data_root)
    folder = find_data(CIFAR10, data_root)
    rows = np.arange(len(labels)) if rows is None else positions(rows)
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(labels):
        raise ValueError(f"rows reach from {rows.min()} to {rows.max()}; there are {len(labels)}")
    images = torch.empty((len(rows), *SHAPE), dtype=torch.uint8)
    ascending = np.argsort(rows, kind="stable")
    first = 0
    for encoded in _read_column(folder, part, "img"):
        ends = np.searchsorted(rows[ascending], (first, first + len(encoded)))
        for at in ascending[slice(*ends)].tolist():
            name = f"{folder}, {part} image {rows[at]}"
            images[at] = _decode(encoded[int(rows[at]) - first], name)
        first += len(encoded)
    return images, labels[rows]


def numbered_images(num_train: int, cifar: Path) -> Callable[[np.ndarray], Tensor]:
    """A reader of images by number, those of one part at a time: "train" first, then "test"."""

    def read(numbers: np.ndarray) -> Tensor:
        in_test = len(numbers) and numbers[0] >= num_train
        part, first = ("test", num_train) if in_test else ("train", 0)
        return read_cifar10(part, numbers - first, data_root=cifar)[0]

    return read


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
    labels = np.concatenate([*_read_column(folder, part, "label")]).astype(np.int64)
    bad = (labels < 0) | (labels >= len(CLASS_NAMES))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"{folder}: {part} image {row} has label {labels[row]}, outside 0..9; get it again"
        )
    return labels


def _read_column(folder: Path, part: str, column: str) -> Iterator[Any]:
    """The column "label" or "img" of CIFAR-10, in chunks: numbers, planes of pixels, or files."""
    if not all((folder / name).is_file() for name in CIFAR10.layouts[0]):
        yield from _read_parquet(folder / PARQUET_FILES[part], column)
        return
    for name in BINARY_FILES[part]:
        size = (folder / name).stat().st_size
        if size == 0 or size % ROW_BYTES:
            raise ValueError(
                f"{folder / name}: {size} bytes, which is no multiple of {ROW_BYTES}; get it again"
            )
        rows = np.memmap(folder / name, np.uint8, "r").reshape(-1, ROW_BYTES)
        yield rows[:, 0] if column == "label" else rows[:, 1:]


def _read_parquet(path: Path, column: str) -> Iterator[np.ndarray | pa.Array]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=[column]):
                values = batch.column(0)
                yield values.to_numpy() if column == "label" else pc.struct_field(values, "bytes")
    except (pa.ArrowInvalid, KeyError, IndexError, OSError) as error:
        raise ValueError(f"{path}: {error}; get the file again") from None


def _decode(encoded: np.ndarray | pa.Scalar, name: str) -> Tensor:
    """An image (3, 32, 32), uint8, from its planes or from a JPEG or PNG file."""
    if isinstance(encoded, np.ndarray):
        return torch.from_numpy(np.array(encoded).reshape(SHAPE))
    pixels = decode_image(encoded.as_py(), name)
    if pixels.shape != SHAPE:
        height, width = pixels.shape[1:]
        raise ImageError(name, f"{width}x{height} pixels instead of 32x32")
    return pixels
