"""Files that a user names on the command line: what may be written to, and given labels.

Predictions are read by `genkl.data.tables`, whose errors say `REMEDIES`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from genkl.checks import TableError, check_labels
from genkl.data.tables import (
    Predictions,
    Remedies,
    Table,
    checked_source,
    listing,
    no_names,
    open_predictions,
    open_table,
    read_array,
)
from genkl.data.texts import tidy_name

REMEDIES = Remedies(
    columns="--classes",
    column="if a column is no class, pass --id where it names the rows, --label-column where it "
    "holds given labels, or --classes with those that are",
    numbers="if these are logits, pass --from-logits, and --normalize if they were rounded",
    logits="leave --from-logits out",
)


def open_inputs(
    options: argparse.Namespace, source: str | os.PathLike[str], argument: str
) -> tuple[Predictions, Predictions | None, Path | None]:
    """What is named by ``--id``, ``--classes``, ``--from-logits`` or ``--normalize``, ``--labels``
    and ``--conforming``.

    Args:
        options: of a command that has these, and ``--label-column``.
        source: of the predictions.
        argument: what the user calls them, for messages.

    Returns:
        Predictions, those known to conform, and the file with given labels, as far as there are.

    Raises:
        ValueError, OSError: a file or a column that can't be used.
    """
    source = checked_source(source, argument)
    labels = checked_source(options.labels, "--labels") if options.labels else None
    text = {options.id: "--id"} if options.id else {}
    if options.label_column and (labels is None or labels.samefile(source)):
        labels, text[options.label_column] = source, "--label-column"
    if options.from_logits and options.normalize:
        raise ValueError("--from-logits and --normalize exclude one another; leave one out")
    how = {"from_logits": options.from_logits, "normalize": options.normalize}
    opened = functools.partial(open_predictions, **how)
    predictions = opened(source, argument, classes=options.classes, text=text, remedies=REMEDIES)
    found, conforming = [predictions], None
    if options.conforming:
        is_array = options.conforming.endswith(".npy")
        conforming = opened(
            options.conforming,
            "--conforming",
            classes=None if is_array else predictions.columns or predictions.classes,
            remedies=replace(REMEDIES, columns=argument),
        )
        found.append(conforming)
        if conforming.num_classes != predictions.num_classes:
            raise ValueError(
                f"{conforming} has {conforming.num_classes} classes and {predictions} has "
                f"{predictions.num_classes}; both must come from the same models"
            )
    for file in found:
        if file.rows == 0:
            raise ValueError(f"{file} has no rows; pass at least one prediction")
    return predictions, conforming, labels


def checked_destination(
    argument: str, path: str | os.PathLike[str], sources: Sequence[Path], overwrite: bool
) -> Path:
    """Refuse, before any work, a place that nothing can or should be written to."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{argument} {path} is a folder; name a file in it")
    if path.exists() and any(source.exists() and path.samefile(source) for source in sources):
        raise FileExistsError(f"{argument} {path} is a file to read from; choose another name")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{argument} {path} exists; pass --overwrite, or choose another name")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise PermissionError(
            f"{argument} is {path} and {parent} is no folder you may write to; choose another place"
        )
    return path


def files_read(options: argparse.Namespace, folder: Path | None = None) -> list[Path]:
    """The files that a command may read: whatever its options name, but for what it writes.

    Args:
        options: of the command.
        folder: that they may be relative to, beside the present one.
    """
    told = [text for name, text in vars(options).items() if name not in ("out", "csv")]
    texts = [os.path.expanduser(text) for text in told if isinstance(text, str)]
    paths = [Path(place, text) for text in texts for place in ("", folder or "")]
    return [path for path in paths if os.path.isfile(path)]


@contextlib.contextmanager
def writing(argument: str) -> Iterator[None]:
    """Say which argument was to be written where the system refuses to."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{argument} {error.strerror or error}") from error


def read_labels(
    path: str | os.PathLike[str],
    argument: str,
    column: str | None,
    predictions: Predictions,
    id_column: str | None,
) -> np.ndarray:
    """Given labels of the predictions as numbers of classes, -1 for none; shape (N,), int64.

    Args:
        path: .npy, or a table; may be that of the predictions.
        argument: what the user calls it, for messages.
        column: of the table, with the labels; None takes the only one besides id_column.
        predictions: what the labels are of.
        id_column: names the rows of the predictions; where another table has it, too, rows are
            matched by it, as text.

    Raises:
        ValueError: labels that are no class, or not one per prediction.
    """
    path, what = checked_source(path, argument), f"{argument} {path}"
    if path.suffix == ".npy":
        if column is not None:
            raise no_names("--label-column", column, what)
        return _class_numbers(what, read_array(path, argument), predictions)
    is_other = not path.samefile(predictions.path)
    table = open_table(path, argument, None) if is_other else predictions.table
    if column is None:
        others = [name for name in table.names if name != id_column]
        if len(others) != 1:
            remedy = "say with --label-column which holds the labels"
            raise TableError(what, f"has {listing(table.names)}", remedy)
        (column,) = others
    table.require([column], "--label-column")
    values = table.column(column)
    if is_other and id_column in table.names:
        values = values[_matched(table, predictions, id_column)]
    return _class_numbers(what, values, predictions)


def _matched(table: Table, predictions: Predictions, id_column: str) -> np.ndarray:
    """For each prediction, the row of the table that has its id."""
    rows: dict[str, int] = {}
    for row, name in enumerate(map(str, table.column(id_column))):
        if rows.setdefault(name, row) != row:
            raise table.error(f"has {name!r} twice", "keep one of them", row, id_column, name)
    wanted = [str(name) for name in predictions.table.column(id_column)]
    rows = {tidy_name(name): row for name, row in rows.items()} | rows
    wanted = [name if name in rows else tidy_name(name) for name in wanted]
    for row, name in enumerate(wanted):
        if name not in rows:
            problem = f"has no {name!r} in column {id_column!r}, which {predictions} has"
            raise TableError(str(table), problem, "add its label", row)
    return np.array([rows[name] for name in wanted])


def _class_numbers(what: str, values: np.ndarray, predictions: Predictions) -> np.ndarray:
    """Labels as numbers of classes, shape (N,): names of classes, or the numbers; -1 is none."""
    if values.shape != (predictions.rows,):
        problem = (
            f"has labels of shape {values.shape} and {predictions} has {predictions.rows} rows"
        )
        raise TableError(what, problem, "pass one label per row, in their order")
    texts = ["" if str(value) in ("nan", "NaT", "None") else str(value).strip() for value in values]
    if "" in texts:
        raise TableError(what, "has no label", "write one, or -1 for none", texts.index(""))
    names = predictions.classes or ()
    # Numbers are names where classes are called by them, such as 3 and 7.
    by_name = all(map(_is_integer, names)) or {*texts} <= {*names, "-1"}
    if all(map(_is_integer, texts)) and not (names and by_name):
        numbers = np.array(texts).astype(np.int64)
        check_labels(what, np.where(numbers == -1, 0, numbers), predictions.num_classes)
        return numbers
    number_of = {"-1": -1, **{name: number for number, name in enumerate(names)}}
    for row, text in enumerate(texts):
        if text not in number_of:
            remedy = f"pass numbers from 0 to {predictions.num_classes - 1}, or --classes"
            if names:
                remedy = f"its classes are {', '.join(names[:12])}{', ...' * (len(names) > 12)}"
            raise TableError(what, f"has {text!r}, which is no class,", remedy, row, value=text)
    return np.array([number_of[text] for text in texts])


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
