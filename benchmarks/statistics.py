"""Statistics of the benchmarks: bootstrap intervals, paired comparisons, DeLong's test.

What compares over seeds is in `genkl.evaluate`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata

from genkl.checks import to_numpy
from genkl.evaluate import auroc, check_level, check_scores

Metric = Callable[..., float]

DRAWS_PER_BLOCK = 1 << 22
"""Resampled instances that are held at a time."""


class Interval(NamedTuple):
    """From low to high."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A against B on the same instances.

    Attributes:
        a: the metric of A.
        b: the metric of B.
        difference: a - b.
        low: lower end of the interval of the difference.
        high: upper end.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float


def bootstrap_interval(
    function: Metric,
    *arrays: np.ndarray,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a figure over resamples of the instances, stratified by truth.

    Non-conforming and conforming instances are drawn with replacement, each as often as there are
    of them. The interval speaks of other instances of the same kind, not of other models or other
    seeds; see `genkl.paired_over_seeds`.

    Args:
        function: such as `auroc`, which is computed for many resamples at once; any other is called
            with resampled arrays.
        arrays: its arguments, each of length N; the last is is_nc, boolean.
        seed: of the resamples; the same seed and the same is_nc give the same resamples.
        resamples: how many.
        level: in (0, 1).

    Returns:
        The interval; NaN where one kind is absent.

    Raises:
        ValueError: lengths that differ, bad settings, NaN among scores.
    """
    values = _over_resamples(function, arrays[:-1], arrays[-1], seed, resamples, level)
    return _percentiles(values, level)


def paired_comparison(
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    is_nc: np.ndarray,
    metric: Metric = auroc,
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> Comparison:
    """How much better A is than B, with an interval from resamples that both share.

    Args:
        scores_a: of A, shape (N,).
        scores_b: of B on the same instances.
        is_nc: boolean, shape (N,).
        metric: called with (scores, is_nc), see `bootstrap_interval`.
        seed: of the resamples.
        resamples: how many.
        level: of the interval, in (0, 1).

    Returns:
        The difference and its interval.

    Raises:
        ValueError: as `bootstrap_interval`.
    """
    is_nc = to_numpy(is_nc).astype(bool)
    pair = to_numpy(scores_a), to_numpy(scores_b)
    of_a, of_b = (_over_resamples(metric, (s,), is_nc, seed, resamples, level) for s in pair)
    a, b = (float(metric(scores, is_nc)) for scores in pair)
    return Comparison(a, b, a - b, *_percentiles(of_a - of_b, level))


@dataclass(frozen=True)
class DeLong:
    """DeLong's test of two areas on the same instances.

    Attributes:
        a: AUROC of A.
        b: AUROC of B.
        difference: a - b.
        low: lower end of its normal interval.
        high: upper end.
        z: the difference over its standard error.
        p_value: two-sided.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    z: float
    p_value: float


def delong_test(
    scores_a: np.ndarray, scores_b: np.ndarray, is_nc: np.ndarray, *, level: float = 0.95
) -> DeLong:
    """Test whether two scores of the same instances have the same AUROC.

    Args:
        scores_a: of A, shape (N,); infinite ones are allowed.
        scores_b: of B.
        is_nc: boolean, shape (N,), at least 2 of either kind.
        level: of the interval, in (0, 1).

    Returns:
        The difference, its interval and the test. Where the estimated variance is 0 (both orders
        are the same, or both perfect in their way) p is 1 for equal areas and 0 for others.

    Raises:
        ValueError: shapes that differ, NaN, fewer than 2 instances of a kind, a bad level.

    Source: :cite:t:`delong1988comparing`, in time N log N by :cite:t:`sun2014fast`.
    """
    check_level(level)
    scores_a, is_nc = check_scores(scores_a, is_nc, "scores_a")
    scores_b, _ = check_scores(scores_b, is_nc, "scores_b")
    present, absent = int(is_nc.sum()), int((~is_nc).sum())
    if min(present, absent) < 2:
        raise ValueError(
            f"is_nc has {present} non-conforming and {absent} conforming instances; a variance "
            "needs at least 2 of each"
        )
    parts = [_placements(scores, is_nc) for scores in (scores_a, scores_b)]
    a, b = (float(of_nc.mean()) for of_nc, _ in parts)
    gaps = [of_a - of_b for of_a, of_b in zip(*parts, strict=True)]
    error = math.sqrt(sum(gap.var(ddof=1) / len(gap) for gap in gaps))
    half = float(norm.ppf((1 + level) / 2)) * error
    if error > 1e-12:
        z = (a - b) / error
    else:
        z = 0.0 if abs(a - b) < 1e-12 else math.copysign(math.inf, a - b)
    return DeLong(a, b, a - b, a - b - half, a - b + half, z, float(2 * norm.sf(abs(z))))


def _placements(scores: np.ndarray, is_nc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each instance the share of the other kind that it is ordered rightly against."""
    present, absent = is_nc.sum(), (~is_nc).sum()
    together = rankdata(scores)
    of_nc = (together[is_nc] - rankdata(scores[is_nc])) / absent
    of_conforming = 1 - (together[~is_nc] - rankdata(scores[~is_nc])) / present
    return of_nc, of_conforming


@functools.lru_cache(maxsize=8)
def _times_drawn(present: int, absent: int, seed: int, block: int, width: int) -> np.ndarray:
    """How often each instance is in each resample, first the present ones; shape (N, width).

    Kept, since every detector on the same instances asks for the same draws.
    """
    rng = np.random.default_rng([seed, block])
    parts = []
    for count in (present, absent):
        drawn = rng.integers(0, count, (width, count)) + count * np.arange(width)[:, None]
        times = np.bincount(drawn.ravel(), minlength=width * count).reshape(width, count)
        parts.append(times.T)
    times = np.ascontiguousarray(np.concatenate(parts), dtype=np.int32)
    times.flags.writeable = False
    return times


def _blocks(is_nc: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Draws block by block, first of the non-conforming instances; shapes (N, width)."""
    width = max(1, min(resamples, DRAWS_PER_BLOCK // len(is_nc)))
    for block, first in enumerate(range(0, resamples, width)):
        times = _times_drawn(int(is_nc.sum()), int((~is_nc).sum()), seed, block, width)
        yield times[:, : resamples - first]


def _over_resamples(
    function: Metric,
    arrays: tuple[np.ndarray, ...],
    is_nc: np.ndarray,
    seed: int,
    resamples: int,
    level: float,
) -> np.ndarray:
    """The function of each resample, shape (resamples,)."""
    is_nc = to_numpy(is_nc).astype(bool)
    arrays = tuple(to_numpy(array) for array in arrays)
    for array in arrays:
        if is_nc.ndim != 1 or array.shape[:1] != is_nc.shape:
            raise ValueError(
                f"arrays of shapes {array.shape} and {is_nc.shape} (is_nc, the last) must "
                "describe the same instances"
            )
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; draw at least 1, better 1000")
    check_level(level)
    if is_nc.all() or not is_nc.any():
        return np.full(resamples, np.nan)
    values = []
    for times in _blocks(is_nc, seed, resamples):
        if function is auroc:
            values.append(_auroc_of_draws(check_scores(*arrays, is_nc)[0], is_nc, times))
        else:
            order = np.concatenate([np.flatnonzero(is_nc), np.flatnonzero(~is_nc)])
            rows = [np.repeat(order, column) for column in times.T]
            values.append([function(*(array[r] for array in arrays), is_nc[r]) for r in rows])
    return np.concatenate(values).astype(np.float64)


def _auroc_of_draws(scores: np.ndarray, is_nc: np.ndarray, times: np.ndarray) -> np.ndarray:
    """`auroc` of many resamples at once, from how often each instance is drawn; shape (R,)."""
    present, absent = int(is_nc.sum()), int((~is_nc).sum())
    times_nc, times_conforming = times[:present], times[present:]
    falling = np.argsort(-scores[~is_nc], kind="stable")
    drawn = np.zeros((absent + 1, times.shape[1]), dtype=np.int32)
    np.cumsum(times_conforming[falling], axis=0, out=drawn[1:])
    ordered, asked = -scores[~is_nc][falling], -scores[is_nc]
    above, at_least = (drawn[np.searchsorted(ordered, asked, side)] for side in ("left", "right"))
    lost = np.einsum("pr,pr->r", times_nc, above + at_least, dtype=np.float64)
    return 1 - lost / (2 * present * absent)


def _percentiles(values: np.ndarray, level: float) -> Interval:
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
