"""List files of a million lines, read as arrays and never as a million Python strings.

A line is a file's key, or a key and a label. Windows line ends, a byte-order mark, blank lines and
headers are understood; what can't be right is an error that says which line of which file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genkl.data.sources import DataNotFoundError

LINES_AT_ONCE = 100_000
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

    def error(self, row: int, problem: str) -> ValueError:
        """What is wrong with a line, with its file and number."""
        return ValueError(f"{self.path}:{self.lines[row]}: {problem}")


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
        ValueError: no keys, or not UTF-8; the message says where.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    # Each line is a slice of the file's own bytes: a million of them cost one array of offsets.
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([[0], ends, [len(text)]]).astype(np.int32)
    raw = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))
    try:
        raw.validate(full=True)
        keys = pc.ascii_trim_whitespace(raw)
    except pa.ArrowInvalid:
        raise ValueError(f"{path}:{first_line_not_utf8(text)}: not UTF-8; convert it") from None
    filled = pc.not_equal(keys, "").to_numpy(zero_copy_only=False)
    if header is not None and pc.starts_with(keys[:1], header)[0].as_py():
        filled[0] = False
    if not filled.any():
        raise ValueError(f"{path}:1: there are no keys in this file; get it again")
    # The last line of nearly every file is blank; any other would cost a copy.
    last = len(filled) if filled[-1] else len(filled) - 1
    keys = keys[:last] if filled[:last].all() else keys.filter(pa.array(filled))
    return ListFile(path, without_prefix(keys, prefix), np.flatnonzero(filled) + 1)


def first_line_not_utf8(text: bytes) -> int:
    """The line of the first byte that is not UTF-8, counted from 1."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return text.count(b"\n", 0, error.start) + 1
    return 1


def without_prefix(keys: pa.StringArray, prefix: str) -> pa.StringArray:
    """The keys, each without a prefix that it may or may not have."""
    if not prefix:
        return keys
    prefixed = pc.starts_with(keys, prefix)
    if not pc.any(prefixed).as_py():
        return keys
    rest = pc.utf8_slice_codeunits(keys, len(prefix))
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
        ValueError: a line without a label, a label that is no integer or is out of range, or a
            key with two different labels; the message says which line.
        FileNotFoundError: no such file.
    """
    whole = read_keys(path, header=header)
    label_parts, key_parts = [], []
    # In parts: a million lines split at once would be in memory three times over.
    for start in range(0, len(whole), LINES_AT_ONCE):
        part = replace(
            whole,
            keys=whole.keys[start : start + LINES_AT_ONCE],
            lines=whole.lines[start : start + LINES_AT_ONCE],
        )
        keys, labels = split_lines(part, num_labels, separator)
        key_parts.append(without_prefix(keys, prefix))
        label_parts.append(labels)
    whole = replace(whole, keys=pa.concat_arrays(key_parts), labels=np.concatenate(label_parts))
    key_parts.clear()
    release_memory()
    return without_repeats(whole)


def split_lines(
    listed: ListFile, num_labels: int, separator: str
) -> tuple[pa.StringArray, np.ndarray]:
    """Keys and labels of lines, see `read_labels`."""
    parts = pc.split_pattern(listed.keys, separator, max_splits=1, reverse=True)
    single = pc.less(pc.list_value_length(parts), 2).to_numpy(zero_copy_only=False)
    if single.any():
        row = int(single.argmax())
        raise listed.error(
            row,
            f"there is no label in {listed.keys[row].as_py()!r}; expected a key, a "
            f"{'tab' if separator == chr(9) else 'space'} and a label",
        )
    texts = pc.list_element(parts, 1)
    wrong = ~pc.match_substring_regex(texts, r"^[0-9]{1,9}$").to_numpy(zero_copy_only=False)
    labels = np.empty(0, np.int64)
    if not wrong.any():
        labels = texts.cast(pa.int64()).to_numpy()
        wrong = labels >= num_labels
    if wrong.any():
        row = int(wrong.argmax())
        raise listed.error(
            row,
            f"the label is {texts[row].as_py()!r}; labels are integers from 0 to {num_labels - 1}: "
            "correct the line, or get the file again",
        )
    return pc.ascii_rtrim_whitespace(pc.list_element(parts, 0)), labels


def without_repeats(listed: ListFile) -> ListFile:
    """Keys that are there twice kept once, where their labels agree.

    Raises:
        ValueError: they don't; the message names both lines.
    """
    first = find_rows(listed.keys, listed.keys)
    new = first == np.arange(len(first))
    if new.all():
        return listed
    if listed.labels is not None:
        differs = np.flatnonzero(listed.labels != listed.labels[first])
        if len(differs):
            row, earlier = differs[0], first[differs[0]]
            raise listed.error(
                row,
                f"{listed.keys[int(row)]} has label {listed.labels[row]} here and "
                f"{listed.labels[earlier]} in line {listed.lines[earlier]}; keep the right line",
            )
    return listed.take(np.flatnonzero(new))


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
    release_memory()
    return rows


def release_memory() -> None:
    """Return to the system what Arrow keeps for later: over several lists it would add up."""
    pa.default_memory_pool().release_unused()


def find_images(folders: Sequence[Path], *names: pa.StringArray) -> Path:
    """The folder that image names are relative to; only the first few are looked for.

    Args:
        folders: where they may be, the usual one first.
        names: those of one split each; empty ones count for nothing.

    Returns:
        The first of the folders in which every split has one of its first images.

    Raises:
        DataNotFoundError: none of them; the message names the paths.
    """
    firsts = [some[:LOOKED_FOR].to_pylist() for some in names if len(some)]
    for folder in folders:
        if all(any((folder / name).is_file() for name in few) for few in firsts):
            return folder
    missing = [
        next(folder / few[0] for few in firsts if not any((folder / n).is_file() for n in few))
        for folder in folders
    ]
    raise DataNotFoundError(
        f"the lists are here, but not the images: there is no {' and no '.join(map(str, missing))}"
        "; unpack the images so that one of these paths exists"
    )
