"""What a choice of alpha does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from figures.style import BLACK, BLUE, GREEN, ORANGE, RED


def plot_alpha_paths(
    ax: Axes,
    alphas: np.ndarray,
    shares: Mapping[str, np.ndarray],
    marks: Mapping[str, float],
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
    edges = np.linspace(0, 100 * 3 * budget, 31)
    within = rates <= budget
    for group, color, name in ((within, BLUE, "kept"), (~within, RED, "exceeded")):
        values = np.minimum(100 * rates[group], edges[-1])
        label = f"{name}: {group.mean():.0%}"
        ax.hist(values, edges, color=color, alpha=0.75, label=label)
    ax.axvline(100 * budget, color=BLACK, ls="--", lw=1.5)
    ax.annotate(
        f"mean {100 * rates.mean():.1f} %", (100 * rates.mean(), 0), xytext=(0, 4),
        textcoords="offset points", ha="center", fontsize=10,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )  # fmt: skip
    ax.set(xlabel="conforming instances flagged (%)", ylabel="held-out sets", title=title)
    ax.legend(fontsize=10)
    return ax
