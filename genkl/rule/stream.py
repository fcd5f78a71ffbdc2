"""More predictions than fit into memory? From a file to a file, a few million rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genkl.checks import Array, check_positive, check_shape
from genkl.rule.evaluation import SampledRule, evaluate, progress_bar, strip_rows

STRIPS_PER_CHUNK = 16
TABLE_BATCH = 1 << 16
FORMATS = (".npy", ".parquet")


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: the file, one value per row of the source.
        rows: how many.
        flagged: share of them that is flagged; None for scores.
    """

    path: Path
    rows: int
    flagged: float | None


def score_file(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    beta: float,
    uniform_like: Array,
    *,
    permutation_invariant: bool = False,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
    num_threads: int | None = None,
    progress: bool = True,
) -> Written:
    """`nc_score` of every row of a file, in bounded memory.

    Args:
        source: predictions, N rows of k probabilities: a ``.npy`` array (N, k), read through
            memory maps of some rows at a time, or a ``.parquet`` table.
        destination: a ``.npy`` file to write, shape (N,), float64.
        beta: in [0, 1/k).
        uniform_like: the vectors P, shape (n, k).
        permutation_invariant: see `nc_score`.
        columns: of a table, the k columns that hold the probabilities in order of the classes, or
            the one whose entries are lists of k; None takes every column.
        overwrite: replace the destination.
        num_threads: see `nc_score`.
        progress: show a bar.

    Returns:
        Where, and how many.

    Raises:
        FileNotFoundError: no source.
        FileExistsError: the destination exists and overwrite is False.
        ValueError: another format, not two axes, rows that are not probability vectors (the first
            is named), and as `nc_score`. Nothing is left behind.

    Source: equation :eq:`eq-critical-alpha`.
    """
    return _write(
        source, destination, None, beta, uniform_like, permutation_invariant, columns, overwrite,
        num_threads, progress,
    )  # fmt: skip


def identify_file(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    alpha: float,
    beta: float,
    uniform_like: Array,
    *,
    permutation_invariant: bool = False,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
    num_threads: int | None = None,
    progress: bool = True,
) -> Written:
    """`identify_nc` of every row of a file, in bounded memory.

    Args:
        source: as for `score_file`.
        destination: a ``.npy`` file to write, shape (N,), boolean.
        alpha: greater than 0. To choose it, score a validation set, see `threshold_for_budget`.
        beta: in [0, 1/k).
        uniform_like: the vectors P, shape (n, k).
        permutation_invariant: see `nc_score`.
        columns: as for `score_file`.
        overwrite: replace the destination.
        num_threads: see `nc_score`.
        progress: show a bar.

    Returns:
        Where, how many, and the share flagged.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: as `score_file`, and for alpha <= 0.

    Source: equation :eq:`eq-vote`.
    """
    check_positive("alpha", alpha, "; raise it to flag fewer instances, lower it to flag more")
    return _write(
        source, destination, alpha, beta, uniform_like, permutation_invariant, columns, overwrite,
        num_threads, progress,
    )  # fmt: skip


def _write(
    source, destination, alpha, beta, uniform_like, permutation_invariant, columns, overwrite,
    num_threads, progress,
) -> Written:  # fmt: skip
    source, destination = Path(source), Path(destination)
    if source.suffix not in FORMATS:
        raise ValueError(f"source is {source}; its name must end in one of {', '.join(FORMATS)}")
    if destination.suffix != ".npy":
        raise ValueError(f"destination is {destination}; its name must end in .npy")
    if not source.is_file():
        raise FileNotFoundError(f"source {source} is not there")
    if destination.exists() and not overwrite:
        raise FileExistsError(f"{destination} exists; pass overwrite=True or another name")
    rows = _ArrayFile(source) if source.suffix == ".npy" else _Table(source, columns)
    rule = SampledRule.of(uniform_like, beta, rows.num_classes, permutation_invariant)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    flagged = first = 0
    try:
        with (
            open(temporary, "xb") as file,
            progress_bar(len(rows), progress, source.name) as advance,
        ):
            dtype = np.dtype(np.float64 if alpha is None else np.bool_)
            header = {"descr": dtype.str, "fortran_order": False, "shape": (len(rows),)}
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in rows.chunks(STRIPS_PER_CHUNK * strip_rows(rows.num_classes)):
                result = evaluate(chunk, rule, alpha, num_threads=num_threads, first_row=first)
                result.tofile(file)
                flagged += 0 if alpha is None else int(result.sum())
                first += len(chunk)
                advance(len(chunk))
        os.replace(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)
    share = None if alpha is None else flagged / max(1, len(rows))
    return Written(destination, len(rows), share)


class _ArrayFile:
    """Rows of a .npy file, each chunk a memory map of its own, so that none stays resident."""

    def __init__(self, path: Path) -> None:
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
        check_shape(str(path), whole, ndim=2)
        if not whole.flags.c_contiguous:
            raise ValueError(
                f"{path} is stored column by column; save np.ascontiguousarray(...) of it"
            )
        self.path, self.shape, self.dtype = path, whole.shape, whole.dtype
        self.offset = whole.offset
        self.num_classes = whole.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def chunks(self, height: int) -> Iterator[np.ndarray]:
        width = self.num_classes * self.dtype.itemsize
        for start in range(0, len(self), height):
            shape = (min(height, len(self) - start), self.num_classes)
            yield np.memmap(self.path, self.dtype, "r", self.offset + start * width, shape)


class _Table:
    """Rows of a Parquet table: k columns of numbers, or one column of lists of k."""

    def __init__(self, path: Path, columns: Sequence[str] | None) -> None:
        from pyarrow.parquet import ParquetFile

        self.file = ParquetFile(path, pre_buffer=False)
        known = self.file.schema_arrow.names
        missing = [name for name in columns or () if name not in known]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}; it has {', '.join(known)}")
        self.columns = list(columns or known)
        self.path = path
        first = next(self._batches(1), np.empty((0, len(self.columns))))
        check_shape(str(path), first, ndim=2)
        self.num_classes = first.shape[1]

    def __len__(self) -> int:
        return self.file.metadata.num_rows

    def chunks(self, height: int) -> Iterator[np.ndarray]:
        """Chunks of one height, whatever the table's own batches are; the last is the rest."""
        buffer, filled = None, 0
        for batch in self._batches(TABLE_BATCH):
            while len(batch):
                if buffer is None:
                    buffer = np.empty((height, self.num_classes), batch.dtype)
                taken = min(height - filled, len(batch))
                buffer[filled : filled + taken] = batch[:taken]
                batch, filled = batch[taken:], filled + taken
                if filled == height:
                    yield buffer
                    filled = 0
        if filled:
            yield buffer[:filled]

    def _batches(self, height: int) -> Iterator[np.ndarray]:
        for batch in self.file.iter_batches(height, columns=self.columns, use_threads=False):
            arrays = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
            if len(arrays) == 1:
                yield np.stack(arrays[0]) if len(arrays[0]) else np.empty((0, 0))
            else:
                yield np.column_stack(arrays)
