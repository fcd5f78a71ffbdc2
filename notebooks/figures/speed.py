"""How cost grows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from figures.style import BLUE, GREY


def plot_growth(ax: Axes, frame: pd.DataFrame, letter: str, label: str) -> Axes:
    """Time against one of N, k and n, and the straight line of least squares through it.

    Args:
        ax: where to draw.
        frame: rows of the record's table ``growth``, columns ``grows``, N, k, n, ``seconds``.
        letter: which one grows.
        label: of the horizontal axis.
    """
    mine = frame[frame["grows"] == letter].sort_values(letter)
    milliseconds = 1e3 * mine["seconds"]
    slope, intercept = np.polyfit(mine[letter], milliseconds, 1)
    ends = np.array([0, mine[letter].max()])
    ax.plot(ends, intercept + slope * ends, color=GREY, lw=1.6, ls="--", label="straight line")
    ax.plot(mine[letter], milliseconds, "o", color=BLUE, ms=7, label="measured")
    ax.set(xlabel=label, ylabel="time (ms)", xlim=(0, None), ylim=(0, None))
    return ax
