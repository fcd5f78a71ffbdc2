"""List files of keys, or of keys and labels: a million lines as arrays, and where their images are.

A line is a file's key, or a key and a label. Windows line ends, a byte-order mark, blank lines and
headers are understood; what can't be right is an error that says which line of which file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genkl.checks import TableError
from genkl.data.images import ImageFiles
from genkl.data.sources import DataNotFoundError
from genkl.data.tables import read_lines

LOOKED_FOR = 5
"""How many images are looked for before a prefix is believed to be wrong."""


@dataclass(frozen=True)
class ListFile:
    """The N lines of a list file that are not blank.

    Attributes:
        path: the file.
        keys: N strings.
        lines: shape (N,), the line of each, counted from 1.
        labels: shape (N,), int64; None where the lines hold keys only.
    """

    path: Path
    keys: pa.StringArray
    lines: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: np.ndarray) -> ListFile:
        """The lines at these positions, in this order."""
        labels = None if self.labels is None else self.labels[rows]
        return ListFile(self.path, self.keys.take(pa.array(rows)), self.lines[rows], labels)

    def error(self, row: int, problem: str, remedy: str) -> TableError:
        """What is wrong with a line, with its file and number."""
        return TableError(str(self.path), problem, remedy, row, line=int(self.lines[row]))

    def refuse(self, wrong: np.ndarray, problem: str, remedy: str) -> None:
        """Refuse lines where a mask of shape (N,) is true; {} is the first of their keys."""
        if wrong.any():
            row = int(wrong.argmax())
            raise self.error(row, problem.format(self.keys[row].as_py()), remedy)


def read_keys(
    path: str | os.PathLike[str], *, header: str | None = None, prefix: str = ""
) -> ListFile:
    """Read a list of keys, one a line.

    Args:
        path: the file, UTF-8.
        header: the first line's first column where it is a header; it is left out.
        prefix: taken off the keys that start with it.

    Returns:
        Its lines that are not blank, without spaces at their ends.

    Raises:
        TableError: no keys, or not UTF-8; the message says where.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    texts = pa.array([], pa.string())
    if path.stat().st_size:
        texts = pc.ascii_trim_whitespace(read_lines(path))
    filled = pc.not_equal(texts, "").to_numpy(zero_copy_only=False)
    if header is not None and pc.starts_with(texts[:1], header).to_pylist() == [True]:
        filled[0] = False
    if not filled.any():
        raise TableError(str(path), "there are no keys in this file", "get it again", line=1)
    keys = texts if filled.all() else texts.filter(pa.array(filled))
    return ListFile(path, without_prefix(keys, prefix), np.flatnonzero(filled) + 1)


def without_prefix(keys: pa.StringArray, prefix: str) -> pa.StringArray:
    """The keys, each without a prefix that it may or may not have."""
    if not prefix:
        return keys
    prefixed, rest = pc.starts_with(keys, prefix), pc.utf8_slice_codeunits(keys, len(prefix))
    return rest if pc.all(prefixed).as_py() else pc.if_else(prefixed, rest, keys)


def read_labels(
    path: str | os.PathLike[str],
    num_labels: int,
    *,
    separator: str = " ",
    header: str | None = None,
    prefix: str = "",
) -> ListFile:
    """Read a list of keys and labels; a key may hold the separator, only the last one counts.

    Args:
        path: the file, UTF-8.
        num_labels: labels are integers in 0..num_labels-1.
        separator: what stands between key and label.
        header: the first line's first column where it is a header; it is left out.
        prefix: taken off the keys that start with it.

    Returns:
        Keys and labels. A key that is there twice with the same label is kept once.

    Raises:
        TableError: a line without a label, a label that is no integer or is out of range, or a
            key with two different labels; the message says which line.
        FileNotFoundError: no such file.
    """
    listed = read_keys(path, header=header)
    parts = pc.split_pattern(listed.keys, separator, max_splits=1, reverse=True)
    named = "a tab" if separator == "\t" else "a space"
    listed.refuse(
        pc.less(pc.list_value_length(parts), 2).to_numpy(zero_copy_only=False),
        "there is no label in {!r}",
        f"write a key, {named} and a label",
    )
    texts = pc.list_element(parts, 1)
    labels = as_integers(texts)
    wrong = (labels < 0) | (labels >= num_labels)
    if wrong.any():
        row = int(wrong.argmax())
        remedy = f"labels are integers from 0 to {num_labels - 1}: correct the line"
        problem = f"the label is {texts[row].as_py()!r}"
        raise listed.error(row, problem, f"{remedy}, or get the file again")
    keys = pc.ascii_rtrim_whitespace(pc.list_element(parts, 0))
    keys = without_prefix(keys, prefix)
    return without_repeats(ListFile(listed.path, keys, listed.lines, labels))


def as_integers(texts: pa.StringArray) -> np.ndarray:
    """Texts of 1 to 9 digits as integers, any other as -1; shape (N,), int64."""
    digits = pc.match_substring_regex(texts, "^[0-9]{1,9}$")
    return pc.if_else(digits, texts, "-1").cast(pa.int64()).to_numpy()


def without_repeats(listed: ListFile) -> ListFile:
    """Keys that are there twice kept once, where their labels agree.

    Raises:
        TableError: they don't; the message names both lines.
    """
    first = find_rows(listed.keys, listed.keys)
    if listed.labels is not None:
        differs = np.flatnonzero(listed.labels != listed.labels[first])
        if len(differs):
            row, earlier = differs[0], first[differs[0]]
            problem = f"{listed.keys[int(row)]} has label {listed.labels[row]} here and "
            problem += f"{listed.labels[earlier]} in line {listed.lines[earlier]}"
            raise listed.error(row, problem, "keep the right line")
    new = first == np.arange(len(first))
    return listed if new.all() else listed.take(np.flatnonzero(new))


def find_rows(keys: pa.StringArray, among: pa.StringArray) -> np.ndarray:
    """Where each key is (first) among others, found by hash.

    Args:
        keys: N strings.
        among: M strings, hashed once: pass the shorter of two lists here where it makes no
            difference.

    Returns:
        Positions in `among`, shape (N,), int64; -1 where the key is not there.
    """
    found = pc.index_in(keys, value_set=among)
    rows = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    # What Arrow keeps for later would add up over several lists.
    pa.default_memory_pool().release_unused()
    return rows


def find_images(
    folders: Sequence[Path], names: pa.StringArray, splits: Iterable[np.ndarray] | None = None
) -> ImageFiles:
    """Images in the folder that their names are relative to; only the first few are looked for.

    Args:
        folders: where they may be, the usual one first.
        names: of the images, shape (N,).
        splits: rows of each split, of which some must be there; None is all of them as one.

    Returns:
        The N images, in the first of the folders in which every split has one of its first images.

    Raises:
        DataNotFoundError: none of them; the message names the paths.
    """
    splits = [np.arange(len(names))] if splits is None else splits
    firsts = [names.take(pa.array(rows[:LOOKED_FOR])).to_pylist() for rows in splits if len(rows)]
    missing = []
    for folder in folders:
        paths = [[folder / name for name in few] for few in firsts]
        lacking = [few[0] for few in paths if not any(path.is_file() for path in few)]
        if not lacking:
            return ImageFiles(folder, names)
        missing.append(str(lacking[0]))
    raise DataNotFoundError(
        f"the lists are here, but not the images: there is no {' and no '.join(missing)}"
        "; unpack the images so that one of these paths exists"
    )
