"""What rules flag: over thresholds, settings, numbers of vectors, and seeds of the vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from genkl.data import Kind, Truth
from genkl.plots import BLACK, BLUE, GREEN, KIND_COLORS, KIND_NAMES, ORANGE, RED, method_color


def plot_flagged_by_threshold(
    ax: Axes, scores: np.ndarray, truth: Truth, thresholds: np.ndarray, label: str
) -> Axes:
    """Share of each kind of instance that is flagged, as the threshold moves.

    Args:
        ax: where to draw.
        scores: shape (N,).
        truth: of the same instances.
        thresholds: shape (T,), ascending.
        label: of the threshold axis.
    """
    for kind in Kind:
        values = scores[truth.kinds == kind]
        if len(values):
            share = (values[None, :] >= np.asarray(thresholds)[:, None]).mean(axis=1)
            ax.plot(thresholds, share, color=KIND_COLORS[kind], lw=2.2, label=KIND_NAMES[kind])
    ax.set(xlabel=label, ylabel="share flagged", ylim=(-0.02, 1.02))
    ax.legend(fontsize=10)
    return ax


def plot_sweep(
    ax: Axes, frame: pd.DataFrame, setting: str, metric: str, method: str, label: str
) -> Axes:
    """A metric over a setting: mean over seeds, band of one standard deviation.

    Args:
        ax: where to draw.
        frame: one row per setting and seed.
        setting: the column of the horizontal axis.
        metric: the column of the vertical axis.
        method: names the line and gives its colour.
        label: of the vertical axis.
    """
    groups = frame.groupby(setting)[metric]
    mean, std = groups.mean(), groups.std().fillna(0.0)
    color = method_color(method)
    ax.plot(mean.index, mean, "o-", color=color, lw=2.2, label=method)
    ax.fill_between(mean.index, mean - std, mean + std, color=color, alpha=0.18, lw=0)
    ax.set(xlabel=setting, ylabel=label)
    ax.legend(fontsize=10)
    return ax


def plot_level(ax: Axes, frame: pd.DataFrame, metric: str, method: str) -> Axes:
    """A horizontal line at a method's mean over seeds, with a band of one standard deviation."""
    mean, std = frame[metric].mean(), frame[metric].std(ddof=1) if len(frame) > 1 else 0.0
    color = method_color(method)
    ax.axhline(mean, color=color, lw=2.2, label=method)
    ax.axhspan(mean - std, mean + std, color=color, alpha=0.15, lw=0)
    ax.legend(fontsize=10)
    return ax


def plot_alpha_paths(
    ax: Axes, alphas: np.ndarray, shares: Mapping[str, np.ndarray], marks: Mapping[str, float]
) -> Axes:
    """The share flagged at every alpha, one line per set of predictions.

    Args:
        ax: where to draw.
        alphas: shape (A,), ascending.
        shares: name -> share flagged, shape (A,); drawn in percent.
        marks: name of an alpha -> its value; dotted.
    """
    for (name, share), color in zip(shares.items(), (BLUE, ORANGE, GREEN, RED), strict=False):
        ax.plot(alphas, 100 * share, color=color, lw=2.4, label=name)
    for name, alpha in marks.items():
        ax.axvline(alpha, color=BLACK, ls=":", lw=1.4)
        ax.annotate(name, (alpha, 97), rotation=90, va="top", ha="right", fontsize=9.5, color=BLACK)
    ax.set(xlabel="alpha", ylabel="flagged (%)", ylim=(0, 100), xlim=(alphas[0], alphas[-1]))
    ax.legend(loc="center right", fontsize=10)
    return ax


def plot_flag_rates(ax: Axes, rates: np.ndarray, budget: float, title: str) -> Axes:
    """How often each share of conforming instances was flagged, over many held-out sets.

    Args:
        ax: where to draw.
        rates: shares flagged, shape (repeats,); drawn in percent.
        budget: the share that was promised.
        title: above the axes.
    """
    edges, mean = np.linspace(0, 100 * 3 * budget, 31), 100 * rates.mean()
    within = rates <= budget
    for group, color, name in ((within, BLUE, "kept"), (~within, RED, "exceeded")):
        values = np.minimum(100 * rates[group], edges[-1])
        ax.hist(values, edges, color=color, alpha=0.75, label=f"{name}: {group.mean():.0%}")
    ax.axvline(100 * budget, color=BLACK, ls="--", lw=1.5)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
    ax.annotate(f"mean {mean:.1f} %", (mean, 0), fontsize=10, bbox=box, **above)
    ax.set(xlabel="conforming instances flagged (%)", ylabel="held-out sets", title=title)
    ax.legend(fontsize=10)
    return ax


def plot_budgets(ax: Axes, frame: pd.DataFrame, budget: float) -> Axes:
    """What each way to set a threshold flags of conforming instances: a row per data set.

    Args:
        ax: where to draw.
        frame: columns data, threshold, false_flags; one row per seed. A mark is the mean, and a
            line reaches to the seed that flags most.
        budget: the share that was promised.
    """
    names, ways = list(frame["data"].unique()), list(frame["threshold"].unique())
    for place, (way, color) in enumerate(zip(ways, (RED, BLUE, GREEN), strict=False)):
        groups = frame[frame["threshold"] == way].groupby("data")["false_flags"]
        rows = np.arange(len(names)) + 0.22 * (place - (len(ways) - 1) / 2)
        means, most = 100 * groups.mean()[names], 100 * groups.max()[names]
        ax.plot(means, rows, "oDs"[place], color=color, ms=7, label=way)
        ax.hlines(rows, means, most, color=color, lw=1.6)
    ax.axvline(100 * budget, color=BLACK, ls="--", lw=1.5)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="conforming instances flagged (%)", xlim=(0, None))
    ax.legend(fontsize=10)
    return ax


def plot_peak_band(
    ax: Axes,
    peaks: np.ndarray,
    votes: np.ndarray,
    by_uniform: tuple[float, float],
    by_any: tuple[float, float],
    title: str,
) -> Axes:
    """Which one-peak predictions are flagged: by the uniform vector, and by sampled ones.

    Args:
        ax: where to draw.
        peaks: probability of the leading class, shape (G,), ascending.
        votes: share of the sampled vectors that flag, shape (G,).
        by_uniform: the peaks that the exactly uniform vector flags, from and to.
        by_any: the peaks that any of the sampled vectors flags.
        title: above the axes.
    """
    ax.fill_between(peaks, votes, color=BLUE, alpha=0.3, lw=0, label="votes of sampled vectors")
    bar = {"lw": 5, "solid_capstyle": "butt"}
    ax.plot(by_any, (1.1, 1.1), color=BLUE, label="any sampled vector", **bar)
    ax.plot(by_uniform, (1.2, 1.2), color=BLACK, label="uniform vector", **bar)
    ax.set(xlim=(0, 1), ylim=(0, 1.3), xlabel="probability m of the leader")
    ax.set_yticks((0, 0.5, 1), ("none", "half", "all"))
    ax.set_title(title)
    return ax


def plot_by_count(ax: Axes, counts: Sequence[int], shares: Mapping[str, np.ndarray]) -> Axes:
    """Flagged share against the number of uniform-like vectors: mean, and range over seeds.

    Args:
        ax: where to draw; its horizontal axis becomes logarithmic.
        counts: numbers of vectors n, shape (C,).
        shares: name of a rule -> shares flagged (S, C), one row per seed; solid and dashed lines.
    """
    for (name, values), dashes in zip(shares.items(), ("-", "--", ":"), strict=False):
        low, high = values.min(axis=0), values.max(axis=0)
        ax.plot(counts, values.mean(axis=0), "o" + dashes, color=BLUE, lw=2.2, ms=5, label=name)
        ax.fill_between(counts, low, high, color=BLUE, alpha=0.15, lw=0)
    ax.set(xlabel="number of vectors n", ylabel="share flagged", xscale="log", ylim=(0, 1))
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.minorticks_off()
    ax.legend(loc="upper left", fontsize=10)
    return ax


def plot_overlaps(ax: Axes, overlaps: Mapping[str, np.ndarray], title: str) -> Axes:
    """One row per rule: the overlap of each pair of NC sets as a dot, their mean as a number.

    Args:
        ax: where to draw.
        overlaps: name of a rule -> Jaccard overlaps, shape (pairs,); NaN (both sets empty) is
            left out.
        title: above the axes.
    """
    names = list(overlaps)[::-1]
    above = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center"}
    for row, name in enumerate(names):
        known = overlaps[name][~np.isnan(overlaps[name])]
        ax.plot(known, np.full(len(known), row), "o", color=BLUE, ms=6, alpha=0.45, mew=0)
        if len(known):
            ax.plot(known.mean(), row, "D", color=BLACK, ms=7)
            ax.annotate(f"{known.mean():.2f}", (known.mean(), row), fontsize=11, **above)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(-0.03, 1.06), ylim=(-0.5, len(names) - 0.4), xlabel="overlap (Jaccard)")
    ax.grid(axis="y", visible=False)
    ax.set_title(title)
    return ax
