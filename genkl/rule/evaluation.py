"""Fast evaluation of the rule: scores or votes, block by block, on the CPU or a GPU.

The published formulation fills an (n, N, k) array. Here a block of some thousand predictions is
checked, its dominant logarithms are multiplied with all n vectors in one matrix product, and the
largest ratio is kept, before the next block is read. Nothing but the result grows with N. Blocks
begin at the same rows whatever the number of threads, and each is computed by one thread, so that
number changes no bit of the result. `evaluate_block` is the same code for NumPy arrays and for
tensors on any device.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from genkl.checks import (
    SUM_TOLERANCE,
    Array,
    as_arrays,
    as_own_floats,
    check_beta,
    check_probabilities,
    check_shape,
    namespace,
    to_numpy,
)
from genkl.provenance import usable_cores
from genkl.rule.divergence import dominance_threshold, entropy

BLOCK_ENTRIES = 1 << 18
"""Entries of a block: few enough for a core's own cache, and enough for two threads to spend
their time computing rather than waiting for the interpreter."""

BLOCKS_PER_STRIP = 4
"""Blocks that a thread takes at a time, and that a memory-mapped file is mapped for."""

GPU_BLOCK_ENTRIES = 1 << 24


@dataclass(frozen=True)
class SampledRule:
    """The vectors P, their entropies, and the threshold tau: all that a prediction is held against.

    Attributes:
        vectors: shape (n, k), float64, the different ones; each in descending order if
            permutation_invariant.
        entropies: shape (n,), in nats.
        tau: entries at or above it are dominant.
        permutation_invariant: stand for every permutation of every vector.
    """

    vectors: np.ndarray
    entropies: np.ndarray
    tau: float
    permutation_invariant: bool

    @classmethod
    def of(
        cls, uniform_like: Array, beta: float, num_classes: int, permutation_invariant: bool
    ) -> SampledRule:
        """Check the arguments; sort the vectors where the rule stands for all permutations."""
        vectors = to_numpy(uniform_like).astype(np.float64)
        check_probabilities("uniform_like", vectors, ndim=2)
        if vectors.shape[1] != num_classes:
            raise ValueError(
                f"uniform_like has {vectors.shape[1]} classes and pred_probs has {num_classes}; "
                f"draw it with uniform_like_vectors({num_classes}, ...)"
            )
        if len(vectors) == 0:
            raise ValueError("uniform_like has no rows; draw at least one uniform-like vector")
        check_beta(beta, num_classes)
        if permutation_invariant:
            vectors = np.sort(vectors, axis=1)[:, ::-1].copy()
        # With sigma 0 they are all the same. (`numpy.unique` takes longer than the rest does.)
        vectors = np.array(list({vector.tobytes(): vector for vector in vectors}.values()))
        tau = dominance_threshold(num_classes, beta)
        return cls(vectors, entropy(vectors), tau, permutation_invariant)

    @property
    def is_degenerate(self) -> bool:
        """Whether a vector has no entropy (is one-hot); then D >= 0 for every q and alpha."""
        return bool((self.entropies == 0).any())

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Each vector over minus its entropy; times log q it gives the ratio; (n, k), float64."""
        return -self.vectors / self.entropies[:, None]

    @functools.cached_property
    def ceiling(self) -> np.ndarray:
        """Least weights of the classes, (k,); log q times them is never below the largest ratio."""
        least = self.weights.min(axis=0)
        return np.full_like(least, least.min()) if self.permutation_invariant else least

    def votes_as_published(self, pred_probs: np.ndarray, alpha: float) -> np.ndarray:
        """The vote term by term in the scripts' own arithmetic; shape (N,), boolean.

        Logarithms to base 2 in the precision of the predictions, products and sums in double
        precision. Slow; it decides the predictions that rounding could decide either way.
        """
        log_probs = np.log2(pred_probs, out=np.zeros_like(pred_probs), where=pred_probs > 0)
        log_probs[pred_probs < pred_probs.dtype.type(self.tau)] = 0
        if self.permutation_invariant:
            log_probs.sort(axis=1)
        flagged = np.zeros(len(pred_probs), dtype=bool)
        for vector in self.vectors:
            used = vector[vector > 0]
            negative_entropy = alpha * np.sum(used * np.log2(used))
            flagged |= negative_entropy >= np.sum(vector * log_probs, axis=-1)
        return flagged


def evaluate(
    pred_probs: Array,
    rule: SampledRule,
    alpha: float | None = None,
    *,
    num_threads: int | None = None,
    progress: bool = False,
    first_row: int = 0,
) -> Array:
    """Critical alphas (float64) or, at a given alpha, votes (boolean); shape (N,).

    Scores are computed in double precision; votes in the precision of the predictions, where
    those within rounding of a tie are decided by `SampledRule.votes_as_published`.

    Args:
        pred_probs: shape (N, k), NumPy array (memory-mapped files are mapped strip by strip) or
            torch tensor (one on a CUDA device is evaluated there).
        rule: vectors and threshold.
        alpha: vote at this alpha instead of returning scores.
        num_threads: threads on the CPU; None uses every core this process may use.
        progress: show a bar.
        first_row: index of the first row within the array or file that the user knows.

    Raises:
        ValueError: rows that are not probability vectors; the first one is named.
    """
    xp, (rows,) = as_arrays(pred_probs)
    settings = rule, alpha, num_threads, progress, first_row
    if xp is np:
        is_mapped = isinstance(pred_probs, np.memmap)
        return _evaluate(pred_probs if is_mapped else rows, *settings)
    rows = rows.detach()
    if rows.device.type == "cuda":
        return _evaluate(rows, *settings)
    found = _evaluate(as_own_floats(xp, rows).cpu().numpy(), *settings)
    return xp.asarray(found, device=rows.device)


def _evaluate(
    pred_probs: Array,
    rule: SampledRule,
    alpha: float | None,
    num_threads: int | None,
    progress: bool,
    first_row: int,
) -> Array:
    """`evaluate` where the rows are; strips of blocks by several threads on the CPU."""
    xp, (count, num_classes) = namespace(pred_probs), pred_probs.shape
    height = block_rows(num_classes, BLOCK_ENTRIES if xp is np else GPU_BLOCK_ENTRIES)
    strips = range(0, count, BLOCKS_PER_STRIP * height)
    workers = min(num_threads or usable_cores(), len(strips)) if xp is np else 1
    result = xp.empty(
        count, dtype=xp.float64 if alpha is None else xp.bool, device=pred_probs.device
    )

    work = Workspace()

    def evaluate_strip(start: int) -> int:
        strip = _rows(pred_probs, start, start + strips.step)
        for at in range(0, len(strip), height):
            block, first = strip[at : at + height], start + at
            found = evaluate_block(block, rule, alpha, first_row + first, work)
            result[first : first + len(block)] = found
        return len(strip)

    with (
        _single_threaded_blas(),
        progress_bar(count, progress) as advance,
        ThreadPoolExecutor(max(1, workers)) as pool,
    ):
        # In order, so that the first bad row is the one reported; an error cancels the rest.
        for done in (pool.map if workers > 1 else map)(evaluate_strip, strips):
            advance(done)
    return result


def strip_rows(num_classes: int) -> int:
    """Rows that a thread takes at a time."""
    return BLOCKS_PER_STRIP * block_rows(num_classes, BLOCK_ENTRIES)


def block_rows(num_classes: int, entries: int) -> int:
    """Rows of a block of at most so many entries, a multiple of 16."""
    return max(16, entries // num_classes // 16 * 16)


class Workspace(threading.local):
    """A thread's large arrays, kept from block to block: memory that is handed out anew each time
    is what threads wait for."""

    def __init__(self) -> None:
        self.kept: dict[str, Array] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: object, like: Array) -> Array:
        """An array to be overwritten; its content is whatever was there."""
        size, kept = math.prod(shape), self.kept.get(name)
        if kept is None or len(kept) < size:
            kept = namespace(like).empty(size, dtype=dtype, device=like.device)
            self.kept[name] = kept
        return kept[:size].reshape(shape)


def evaluate_block(
    block: Array, rule: SampledRule, alpha: float | None, first_row: int, work: Workspace
) -> Array:
    """`evaluate` of some rows at once, on the device where they are.

    Raises:
        ValueError: as `evaluate`.
    """
    xp, where = namespace(block), {"device": block.device}
    block = as_own_floats(xp, block)
    smallest, sums = xp.min(block), block @ xp.ones_like(block[0])
    valid = smallest >= 0 and xp.max(xp.abs(sums - 1)) <= SUM_TOLERANCE
    if not valid:  # NaN is not
        check_probabilities("pred_probs", block, first_row=first_row)
    if rule.is_degenerate:
        return xp.full(len(block), np.inf if alpha is None else True, **where)
    # A GPU may multiply single precision in less (TF32), so votes are double there, too.
    dtype = block.dtype if xp is np and alpha is not None else xp.float64
    # Logarithms of all entries, a vector at a time, are faster than those of a few picked ones.
    # Where there are zeros, what lies below tau is raised to something positive first.
    logs = work.array("logs", block.shape, dtype, block)
    if smallest > 0 and dtype == block.dtype:
        xp.log(block, out=logs)
    else:
        logs[:] = block
        xp.log(logs if smallest > 0 else xp.clip(logs, rule.tau / 2, None, out=logs), out=logs)
    # Decided in the precision that the predictions are stored in.
    dominant = work.array("dominant", block.shape, xp.bool, block)
    logs *= xp.greater_equal(block, rule.tau, out=dominant)
    weights = xp.asarray(rule.weights, dtype=dtype, **where)
    if alpha is None:
        return _largest_ratios(logs, weights, rule, work)
    # Relative error that a ratio may have here or in the scripts: k products and more.
    rounding = 2 * (block.shape[1] + 32) * float(xp.finfo(block.dtype).eps)
    # Only predictions that could be flagged meet every vector.
    ceiling = xp.asarray(rule.ceiling, dtype=dtype, **where)
    (rows,) = xp.nonzero(logs @ ceiling >= alpha * (1 - 2 * rounding))
    if 2 * len(rows) > len(block):  # then picking them out takes longer than it saves
        rows = xp.arange(len(block), **where)
    else:
        logs = logs[rows]
    found = _largest_ratios(logs, weights, rule, work)
    votes = xp.zeros(len(block), dtype=xp.bool, **where)
    votes[rows] = found >= alpha
    near = rows[xp.abs(found - alpha) <= rounding * alpha]
    if len(near):
        votes[near] = xp.asarray(rule.votes_as_published(to_numpy(block[near]), alpha), **where)
    return votes


def _largest_ratios(logs: Array, weights: Array, rule: SampledRule, work: Workspace) -> Array:
    xp = namespace(logs)
    if rule.permutation_invariant:
        logs = xp.sort(logs, axis=1)
    ratios = work.array("ratios", (len(weights), len(logs)), logs.dtype, logs)
    return xp.max(xp.matmul(weights, logs.T, out=ratios), axis=0)


def _rows(array: Array, start: int, stop: int) -> Array:
    """Some rows, C-contiguous if NumPy's. Those of a mapped file come from a mapping of their own,
    which is dropped with them, so that pages already read don't stay resident."""
    rows = array[start:stop]
    if not isinstance(array, np.ndarray):
        return rows
    is_whole_map = (
        isinstance(array, np.memmap)
        and isinstance(array.base, mmap.mmap)
        and array.filename is not None
        and array.mode == "r"
        and array.flags.c_contiguous
    )
    if is_whole_map:
        offset = array.offset + start * array.strides[0]
        rows = np.memmap(array.filename, array.dtype, "r", offset, rows.shape)
    return np.ascontiguousarray(rows)


@contextlib.contextmanager
def progress_bar(total: int, shown: bool, what: str | None = None) -> Iterator[Callable]:
    """A bar over rows, as the function to call with the number of rows done."""
    if not shown:
        yield lambda rows: None
        return
    from tqdm import tqdm  # imported where it is wanted: it takes as long as a million predictions

    with tqdm(total=total, desc=what, unit="row", unit_scale=True) as bar:
        yield bar.update


def check_rows(pred_probs: Array) -> int:
    """Refuse predictions without two axes; return the number of classes."""
    _, (pred_probs,) = as_arrays(pred_probs)
    check_shape("pred_probs", pred_probs, ndim=2)
    return int(pred_probs.shape[1])


@functools.cache
def _blas():
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:  # then BLAS has threads of its own beside ours, which is slower
        return None
    return ThreadpoolController()


def _single_threaded_blas() -> contextlib.AbstractContextManager:
    blas = _blas()
    return blas.limit(limits=1, user_api="blas") if blas else contextlib.nullcontext()
