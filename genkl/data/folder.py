"""Your own data: a folder of photographs with a table of labels, or arrays of anything.

What you verified becomes the clean, the validation and the test split, the rest is the noisy one.
A million rows are Arrow arrays throughout, and files are found by listing folders, not one by one.
"""

from __future__ import annotations

import csv
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import torch
from torch import Tensor

from genkl.checks import check_choice, check_labels, to_numpy
from genkl.data.base import Kind, NoisyDataset, Truth, make_split
from genkl.data.images import ImageFiles, Images, positions
from genkl.data.lists import find_rows
from genkl.data.sources import DataNotFoundError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
MISSING = ("raise", "skip")
VERIFIED_COLUMN = "verified"
VERIFIED_SPLITS = ("clean", "validation", "test")
NOISY = len(VERIFIED_SPLITS)
"""Number of the noisy split, after the verified ones."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """The columns of a CSV file that are asked for, as N strings each.

    Attributes:
        path: the file.
        columns: by name.
    """

    path: Path
    columns: dict[str, pa.StringArray]

    def error(self, row: int, problem: str) -> ValueError:
        """What is wrong with a row, with the file and the line."""
        return ValueError(f"{self.path}:{line_of(self.path, row)}: {problem}")


@dataclass(frozen=True)
class LabelledFiles:
    """N image files and what was said about them.

    Attributes:
        names: relative to the folder.
        class_names: k names.
        given: shape (N,), -1 where there is none.
        verified: shape (N,), -1 where nobody looked or no class fits.
        is_nc: shape (N,), where somebody looked and no class fits.
        groups: shape (N,), a number for each group; None without groups.
        table: where it was read; None for a tree of folders.
    """

    names: pa.StringArray
    class_names: tuple[str, ...]
    given: np.ndarray
    verified: np.ndarray
    is_nc: np.ndarray
    groups: np.ndarray | None = None
    table: Table | None = None


def load_folder(
    seed: int = 0,
    *,
    folder: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    image_column: str = "image",
    label_column: str = "label",
    verified_column: str = VERIFIED_COLUMN,
    group_column: str | None = None,
    class_names: Sequence[str] | None = None,
    non_conforming_name: str | None = None,
    clean_share: float = 0.4,
    validation_share: float = 0.3,
    test_share: float = 0.3,
    missing: str = "raise",
) -> tuple[NoisyDataset, Truth]:
    """Load a folder of images with a table of labels, or with a sub-folder for each class.

    Without verified labels the clean, validation and test splits are empty.

    Args:
        seed: decides which verified images are in which split.
        folder: of the images.
        labels: a CSV file (or tab-separated, ``.tsv``) with a header, relative to the folder; None
            takes the name of the sub-folder that an image is in (at any depth) as its given label.
        image_column: paths, relative to the folder.
        label_column: given labels, as names or as integers. Empty where an image has only a
            verified one; such an image is never in the noisy split.
        verified_column: labels that somebody checked; empty where nobody did. The column
            "verified" may be missing, one that you name may not.
        group_column: who or what an image comes from, such as the sender, the product or the
            photographer. No group is in two splits; images without a verified class whose group is
            in a verified split are left out.
        class_names: k names. None takes the given labels that occur, sorted (by number where all
            are integers). If given, integer labels count from 0 into it.
        non_conforming_name: what the verified column says where no class fits. Such images are in
            the noisy split, as NC in the truth.
        clean_share: of the verified images of each class.
        validation_share: the same.
        test_share: the same. If the three sum to less than 1, the rest stays in the noisy split
            under its given label, and the truth knows it.
        missing: "raise" refuses a table that lists files that are not there; "skip" leaves them out
            and logs how many.

    Returns:
        The data set, its inputs image files, and the truth about its noisy split. It is CORRECT or
        MISLABELLED where there is a verified label, NC where no class fits, else UNKNOWN. Ids
        count the rows of the table, or the images in the order of their paths.

    Raises:
        DataNotFoundError: no such folder or table, no images in it, or files that are not there.
        ValueError: shares out of range, a bad line (the message says which), or nothing left for
            the noisy split.
    """
    shares = (clean_share, validation_share, test_share)
    for name, share in zip(VERIFIED_SPLITS, shares, strict=True):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}_share is {share}; it is a share, between 0 and 1")
    if sum(shares) > 1 + 1e-9:
        raise ValueError(
            f"clean_share, validation_share and test_share sum to {sum(shares):g}; at most 1"
        )
    check_choice("missing", missing, MISSING)
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataNotFoundError(f"folder is {str(folder)!r}, which is no folder; correct the path")
    if labels is None:
        if group_column is not None or non_conforming_name is not None:
            raise ValueError(
                "group_column and non_conforming_name need a table; pass labels= with a CSV file"
            )
        files = read_tree(root, class_names)
        present = np.arange(len(files.names))
    else:
        table = read_table(
            find_table(root, labels),
            [image_column, label_column, *([group_column] if group_column else [])],
            verified_column,
            optional=verified_column == VERIFIED_COLUMN,
        )
        files = read_labelled(
            table, image_column, label_column, verified_column, group_column, class_names,
            non_conforming_name,
        )  # fmt: skip
        present = find_present(root, files.names, table.path, missing)

    parts = np.full(len(files.names), -1)
    parts[present] = assign_splits(files, present, shares, np.random.default_rng(seed))
    unlabelled = (parts == NOISY) & (files.given < 0)
    parts[unlabelled] = -1
    if unlabelled.any():
        log.warning("%s: %d images have no given label; left out", root, unlabelled.sum())
    rows = {name: np.flatnonzero(parts == at) for at, name in enumerate(VERIFIED_SPLITS)}
    noisy = np.flatnonzero(parts == NOISY)
    if len(noisy) == 0:
        raise ValueError(
            f"{root}: no image is left for the noisy split; leave images unverified, or let "
            "clean_share, validation_share and test_share sum to less than 1"
        )
    images = ImageFiles(root, files.names)
    dataset = NoisyDataset(
        name="folder",
        class_names=files.class_names,
        noisy=make_split(images.take(noisy), files.given[noisy], noisy),
        **{
            name: make_split(images.take(some), files.verified[some], some)
            for name, some in rows.items()
        },
    )
    return dataset, tell_truth(files, noisy)


def tell_truth(files: LabelledFiles, noisy: np.ndarray) -> Truth:
    """What is known about the images of the noisy split."""
    given, verified = files.given[noisy], files.verified[noisy]
    kinds = np.full(len(noisy), Kind.UNKNOWN, dtype=np.int64)
    kinds[verified >= 0] = Kind.MISLABELLED
    kinds[(verified >= 0) & (verified == given)] = Kind.CORRECT
    kinds[files.is_nc[noisy]] = Kind.NC
    known = (kinds != Kind.UNKNOWN).any()
    return Truth(kinds, verified, "verified by you" if known else "nobody verified it", noisy)


# Tables


def find_table(root: Path, labels: str | os.PathLike[str]) -> Path:
    """The table of labels, relative to the folder or to where you are.

    Raises:
        DataNotFoundError: it is in neither place.
    """
    given = Path(labels).expanduser()
    for path in (root / given, given):
        if path.is_file():
            return path
    raise DataNotFoundError(f"labels is {str(labels)!r}; there is no file {root / given}")


def read_table(
    path: str | os.PathLike[str], needed: Sequence[str], extra: str | None = None, *,
    optional: bool = True,
) -> Table:  # fmt: skip
    """Read columns of a CSV file (tab-separated where it is called ``.tsv``) as strings.

    Args:
        path: the file, UTF-8, with a header. Blank lines don't count.
        needed: names of columns.
        extra: one more column.
        optional: whether that one may be missing.

    Returns:
        The columns that are there, without spaces around the values.

    Raises:
        ValueError: a column that is missing, a line of another length, no lines, or not UTF-8.
    """
    path = Path(path)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    header = read_header(path, delimiter)
    wanted = [*needed, *([extra] if extra is not None else [])]
    for name in wanted:
        if name not in header and not (optional and name == extra):
            raise ValueError(
                f"{path}:1: there is no column {name!r}; it has {', '.join(map(repr, header))}: "
                "name the right one"
            )
        if header.count(name) > 1:
            raise ValueError(f"{path}:1: there are {header.count(name)} columns {name!r}; keep one")
    wanted = [name for name in wanted if name in header]
    wrong: list[pa.csv.InvalidRow] = []

    def refuse(row: pa.csv.InvalidRow) -> str:
        wrong.append(row)
        return "error"

    try:
        read = pa.csv.read_csv(
            path,
            pa.csv.ReadOptions(use_threads=False),  # or it would not know the number of a bad row
            pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=refuse),
            pa.csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=wanted,
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        if wrong:
            row = wrong[0]
            raise ValueError(
                f"{path}:{line_of(path, row.number - 2)}: {row.actual_columns} columns instead of "
                f"{row.expected_columns}; put values that hold a comma between quotation marks"
            ) from None
        line = first_line_not_utf8(path)
        if line is not None:
            raise ValueError(f"{path}:{line}: not UTF-8; convert it") from None
        raise ValueError(f"{path}: {error}; correct it") from None
    if len(read) == 0:
        raise ValueError(f"{path}: a header and no lines; add a line for each image")
    columns = {}
    for name in wanted:
        column = read[name].combine_chunks()
        columns[name] = pc.utf8_trim_whitespace(column)
    return Table(path, columns)


def read_header(path: Path, delimiter: str) -> list[str]:
    """The names of a CSV file's columns, exactly as they stand there."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        for row in csv.reader(file, delimiter=delimiter):
            if row:
                return row
    raise ValueError(f"{path}: the file is empty; it needs a header and a line for each image")


def line_of(path: Path, row: int) -> int:
    """The line of a row, counted from 1; header and blank lines are no rows. For messages only."""
    with open(path, "rb") as file:
        filled = (line for line, text in enumerate(file, 1) if text.strip(b"\r\n"))
        return next(itertools.islice(filled, row + 1, None))


def first_line_not_utf8(path: Path) -> int | None:
    """The first line that is not UTF-8, counted from 1. For messages only."""
    with open(path, "rb") as file:
        for line, text in enumerate(file, 1):
            try:
                text.decode()
            except UnicodeDecodeError:
                return line
    return None


def refuse_repeats(table: Table, column: str) -> None:
    """Refuse a value that stands in two rows.

    Raises:
        ValueError: naming both lines.
    """
    names = table.columns[column]
    first = find_rows(names, names)
    again = np.flatnonzero(first != np.arange(len(names)))
    if len(again):
        row = int(again[0])
        raise table.error(
            row,
            f"{names[row].as_py()!r} is already in line {line_of(table.path, int(first[row]))}; "
            "keep one of them",
        )


def read_labelled(
    table: Table,
    image_column: str,
    label_column: str,
    verified_column: str,
    group_column: str | None,
    class_names: Sequence[str] | None,
    non_conforming_name: str | None,
) -> LabelledFiles:
    """What a table says about its images, see `load_folder`.

    Raises:
        ValueError: a bad line; the message says which.
    """
    names, given_names = table.columns[image_column], table.columns[label_column]
    for column in (image_column, *([group_column] if group_column else [])):
        empty = is_equal(table.columns[column], "")
        if empty.any():
            raise table.error(int(empty.argmax()), f"the column {column!r} is empty; fill it in")
    refuse_repeats(table, image_column)
    if class_names is None:
        class_names = class_names_of(given_names)
    if len(class_names) < 2:
        raise ValueError(
            f"{table.path}: the column {label_column!r} holds {len(class_names)} class names; it "
            "takes 2 to have something to confuse"
        )
    given = encode_labels(table, label_column, class_names)
    verified = np.full(len(names), -1)
    is_nc = np.zeros(len(names), bool)
    if verified_column in table.columns:
        if non_conforming_name in class_names:
            raise ValueError(
                f"non_conforming_name is {non_conforming_name!r}, which is a class, too; pass "
                "class_names= without it"
            )
        if non_conforming_name is not None:
            is_nc = is_equal(table.columns[verified_column], non_conforming_name)
        verified = encode_labels(table, verified_column, class_names, but=is_nc)
    neither = (given < 0) & (verified < 0)
    if neither.any():
        row = int(neither.argmax())
        raise table.error(row, f"the column {label_column!r} is empty; give the image a label")
    groups = None
    if group_column is not None:
        groups = table.columns[group_column].dictionary_encode().indices.to_numpy()
    return LabelledFiles(names, tuple(class_names), given, verified, is_nc, groups, table)


def class_names_of(labels: pa.StringArray) -> tuple[str, ...]:
    """The labels that occur, sorted; by number where all of them are integers."""
    names = [name for name in pc.unique(labels).to_pylist() if name]
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def encode_labels(
    table: Table, column: str, class_names: Sequence[str], but: np.ndarray | None = None
) -> np.ndarray:
    """Labels of a column as positions in the class names.

    Args:
        table: N rows.
        column: its name.
        class_names: k names.
        but: rows to leave at -1, boolean, shape (N,).

    Returns:
        Shape (N,), int64; -1 where the column is empty.

    Raises:
        ValueError: a label that is no class; the message says in which line.
    """
    texts = table.columns[column]
    labels = find_rows(texts, pa.array(class_names, pa.string()))
    wanted = ~is_equal(texts, "")
    if but is not None:
        wanted &= ~but
    unknown = wanted & (labels < 0)
    if unknown.any():
        # Spreadsheets and pandas write whole numbers as "3.0" in a column with empty cells.
        texts = pc.replace_substring_regex(texts, r"^([0-9]+)\.0$", r"\1")
        labels = np.where(unknown, find_rows(texts, pa.array(class_names, pa.string())), labels)
        unknown = wanted & (labels < 0)
    if unknown.any() and (unknown == wanted).all():
        # No label is a name: then they may be numbers.
        numbers = ~wanted | pc.match_substring_regex(texts, "^[0-9]{1,9}$").to_numpy(False)
        if numbers.all():
            filled = pc.if_else(pa.array(wanted), texts, "-1")
            labels = filled.cast(pa.int64()).to_numpy()
            unknown = labels >= len(class_names)
    if unknown.any():
        row = int(unknown.argmax())
        some = ", ".join(map(repr, class_names[:10])) + (", ..." if len(class_names) > 10 else "")
        remedy = "correct it, or pass class_names="
        if but is not None:
            remedy += ", or non_conforming_name= if it says that no class fits"
        raise table.error(
            row,
            f"{texts[row].as_py()!r} in the column {column!r} is none of the {len(class_names)} "
            f"classes ({some}); {remedy}",
        )
    return np.where(wanted, labels, -1)


def is_equal(texts: pa.StringArray, text: str) -> np.ndarray:
    """Where strings are this one: shape (N,), bool."""
    return pc.equal(texts, text).to_numpy(zero_copy_only=False)


# Files


def scan_images(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Paths of the images below a folder, relative to it, with "/", sorted folder by folder.

    Known by their suffix (`IMAGE_SUFFIXES`, in either case). Links to folders are followed, but
    never in a circle. Names that begin with a dot are left out, as are ``__MACOSX`` folders.
    """
    yield from _scan(os.fspath(folder), "", set())


def _scan(folder: str, prefix: str, above: set[tuple[int, int]]) -> Iterator[str]:
    about = os.stat(folder)
    me = (about.st_dev, about.st_ino)
    if me in above:
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith((".", "__MACOSX")):
            continue
        if entry.is_dir():
            yield from _scan(entry.path, f"{prefix}{entry.name}/", above | {me})
        elif entry.name.lower().endswith(IMAGE_SUFFIXES):
            yield prefix + entry.name


def read_tree(root: Path, class_names: Sequence[str] | None = None) -> LabelledFiles:
    """Images whose given label is the name of the sub-folder that they are in.

    Args:
        root: of the sub-folders.
        class_names: k names; None takes those of the sub-folders that hold images.

    Raises:
        DataNotFoundError: no images.
        ValueError: an image in no sub-folder, or in one that is no class.
    """
    names = pa.array(scan_images(root), pa.string())
    if len(names) == 0:
        raise DataNotFoundError(
            f"there are no images below {root} (known suffixes: {' '.join(IMAGE_SUFFIXES)})"
        )
    parts = pc.split_pattern(names, "/", max_splits=1)
    outside = pc.equal(pc.list_value_length(parts), 1).to_numpy(zero_copy_only=False)
    if outside.any():
        raise ValueError(
            f"{root / names[int(outside.argmax())].as_py()} is in no sub-folder, so it has no "
            "label; move it into one, or pass labels= with a CSV file"
        )
    folders = pc.list_element(parts, 0)
    if class_names is None:
        class_names = class_names_of(folders)
    given = find_rows(folders, pa.array(class_names, pa.string()))
    if (given < 0).any():
        row = int((given < 0).argmax())
        raise ValueError(
            f"{root / names[row].as_py()} is in the sub-folder {folders[row].as_py()!r}, which is "
            f"none of the {len(class_names)} class names; rename it, or add it to class_names"
        )
    if len(class_names) < 2:
        raise ValueError(
            f"{root} has images in one sub-folder only, {class_names[0]!r}; each class needs one: "
            "pass the folder above, or labels= with a CSV file"
        )
    nothing = np.full(len(names), -1)
    return LabelledFiles(names, tuple(class_names), given, nothing, np.zeros(len(names), bool))


def find_present(root: Path, names: pa.StringArray, told_by: Path, missing: str) -> np.ndarray:
    """Which files are there.

    Args:
        root: the folder.
        names: N names relative to it.
        told_by: the table that lists them, for messages.
        missing: "raise" or "skip".

    Returns:
        Positions, ascending.

    Raises:
        DataNotFoundError: files that are not there (if missing is "raise"), or none is there.
    """
    # Listing folders is fast over a network, too; asking for each file is left for odd names.
    listed = pa.array(scan_images(root), pa.string())
    there = find_rows(names, listed) >= 0
    for row in np.flatnonzero(~there).tolist():
        there[row] = (root / names[row].as_py()).is_file()
    absent = np.flatnonzero(~there)
    if len(absent):
        some = ", ".join(str(root / names[row].as_py()) for row in absent[:3].tolist())
        found = f"{told_by}: {len(absent)} of {len(names)} images are not there ({some}"
        found += ", ...)" if len(absent) > 3 else ")"
        if len(absent) == len(names):
            raise DataNotFoundError(f"{found}; paths are relative to folder=: correct one of both")
        if missing == "raise":
            raise DataNotFoundError(f'{found}; bring them, or leave them out: missing="skip"')
        log.warning("%s; left out", found)
    return np.flatnonzero(there)


# Splits


def assign_splits(
    files: LabelledFiles, rows: np.ndarray, shares: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Which split each image is in.

    Args:
        files: N images.
        rows: those to consider, shape (M,).
        shares: of the verified images for clean, validation and test.
        rng: source of randomness.

    Returns:
        Shape (M,), 0 to 2 for clean, validation and test, `NOISY`, or -1 for an image that is left
        out because its group is in a verified split.
    """
    verified = files.verified[rows]
    looked = np.flatnonzero(verified >= 0)
    parts = np.full(len(rows), NOISY)
    if files.groups is None:
        parts[looked] = divide(verified[looked], shares, rng)
        return parts
    groups = files.groups[rows]
    of_group = np.full(int(groups.max(initial=0)) + 1, NOISY)
    names, found = divide_groups(verified[looked], groups[looked], shares, rng)
    of_group[names] = found
    parts = of_group[groups]
    left_out = (parts != NOISY) & (verified < 0)
    parts[left_out] = -1
    if left_out.any():
        log.info("%d images left out: their group is in a verified split", left_out.sum())
    return parts


def divide(labels: np.ndarray, shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Divide instances by shares, of each class alike.

    Args:
        labels: shape (N,).
        shares: of S parts; what they lack to 1 is one more part.
        rng: source of randomness.

    Returns:
        Part of each, shape (N,), 0 to S. Counts are exact up to rounding (largest remainders, the
        first part first).
    """
    every = with_rest(shares)
    parts = np.empty(len(labels), np.int64)
    by_class = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[by_class])) + 1
    for members in np.split(by_class, starts) if len(labels) else []:
        exact = every * len(members)
        counts = np.floor(exact + 1e-9).astype(np.int64)
        most_cut = np.argsort(np.round(counts - exact, 9), kind="stable")
        counts[most_cut[: len(members) - counts.sum()]] += 1
        parts[rng.permutation(members)] = np.repeat(np.arange(len(every)), counts)
    return parts


def divide_groups(
    labels: np.ndarray, groups: np.ndarray, shares: Sequence[float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Divide whole groups, so that each part's share of each class comes near the one wanted.

    The largest groups go first, each to the part that lacks most of what the group holds.

    Args:
        labels: shape (N,).
        groups: shape (N,), integers.
        shares: of S parts; what they lack to 1 is one more part.
        rng: breaks ties.

    Returns:
        The groups that occur, and the part of each, 0 to S.
    """
    if len(labels) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    every = with_rest(shares)
    names, owners, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    wanted = every[:, None] * np.bincount(labels)[None, :]
    filled = np.zeros_like(wanted)
    possible = np.flatnonzero(every > 0)
    members = np.split(labels[np.argsort(owners, kind="stable")], np.cumsum(sizes)[:-1])
    parts = np.empty(len(names), np.int64)
    shuffled = rng.permutation(len(names))
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")].tolist():
        mine = members[group]
        lacking = 1 - filled[possible][:, mine] / wanted[possible][:, mine]
        part = possible[int(lacking.sum(axis=1).argmax())]
        np.add.at(filled[part], mine, 1)
        parts[group] = part
    return names, parts


def with_rest(shares: Sequence[float]) -> np.ndarray:
    """The shares, and what they lack to 1."""
    return np.array([*shares, max(0.0, round(1 - sum(shares), 9))])


# Arrays


def dataset_from_arrays(
    name: str,
    inputs: np.ndarray | Tensor | Images,
    given_labels: np.ndarray | Tensor | Sequence[int],
    *,
    class_names: Sequence[str] | None = None,
    clean: tuple[Sequence[int], Sequence[int]] | None = None,
    validation: tuple[Sequence[int], Sequence[int]] | None = None,
    test: tuple[Sequence[int], Sequence[int]] | None = None,
) -> tuple[NoisyDataset, Truth]:
    """A data set from arrays: images, or embeddings of CLIP, DINO or any other network.

    Args:
        name: of the data set, for tables and messages.
        inputs: N instances: embeddings (N, d), images (N, C, H, W), or `Images` on disk.
        given_labels: shape (N,), integers from 0. Those of verified instances are not used and may
            be -1.
        class_names: k names; None numbers the classes, up to the largest label.
        clean: (rows, labels) of verified instances, positions in inputs and their true classes.
        validation: the same.
        test: the same.

    Returns:
        The data set and a truth that knows nothing (all UNKNOWN). Instances in none of the three
        are the noisy split. Ids are positions in inputs.

    Raises:
        ValueError: lengths that differ, rows or labels out of range, a row that is named twice, an
            input that is NaN or infinite, or nothing left for the noisy split.
        TypeError: rows or labels that are not integers.

    Example:
        >>> embeddings, found = np.random.rand(5, 16), [0, 1, 1, 0, 1]
        >>> dataset, _ = dataset_from_arrays("mine", embeddings, found, clean=([0, 4], [0, 0]))
        >>> len(dataset.noisy), len(dataset.clean), len(dataset.test)
        (3, 2, 0)
    """
    if not isinstance(inputs, Images):
        inputs = torch.as_tensor(inputs)
        check_finite(inputs)
    given = np.asarray(to_numpy(given_labels))
    check_integers("given_labels", given)
    if len(given) != len(inputs):
        raise ValueError(
            f"{len(inputs)} inputs and {len(given)} given_labels; pass one label for each"
        )
    pairs = {"clean": clean, "validation": validation, "test": test}
    verified = {split: _check_pair(split, pair, len(inputs)) for split, pair in pairs.items()}
    times = np.bincount(np.concatenate([rows for rows, _ in verified.values()]), minlength=1)
    if times.max() > 1:
        raise ValueError(
            f"row {times.argmax()} is named {times.max()} times in clean, validation and test; "
            "name it once"
        )
    noisy = np.setdiff1d(np.arange(len(inputs)), np.flatnonzero(times))
    if len(noisy) == 0:
        raise ValueError("every instance is verified; the noisy split needs some that are not")
    if class_names is None:
        every = [given[noisy], *(labels for _, labels in verified.values() if len(labels))]
        class_names = [str(label) for label in range(1 + max(int(some.max()) for some in every))]
    if len(class_names) < 2:
        raise ValueError(f"class_names has {len(class_names)} classes; it takes 2 or more")
    check_labels("given_labels of the noisy instances", given[noisy], len(class_names))

    def take(rows: np.ndarray) -> Tensor | Images:
        if isinstance(inputs, Images):
            return inputs.take(rows)
        # A million embeddings are not copied where nothing was taken from them.
        return inputs if len(rows) == len(inputs) else inputs[torch.from_numpy(rows)]

    dataset = NoisyDataset(
        name=name,
        class_names=tuple(class_names),
        noisy=make_split(take(noisy), given[noisy], noisy),
        **{
            split: make_split(take(rows), labels, rows)
            for split, (rows, labels) in verified.items()
        },
    )
    unknown = np.full(len(noisy), Kind.UNKNOWN, dtype=np.int64)
    return dataset, Truth(unknown, np.full(len(noisy), -1), "nobody verified it", noisy)


def _check_pair(split: str, pair: tuple | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows below count, and as many labels."""
    if pair is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{split} is no pair; pass (rows, labels)")
    rows, labels = (np.asarray(to_numpy(one)) for one in pair)
    if rows.dtype == bool:
        rows = positions(rows)
    if len(rows) != len(labels):
        raise ValueError(
            f"{split} has {len(rows)} rows and {len(labels)} labels; pass one label for each"
        )
    if len(rows) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    check_integers(f"rows of {split}", rows)
    check_integers(f"labels of {split}", labels)
    if not 0 <= rows.min() <= rows.max() < count:
        raise ValueError(
            f"rows of {split} reach from {rows.min()} to {rows.max()}; there are {count} inputs"
        )
    return rows, labels


def check_integers(name: str, labels: np.ndarray) -> None:
    """Refuse labels that are not integers, one for each instance."""
    if labels.ndim != 1:
        raise ValueError(f"{name} has shape {labels.shape}; expected (N,), one for each instance")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {labels.dtype}; expected integers from 0")


def check_finite(inputs: Tensor) -> None:
    """Refuse inputs with NaN or infinite entries, in parts: no copy of a large matrix is made."""
    if inputs.ndim < 2:
        raise ValueError(f"inputs has shape {tuple(inputs.shape)}; expected (N, d) or (N, C, H, W)")
    if not inputs.dtype.is_floating_point:
        return
    for start in range(0, len(inputs), 10_000):
        bad = ~torch.isfinite(inputs[start : start + 10_000]).flatten(1).all(dim=1)
        if bad.any():
            row = start + int(bad.nonzero()[0])
            raise ValueError(f"inputs has a NaN or infinite entry in row {row}; leave that row out")
