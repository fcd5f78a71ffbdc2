"""Runs: methods, rounds, settings, losses."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from figures.style import BLUE, GREEN, GREY, RED, method_color


def plot_methods(
    ax: Axes, frame: pd.DataFrame, metric: str, label: str, *, by: str = "method"
) -> Axes:
    """One row per method: a dot per seed, the mean, and a bar of one standard deviation.

    Args:
        ax: where to draw.
        frame: one row per run.
        metric: the column to show, a share; drawn in percent.
        label: of the axis.
        by: the column that names the methods.
    """
    methods = list(dict.fromkeys(frame[by]))
    for row, method in enumerate(reversed(methods)):
        values = 100 * frame.loc[frame[by] == method, metric].to_numpy()
        color = method_color(method)
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        ax.errorbar(values.mean(), row, xerr=spread, fmt="D", color=color, ms=8, lw=2.5, capsize=4)
        ax.plot(values, np.full(len(values), row - 0.25), "o", color=color, ms=5, alpha=0.6)
        ax.annotate(
            f"{values.mean():.1f}", (values.mean(), row), xytext=(0, 9), ha="center",
            textcoords="offset points", fontsize=11,
        )  # fmt: skip
    ax.set_yticks(range(len(methods)), list(reversed(methods)))
    ax.set(xlabel=label, ylim=(-0.6, len(methods) - 0.4))
    ax.grid(axis="y", visible=False)
    return ax


def plot_rounds(ax: Axes, frame: pd.DataFrame, metric: str, label: str) -> Axes:
    """A metric over the rounds: mean over seeds as a line, every seed as a dot.

    Args:
        ax: where to draw.
        frame: one row per round (`runs_to_frame` with every_round=True).
        metric: the column to show, a share; drawn in percent.
        label: of the axis.
    """
    methods = list(dict.fromkeys(frame["method"]))
    for place, method in enumerate(methods):
        mine = frame[frame["method"] == method]
        color = method_color(method)
        shift = 0.06 * (place - (len(methods) - 1) / 2)
        ax.plot(mine["index"] + shift, 100 * mine[metric], "o", color=color, ms=5, alpha=0.5)
        mean = 100 * mine.groupby("index")[metric].mean()
        ax.plot(mean.index + shift, mean, "D-", color=color, ms=7, lw=2.2, label=method)
    ax.set(xlabel="round", ylabel=label)
    ax.set_xticks(sorted(frame["index"].unique()))
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


def plot_role_losses(ax: Axes, history: pd.DataFrame) -> Axes:
    """Training loss of each role over the steps.

    Args:
        ax: where to draw.
        history: of `genkl.learn.FitResult`, one row per evaluation.
    """
    for column, name, color in (
        ("clean_loss", "clean", GREEN),
        ("non_nc_loss", "non-NC", BLUE),
        ("nc_loss", "NC", RED),
    ):
        if history[column].notna().any():
            ax.plot(history["step"], history[column], color=color, lw=2.2, label=name)
    ax.set(xlabel="step", ylabel="mean loss (nats)")
    ax.legend(fontsize=10)
    return ax


def plot_processes(ax: Axes, curves: pd.DataFrame) -> Axes:
    """Training losses of the roles by one process (lines) and by two (circles).

    Args:
        ax: where to draw.
        curves: column ``processes``, 1 or 2, and those of `genkl.learn.FitResult`'s history.
    """
    plot_role_losses(ax, curves[curves["processes"] == 1])
    two = curves[curves["processes"] == 2]
    for column, color in (("clean_loss", GREEN), ("non_nc_loss", BLUE), ("nc_loss", RED)):
        ax.plot(two["step"], two[column], "o", color=color, ms=7, mfc="none", mew=1.8)
    ax.plot([], [], "-", color=GREY, lw=2.2, label="one process")
    ax.plot([], [], "o", color=GREY, ms=7, mfc="none", mew=1.8, label="two processes")
    ax.legend(fontsize=10, ncols=2)
    return ax
