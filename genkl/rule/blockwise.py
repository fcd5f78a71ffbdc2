"""How is the rule evaluated fast? Block by block, in the cache, with as many threads as wanted.

The published formulation fills an (n, N, k) array. Here a block of a few thousand predictions is
checked, its dominant logarithms are multiplied with all n vectors in one matrix product, and the
largest ratio is kept, before the next block is read. Nothing but the result grows with N. Blocks
begin at the same rows whatever the number of threads, and each is computed by one thread, so that
number changes no bit of the result.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import array_api_compat
import numpy as np
from threadpoolctl import ThreadpoolController

from genkl.checks import (
    SUM_TOLERANCE,
    Array,
    as_arrays,
    check_beta,
    check_probabilities,
    check_shape,
    to_numpy,
)
from genkl.rule.divergence import dominance_threshold, entropy

BLOCK_ENTRIES = 1 << 18
"""Entries of a block: few enough for a core's share of the cache, and enough for two threads to
spend their time computing rather than waiting for the interpreter."""

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
            torch tensor (one on a GPU is evaluated there).
        rule: vectors and threshold.
        alpha: vote at this alpha instead of returning scores.
        num_threads: threads on the CPU; None uses every core this process may use.
        progress: show a bar.
        first_row: index of the first row within the array or file that the user knows.

    Raises:
        ValueError: rows that are not probability vectors; the first one is named.
    """
    _, (pred_probs,) = as_arrays(pred_probs)
    if array_api_compat.is_torch_array(pred_probs):
        import torch

        pred_probs = pred_probs.detach()
        if pred_probs.device.type == "cuda":
            return _evaluate_on_gpu(pred_probs, rule, alpha, progress)
        host = pred_probs.cpu()
        if host.dtype not in (torch.float32, torch.float64):
            host = host.float() if host.is_floating_point() else host.double()
        result = evaluate(host.numpy(), rule, alpha, num_threads=num_threads, progress=progress)
        return torch.from_numpy(result).to(pred_probs.device)
    result = np.empty(len(pred_probs), dtype=np.float64 if alpha is None else bool)
    strips = list(_strips(*pred_probs.shape))
    local = threading.local()  # a thread keeps its workspace from strip to strip
    task = functools.partial(_evaluate_strip, pred_probs, rule, alpha, result, first_row, local)
    workers = min(num_threads or _cores(), len(strips))
    with (
        _blas().limit(limits=1, user_api="blas"),
        progress_bar(len(pred_probs), progress) as advance,
    ):
        for done in _ordered_map(task, strips, workers):
            advance(done)
    return result


def _strips(num_rows: int, num_classes: int) -> Iterator[tuple[int, int]]:
    height = strip_rows(num_classes)
    for start in range(0, num_rows, height):
        yield start, min(start + height, num_rows)


def strip_rows(num_classes: int) -> int:
    """Rows that a thread takes at a time."""
    return BLOCKS_PER_STRIP * block_rows(num_classes)


def block_rows(num_classes: int) -> int:
    """Rows of a block, a multiple of 16."""
    return max(16, BLOCK_ENTRIES // num_classes // 16 * 16)


def _ordered_map(task, strips: list[tuple[int, int]], workers: int) -> Iterator[int]:
    """Results in order, so that the first bad row is the one reported; an error ends the rest."""
    if workers <= 1:
        yield from map(task, strips)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(task, strips)
    finally:
        pool.shutdown(cancel_futures=True)


def _evaluate_strip(
    pred_probs: np.ndarray,
    rule: SampledRule,
    alpha: float | None,
    result: np.ndarray,
    first_row: int,
    local: threading.local,
    strip: tuple[int, int],
) -> int:
    start, stop = strip
    rows = as_supported_floats(_mapped_anew(pred_probs, start, stop))
    height = block_rows(rows.shape[1])
    dtype = np.dtype(np.float64) if alpha is None else rows.dtype
    if not hasattr(local, "work"):
        tallest = min(height, len(pred_probs))
        local.work = _Workspace.for_blocks(tallest, rule, rows.dtype, dtype)
    work = local.work
    for first in range(0, len(rows), height):
        block = rows[first : first + height]
        smallest = work.check(block, first_row + start + first)
        into = result[start + first : start + first + len(block)]
        if rule.is_degenerate:
            into[:] = np.inf if alpha is None else True
            continue
        if alpha is None:
            into[:] = work.scores(block, smallest)
        else:
            into[:] = work.votes(block, smallest, alpha)
    return stop - start


@dataclass(frozen=True)
class _Workspace:
    """Arrays that a strip's blocks share. Scores are of the dtype that it computes in."""

    rule: SampledRule
    weights: np.ndarray
    ceiling: np.ndarray
    threshold: np.floating
    least: np.ndarray
    ones: np.ndarray
    log_probs: np.ndarray
    is_dominant: np.ndarray
    ratios: np.ndarray

    @classmethod
    def for_blocks(
        cls, height: int, rule: SampledRule, stored: np.dtype, dtype: np.dtype
    ) -> _Workspace:
        num_classes = rule.vectors.shape[1]
        weights = rule.vectors if rule.is_degenerate else rule.weights.astype(dtype)
        # Four votes are read at a time, so a vector or two may vote twice.
        weights = weights[np.arange(-(-len(weights) // 4) * 4) % len(weights)]
        # No vector weighs a logarithm more than this: logs @ ceiling is never below the score.
        ceiling = weights.min(axis=0)
        if rule.permutation_invariant:
            ceiling = np.full_like(ceiling, weights.min())
        return cls(
            rule,
            weights,
            ceiling,
            # Dominance is decided in the precision that the predictions are stored in.
            stored.type(rule.tau),
            # An array: NumPy takes the larger of two arrays faster than of an array and a number.
            np.full((height, num_classes), rule.tau / 2, stored),
            np.ones(num_classes, stored),
            np.empty((height, num_classes), dtype),
            np.empty((height, num_classes), bool),
            np.empty(height * len(weights), dtype),
        )

    @property
    def rounding(self) -> float:
        """Relative error that a score may have, in either arithmetic: k products and more."""
        num_classes = len(self.ones)
        return 2 * (num_classes + 32) * float(np.finfo(self.log_probs.dtype).eps)

    def check(self, block: np.ndarray, first_row: int) -> float:
        """Refuse bad rows; return the smallest entry."""
        smallest, sums = block.min(), block @ self.ones
        lowest, highest = 1 - SUM_TOLERANCE, 1 + SUM_TOLERANCE
        valid = smallest >= 0 and sums.min() >= lowest and sums.max() <= highest
        if not valid:  # NaN is not
            check_probabilities("pred_probs", block, first_row=first_row)
        return smallest

    def scores(self, block: np.ndarray, smallest: float) -> np.ndarray:
        """Critical alphas of a checked block, in the dtype that is computed in."""
        logs = self._log_dominant(block, smallest)
        if self.rule.permutation_invariant:
            logs.sort(axis=1)
        ratios = self.ratios[: len(logs) * len(self.weights)].reshape(len(self.weights), -1)
        return np.matmul(self.weights, logs.T, out=ratios).max(axis=0)

    def votes(self, block: np.ndarray, smallest: float, alpha: float) -> np.ndarray:
        """Votes on a checked block. Only predictions that could be flagged meet every vector."""
        votes = np.zeros(len(block), dtype=bool)
        logs = self._log_dominant(block, smallest)
        rows = np.flatnonzero(logs @ self.ceiling >= alpha * (1 - 2 * self.rounding))
        if rows.size == 0:
            return votes
        if rows.size < len(block) / 2:
            logs = logs[rows]
        else:
            rows = np.arange(len(block))
        if self.rule.permutation_invariant:
            logs.sort(axis=1)
        ratios = self.ratios[: len(logs) * len(self.weights)].reshape(len(logs), -1)
        np.matmul(logs, self.weights.T, out=ratios)
        reach = np.flatnonzero(_any_at_least(ratios, alpha * (1 - self.rounding)))
        surely = _any_at_least(ratios[reach], alpha * (1 + self.rounding))
        votes[rows[reach]] = surely
        near = rows[reach[~surely]]
        if near.size:
            votes[near] = self.rule.votes_as_published(block[near], alpha)
        return votes

    def _log_dominant(self, block: np.ndarray, smallest: float) -> np.ndarray:
        """log q where q is dominant, 0 elsewhere; overwritten by the next call."""
        rows = len(block)
        logs = self.log_probs[:rows]
        # Logarithms of all entries, a vector at a time, are faster than those of a few picked
        # ones. Where there are zeros, what lies below tau is raised to something positive first.
        source = block if smallest > 0 else np.maximum(block, self.least[:rows], out=logs)
        np.log(source, out=logs, dtype=logs.dtype)
        dominant = np.greater_equal(block, self.threshold, out=self.is_dominant[:rows])
        return np.multiply(logs, dominant, out=logs)


def _any_at_least(ratios: np.ndarray, level: float) -> np.ndarray:
    """Whether a row reaches the level anywhere; shape (rows,). Reads four comparisons as one."""
    fours = (ratios >= level).view(np.uint32)
    reached = fours[:, 0].copy()
    for column in range(1, fours.shape[1]):
        reached |= fours[:, column]
    return reached != 0


def as_supported_floats(rows: np.ndarray) -> np.ndarray:
    """Rows as float32 or float64, C-contiguous: half precision becomes single, the rest double."""
    if rows.dtype == np.float16:
        return np.ascontiguousarray(rows, dtype=np.float32)
    if rows.dtype == np.float32:
        return np.ascontiguousarray(rows)
    return np.ascontiguousarray(rows, dtype=np.float64)


def _mapped_anew(array: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Rows of an array. Those of a mapped file come from a mapping of their own, which is dropped
    with them, so that pages already read don't stay resident."""
    is_whole_map = (
        isinstance(array, np.memmap)
        and isinstance(array.base, mmap.mmap)
        and array.filename is not None
        and array.mode in ("r", "c")
        and array.flags.c_contiguous
    )
    if not is_whole_map:
        return np.asarray(array[start:stop])
    width = array.shape[1]
    offset = array.offset + start * width * array.dtype.itemsize
    shape = (stop - start, width)
    return np.asarray(np.memmap(array.filename, array.dtype, "r", offset, shape))


def _evaluate_on_gpu(pred_probs, rule: SampledRule, alpha: float | None, progress: bool):
    """The same in large chunks with torch; ties are still decided on the CPU."""
    import torch

    num_rows, num_classes = pred_probs.shape
    if pred_probs.dtype not in (torch.float32, torch.float64):
        pred_probs = pred_probs.float() if pred_probs.is_floating_point() else pred_probs.double()
    dtype = torch.float64 if alpha is None else pred_probs.dtype
    device = pred_probs.device
    result = torch.empty(
        num_rows, dtype=torch.float64 if alpha is None else torch.bool, device=device
    )
    if rule.is_degenerate:
        check_probabilities("pred_probs", pred_probs)
        return result.fill_(float("inf") if alpha is None else True)
    weights = torch.from_numpy(rule.weights).to(device, dtype).T
    rounding = 2 * (num_classes + 32) * torch.finfo(dtype).eps
    height = max(1, GPU_BLOCK_ENTRIES // num_classes)
    with progress_bar(num_rows, progress) as advance:
        for start in range(0, num_rows, height):
            block = pred_probs[start : start + height]
            check_probabilities("pred_probs", block, first_row=start)
            logs = block.to(dtype).clamp(min=rule.tau / 2).log() * (block >= rule.tau)
            if rule.permutation_invariant:
                logs = logs.sort(dim=1).values
            found = (logs @ weights).amax(dim=1)
            if alpha is not None:
                near = ((found - alpha).abs() <= rounding * alpha).nonzero()[:, 0]
                found = found >= alpha
                decided = rule.votes_as_published(block[near].cpu().numpy(), alpha)
                found[near] = torch.from_numpy(decided).to(device)
            result[start : start + height] = found
            advance(len(block))
    return result


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
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
