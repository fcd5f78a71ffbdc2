"""Files that a user names: predictions and labels are read, results are written all at once.

Every error names the argument, the file and the remedy, and comes before long work where it can.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from genkl.checks import SUM_TOLERANCE, check_labels, check_shape

FORMATS = (".npy", ".csv", ".parquet")

CHUNK_ENTRIES = 1 << 22
"""Entries of predictions that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class PredictionFile:
    """A file of predictions whose layout is known. Its values are not checked yet.

    Attributes:
        argument: what the user calls it, for messages.
        path: the file.
        rows: N.
        num_classes: k.
        dtype: of the probabilities.
        classes: names of the k classes; None where they are numbers.
        columns: of a table, those that hold the probabilities.
        table: its content, where that had to be read to know the layout (.csv).
        is_contiguous: whether an array is stored row by row.
    """

    argument: str
    path: Path
    rows: int
    num_classes: int
    dtype: np.dtype
    classes: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    table: pa.Table | None = None
    is_contiguous: bool = True

    def __str__(self) -> str:
        return f"{self.argument} {self.path}"

    @property
    def nbytes(self) -> int:
        """Size of the probabilities."""
        return self.rows * self.num_classes * self.dtype.itemsize

    @property
    def unit_bytes(self) -> int:
        """Size of what can only be read as a whole: all of a .csv, a row group of a .parquet."""
        if self.table is not None:
            return self.table.nbytes
        if self.path.suffix == ".npy":
            return 0
        with _parquet(self.path) as file:
            groups = range(file.metadata.num_row_groups)
            return max(file.metadata.row_group(i).total_byte_size for i in groups)

    def chunks(self) -> Iterator[np.ndarray]:
        """The rows in their order, some at a time, shape (some, k)."""
        height = max(1, CHUNK_ENTRIES // self.num_classes)
        if self.path.suffix == ".npy":
            for start in range(0, self.rows, height):
                whole = np.load(self.path, mmap_mode="r", allow_pickle=False)
                yield np.asarray(whole[start : start + height])
        elif self.table is not None:
            for start in range(0, self.rows, height):
                yield self._matrix(self.table.slice(start, height), start)
        else:
            first = 0
            with _parquet(self.path) as file:
                for batch in file.iter_batches(height, columns=self.columns, use_threads=False):
                    yield self._matrix(pa.Table.from_batches([batch]), first)
                    first += len(batch)

    def read(self) -> np.ndarray:
        """All rows, shape (N, k)."""
        if self.path.suffix == ".npy":
            return np.load(self.path, allow_pickle=False)
        return np.concatenate(list(self.chunks()))

    def column(self, name: str) -> np.ndarray:
        """Another column of the table, shape (N,)."""
        return _column(self.path if self.table is None else self.table, name)

    def _matrix(self, table: pa.Table, first_row: int) -> np.ndarray:
        arrays = [table.column(name).to_numpy() for name in self.columns or ()]
        if len(arrays) > 1:
            return np.column_stack(arrays).astype(self.dtype, copy=False)
        for row, values in enumerate(arrays[0], first_row):
            if values is None or len(values) != self.num_classes:
                count = "no list" if values is None else f"a list of {len(values)}"
                raise ValueError(
                    f"{self} has {count} in row {row} and a list of {self.num_classes} in row 0; "
                    "every row needs one probability per class"
                )
        return np.stack(arrays[0]).astype(self.dtype, copy=False)


def open_predictions(
    argument: str,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    without: Sequence[str] = (),
    id_column: str | None = None,
    named_by: str = "--classes",
) -> PredictionFile:
    """Find out the layout of a file of predictions.

    Args:
        argument: what the user calls it, for messages.
        path: a .npy, .csv or .parquet file.
        classes: columns of a table that hold the probabilities, or names for those of an array;
            None takes every column of a table but the following.
        without: columns that hold none, where the table has them.
        id_column: another one, which it must have.
        named_by: the argument that the names in classes come from, for messages.

    Returns:
        The layout.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that can't be read or has no rows, or a column that can't be used.
    """
    path = checked_source(argument, path)
    if path.suffix == ".npy":
        if id_column is not None:
            raise ValueError(
                f"--id is {id_column!r} and {argument} {path} is an array, whose columns have no "
                "names; leave --id out, or pass a table"
            )
        found = _open_array(argument, path, classes, named_by)
    else:
        found = _open_table(argument, path, classes, without, id_column, named_by)
    if found.rows == 0:
        raise ValueError(f"{found} has no rows; pass at least one prediction")
    return found


def checked_source(argument: str, path: str | os.PathLike[str]) -> Path:
    """Refuse a file that is not there, or of no format that can be read."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{argument} is {path}; its name must end in one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise FileNotFoundError(f"{argument} {path} is not there; check the path")
    return path


def checked_destination(
    argument: str, path: str | os.PathLike[str], sources: Sequence[Path], overwrite: bool
) -> Path:
    """Refuse, before any work, a place that nothing can or should be written to."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{argument} {path} is a folder; name a file in it")
    if path.exists() and any(path.samefile(source) for source in sources):
        raise FileExistsError(f"{argument} {path} is a file to read from; choose another name")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{argument} {path} exists; pass --overwrite, or choose another name")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise PermissionError(
            f"{argument} is {path} and {parent} is no folder you may write to; choose another place"
        )
    return path


@contextlib.contextmanager
def replacing(argument: str, path: Path) -> Iterator[Path]:
    """A name to write to; what is written there takes the path's place when all of it is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(argument, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(argument: str, path: Path) -> Iterator[None]:
    """Say which argument was to be written where the system refuses to."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # says it already
            raise
        raise OSError(
            f"{argument} {path} can't be written ({error.strerror or error}); make room, or choose "
            "another place"
        ) from error


def read_labels(
    argument: str,
    path: Path,
    column: str | None,
    predictions: PredictionFile,
    id_column: str | None,
) -> np.ndarray:
    """Given labels of the predictions as numbers of classes, shape (N,), int64.

    Args:
        argument: what the user calls the file, for messages.
        path: .npy, or a table; may be that of the predictions.
        column: of the table, with the labels; None takes the only one besides id_column.
        predictions: what the labels are of.
        id_column: names the rows of the predictions; where another table has it, too, rows are
            matched by it.

    Raises:
        ValueError: labels that are no class, or not one per prediction.
    """
    what = f"{argument} {path}"
    if path.suffix == ".npy":
        if column is not None:
            raise ValueError(
                f"--label-column is {column!r} and {what} is an array, whose columns have no "
                "names; leave --label-column out, or pass a table"
            )
        return _class_numbers(what, _load_array(argument, path), predictions)
    is_other = not path.samefile(predictions.path)
    source: Path | pa.Table = path
    if path.suffix == ".csv":
        as_text = [name for name in (column, id_column) if name is not None]
        source = _read_csv(argument, path, as_text) if is_other else predictions.table
    names = _column_names(argument, path, source)
    if column is None:
        others = [name for name in names if name != id_column]
        if len(others) != 1:
            raise ValueError(
                f"{what} has {_listing(names)}; say with --label-column which holds the labels"
            )
        column = others[0]
    _check_columns("--label-column", what, names, [column])
    values = _column(source, column)
    if is_other and id_column in names:
        values = values[_matched(what, predictions, id_column, _column(source, id_column))]
    return _class_numbers(what, values, predictions)


def check_columns(predictions: PredictionFile, probs: np.ndarray) -> None:
    """Refuse a column of a table that holds something else than probabilities, and name it."""
    if predictions.classes is None or predictions.columns is None:
        return
    bad = ~((probs >= 0) & (probs <= 1 + SUM_TOLERANCE))
    if not bad.any():
        return
    column = int(bad.any(axis=0).argmax())
    row, name = int(bad[:, column].argmax()), predictions.columns[column]
    if np.isnan(probs[row, column]):
        raise ValueError(
            f"{predictions} has no number in column {name!r}, row {row}; fill it in, or drop the "
            "row"
        )
    raise ValueError(
        f"{predictions} has {probs[row, column]:.6g} in column {name!r}, row {row}, which is no "
        f"probability; if these are logits, pass --from-logits; if {name!r} is no class, pass "
        "--classes with those that are, or --id if it names the rows"
    )


def in_words_of_the_command(predictions: PredictionFile, error: ValueError) -> ValueError:
    """What the package says about rows of pred_probs, with the file and the remedy here."""
    text = str(error)
    if not text.startswith("pred_probs "):
        return error
    text = f"{predictions} {text.removeprefix('pred_probs ')}"
    if "softmax" in text:
        text += ", with --from-logits"
    if predictions.classes is not None and predictions.columns is not None:
        text += "; if a column is no class, pass --classes with those that are"
    return ValueError(text)


def softmax_chunks(predictions: PredictionFile) -> Iterator[np.ndarray]:
    """Softmax of the rows in double precision, some rows at a time.

    Raises:
        ValueError: a logit that is not finite, or rows that are probabilities already.
    """
    from scipy.special import softmax

    first = 0
    for chunk in predictions.chunks():
        logits = chunk.astype(np.float64)
        bad = ~np.isfinite(logits).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{predictions} has a logit that is no finite number in row "
                f"{first + int(bad.argmax())}; find where the model's output became so"
            )
        off = np.abs(logits.sum(axis=1) - 1) > SUM_TOLERANCE
        if first == 0 and not off.any() and (logits >= 0).all():
            raise ValueError(
                f"--from-logits is given and the rows of {predictions} are probabilities already; "
                "leave it out"
            )
        yield softmax(logits, axis=1)
        first += len(chunk)


def _open_array(
    argument: str, path: Path, classes: Sequence[str] | None, named_by: str
) -> PredictionFile:
    array = _load_array(argument, path, mmap_mode="r")
    check_shape(f"{argument} {path}", array, ndim=2)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{argument} {path} has dtype {array.dtype}; save real numbers")
    rows, num_classes = array.shape
    if classes is not None:
        _check_unique(named_by, classes)
        if len(classes) != num_classes:
            raise ValueError(
                f"{named_by} has {len(classes)} names and {argument} {path} has {num_classes} "
                "columns; name each of them, in their order"
            )
    return PredictionFile(
        argument=argument,
        path=path,
        rows=rows,
        num_classes=num_classes,
        dtype=array.dtype,
        classes=None if classes is None else tuple(classes),
        is_contiguous=array.flags.c_contiguous,
    )


def _open_table(
    argument: str,
    path: Path,
    classes: Sequence[str] | None,
    without: Sequence[str],
    id_column: str | None,
    named_by: str,
) -> PredictionFile:
    what = f"{argument} {path}"
    known = [*without] if id_column is None else [*without, id_column]
    table = _read_csv(argument, path, known) if path.suffix == ".csv" else None
    source = path if table is None else table
    names = _column_names(argument, path, source)
    if id_column is not None:
        _check_columns("--id", what, names, [id_column])
    if classes is not None:
        _check_unique(named_by, classes)
        _check_columns(named_by, what, names, classes)
    columns = list(classes or [name for name in names if name not in known])
    if table is None:
        with _parquet(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    else:
        schema, rows = table.schema, table.num_rows
    types = [schema.field(name).type for name in columns]
    found = PredictionFile(
        argument=argument,
        path=path,
        rows=rows,
        num_classes=len(columns),
        dtype=np.dtype(np.float64),
        columns=tuple(columns),
        table=table,
    )
    if len(columns) == 1 and _is_list(types[0]):
        return _with_lists(found, types[0].value_type)
    for name, kind in zip(columns, types, strict=True):
        if not _is_number(kind):
            raise ValueError(
                f"{what} has {_first_text(source, name)} in column {name!r}, which is no "
                f"probability; if {name!r} names the rows, pass --id, if it holds given labels "
                "--label-column, and otherwise --classes with those that are classes"
            )
    if len(columns) < 2:
        raise ValueError(
            f"{what} has {_listing(columns)} left for probabilities; a prediction needs at least 2 "
            "classes"
        )
    dtype = np.result_type(*(_numpy_type(kind) for kind in types))
    return replace(found, dtype=dtype, classes=tuple(columns))


def _with_lists(found: PredictionFile, kind: pa.DataType) -> PredictionFile:
    """A table whose only column of predictions holds lists: k is the length of the first."""
    first = None
    with _parquet(found.path) as file:
        for batch in file.iter_batches(1, columns=found.columns, use_threads=False):
            first = batch.column(0)[0].as_py()
            break
    where = f"column {found.columns[0]!r}"
    if not _is_number(kind):
        raise ValueError(f"{found} has lists of {kind} in {where}; it must hold lists of numbers")
    if found.rows and len(first or ()) < 2:
        raise ValueError(
            f"{found} has no list of at least 2 probabilities in {where}, row 0; every row needs "
            "one probability per class"
        )
    return replace(found, num_classes=len(first or ()), dtype=np.dtype(_numpy_type(kind)))


def _load_array(argument: str, path: Path, **options: Any) -> np.ndarray:
    with _readable(argument, path, "write it with numpy.save(path, array)"):
        with open(path, "rb") as file:
            if file.read(6) != b"\x93NUMPY":  # an archive, a pickle, or another format
                raise ValueError("it does not begin as an array file does")
        return np.load(path, allow_pickle=False, **options)


@contextlib.contextmanager
def _readable(argument: str, path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise ValueError(
            f"{argument} {path} can't be read as {path.suffix} ({reason}); {remedy}"
        ) from error


def _read_csv(argument: str, path: Path, as_text: Sequence[str]) -> pa.Table:
    """Numbers where a column holds nothing else, but for what is wanted as it is written."""
    from pyarrow import csv

    options = csv.ConvertOptions(column_types={name: pa.string() for name in as_text})
    with _readable(argument, path, "it needs a line of names, and lines of as many values"):
        return csv.read_csv(path, convert_options=options)


def _parquet(path: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(path, pre_buffer=False)


def _column_names(argument: str, path: Path, source: Path | pa.Table) -> list[str]:
    if isinstance(source, pa.Table):
        names = source.column_names
    else:
        with _readable(argument, path, "write it again"), _parquet(source) as file:
            names = file.schema_arrow.names
    _check_unique(f"{argument} {path}", names)
    return names


def _column(source: Path | pa.Table, name: str) -> np.ndarray:
    if isinstance(source, pa.Table):
        column = source.column(name)
    else:
        with _parquet(source) as file:
            column = file.read(columns=[name]).column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.to_pandas().to_numpy()


def _check_columns(argument: str, what: str, known: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise ValueError(
                f"{what} has no column {name!r}, which {argument} names; it has {_listing(known)}"
            )


def _check_unique(what: str, names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{what} has the name {name!r} twice; rename one")


def _listing(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    if len(names) > most:
        shown += f" and {len(names) - most} more"
    return {0: "no column", 1: f"the column {shown}"}.get(len(names), f"the columns {shown}")


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types  # a column of a .csv without any value has the type null
    return types.is_floating(kind) or types.is_integer(kind) or types.is_null(kind)


def _numpy_type(kind: pa.DataType) -> Any:
    return np.float64 if pa.types.is_null(kind) else kind.to_pandas_dtype()


def _first_text(source: Path | pa.Table, name: str) -> str:
    """The first value of a column that is no number."""
    values = pd.Series(_column(source, name))
    bad = (pd.to_numeric(values, errors="coerce").isna() & values.notna()).to_numpy()
    return repr(values.iloc[int(bad.argmax())]) if bad.any() else f"{values.dtype} values"


def _matched(
    what: str, predictions: PredictionFile, id_column: str, label_ids: np.ndarray
) -> np.ndarray:
    """For each prediction, the row of the labels that has its id. Ids are compared as text."""
    index = pd.Index([str(one) for one in label_ids])
    wanted = pd.Index([str(one) for one in predictions.column(id_column)])
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise ValueError(f"{what} has {twice!r} twice in column {id_column!r}; keep one of them")
    rows = index.get_indexer(wanted)
    if (rows < 0).any():
        row = int((rows < 0).argmax())
        raise ValueError(
            f"{what} has no {wanted[row]!r} in column {id_column!r}, which {predictions} has in "
            f"row {row}; add its label"
        )
    return rows


def _class_numbers(what: str, values: np.ndarray, predictions: PredictionFile) -> np.ndarray:
    """Labels as numbers of classes, shape (N,): names of classes, or the numbers themselves."""
    if values.shape != (predictions.rows,):
        raise ValueError(
            f"{what} has labels of shape {values.shape} and {predictions} has {predictions.rows} "
            "rows; pass one label per row, in their order"
        )
    missing = pd.isna(values)
    if missing.any():
        raise ValueError(f"{what} has no label in row {int(missing.argmax())}; every row needs one")
    texts = [str(value) for value in values]
    names = predictions.classes or ()
    # Numbers are names where all classes are called by numbers, such as 3 and 7.
    if all(_is_integer(text) for text in texts) and not (names and all(map(_is_integer, names))):
        numbers = np.array([int(text) for text in texts], dtype=np.int64)
        check_labels(what, numbers, predictions.num_classes, predictions.rows)
        return numbers
    number_of = {name: i for i, name in enumerate(names)}
    for row, text in enumerate(texts):
        if text not in number_of:
            known = (
                f"its classes are {', '.join(names[:12])}{', ...' * (len(names) > 12)}"
                if names
                else f"pass numbers from 0 to {predictions.num_classes - 1}, or --classes"
            )
            raise ValueError(f"{what} has {text!r} in row {row}, which is no class; {known}")
    return np.array([number_of[text] for text in texts], dtype=np.int64)


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
