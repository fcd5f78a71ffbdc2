"""Your own images: a folder with a table of labels, or with a sub-folder for each class.

What you verified becomes the clean, the validation and the test split, the rest is the noisy one.
A million rows are Arrow arrays throughout, and files are found by listing folders, not each alone.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genkl.checks import check_choice
from genkl.data.base import Kind, NoisyDataset, Truth, compare_labels, make_dataset
from genkl.data.images import ImageFiles
from genkl.data.lists import as_integers, find_rows
from genkl.data.planting import check_rate
from genkl.data.registry import FOLDER
from genkl.data.sources import DataNotFoundError
from genkl.data.splitting import divide_by_shares, divide_groups
from genkl.data.tables import Table, line_of, read_texts
from genkl.data.texts import tidy_name

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
SYSTEM_FOLDERS = (".", "__MACOSX", "@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN")
"""How the names of folders begin that a system keeps for itself, with copies and thumbnails."""

NO_LABEL = "-1"
NO_VALUE = ["NaN", "nan", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None"]
"""What programs write where there is no value."""

MISSING = ("raise", "skip")
VERIFIED_COLUMN = "verified"
VERIFIED_SPLITS = ("clean", "validation", "test")
NOISY = len(VERIFIED_SPLITS)
"""Number of the noisy split, after the verified ones."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """What the columns of a table of labels hold.

    Attributes:
        image_column: paths, relative to the folder.
        label_column: given labels, as names or as integers; -1 where there is none (unless a class
            is called so). Empty where an image has only a verified one; an image without a given
            label is never in the noisy split.
        verified_column: labels that somebody checked; empty where nobody did. The column
            "verified" may be missing, another may not.
        group_column: who or what an image comes from, such as the sender, the product or the
            photographer.
        non_conforming_name: what the verified column says where no class fits.
        no_label: what the label column says where an image has no label, such as "Not sure".
        image_suffix: what the paths lack, such as ".jpg".
    """

    image_column: str = "image"
    label_column: str = "label"
    verified_column: str = VERIFIED_COLUMN
    group_column: str | None = None
    non_conforming_name: str | None = None
    no_label: Sequence[str] = ()
    image_suffix: str = ""

    def read(self, path: Path) -> Table:
        """The table, see `read_texts`; every image has a name, and no two have the same."""
        needed = [self.image_column, self.label_column]
        needed += [self.group_column] if self.group_column else []
        optional = [self.verified_column]
        if self.verified_column != VERIFIED_COLUMN:
            needed, optional = needed + optional, []
        table = read_texts(path, needed, optional)
        for column in (self.image_column, self.group_column):
            if column:
                refuse(table, column, is_equal(table.texts(column), ""), "is empty", "fill it in")
        names = pa.array(map(tidy_name, table.texts(self.image_column).to_pylist()), pa.string())
        at = table.names.index(self.image_column)
        tidy = replace(table, content=table.content.set_column(at, self.image_column, names))
        refuse_repeats(tidy, self.image_column)
        return tidy


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
    """

    names: pa.StringArray
    class_names: tuple[str, ...]
    given: np.ndarray
    verified: np.ndarray
    is_nc: np.ndarray
    groups: np.ndarray | None = None


def load_folder(
    seed: int = 0,
    *,
    folder: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    clean_share: float = 0.4,
    validation_share: float = 0.3,
    test_share: float = 0.3,
    missing: str = "raise",
    **columns: Any,
) -> tuple[NoisyDataset, Truth]:
    """Load a folder of images with a table of labels, or with a sub-folder for each class.

    Without verified labels the clean, validation and test splits are empty.

    Args:
        seed: decides which verified images are in which split.
        folder: of the images.
        labels: a CSV file (with commas, semicolons or tabs) with a header, relative to the folder;
            None takes the name of the sub-folder that an image is in (at any depth) as its given
            label.
        class_names: k names. None takes the given labels that occur, sorted (by number where all
            are integers). If given, integer labels count from 0 into it.
        clean_share: of the verified images of each class.
        validation_share: the same.
        test_share: the same. If the three sum to less than 1, the rest stays in the noisy split
            under its given label, and the truth knows it.
        missing: "raise" refuses a table that lists files that are not there; "skip" leaves them out
            and logs how many.
        **columns: of the table, see `Columns`: ``image_column``, ``label_column``,
            ``verified_column``, ``group_column``, ``non_conforming_name``, ... Images where no
            class fits are in the noisy split, as NC in the truth. No group is in two splits;
            images without a verified class whose group is in a verified split are left out.

    Returns:
        The data set, its inputs image files, and the truth about its noisy split. It is CORRECT or
        MISLABELLED where there is a verified label, NC where no class fits, else UNKNOWN. Ids
        count the rows of the table, or the images in the order of their paths.

    Raises:
        DataNotFoundError: no such folder or table, no images in it, or files that are not there.
        ValueError: shares out of range, a bad line (the message says which), or nothing left for
            the noisy split.
    """
    shares = {"clean": clean_share, "validation": validation_share, "test": test_share}
    for split, share in shares.items():
        check_rate(f"{split}_share", share)
    if sum(shares.values()) > 1 + 1e-9:
        raise ValueError(
            f"clean_share, validation_share and test_share sum to {sum(shares.values()):g}; at "
            "most 1"
        )
    files, present = read_folder(
        folder, labels, class_names=class_names, missing=missing, **columns
    )
    parts = np.full(len(files.names), -1)
    rng = np.random.default_rng(seed)
    parts[present] = assign_splits(files, present, [*shares.values()], rng)
    unlabelled = (parts == NOISY) & (files.given < 0)
    parts[unlabelled] = -1
    if unlabelled.any():
        log.warning("%s: %d images have no given label; left out", folder, unlabelled.sum())
    rows = {split: np.flatnonzero(parts == at) for at, split in enumerate((*shares, "noisy"))}
    if len(rows["noisy"]) == 0:
        raise ValueError(
            f"{folder}: no image is left for the noisy split; leave images unverified, or let "
            "clean_share, validation_share and test_share sum to less than 1"
        )
    kinds = compare_labels(files.given, files.verified, files.is_nc)
    known = (kinds[rows["noisy"]] != Kind.UNKNOWN).any()
    source = "verified by you" if known else "nobody verified it"
    images = ImageFiles(Path(folder).expanduser(), files.names)
    truth = Truth(kinds, files.verified, source)
    return make_dataset(FOLDER.name, files.class_names, images.take, rows, files.given, truth)


def read_folder(
    folder: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    class_names: Sequence[str] | None = None,
    missing: str = "raise",
    **columns: Any,
) -> tuple[LabelledFiles, np.ndarray]:
    """Read what is known about the images of a folder, and look which files are there.

    Args and errors are those of `load_folder`.

    Returns:
        N files with labels, and the positions of those that are there.
    """
    check_choice("missing", missing, MISSING)
    root, layout = Path(folder).expanduser(), Columns(**columns)
    if not root.is_dir():
        raise DataNotFoundError(f"folder is {str(folder)!r}, which is no folder; correct the path")
    if labels is None:
        for name in ("group_column", "non_conforming_name", "no_label", "image_suffix"):
            if columns.get(name):
                raise ValueError(f"{name} needs a table; pass labels= with a CSV file")
        files = read_tree(root, class_names)
        return files, np.arange(len(files.names))
    table = layout.read(find_table(root, labels))
    files = read_labelled(table, layout, class_names)
    return files, find_present(root, files.names, table.path, missing)


# Tables


def find_table(root: Path, labels: str | os.PathLike[str]) -> Path:
    """The table of labels, relative to the folder or to where you are.

    Raises:
        DataNotFoundError: it is in neither place.
    """
    given = Path(labels).expanduser()
    for path in (root / given, given):
        if os.path.isfile(path):
            return path
    raise DataNotFoundError(f"labels is {str(labels)!r}; there is no file {root / given}")


def refuse(table: Table, column: str, wrong: np.ndarray, problem: str, remedy: str) -> None:
    """Refuse the first row where a mask is true; {} in the problem is what stands there."""
    if wrong.any():
        row = int(wrong.argmax())
        value = table.texts(column)[row].as_py()
        problem = f"the column {column!r} {problem.format(value)}"
        raise table.error(problem, remedy, row, column, value)


def refuse_repeats(table: Table, column: str) -> None:
    """Refuse a value that stands in two rows, naming both lines."""
    names = table.texts(column)
    first = find_rows(names, names)
    again = np.flatnonzero(first != np.arange(len(names)))
    if len(again):
        value, line = names[int(again[0])].as_py(), line_of(table.path, int(first[again[0]]))
        problem = f"{value!r} is already in line {line}"
        raise table.error(problem, "keep one of them", again[0], column, value)


def read_labelled(
    table: Table, columns: Columns, class_names: Sequence[str] | None
) -> LabelledFiles:
    """What a table says about its images, see `load_folder`.

    Raises:
        TableError: a bad line; the message says which.
        ValueError: bad class names, or a name in no_label that doesn't occur.
    """
    label_column, nc_name = columns.label_column, columns.non_conforming_name
    given_texts = table.texts(label_column)
    for name in columns.no_label:
        if not is_equal(given_texts, name).any():
            raise ValueError(
                f"no_label names {name!r}, which no line of {table.path} has; correct or drop it"
            )
    without = pc.is_in(given_texts, pa.array([*columns.no_label], pa.string()))
    given_texts = pc.if_else(without, "", given_texts)
    is_none = is_equal(given_texts, NO_LABEL) & (NO_LABEL not in (class_names or ()))
    given_texts = pc.if_else(pa.array(is_none), "", given_texts)
    if class_names is None:
        class_names = class_names_of(given_texts, f"{table.path}: the column {label_column!r}")
    if len(class_names) < 2:
        raise ValueError(
            f"{table.path}: the column {label_column!r} holds {len(class_names)} class names; it "
            "takes 2 to have something to confuse"
        )
    given = encode_labels(table, label_column, given_texts, class_names)
    verified, is_nc = np.full(len(given), -1), np.zeros(len(given), bool)
    if columns.verified_column in table.names:
        if nc_name in class_names:
            raise ValueError(
                f"non_conforming_name is {nc_name!r}, which is a class, too; pass class_names= "
                "without it"
            )
        texts = pc.if_else(without, "", table.texts(columns.verified_column))
        if NO_LABEL not in class_names:
            texts = pc.if_else(pc.equal(texts, NO_LABEL), "", texts)
        if nc_name is not None:
            is_nc = is_equal(texts, nc_name)
            texts = pc.if_else(pa.array(is_nc), "", texts)
        remedy = ", or non_conforming_name= if it says that no class fits"
        verified = encode_labels(table, columns.verified_column, texts, class_names, remedy)
    neither = (given < 0) & (verified < 0) & ~is_none & ~without.to_numpy(zero_copy_only=False)
    remedy = f"give the image a label, or {NO_LABEL} where it has none"
    refuse(table, label_column, neither, "is empty", remedy)
    groups = None
    if columns.group_column:
        groups = table.texts(columns.group_column).dictionary_encode().indices.to_numpy()
    names = pc.binary_join_element_wise(table.texts(columns.image_column), columns.image_suffix, "")
    return LabelledFiles(names, tuple(class_names), given, verified, is_nc, groups)


def class_names_of(labels: pa.StringArray, where: str) -> tuple[str, ...]:
    """The labels that occur, sorted; by number where all of them are integers.

    Args:
        labels: N strings, empty where there is none.
        where: they stand, for messages.

    Raises:
        ValueError: one says that there is no value, or two differ in case, accents' encoding or
            leading zeros only.
    """
    names = [name for name in pc.unique(labels).to_pylist() if name]
    remedy = "correct it, or pass class_names= with every class, if it is one"
    alike: dict[str, str] = {}
    for name in names:
        if name in NO_VALUE:
            raise ValueError(f"{where} holds {name!r}, which says that there is no value; {remedy}")
        key = unicodedata.normalize("NFKC", name).casefold()
        other = alike.setdefault(str(int(key)) if key.isdecimal() else key, name)
        if other != name:
            raise ValueError(f"{where} holds {other!r} and {name!r}, two classes or one; {remedy}")
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def encode_labels(
    table: Table, column: str, texts: pa.StringArray, class_names: Sequence[str], remedy: str = ""
) -> np.ndarray:
    """Labels as positions in the class names, by name, or by number where all are integers.

    Args:
        table: for messages.
        column: its name.
        texts: what stands there, N strings.
        class_names: k names.
        remedy: a further one for the message.

    Returns:
        Shape (N,), int64; -1 where the text is empty.

    Raises:
        TableError: a label that is no class; the message says in which line.
    """
    wanted, names = ~is_equal(texts, ""), pa.array(class_names, pa.string())
    # Spreadsheets and pandas write whole numbers as "3.0" in a column with empty cells.
    whole = pc.replace_substring_regex(texts, r"^([0-9]+)\.0$", r"\1")
    labels = find_rows(texts, names)
    labels = np.where(labels < 0, find_rows(whole, names), labels)
    unknown = wanted & (labels < 0)
    if (unknown == wanted).all():  # no label is a name: then they may be numbers
        numbers = as_integers(whole)
        if (numbers[wanted] >= 0).all():
            labels, unknown = numbers, numbers >= len(class_names)
    if unknown.any():
        row = int(unknown.argmax())
        some = ", ".join(map(repr, class_names[:10])) + (", ..." if len(class_names) > 10 else "")
        value = texts[row].as_py()
        problem = f"{value!r} in the column {column!r} is none of the {len(class_names)} classes"
        remedy = f"correct it, or pass class_names={remedy}"
        raise table.error(f"{problem} ({some})", remedy, row, column, value)
    return np.where(wanted, labels, -1)


def is_equal(texts: pa.StringArray, text: str) -> np.ndarray:
    """Where strings are this one: shape (N,), bool."""
    return pc.equal(texts, text).to_numpy(zero_copy_only=False)


# Files


def scan_images(folder: str | os.PathLike[str], others: list[str] | None = None) -> Iterator[str]:
    """Paths of the images below a folder, relative to it, with "/", sorted folder by folder.

    Known by their suffix (`IMAGE_SUFFIXES`, in either case). Links to folders are followed, but
    never in a circle. Names that begin with a dot are left out, as are `SYSTEM_FOLDERS`.

    Args:
        folder: to look in.
        others: gets the paths of the other files, and of those whose names are not UTF-8.
    """
    yield from _scan(os.fspath(folder), "", set(), [] if others is None else others)


def _scan(folder: str, prefix: str, above: set, others: list[str]) -> Iterator[str]:
    about = os.stat(folder)
    me = (about.st_dev, about.st_ino)
    if me in above:
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith(SYSTEM_FOLDERS):
            continue
        name = entry.name.encode("utf-8", "backslashreplace").decode()
        if entry.name == name and entry.is_dir():
            yield from _scan(entry.path, f"{prefix}{name}/", above | {me}, others)
        elif entry.name == name and name.lower().endswith(IMAGE_SUFFIXES):
            yield prefix + name
        else:
            others.append(prefix + name)


def read_tree(root: Path, class_names: Sequence[str] | None = None) -> LabelledFiles:
    """Images whose given label is the name of the sub-folder that they are in.

    Args:
        root: of the sub-folders.
        class_names: k names; None takes those of the sub-folders that hold images.

    Raises:
        DataNotFoundError: no images.
        ValueError: an image in no sub-folder, or in one that is no class.
    """
    others: list[str] = []
    names, known = pa.array(scan_images(root, others), pa.string()), " ".join(IMAGE_SUFFIXES)
    told = f"such as {', '.join(others[:3])}: their names don't end in {known}, or are not UTF-8"
    if len(names) == 0:
        found = f" among {len(others)} files, {told}" if others else f" (known suffixes: {known})"
        raise DataNotFoundError(f"there are no images below {root}{found}")
    if others:
        log.warning("%s: %d other files, %s; left out", root, len(others), told)
    parts = pc.split_pattern(names, "/", max_splits=1)
    outside = pc.equal(pc.list_value_length(parts), 1).to_numpy(zero_copy_only=False)
    if outside.any():
        raise ValueError(
            f"{root / names[int(outside.argmax())].as_py()} is in no sub-folder, so it has no "
            "label; move it into one, or pass labels= with a CSV file"
        )
    folders = pc.list_element(parts, 0)
    if class_names is None:
        class_names = class_names_of(folders, f"{root}: the list of sub-folders")
    given = find_rows(folders, pa.array(class_names, pa.string()))
    if (given < 0).any():
        row = int((given < 0).argmax())
        raise ValueError(
            f"{root / names[row].as_py()} is in the sub-folder {folders[row].as_py()!r}, which is "
            f"none of the {len(class_names)} classes; rename or move it, or add it to class_names"
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
        there[row] = os.path.isfile(root / names[row].as_py())
    absent = np.flatnonzero(~there)
    if len(absent):
        some = ", ".join(str(root / names[row].as_py()) for row in absent[:3].tolist())
        some = some.replace("\n", r"\n")  # a message is one line
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
        parts[looked] = divide_by_shares(verified[looked], shares, rng)
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
