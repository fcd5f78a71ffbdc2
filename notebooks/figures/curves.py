"""Curves of measurements: training losses over steps, time over size."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from genkl.plots import BLUE, GREEN, GREY, RED

ROLES = {
    "clean_loss": ("clean", GREEN),
    "non_nc_loss": ("non-NC", BLUE),
    "nc_loss": ("NC", RED),
}
"""Column of a history -> the role's name and colour."""


def plot_role_losses(ax: Axes, history: pd.DataFrame) -> Axes:
    """Training loss of each role over the steps.

    Args:
        ax: where to draw.
        history: of `genkl.learn.FitResult`, one row per evaluation.
    """
    for column, (name, color) in ROLES.items():
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
    two, circle = curves[curves["processes"] == 2], {"ms": 7, "mfc": "none", "mew": 1.8}
    for column, (_, color) in ROLES.items():
        ax.plot(two["step"], two[column], "o", color=color, **circle)
    ax.plot([], [], "-", color=GREY, lw=2.2, label="one process")
    ax.plot([], [], "o", color=GREY, label="two processes", **circle)
    ax.legend(fontsize=10, ncols=2)
    return ax


def plot_growth(ax: Axes, frame: pd.DataFrame, letter: str, label: str) -> Axes:
    """Time against one of N, k and n, and the straight line of least squares through it.

    Args:
        ax: where to draw.
        frame: rows of the record's table ``growth``, columns ``grows``, N, k, n, ``seconds``.
        letter: which one grows.
        label: of the horizontal axis.
    """
    rows = frame[frame["grows"] == letter].sort_values(letter)
    milliseconds = 1e3 * rows["seconds"]
    slope, intercept = np.polyfit(rows[letter], milliseconds, 1)
    ends = np.array([0, rows[letter].max()])
    ax.plot(ends, intercept + slope * ends, color=GREY, lw=1.6, ls="--", label="straight line")
    ax.plot(rows[letter], milliseconds, "o", color=BLUE, ms=7, label="measured")
    ax.set(xlabel=label, ylabel="time (ms)", xlim=(0, None), ylim=(0, None))
    return ax
