"""Comparisons of detectors and of methods over data sets: tables in colour, intervals, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from genkl.plots import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, method_color

MARKERS = ("o", "s", "D", "^", "v", "P")
READERS = {"DSOS": GREEN, "given label": PURPLE, "AUM": RED}
"""Colours of detectors that read the given label."""
SETS = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY, BLACK)
"""Colours of data sets, where each has a line."""


def plot_score_grid(ax: Axes, table: pd.DataFrame, *, center: float = 0.5) -> Axes:
    """A figure for every detector (row) and data set (column), coloured by its distance to chance.

    Args:
        ax: where to draw.
        table: AUROC, index methods, columns data sets; NaN where a method can't be used.
        center: value of a score that knows nothing; drawn white.
    """
    bound = float(np.nanmax(np.abs(table.to_numpy() - center)))
    return _plot_table(ax, table, ".2f", "PuOr_r", (center - bound, center + bound))


def plot_losses_to_best(ax: Axes, lost: pd.DataFrame) -> Axes:
    """How far each method (row) is behind the best one of each data set (column), in points.

    Args:
        ax: where to draw.
        lost: points, 0 for the best of a column and below 0 for the others; NaN where a method
            can't be used. Drawn from 0 to -15: what is worse is as dark.
    """
    return _plot_table(ax, lost, ".1f", "Oranges_r", (-15, 0))


def _plot_table(
    ax: Axes, table: pd.DataFrame, digits: str, colors: str, limits: tuple[float, float]
) -> Axes:
    """A table with its numbers in coloured cells; NaN stays empty."""
    options = {"annot": True, "annot_kws": {"fontsize": 10}, "linewidths": 1, "cbar": False}
    sns.heatmap(table, ax=ax, cmap=colors, vmin=limits[0], vmax=limits[1], fmt=digits, **options)
    ax.set(xlabel="", ylabel="")
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set_xticks(ax.get_xticks(), ax.get_xticklabels(), rotation=30, ha="left")
    ax.set_yticks(ax.get_yticks(), ax.get_yticklabels(), rotation=0)
    return ax


def plot_over_base(
    ax: Axes,
    frame: pd.DataFrame,
    group: str,
    label: str,
    *,
    methods: Sequence[str] | None = None,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Differences to a base with their intervals: a row per group, a mark per method.

    Args:
        ax: where to draw.
        frame: from `genkl.over_base`, columns group, ``method``, ``difference``, ``low``, ``high``.
        group: column that names the rows.
        label: of the horizontal axis, with its unit.
        methods: to draw, in order; None for all.
        colors: method name -> colour; None for the book's.
    """
    groups = list(dict.fromkeys(frame[group]))[::-1]
    methods = list(dict.fromkeys(frame["method"])) if methods is None else list(methods)
    for place, method in enumerate(methods):
        mine = frame[frame["method"] == method]
        rows = np.array([groups.index(name) for name in mine[group]])
        step = min(0.2, 0.7 / len(methods))  # rows keep apart
        shift = step * ((len(methods) - 1) / 2 - place)
        color = method_color(method) if colors is None else colors[method]
        middle = mine["difference"].to_numpy()
        reach = np.nan_to_num([middle - mine["low"], mine["high"] - middle])
        look = {"fmt": MARKERS[place % len(MARKERS)], "ms": 7, "lw": 2, "capsize": 3}
        ax.errorbar(middle, rows + shift, xerr=reach, color=color, label=method, **look)
    ax.axvline(0, color=BLACK, lw=1.5)
    ax.set_yticks(range(len(groups)), groups)
    ax.set(xlabel=label, ylim=(-0.6, len(groups) - 0.4))
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=10)
    return ax


def plot_plausibility(
    ax: Axes, frame: pd.DataFrame, methods: Sequence[str], ways: Sequence[str]
) -> Axes:
    """AUROC over the ways to give strangers labels, with intervals; a line per method.

    Args:
        ax: where to draw.
        frame: of one data set, columns ``labels``, ``method``, ``auroc``, ``auroc_low``,
            ``auroc_high``; a row for each way and method.
        methods: to draw; those that read no label are drawn dashed.
        ways: from left to right; those that the frame lacks are left out.
    """
    ways = [way for way in ways if way in set(frame["labels"])]
    for place, method in enumerate(methods):
        mine = frame[frame["method"] == method].set_index("labels")
        if mine.empty:
            continue
        mine = mine.reindex(ways)
        reach = np.stack([mine["auroc"] - mine["auroc_low"], mine["auroc_high"] - mine["auroc"]])
        look = {"marker": MARKERS[place % len(MARKERS)], "ms": 6, "lw": 2, "capsize": 2}
        color, dashes = (
            READERS.get(method, method_color(method)),
            "-" if method in READERS else "--",
        )
        shift = 0.05 * (place - (len(methods) - 1) / 2)
        x = np.arange(len(ways)) + shift
        ax.errorbar(x, mine["auroc"], np.abs(reach), color=color, ls=dashes, label=method, **look)
    ax.axhline(0.5, color=GREY, lw=1)
    ax.set_xticks(range(len(ways)), ways, rotation=30, ha="right")
    return ax


def plot_recall(
    ax: Axes, frame: pd.DataFrame, methods: Sequence[str], prevalence: float | None = None
) -> Axes:
    """Recall of the non-conforming beside the share of all instances that is flagged.

    Args:
        ax: where to draw.
        frame: columns ``method``, ``flagged``, ``recall``, and ``seed``.
        methods: to draw.
        prevalence: share of non-conforming instances; draws what is the most one can find.
    """
    for place, method in enumerate(methods):
        mean = frame[frame["method"] == method].groupby("flagged")["recall"].mean()
        _plot_line(ax, mean.index, mean, place, method)
    ends = np.array([0, frame["flagged"].max()])
    ax.plot(ends, ends, color=GREY, lw=1.5, ls="--", label="at random")
    if prevalence:
        ax.plot([0, prevalence, ends[1]], [0, 1, 1], color=GREY, lw=1.2, ls=":", label="at best")
    ax.set(xlabel="share flagged", ylabel="recall of NC", ylim=(0, 1.03))
    return ax


def plot_condition(ax: Axes, frame: pd.DataFrame, methods: Sequence[str], label: str) -> Axes:
    """AUROC over a condition's values, averaged over data sets and seeds; values evenly spaced.

    Args:
        ax: where to draw.
        frame: rows of one condition, columns ``value``, ``method``, ``auroc``.
        methods: to draw.
        label: of the horizontal axis.
    """
    values = list(dict.fromkeys(frame["value"]))
    for place, method in enumerate(methods):
        mean = frame[frame["method"] == method].groupby("value")["auroc"].mean().reindex(values)
        _plot_line(ax, range(len(values)), mean, place, method)
    ax.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    ax.set(xlabel=label, ylabel="AUROC")
    return ax


def plot_gap(ax: Axes, found: pd.DataFrame, label: str, line: str = "-") -> Axes:
    """How far one score ranks above another over a condition: a colour for each data set.

    Args:
        ax: where to draw.
        found: columns ``case``, ``x`` and ``gap``, sorted by x.
        label: of the horizontal axis.
        line: between the marks of a data set; "" for none.
    """
    look = zip(SETS, (*MARKERS, "X"), strict=True)
    for (case, part), (color, marker) in zip(found.groupby("case", sort=False), look, strict=False):
        ax.plot(
            part["x"], part["gap"], marker=marker, ls=line, ms=7, lw=1.5, color=color, label=case
        )
    ax.axhline(0, color=BLACK, lw=1.5)
    ax.set(xlabel=label, ylabel="AUROC over entropy's")
    return ax


def _plot_line(ax: Axes, x: Sequence, y: Sequence, place: int, method: str) -> None:
    marker, color = MARKERS[place % len(MARKERS)], method_color(method)
    ax.plot(x, y, marker=marker, ms=6, lw=2, color=color, label=method)
