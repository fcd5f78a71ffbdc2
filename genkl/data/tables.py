"""Tables and predictions in files: CSV, Parquet and npy; columns by name, rows in batches.

`open_predictions` finds out where a file has its probabilities and reads some rows at a time;
`open_table` is for any other column, `read_texts` for a CSV file that people write, and
`read_lines` for a list. Errors are `TableError`, which knows argument, row, column and remedy.
Arrow is imported where a table is read: arrays need NumPy alone.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genkl.checks import SUM_TOLERANCE, TableError, check_shape

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

FORMATS = (".npy", ".csv", ".parquet", ".tsv")
MARKS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
"""What may stand between the values of a line."""

WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How .xlsx, .ods and .xls begin."""

BATCH_ENTRIES = 1 << 22
"""Entries of predictions that are read at a time where the caller does not care."""

PARTS = 16
"""Parts that a batch of a table is read in: small ones stay in a core's cache."""

ROWS_LOOKED_AT, NAMES_SHOWN = 4096, 12
"""For a message."""

LINES = "\x01"
"""A delimiter that no text has, where lines are wanted as they are."""


# Tables


@dataclass(frozen=True)
class Table:
    """A file of named columns: read as a whole (.csv, .tsv), or where it is needed (.parquet).

    Attributes:
        path: the file.
        argument: what the user calls it, with its path; for `read_texts` the path alone, and
            errors then name a line.
        schema: names and types of the columns.
        rows: N.
        content: what was read, or the open .parquet file.
    """

    path: Path
    argument: str
    schema: pa.Schema
    rows: int
    content: pa.Table | ParquetFile

    def __str__(self) -> str:
        return self.argument

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return self.schema.names

    def require(self, names: Sequence[str], named_by: str) -> None:
        """Refuse names that no column has.

        Args:
            names: of columns.
            named_by: the argument that they come from, for the message.
        """
        for name in names:
            if name not in self.names:
                problem = f"has no column {name!r}, which {named_by} names"
                raise TableError(self.argument, problem, f"it has {listing(self.names)}")

    def batches(self, names: Sequence[str], height: int) -> Iterator[pa.Table]:
        """Columns in this order, so many rows at a time (fewer at the end)."""
        import pyarrow as pa

        if isinstance(self.content, pa.Table):
            for start in range(0, self.rows, height):
                yield self.content.select(names).slice(start, height)
            return
        for batch in self.content.iter_batches(height, columns=list(names), use_threads=False):
            yield pa.Table.from_batches([batch])

    def column(self, name: str) -> np.ndarray:
        """A column as a whole, shape (N,)."""
        import pyarrow as pa

        is_read = isinstance(self.content, pa.Table)
        column = (self.content if is_read else self.content.read(columns=[name])).column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column.to_pandas().to_numpy()

    def texts(self, name: str) -> pa.StringArray:
        """A column of `read_texts`, N strings."""
        return self.content.column(name).combine_chunks()

    def error(
        self, problem: str, remedy: str, row: int, column: str | None = None, value: Any = None
    ) -> TableError:
        """What is wrong with a row; for `read_texts` with its line instead of its number."""
        line = line_of(self.path, int(row)) if self.argument == str(self.path) else None
        return TableError(self.argument, problem, remedy, int(row), column, value, line)

    @property
    def unit_bytes(self) -> int:
        """Bytes that can only be read at once, those of a .csv or of a row group of a .parquet."""
        if self.path.suffix != ".parquet":
            return self.content.nbytes
        about = self.content.metadata
        return max(
            (about.row_group(i).total_byte_size for i in range(about.num_row_groups)), default=0
        )


def open_table(
    path: str | os.PathLike[str], argument: str, text: Sequence[str] | None = ()
) -> Table:
    """Open a .csv, .tsv or .parquet file.

    Args:
        path: the file.
        argument: what the user calls it, for messages.
        text: columns of a .csv to read as they are written, if it has them (None: all); the others
            hold numbers where all their values are numbers.

    Returns:
        The table.

    Raises:
        TableError: it can't be read, or two columns have one name.
    """
    path, argument = Path(path), f"{argument} {path}".strip()
    if path.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile

        with _readable(argument, path, "write it again"):
            file = ParquetFile(path, pre_buffer=False)
        table = Table(path, argument, file.schema_arrow, file.metadata.num_rows, file)
    else:
        header = _header(path, argument)
        if _holds_numbers(header):
            problem = "has no header, its first line holds numbers,"
            raise TableError(argument, problem, "write one, or a .npy file", 0)
        content = _read_csv(path, argument, header if text is None else text)
        table = Table(path, argument, content.schema, len(content), content)
    check_unique(argument, table.names)
    return table


def read_texts(
    path: str | os.PathLike[str], needed: Sequence[str], optional: Sequence[str] = ()
) -> Table:
    """Read columns of a CSV file as they are written.

    Args:
        path: the file, UTF-8 or UTF-16, with a header; between values are commas, semicolons or
            tabs. Blank lines don't count. Or a .parquet file.
        needed: names of columns.
        optional: more columns, where it has them.

    Returns:
        The columns that are there, without spaces around the values. Its errors name lines.

    Raises:
        TableError: a column that is missing or there twice, a line of another length, no lines, or
            not UTF-8.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    path, argument = Path(path), str(path)
    whole = open_table(path, "") if path.suffix == ".parquet" else None
    header, line = (whole.names, None) if whole else (_header(path, argument), 1)
    for name in needed:
        if name not in header and header:
            known = f"it has {', '.join(map(repr, header))}: name the right one"
            raise TableError(argument, f"there is no column {name!r}", known, line=line)
    wanted = [name for name in (*needed, *optional) if name in header]
    for name in wanted:
        if header.count(name) > 1:
            problem = f"there are {header.count(name)} columns {name!r}"
            raise TableError(argument, problem, "keep one", line=line)
    if whole:
        with _readable(argument, path, "write its columns as text"):
            read = whole.content.read(columns=wanted)
            read = {name: read[name].cast(pa.string()).fill_null("") for name in wanted}
    else:
        read = _read_csv(path, argument, wanted, include_columns=wanted)
    trimmed = pa.table({name: pc.utf8_trim_whitespace(read[name]) for name in wanted})
    if len(trimmed) == 0:
        raise TableError(argument, "has a header and no lines", "add a line for each row")
    return Table(path, argument, trimmed.schema, len(trimmed), trimmed)


def read_lines(path: str | os.PathLike[str]) -> pa.StringArray:
    """Every line of a text file, blank ones too, so that line i stands at i - 1.

    Args:
        path: the file, UTF-8, with Unix or Windows line ends, with or without a byte-order mark.

    Raises:
        TableError: not UTF-8, or empty.
        FileNotFoundError: no such file.
    """
    return _read_csv(Path(path), str(path), ["line"], LINES)["line"].combine_chunks()


def line_of(path: Path, row: int) -> int | None:
    """The line of a row in a CSV file, counted from 1; header and blank lines are no rows."""
    if path.suffix == ".parquet":
        return None
    with open(path, "rb") as file:
        reader = _csv_reader(file, _delimiter(path), "replace")
        next(itertools.islice(filter(None, reader), row + 1, None))
        return reader.line_num


def check_unique(argument: str, names: Sequence[str]) -> None:
    """Refuse a name that is there twice."""
    for position, name in enumerate(names):
        if name in names[:position]:
            raise TableError(argument, f"has the name {name!r} twice", "rename one")


def listing(names: Sequence[str]) -> str:
    """Names of columns for a message, not too many of them."""
    shown = ", ".join(map(repr, names[:NAMES_SHOWN]))
    if len(names) > NAMES_SHOWN:
        shown += f" and {len(names) - NAMES_SHOWN} more"
    return {0: "no column", 1: f"the column {shown}"}.get(len(names), f"the columns {shown}")


def read_array(path: str | os.PathLike[str], argument: str, **options: Any) -> np.ndarray:
    """An array of a .npy file; an archive, a pickle or a file that was cut is refused.

    Args:
        path: the file.
        argument: what the user calls it, for messages.
        **options: of `numpy.load`, such as mmap_mode.

    Raises:
        TableError: it can't be read.
    """
    path = Path(path)
    with _readable(f"{argument} {path}", path, "write it with numpy.save(path, array)"):
        with open(path, "rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ValueError("it does not begin as an array file does")
        return np.load(path, allow_pickle=False, **options)


# Predictions


@dataclass(frozen=True)
class Remedies:
    """What to do about predictions, in the words of the function or command that reads them.

    Attributes:
        columns: the argument that names the columns of the classes.
        column: about a column that is none of them.
        numbers: about numbers that may be logits.
        logits: about logits that are probabilities already.
    """

    columns: str = "columns"
    column: str = "name the columns of the classes with columns="
    numbers: str = "apply softmax to logits"
    logits: str = "leave from_logits out"


@dataclass(frozen=True)
class Predictions:
    """N rows of k probabilities in a file whose layout is known. They are not checked yet.

    Attributes:
        path: the file.
        argument: what the user calls it, with its path.
        rows: N.
        num_classes: k.
        dtype: of the probabilities.
        classes: names of the k classes; None where they have none.
        columns: of a table, those that hold the probabilities: k, or one with lists of k.
        table: with them; None for an array.
        from_logits: the file holds logits, which get a softmax in double precision.
        normalize: each row is divided by its sum, in double precision.
        remedies: for messages.
    """

    path: Path
    argument: str
    rows: int
    num_classes: int
    dtype: np.dtype
    classes: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    table: Table | None = None
    from_logits: bool = False
    normalize: bool = False
    remedies: Remedies = Remedies()

    def __str__(self) -> str:
        return self.argument

    def batches(self, height: int | None = None) -> Iterator[np.ndarray]:
        """The rows in their order, shape (height, k) each, or fewer at the end.

        The height is rounded up to a multiple of 16. Those of an array are mapped, each batch anew,
        so that pages that were read don't stay.
        """
        height = height or max(1, BATCH_ENTRIES // max(1, self.num_classes))
        step, first = -(-height // PARTS), 0
        if self.table is None:
            starts = range(0, self.rows, step * PARTS)
            batches = (np.load(self.path, mmap_mode="r")[at : at + step * PARTS] for at in starts)
        else:
            read = enumerate(self.table.batches(self.columns, step))
            parts = (self._matrix(part, number * step) for number, part in read)
            some = iter(lambda: list(itertools.islice(parts, PARTS)), [])
            batches = map(np.concatenate, some)
        for batch in batches:
            change = self._softmax if self.from_logits else _normalized if self.normalize else None
            yield change(batch, first) if change else batch
            first, batch = first + len(batch), None  # or two would be in memory

    def read(self) -> np.ndarray:
        """All rows, shape (N, k); those of an array are mapped."""
        if self.table is None and not (self.from_logits or self.normalize):
            return np.load(self.path, mmap_mode="r")
        return np.concatenate([*self.batches()])

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Within, an error about a row of pred_probs names this file, and the column if one."""
        try:
            yield
        except TableError as error:
            if error.argument != "pred_probs":
                raise
            raise self._located(error) from error

    def _located(self, error: TableError) -> TableError:
        column, value, problem, remedies = None, error.value, error.problem, [error.remedy]
        if self.classes is not None and self.columns is not None:
            part, row = divmod(error.row, ROWS_LOOKED_AT)
            entries = next(itertools.islice(self.batches(ROWS_LOOKED_AT), part, None))[row]
            wrong = ~((entries >= 0) & (entries <= 1 + SUM_TOLERANCE))
            if wrong.any():
                column, value = self.columns[int(wrong.argmax())], float(entries[wrong][0])
                problem, remedies = f"has {value:.6g}, which is no probability,", []
        if column is not None and math.isnan(value):
            problem, remedies = "has no number", ["fill it in, or drop the row"]
        if not math.isnan(value):
            remedies += [self.remedies.numbers, *([self.remedies.column] if self.columns else [])]
        return TableError(self.argument, problem, "; ".join(remedies), error.row, column, value)

    def _softmax(self, stored: np.ndarray, first_row: int) -> np.ndarray:
        from scipy.special import softmax

        logits = stored.astype(np.float64)
        is_finite = np.isfinite(logits).all(axis=1)
        if not is_finite.all():
            problem, row = "has a logit that is no finite number,", int(is_finite.argmin())
            remedy = "find where the model's output became so"
            raise TableError(self.argument, problem, remedy, first_row + row)
        sums_to_1 = np.abs(logits.sum(axis=1) - 1) <= SUM_TOLERANCE
        if first_row == 0 and sums_to_1.all() and (logits >= 0).all():
            problem = "has rows that are probabilities already"
            raise TableError(self.argument, problem, self.remedies.logits)
        return softmax(logits, axis=1)

    def _matrix(self, part: pa.Table, first_row: int) -> np.ndarray:
        import pyarrow.compute as pc

        if self.classes is not None:
            entries = np.column_stack([column.to_numpy() for column in part.columns])
            return entries.astype(self.dtype, copy=False)
        lists = part.column(0)
        lengths = pc.list_value_length(lists).fill_null(-1).to_numpy()
        wrong = lengths != self.num_classes
        if wrong.any():
            row = int(wrong.argmax())
            count = "no list" if lengths[row] < 0 else f"a list of {lengths[row]}"
            problem = f"has {count} and not one of {self.num_classes} as in row 0,"
            remedy = "every row needs one probability per class"
            raise self.table.error(problem, remedy, first_row + row, self.columns[0])
        entries = pc.list_flatten(lists).to_numpy().reshape(len(part), self.num_classes)
        return entries.astype(self.dtype, copy=False)


def open_predictions(
    path: str | os.PathLike[str],
    argument: str = "source",
    *,
    classes: Sequence[str] | None = None,
    text: Mapping[str, str] | None = None,
    from_logits: bool = False,
    normalize: bool = False,
    remedies: Remedies = Remedies(),
) -> Predictions:
    """Find out the layout of a file of predictions.

    Args:
        path: a .npy array (N, k); a .csv or .parquet table with k columns of numbers, or a
            .parquet table with one column of lists of k.
        argument: what the user calls it, for messages.
        classes: columns of a table that hold the probabilities, or names for those of an array;
            None takes every column of a table but the following.
        text: columns that hold something else, which must be there, with the arguments that name
            them. Those of a .csv are read as they are written.
        from_logits: the numbers are logits, to which a softmax is applied in double precision.
        normalize: divide each row by its sum, such as where probabilities were rounded.
        remedies: for messages.

    Returns:
        The layout.

    Raises:
        FileNotFoundError: no such file.
        TableError: a file that can't be read, or a column that can't be used.
        ValueError: another format, or not two axes.
    """
    path, text = checked_source(path, argument), text or {}
    if path.suffix == ".npy":
        for name, named_by in text.items():
            raise no_names(named_by, name, f"{argument} {path}")
        found = _open_array(path, argument, classes, remedies)
    else:
        found = _open_table(path, argument, classes, text, remedies)
    if not (from_logits or normalize):
        return found
    return replace(found, dtype=np.dtype(np.float64), from_logits=from_logits, normalize=normalize)


def _normalized(stored: np.ndarray, _first_row: int) -> np.ndarray:
    """Rows that sum to 1; those that no division makes probabilities stay, to be refused later."""
    probs = stored.astype(np.float64)
    sums = probs.sum(axis=1, keepdims=True)
    can_be = (probs >= 0).all(axis=1, keepdims=True) & (sums > 0)
    return probs / np.where(can_be, sums, 1)


def checked_source(path: str | os.PathLike[str], argument: str) -> Path:
    """Refuse a file that is not there, or of no format that can be read."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{argument} is {path}; its name must end in one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise FileNotFoundError(f"{argument} {path} is not there; check the path")
    return path


def no_names(named_by: str, name: str, what: str) -> TableError:
    """An argument names a column of an array."""
    problem = f"is {name!r} and {what} is an array, whose columns have no names"
    return TableError(named_by, problem, "leave it out, or pass a table")


def _open_array(
    path: Path, argument: str, classes: Sequence[str] | None, remedies: Remedies
) -> Predictions:
    array, argument = read_array(path, argument, mmap_mode="r"), f"{argument} {path}"
    check_shape(argument, array, ndim=2)
    if array.dtype.kind not in "fiu":
        raise TableError(argument, f"has dtype {array.dtype}", "save real numbers")
    if classes is not None:
        check_unique(remedies.columns, classes)
        if len(classes) != array.shape[1]:
            problem = f"has {len(classes)} names and {argument} has {array.shape[1]} columns"
            raise TableError(remedies.columns, problem, "name each of them, in their order")
    names = None if classes is None else tuple(classes)
    return Predictions(path, argument, *array.shape, array.dtype, names, remedies=remedies)


def _open_table(
    path: Path,
    argument: str,
    classes: Sequence[str] | None,
    text: Mapping[str, str],
    remedies: Remedies,
) -> Predictions:
    import pyarrow as pa

    table = open_table(path, argument, tuple(text))
    for name, named_by in text.items():
        table.require([name], named_by)
    if classes is not None:
        check_unique(remedies.columns, classes)
        table.require(classes, remedies.columns)
    columns = tuple(classes or [name for name in table.names if name not in text])
    types, num_classes = [table.schema.field(name).type for name in columns], len(columns)
    lists = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
    holds_lists = num_classes == 1 and isinstance(types[0], lists)
    if holds_lists:  # as many classes as the first has entries
        types, first = [types[0].value_type], next(table.batches(columns, 1), None)
        num_classes = 0 if first is None else len(first.column(0)[0].as_py() or ())
    dtypes = [_number_type(kind) for kind in types]
    for name, dtype, kind in zip(columns, dtypes, types, strict=True):
        if dtype is None:
            row, value = (0, str(kind)) if holds_lists else _first_text(table.column(name))
            problem = f"has {value!r}, which is no probability,"
            raise table.error(problem, remedies.column, row, name, value)
    if num_classes < 2 and not (holds_lists and table.rows == 0):
        problem = f"has {listing(columns)} left for probabilities"
        raise TableError(str(table), problem, "a prediction needs at least 2 classes")
    names, dtype = None if holds_lists else columns, np.result_type(*dtypes)
    found = Predictions(path, str(table), table.rows, num_classes, dtype, names, columns, table)
    return replace(found, remedies=remedies)


# Files


def _read_csv(
    path: Path, argument: str, text: Sequence[str], delimiter: str | None = None, **options: Any
) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv as arrow

    lines = delimiter == LINES
    delimiter, types = delimiter or _delimiter(path), dict.fromkeys(text, pa.string())
    if delimiter == ";" and _has_decimal_comma(path):
        options["decimal_point"] = ","
    format = {"quote_char": False, "ignore_empty_lines": False} if lines else {}
    with open(path, "rb") as file:
        encoding = _encoding(file)
    try:
        return arrow.read_csv(
            path,
            arrow.ReadOptions(column_names=list(text) if lines else None, encoding=encoding),
            arrow.ParseOptions(delimiter=delimiter, **format),
            arrow.ConvertOptions(column_types=types, **options),
        )
    except (ValueError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _csv_error(path, argument, delimiter, reason) from error


def _csv_error(path: Path, argument: str, delimiter: str, reason: str) -> TableError:
    """The first line of a CSV file that is not as the others are."""
    with open(path, "rb") as file:
        reader = _csv_reader(file, delimiter)
        try:
            rows = filter(None, reader)
            header = next(rows, None)
            if header is None:
                return TableError(argument, "is empty", "it needs a header, and lines of values")
            for row in rows:
                if len(row) != len(header):
                    problem = f"{len(row)} columns instead of {len(header)}"
                    held = MARKS.get(delimiter, "the separator")
                    remedy = f"put values that hold {held} between quotation marks"
                    return TableError(argument, problem, remedy, line=reader.line_num)
        except UnicodeDecodeError:
            line = reader.line_num + 1
            return TableError(argument, "not UTF-8", "convert it: save it as UTF-8", line=line)
        except csv.Error as error:
            return TableError(argument, str(error), "correct it", line=reader.line_num)
    return TableError(argument, f"can't be read as {path.suffix} ({reason})", "correct it")


def _csv_reader(file: Any, delimiter: str, errors: str = "strict") -> Any:
    """Rows of a CSV file line by line, for its header and for messages."""
    return csv.reader(_lines(file, errors), delimiter=delimiter)


def _lines(file: io.BufferedReader, errors: str) -> Iterator[str]:
    if _encoding(file) == "utf-16":
        return iter(io.TextIOWrapper(file, "utf-16", errors, newline=""))
    return (line.decode("utf-8-sig", errors) for line in file)


def _encoding(file: io.BufferedReader) -> str:
    is_utf_16 = file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "utf-16" if is_utf_16 else "utf8"


def _header(path: Path, argument: str) -> list[str]:
    """Names of the columns of a CSV file; none where it is empty."""
    with open(path, "rb") as file:
        if file.peek(4)[:4] in WORKBOOKS:
            problem = "is a workbook of a spreadsheet (or another archive), not a text file"
            raise TableError(argument, problem, "save it as CSV (UTF-8)")
        try:
            return next(filter(None, _csv_reader(file, _delimiter(path), "replace")), [])
        except csv.Error as error:
            raise TableError(argument, str(error), "correct it", line=1) from None


def _holds_numbers(header: Sequence[str]) -> bool:
    """Whether it is a row of a matrix: no names, and no whole numbers, by which classes are called.

    Numbers such as 0.5 can be names, too, but hardly such that sum to 1, or of many digits.
    """
    parts = " ".join(header).split()
    if all(map(str.isdecimal, parts)) or not all(map(_NUMBER.fullmatch, parts)):
        return False
    return abs(sum(map(float, parts)) - 1) < 0.02 or max(map(len, parts)) > 8


def _first_lines(path: Path) -> list[str]:
    """The header and the line below, without what is between quotation marks."""
    with open(path, "rb") as file:
        some = itertools.islice(filter(str.strip, _lines(file, "replace")), 2)
        return [re.sub('"[^"]*"', "", line) for line in some]


def _delimiter(path: Path) -> str:
    """What stands between the values: of `MARKS` the one that the header has most of."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(MARKS, key="".join(_first_lines(path)[:1]).count)


def _has_decimal_comma(path: Path) -> bool:
    return any(_COMMA.search(line) for line in _first_lines(path)[1:])


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_COMMA = re.compile(r"(^|;)\s*-?\d*,\d+\s*(;|$)")


@contextlib.contextmanager
def _readable(argument: str, path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, NotImplementedError) as error:  # Arrow's, too
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        problem = f"can't be read as {path.suffix} ({reason})"
        raise TableError(argument, problem, remedy) from error


def _number_type(kind: pa.DataType) -> np.dtype | None:
    """Of a column of numbers; integers, and what may be missing, become double precision.

    A column of a .csv without any value has the type null.
    """
    from pyarrow import types

    if types.is_floating(kind):
        return np.dtype(kind.to_pandas_dtype())
    return np.dtype(np.float64) if types.is_integer(kind) or types.is_null(kind) else None


def _first_text(values: np.ndarray) -> tuple[int, Any]:
    """Row and value of the first entry that is no number."""
    import pandas as pd

    column = pd.Series(values)
    is_text = pd.to_numeric(column, errors="coerce").isna() & column.notna()
    row = int(is_text.to_numpy().argmax())
    return row, values[row]
