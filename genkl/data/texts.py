"""Text files of rows and columns, whoever wrote them: encoding, separator, header, lines.

Arrow reads the columns. Python's own reader, line by line, is for the header and for messages.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genkl.checks import TableError

if TYPE_CHECKING:
    import pyarrow as pa

MARKS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
"""What may stand between the values of a line."""

NO_TEXTS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1")
"""How .xlsx and .ods, .xls, and .parquet begin."""

LINES = "\x01"
"""A delimiter that no text has, where lines are wanted as they are."""


def read_csv(
    path: Path, argument: str, text: Sequence[str], delimiter: str | None = None, **options: Any
) -> pa.Table:
    """Read a CSV file, or each of its lines as it is.

    Args:
        path: the file.
        argument: what the user calls it, for messages.
        text: columns to read as they are written.
        delimiter: what stands between values (`LINES`: nothing does, and text names the only
            column); None finds out.
        **options: of Arrow's conversion, such as include_columns.

    Raises:
        TableError: empty, not UTF-8, or a line of another length.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    lines = delimiter == LINES
    delimiter, types = delimiter or _delimiter(path), dict.fromkeys(text, pa.string())
    format = {"quote_char": False, "ignore_empty_lines": False} if lines else {}
    with open(path, "rb") as file:
        encoding = _encoding(file)
    try:
        read = arrow.read_csv(
            path,
            arrow.ReadOptions(column_names=list(text) if lines else None, encoding=encoding),
            arrow.ParseOptions(delimiter=delimiter, **format),
            arrow.ConvertOptions(column_types=types, **options),
        )
        return read.rename_columns(read.column_names)  # which may not be UTF-8
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
                    remedy = f"put values that hold {MARKS.get(delimiter)} between quotation marks"
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
    return "utf-16" if file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf8"


def read_header(path: Path, argument: str) -> list[str]:
    """Names of the columns of a CSV file; none where it is empty.

    Raises:
        TableError: no text, or no header.
    """
    with open(path, "rb") as file:
        if file.peek(4)[:4] in NO_TEXTS:
            problem = "is no text, but a spreadsheet's workbook, a Parquet file or an archive"
            raise TableError(argument, problem, "save it as CSV (UTF-8)")
        try:
            header = next(filter(None, _csv_reader(file, _delimiter(path), "replace")), [])
        except csv.Error as error:
            raise TableError(argument, str(error), "correct it", line=1) from None
    if _holds_numbers(header):
        problem = "has no header, its first line holds numbers"
        raise TableError(argument, problem, "write one, or a .npy file")
    return header


def _holds_numbers(header: Sequence[str]) -> bool:
    """Whether it is a row of a matrix: no names, and no whole numbers, by which classes are called.

    Numbers such as 0.5 can be names, too, but hardly such that sum to 1, or of many digits.
    """
    parts = " ".join(header).split()
    if all(map(str.isdecimal, parts)) or not all(map(_NUMBER.fullmatch, parts)):
        return False
    return abs(sum(map(float, parts)) - 1) < 0.02 or max(map(len, parts)) > 8


def _delimiter(path: Path) -> str:
    """What stands between the values: of `MARKS` the one that the header has most of."""
    marks = "\t" if path.suffix.lower() == ".tsv" else MARKS
    with open(path, "rb") as file:
        header = next(filter(str.strip, _lines(file, "replace")), "")
    return max(marks, key=re.sub('"[^"]*"', "", header).count)


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def line_of(path: Path, row: int) -> int:
    """The line of a row in a CSV file, counted from 1; header and blank lines are no rows."""
    with open(path, "rb") as file:
        reader = _csv_reader(file, _delimiter(path), "replace")
        next(itertools.islice(filter(None, reader), row + 1, None))
        return reader.line_num


def tidy_name(name: str) -> str:
    """A path as it is written on any system, without ``./`` and back-slashes."""
    if "\\" in name or "./" in name or "//" in name:
        return posixpath.normpath(name.replace("\\", "/"))
    return name
