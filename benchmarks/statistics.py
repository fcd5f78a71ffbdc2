"""Intervals of the benchmarks: images (or senders) and seeds are resampled together.

The seeds of a benchmark draw their instances from the same images, so that what they find isn't
independent: an interval over seeds alone is too short by as much as the images are shared. Here
every resample draws images and seeds, both with replacement, and an image that is drawn twice
counts twice in each seed that has it (the pigeonhole bootstrap, :cite:t:`owen2007pigeonhole`).
A handful of seeds drawn again vary too little; what they add is stretched, so that without any
variation between images the interval is as wide as the t-interval over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from genkl.checks import to_numpy
from genkl.evaluate import check_scores


class Interval(NamedTuple):
    """From low to high."""

    low: float
    high: float


@dataclass(frozen=True)
class Resamples:
    """Draws of images and seeds together, R of them, of S seeds.

    Attributes:
        seeds: how often each seed is drawn, shape (R, S); rows sum to S.
        times: of each seed, how often each of its instances is drawn, shape (N_s, R) each.
    """

    seeds: np.ndarray
    times: tuple[np.ndarray, ...]

    @staticmethod
    def of(groups: Sequence[np.ndarray], draws: int = 1000, seed: int = 0) -> Resamples:
        """Draw.

        Args:
            groups: of each seed, what its instances belong to, such as image or sender; integers,
                shape (N_s,). Equal numbers are the same image in every seed.
            draws: R.
            seed: of the draws; the same groups and seed give the same resamples.

        Raises:
            ValueError: no seeds, or draws less than 1.
        """
        if draws < 1 or not len(groups):
            raise ValueError(
                f"draws is {draws} and groups has {len(groups)} seeds; pass at least 1 of either"
            )
        rng = np.random.default_rng(seed)
        names, place = np.unique(np.concatenate(groups), return_inverse=True)
        drawn = rng.integers(0, len(names), (draws, len(names)))
        drawn += len(names) * np.arange(draws)[:, None]
        often = np.bincount(drawn.ravel(), minlength=draws * len(names)).reshape(draws, -1)
        often = np.ascontiguousarray(often.T, dtype=np.int32)
        ends = np.cumsum([len(group) for group in groups])[:-1]
        seeds = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=draws)
        return Resamples(seeds, tuple(often[rows] for rows in np.split(place, ends)))

    def mean(self, values: Sequence[np.ndarray], level: float = 0.95) -> np.ndarray:
        """Mean over seeds of a figure of each, for an interval of this level.

        Args:
            values: of each seed, resampled over images, shape (R,) each; NaN is left out.
            level: of the interval; it decides how far the seeds' part is stretched.

        Returns:
            Shape (R,).
        """
        stacked, count = np.stack(values, axis=1), len(values)
        there = ~np.isnan(stacked)
        weights = np.where(there, self.seeds, 0)
        with np.errstate(invalid="ignore"):
            every = np.nan_to_num(stacked).sum(axis=1) / there.sum(axis=1)
            drawn = (weights * np.nan_to_num(stacked)).sum(axis=1) / weights.sum(axis=1)
        tail = (1 + level) / 2
        shrunk = math.sqrt(1 - 1 / count) * norm.ppf(tail)
        return every + (drawn - every) * (t.ppf(tail, count - 1) / shrunk if count > 1 else 1.0)


def percentile_interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """Percentile interval of a resampled figure, shape (R,); NaN is left out.

    Raises:
        ValueError: a bad level.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; state a probability between 0 and 1, such as 0.95")
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def hierarchical_interval(
    values: np.ndarray,
    groups: np.ndarray | None = None,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of a mean over seeds and images, such as an accuracy or a difference of two.

    Args:
        values: of each seed and image, shape (S, N), such as 1 where a prediction is right; NaN
            where a seed doesn't have the image.
        groups: what is resampled together, such as senders, shape (N,); None for the images.
        level: in (0, 1).
        draws: resamples.
        seed: of the draws.

    Returns:
        Interval of the mean over seeds of each seed's mean over its images.

    Raises:
        ValueError: shapes that don't fit, bad settings.
    """
    values = to_numpy(values).astype(np.float64)
    groups = np.arange(values.shape[-1]) if groups is None else to_numpy(groups)
    if values.ndim != 2 or groups.shape != values.shape[1:]:
        raise ValueError(
            f"values has shape {values.shape} and groups {groups.shape}; pass (S, N) and (N,)"
        )
    resamples = Resamples.of([groups] * len(values), draws, seed)
    times, there = resamples.times[0].astype(np.float64), ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means = (np.nan_to_num(values) @ times) / (there @ times)
    return percentile_interval(resamples.mean(list(means), level), level)


def resampled_auroc(scores: np.ndarray, is_nc: np.ndarray, times: np.ndarray) -> np.ndarray:
    """`auroc` of many resamples at once.

    Args:
        scores: shape (N,); infinite ones are allowed.
        is_nc: boolean, shape (N,).
        times: how often each instance is in each resample, shape (N, R).

    Returns:
        Shape (R,); NaN where a resample lacks one kind.

    Raises:
        ValueError: as `auroc`.
    """
    scores, is_nc = check_scores(scores, is_nc)
    times_nc, times_conforming = times[is_nc], times[~is_nc]
    falling = np.argsort(-scores[~is_nc], kind="stable")
    drawn = np.zeros((len(falling) + 1, times.shape[1]), dtype=np.int32)
    np.cumsum(times_conforming[falling], axis=0, out=drawn[1:])
    ordered, asked = -scores[~is_nc][falling], -scores[is_nc]
    above, at_least = (drawn[np.searchsorted(ordered, asked, side)] for side in ("left", "right"))
    lost = np.einsum("pr,pr->r", times_nc, above + at_least, dtype=np.float64)
    pairs = 2.0 * times_nc.sum(axis=0) * drawn[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - lost / pairs


def missed_at_noise_rate(
    scores: np.ndarray, is_nc: np.ndarray, times: np.ndarray | None = None
) -> np.ndarray:
    """False negatives where as many instances are flagged as are positive.

    The budget is the number of positives, so that this is 1 - precision, too. Where the cut falls
    into a tie, it is the expectation over a fair draw.

    Args:
        scores: shape (N,).
        is_nc: who is positive, boolean, shape (N,).
        times: how often each instance is in each resample, shape (N, R); None for once.

    Returns:
        Share of the positives that is not flagged, shape (R,), or (1,); NaN where there are none.

    Raises:
        ValueError: as `auroc`.

    Source: :cite:t:`pickler2025benchmarking`.
    """
    scores, is_nc = check_scores(scores, is_nc)
    times = np.ones((len(scores), 1), np.int32) if times is None else times
    order = np.argsort(-scores, kind="stable")
    falling, draw = -scores[order], np.arange(times.shape[1])
    total = np.zeros((len(scores) + 1, times.shape[1]), np.int32)  # drawn among the first i
    np.cumsum(times[order], axis=0, out=total[1:])
    positive = np.zeros((is_nc.sum() + 1, times.shape[1]), np.int32)
    np.cumsum(times[order[is_nc[order]]], axis=0, out=positive[1:])
    among = np.append(0, np.cumsum(is_nc[order]))  # positives among the first i
    budget = positive[-1]
    cut = falling[np.minimum((total[1:] < budget).sum(axis=0), len(scores) - 1)]
    first, last = (np.searchsorted(falling, cut, side) for side in ("left", "right"))
    before, tied = total[first, draw], total[last, draw] - total[first, draw]
    found, in_tie = positive[among[first], draw], positive[among[last], draw]
    share = (budget - before) / np.maximum(tied, 1)
    with np.errstate(invalid="ignore"):
        return 1 - (found + share * (in_tie - found)) / budget
