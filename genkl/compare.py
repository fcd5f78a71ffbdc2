"""Is A better than B at finding them? Figures of a score, intervals, and paired comparisons.

Non-conforming is the positive class, and a higher score says "less conforming" throughout. A
figure whose class is absent is NaN, as in `identification_report`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from genkl.checks import to_numpy

Metric = Callable[..., float]

DRAWS_PER_BLOCK = 1 << 22
"""Resampled instances that are held at a time."""

# -- figures ------------------------------------------------------------------------------------


def auroc(scores: np.ndarray, is_nc: np.ndarray) -> float:
    """Chance that a non-conforming instance scores higher than a conforming one, ties half.

    Args:
        scores: shape (N,); infinite ones are allowed.
        is_nc: boolean, shape (N,).

    Returns:
        In [0, 1]; NaN where one kind is absent.

    Raises:
        ValueError: shapes that differ, or NaN among the scores.
    """
    scores, is_nc = _check_scores(scores, is_nc)
    if is_nc.all() or not is_nc.any():
        return float("nan")
    return float(roc_auc_score(is_nc, _order(scores)))


def average_precision(scores: np.ndarray, is_nc: np.ndarray) -> float:
    """Precision averaged over the recall gained at each threshold, as scikit-learn does.

    A score that knows nothing has about the share of non-conforming instances.

    Args:
        scores: shape (N,); infinite ones are allowed.
        is_nc: boolean, shape (N,).

    Returns:
        In (0, 1]; NaN where no instance is non-conforming.

    Raises:
        ValueError: as `auroc`.
    """
    scores, is_nc = _check_scores(scores, is_nc)
    if not is_nc.any():
        return float("nan")
    return float(average_precision_score(is_nc, _order(scores)))


def recall_at_share(scores: np.ndarray, is_nc: np.ndarray, share: float = 0.05) -> float:
    """Share of the non-conforming instances among the highest-scored share of all.

    Where the cut falls into a tie, or between two instances, this is the expectation over a fair
    draw. A constant score has exactly ``share``.

    Args:
        scores: shape (N,); infinite ones are allowed.
        is_nc: boolean, shape (N,).
        share: of all instances that is flagged, in [0, 1].

    Returns:
        In [0, 1], and at most share * N over the number of non-conforming instances; NaN where
        there is none.

    Raises:
        ValueError: share outside [0, 1], and as `auroc`.

    Example:
        >>> scores, is_nc = np.array([3.0, 2.0, 2.0, 1.0]), np.array([False, True, False, True])
        >>> recall_at_share(scores, is_nc, share=0.5)  # the first, and one of the next two
        0.25
    """
    _check_share(share)
    scores, is_nc = _check_scores(scores, is_nc)
    if not is_nc.any():
        return float("nan")
    once = _Standing.of(scores, is_nc, np.ones((len(scores), 1), dtype=np.int32))
    return float(_recall_at_share(once, share)[0])


def precision_recall_f1(is_flagged: np.ndarray, is_nc: np.ndarray) -> dict[str, float]:
    """Precision, recall and their harmonic mean.

    Args:
        is_flagged: boolean mask, shape (N,).
        is_nc: boolean, shape (N,).

    Returns:
        ``precision`` (NaN where nothing is flagged), ``recall`` and ``f1`` (NaN where nothing is
        non-conforming; f1 is 0 where nothing is flagged).

    Raises:
        ValueError: shapes that differ.
    """
    is_flagged, is_nc = to_numpy(is_flagged).astype(bool), to_numpy(is_nc).astype(bool)
    _check_same("is_flagged", is_flagged, is_nc)
    hits, flagged, present = (int(x.sum()) for x in (is_flagged & is_nc, is_flagged, is_nc))
    return {
        "precision": hits / flagged if flagged else float("nan"),
        "recall": hits / present if present else float("nan"),
        "f1": 2 * hits / (flagged + present) if present else float("nan"),
    }


# -- intervals ----------------------------------------------------------------------------------


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
    seeds; see `paired_over_seeds`.

    Args:
        function: such as `auroc`; called with resampled arrays. `auroc`, `average_precision` and
            `recall_at_share` (also as a `functools.partial`) are computed for many resamples at
            once.
        arrays: its arguments, each of length N; the last is is_nc, boolean.
        seed: of the resamples; the same seed and the same is_nc give the same resamples.
        resamples: how many.
        level: in (0, 1).

    Returns:
        The interval; NaN where one kind is absent.

    Raises:
        ValueError: lengths that differ, bad settings, NaN among scores.
    """
    (values,) = _over_resamples(function, [arrays[:-1]], arrays[-1], seed, resamples, level)
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
    pairs = [(to_numpy(scores_a),), (to_numpy(scores_b),)]
    of_a, of_b = _over_resamples(metric, pairs, is_nc, seed, resamples, level)
    a, b = float(metric(*pairs[0], is_nc)), float(metric(*pairs[1], is_nc))
    return Comparison(a, b, a - b, *_percentiles(of_a - of_b, level))


# -- tests --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OverSeeds:
    """A against B over seeds.

    Attributes:
        seeds: how many.
        difference: mean of a - b.
        low: lower end of its t-interval; NaN with fewer than 2 seeds.
        high: upper end.
        a_higher: number of seeds where A is higher.
        b_higher: number of seeds where B is.
        sign_p: two-sided p-value of the exact sign test, ties left out.
        wilcoxon_p: two-sided p-value of the exact signed-rank test, zeros left out.
    """

    seeds: int
    difference: float
    low: float
    high: float
    a_higher: int
    b_higher: int
    sign_p: float
    wilcoxon_p: float


def paired_over_seeds(a: np.ndarray, b: np.ndarray, *, level: float = 0.95) -> OverSeeds:
    """Whether A beats B when the data, the models and the noise are drawn again.

    With five seeds neither exact test can go below 2/32 = .0625, however large the difference:
    read the interval, which assumes normal differences, and the number of seeds.

    Args:
        a: a figure of A for each seed, shape (seeds,).
        b: the same figure of B for the same seeds, in the same order.
        level: of the interval, in (0, 1).

    Returns:
        The mean difference with its interval, counts, p-values.

    Raises:
        ValueError: shapes that differ, no seeds, NaN, or a bad level.

    Source: :cite:t:`wilcoxon1945individual`, with the exact distribution also under ties.
    """
    from scipy.stats import binomtest, t

    a, b = to_numpy(a).astype(np.float64), to_numpy(b).astype(np.float64)
    _check_same("a", a, b, other="b")
    _check_level(level)
    if len(a) == 0 or np.isnan(a).any() or np.isnan(b).any():
        raise ValueError(f"a is {a} and b is {b}; pass at least one seed, and no NaN")
    gaps = a - b
    mean, count = float(gaps.mean()), len(gaps)
    half = float("nan")
    if count > 1:
        half = float(t.ppf((1 + level) / 2, count - 1) * gaps.std(ddof=1) / math.sqrt(count))
    higher, lower = int((gaps > 0).sum()), int((gaps < 0).sum())
    sign_p = binomtest(higher, higher + lower).pvalue if higher + lower else 1.0
    return OverSeeds(
        count, mean, mean - half, mean + half, higher, lower, float(sign_p), _signed_rank_p(gaps)
    )


def over_base(
    frame: pd.DataFrame,
    value: str,
    base: str,
    *,
    groups: Sequence[str] = (),
    method: str = "method",
    level: float = 0.95,
) -> pd.DataFrame:
    """Every method against one of them, paired by seed: `paired_over_seeds`, for a whole table.

    Args:
        frame: one row per method and seed (and group), columns ``seed``, ``method`` and value.
        value: column to compare.
        base: name of the method that the others are held against.
        groups: columns, such as the data set, within which to compare.
        method: column with the methods' names.
        level: of the interval.

    Returns:
        One row per group and other method, columns as `OverSeeds`. Only seeds that both have
        count, and pairs without a common seed have no row.

    Raises:
        ValueError: the base is not among the methods, or a method has two rows for one seed.
    """
    if base not in set(frame[method]):
        raise ValueError(f"base is {base!r}; choose among {sorted(set(frame[method]))}")
    rows = []
    for key, part in frame.groupby(list(groups), sort=False) if groups else [((), frame)]:
        if part.duplicated(["seed", method]).any():
            raise ValueError(f"{method}s have several rows for one seed; add a column to groups")
        wide = part.pivot(index="seed", columns=method, values=value)
        for name in part[method].unique() if base in wide else ():
            pair = wide[[name, base]].dropna() if name != base else wide[:0]
            if len(pair):
                found = paired_over_seeds(pair[name], pair[base], level=level)
                rows.append({**dict(zip(groups, key, strict=True)), method: name, **vars(found)})
    return pd.DataFrame(rows)


def mean_and_interval(
    frame: pd.DataFrame, by: str | Sequence[str], value: str, *, level: float = 0.95
) -> pd.DataFrame:
    """Mean over seeds and its t-interval.

    Args:
        frame: one row per setting and seed.
        by: column or columns that name the setting.
        value: column to average; NaN is left out.
        level: of the interval, in (0, 1).

    Returns:
        Columns ``mean``, ``low``, ``high`` (NaN with fewer than 2 seeds) and ``seeds``; indexed
        by setting, in order of first appearance.

    Raises:
        ValueError: a bad level.
    """
    from scipy.stats import t

    _check_level(level)
    groups = frame.groupby(by, sort=False)[value]
    mean, count = groups.mean(), groups.count()
    half = t.ppf((1 + level) / 2, (count - 1).clip(lower=1)) * groups.std(ddof=1) / count**0.5
    return pd.DataFrame({"mean": mean, "low": mean - half, "high": mean + half, "seeds": count})


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
    from scipy.stats import norm

    _check_level(level)
    scores_a, is_nc = _check_scores(scores_a, is_nc, "scores_a")
    scores_b, _ = _check_scores(scores_b, is_nc, "scores_b")
    present, absent = int(is_nc.sum()), int((~is_nc).sum())
    if min(present, absent) < 2:
        raise ValueError(
            f"is_nc has {present} non-conforming and {absent} conforming instances; a variance "
            "needs at least 2 of each"
        )
    parts = [_placements(scores, is_nc) for scores in (scores_a, scores_b)]
    a, b = (float(of_nc.mean()) for of_nc, _ in parts)
    gaps = [one - other for one, other in zip(*parts, strict=True)]
    error = math.sqrt(sum(gap.var(ddof=1) / len(gap) for gap in gaps))
    half = float(norm.ppf((1 + level) / 2)) * error
    if error > 1e-12:
        z = (a - b) / error
    else:
        z = 0.0 if abs(a - b) < 1e-12 else math.copysign(math.inf, a - b)
    return DeLong(a, b, a - b, a - b - half, a - b + half, z, float(2 * norm.sf(abs(z))))


def _placements(scores: np.ndarray, is_nc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each instance the share of the other kind that it is ordered rightly against."""
    from scipy.stats import rankdata

    present, absent = is_nc.sum(), (~is_nc).sum()
    together = rankdata(scores)
    of_nc = (together[is_nc] - rankdata(scores[is_nc])) / absent
    of_conforming = 1 - (together[~is_nc] - rankdata(scores[~is_nc])) / present
    return of_nc, of_conforming


def _signed_rank_p(gaps: np.ndarray) -> float:
    """Two-sided p-value from the distribution of the rank sum over all 2^n signs."""
    from scipy.stats import rankdata

    gaps = gaps[gaps != 0]
    if len(gaps) == 0:
        return 1.0
    doubled = np.rint(2 * rankdata(np.abs(gaps))).astype(np.int64)  # integers even under ties
    chances = np.ones(1)
    for rank in doubled:
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    observed = int(doubled[gaps > 0].sum())
    tails = chances[: observed + 1].sum(), chances[observed:].sum()
    return float(min(1.0, 2 * min(tails)))


# -- resamples ----------------------------------------------------------------------------------


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


def _blocks(
    is_nc: np.ndarray, seed: int, resamples: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Instances in the order of the draws, and a block of draws; shapes (N,) and (N, width)."""
    order = np.concatenate([np.flatnonzero(is_nc), np.flatnonzero(~is_nc)])
    width = max(1, min(resamples, DRAWS_PER_BLOCK // len(is_nc)))
    for block, first in enumerate(range(0, resamples, width)):
        times = _times_drawn(int(is_nc.sum()), int((~is_nc).sum()), seed, block, width)
        yield order, times[:, : resamples - first]


def _over_resamples(
    function: Metric,
    several: list[tuple[np.ndarray, ...]],
    is_nc: np.ndarray,
    seed: int,
    resamples: int,
    level: float,
) -> list[np.ndarray]:
    """The function of each of several sets of arrays, for the same resamples; each (resamples,)."""
    is_nc = to_numpy(is_nc).astype(bool)
    several = [tuple(to_numpy(array) for array in arrays) for arrays in several]
    for arrays in several:
        for array in arrays:
            if is_nc.ndim != 1 or array.shape[:1] != is_nc.shape:
                raise ValueError(
                    f"arrays of shapes {array.shape} and {is_nc.shape} (is_nc, the last) must "
                    "describe the same instances"
                )
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; draw at least 1, better 1000")
    _check_level(level)
    if is_nc.all() or not is_nc.any():
        return [np.full(resamples, np.nan) for _ in several]
    fast, several_at_once = _weighted(function), []
    if fast is not None:
        several_at_once = [_check_scores(scores, is_nc)[0] for (scores,) in several]
    values: list[list[np.ndarray]] = [[] for _ in several]
    for order, times in _blocks(is_nc, seed, resamples):
        for at, arrays in enumerate(several):
            if fast is not None:
                scores = several_at_once[at]
                values[at].append(fast(_Standing.of(scores[order], is_nc[order], times)))
            else:
                values[at].append(_one_by_one(function, arrays, is_nc, order, times))
    return [np.concatenate(blocks) for blocks in values]


def _one_by_one(function, arrays, is_nc, order, times) -> np.ndarray:
    figures = []
    for column in times.T:
        rows = np.repeat(order, column)
        figures.append(function(*(array[rows] for array in arrays), is_nc[rows]))
    return np.array(figures, dtype=np.float64)


class _Standing(NamedTuple):
    """Where each non-conforming instance stands, in R resamples at once.

    Attributes:
        times: how often it was drawn, shape (P, R).
        nc_above: non-conforming draws that score higher, shape (P, R).
        nc_from: those that score at least as high.
        above: conforming draws that score higher.
        from_: those that score at least as high.
        present: non-conforming draws, the same in each resample.
        absent: conforming draws.
    """

    times: np.ndarray
    nc_above: np.ndarray
    nc_from: np.ndarray
    above: np.ndarray
    from_: np.ndarray
    present: int
    absent: int

    @classmethod
    def of(cls, scores: np.ndarray, is_nc: np.ndarray, times: np.ndarray) -> _Standing:
        of_nc = scores[is_nc]
        counts = []
        for kind in (is_nc, ~is_nc):
            falling = np.argsort(-scores[kind], kind="stable")
            drawn = np.zeros((len(falling) + 1, times.shape[1]), dtype=np.int32)
            np.cumsum(times[kind][falling], axis=0, out=drawn[1:])
            ordered = -scores[kind][falling]
            counts += [drawn[np.searchsorted(ordered, -of_nc, side)] for side in ("left", "right")]
        present, absent = (int(times[kind, 0].sum()) for kind in (is_nc, ~is_nc))
        return cls(times[is_nc], *counts, present, absent)


def _auroc(standing: _Standing) -> np.ndarray:
    lost = np.einsum("pr,pr->r", standing.times, standing.above + standing.from_, dtype=np.float64)
    return 1 - lost / (2 * standing.present * standing.absent)


def _average_precision(standing: _Standing) -> np.ndarray:
    flagged = np.maximum(standing.nc_from + standing.from_, 1)
    return (standing.times * (standing.nc_from / flagged)).sum(axis=0) / standing.present


def _recall_at_share(standing: _Standing, share: float) -> np.ndarray:
    above = standing.nc_above + standing.above
    level = standing.nc_from + standing.from_ - above
    budget = share * (standing.present + standing.absent)
    taken = np.clip((budget - above) / np.maximum(level, 1), 0, 1)
    return (standing.times * taken).sum(axis=0) / standing.present


def _weighted(function: Metric) -> Callable[[_Standing], np.ndarray] | None:
    """The same figure for many resamples at once, where there is one."""
    options: dict = {}
    if isinstance(function, functools.partial) and not function.args:
        function, options = function.func, function.keywords
    if function is auroc and not options:
        return _auroc
    if function is average_precision and not options:
        return _average_precision
    if function is recall_at_share and set(options) <= {"share"}:
        share = options.get("share", 0.05)
        _check_share(share)
        return functools.partial(_recall_at_share, share=share)
    return None


def _percentiles(values: np.ndarray, level: float) -> Interval:
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


# -- checks -------------------------------------------------------------------------------------


def _check_scores(
    scores: np.ndarray, is_nc: np.ndarray, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray]:
    scores, is_nc = to_numpy(scores).astype(np.float64), to_numpy(is_nc).astype(bool)
    _check_same(name, scores, is_nc)
    if np.isnan(scores).any():
        row = int(np.argmax(np.isnan(scores)))
        raise ValueError(f"{name} contains NaN in row {row}; it has no place in an order")
    return scores, is_nc


def _check_same(name: str, one: np.ndarray, two: np.ndarray, *, other: str = "is_nc") -> None:
    if one.ndim != 1 or one.shape != two.shape:
        raise ValueError(
            f"{name} has shape {one.shape} and {other} {two.shape}; both need one axis, and the "
            "same instances"
        )


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; state a share between 0 and 1")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; state a probability between 0 and 1, such as 0.95")


def _order(scores: np.ndarray) -> np.ndarray:
    """Ranks instead of scores: the same order and ties, and finite."""
    return np.unique(scores, return_inverse=True)[1]
