"""The rule on files larger than memory: scores or flags, from a file to a file, in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genkl.checks import Array, as_own_floats, check_positive
from genkl.data.tables import Predictions, open_predictions
from genkl.rule.evaluation import SampledRule, evaluate, progress_bar, strip_rows
from genkl.storage import replacing

STRIPS_PER_BATCH = 16


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


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Options of `score_file` and `identify_file`.

    Attributes:
        permutation_invariant: see `nc_score`.
        columns: of a table, the k columns that hold the probabilities in order of the classes, or
            the one whose entries are lists of k; None takes every column.
        overwrite: replace the destination.
        num_threads: see `nc_score`.
        progress: show a bar.
    """

    permutation_invariant: bool = False
    columns: Sequence[str] | None = None
    overwrite: bool = False
    num_threads: int | None = None
    progress: bool = True


def score_file(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    beta: float,
    uniform_like: Array,
    **options: Any,
) -> Written:
    """`nc_score` of every row of a file, in bounded memory.

    Args:
        source: predictions, N rows of k probabilities: a ``.npy`` array (N, k), a ``.parquet``
            table, or a ``.csv`` (which is read as a whole).
        destination: a ``.npy`` file to write, shape (N,), float64.
        beta: in [0, 1/k).
        uniform_like: the vectors P, shape (n, k).
        **options: of `FileOptions`.

    Returns:
        Where, and how many.

    Raises:
        FileNotFoundError: no source.
        FileExistsError: the destination exists and overwrite is False.
        ValueError: another format, not two axes, rows that are not probability vectors (the first
            is named), and as `nc_score`. Nothing is left behind.
        TypeError: an option that is none.

    Source: equation :eq:`eq-critical-alpha`.
    """
    return _write(source, destination, None, beta, uniform_like, FileOptions(**options))


def identify_file(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    alpha: float,
    beta: float,
    uniform_like: Array,
    **options: Any,
) -> Written:
    """`identify_nc` of every row of a file, in bounded memory.

    Args:
        source: as for `score_file`.
        destination: a ``.npy`` file to write, shape (N,), boolean.
        alpha: greater than 0. To choose it, score a validation set, see `threshold_for_budget`.
        beta: in [0, 1/k).
        uniform_like: the vectors P, shape (n, k).
        **options: of `FileOptions`.

    Returns:
        Where, how many, and the share flagged.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, TypeError: as `score_file`; ValueError also
            for alpha <= 0.

    Source: equation :eq:`eq-vote`.
    """
    check_positive("alpha", alpha, "; raise it to flag fewer instances, lower it to flag more")
    return _write(source, destination, alpha, beta, uniform_like, FileOptions(**options))


def _write(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    alpha: float | None,
    beta: float,
    uniform_like: Array,
    options: FileOptions,
) -> Written:
    destination = Path(destination)
    if destination.suffix != ".npy":
        raise ValueError(f"destination is {destination}; its name must end in .npy")
    if destination.exists() and destination.samefile(source):
        raise ValueError(f"destination {destination} is the file to read from; name another")
    if destination.exists() and not options.overwrite:
        raise FileExistsError(f"{destination} exists; pass overwrite=True or another name")
    predictions = open_predictions(source, classes=options.columns)
    rule = SampledRule.of(
        uniform_like, beta, predictions.num_classes, options.permutation_invariant
    )
    flagged = 0

    def count(_: np.ndarray, votes: np.ndarray) -> np.ndarray:
        nonlocal flagged
        flagged += int(votes.sum())
        return votes

    told = {"num_threads": options.num_threads, "progress": options.progress}
    then, dtype = (None, np.float64) if alpha is None else (count, np.bool_)
    values = evaluate_batches(predictions, rule, alpha, then=then, **told)
    write_array(destination, (predictions.rows,), dtype, values)
    share = None if alpha is None else flagged / max(1, predictions.rows)
    return Written(destination, predictions.rows, share)


def evaluate_batches(
    predictions: Predictions,
    rule: SampledRule,
    alpha: float | None = None,
    *,
    num_threads: int | None = None,
    progress: bool = False,
    then: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """`evaluate` of a file some million rows at a time.

    Args:
        predictions: the file.
        rule: vectors and threshold.
        alpha: vote at this alpha instead of yielding scores.
        num_threads: see `evaluate`.
        progress: show a bar.
        then: called with each batch of rows, shape (some, k), and their scores or votes; what it
            returns is yielded instead.

    Yields:
        Scores, or at an alpha votes, shape (some,).

    Raises:
        TableError: rows that are not probability vectors; it names file, row and column.
    """
    first, height = 0, STRIPS_PER_BATCH * strip_rows(predictions.num_classes)
    with (
        predictions.named(),
        progress_bar(predictions.rows, progress, predictions.path.name) as advance,
    ):
        for probs in predictions.batches(height):
            found = evaluate(probs, rule, alpha, num_threads=num_threads, first_row=first)
            yield found if then is None else then(probs, found)
            first += len(probs)
            advance(len(probs))
            del probs  # before the next are read


def votes_from(
    scores: np.ndarray, pred_probs: np.ndarray, rule: SampledRule, alpha: float
) -> np.ndarray:
    """The votes at an alpha, where the scores are known; as `evaluate` has them bit for bit.

    Args:
        scores: of `evaluate`, shape (N,).
        pred_probs: what they are of, shape (N, k).
        rule: vectors and threshold.
        alpha: greater than 0.
    """
    dtype = as_own_floats(np, pred_probs[:0]).dtype
    rounding = 2 * (pred_probs.shape[1] + 32) * float(np.finfo(dtype).eps)
    near = np.flatnonzero(np.abs(scores - alpha) <= rounding * alpha)
    votes = scores >= alpha
    votes[near] = rule.votes_as_published(pred_probs[near].astype(dtype), alpha)
    return votes


def write_array(
    path: Path, shape: tuple[int, ...], dtype: Any, parts: Iterable[np.ndarray]
) -> None:
    """Write a ``.npy`` file part by part, which is either there as a whole or not at all."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    with replacing(path) as temporary, open(temporary, "xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            np.ascontiguousarray(part, dtype).tofile(file)
