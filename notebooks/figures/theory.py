"""What the theorems look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from figures.style import BLACK, BLUE


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
    ax.plot(by_any, (1.1, 1.1), color=BLUE, lw=5, solid_capstyle="butt", label="any sampled vector")
    ax.plot(
        by_uniform, (1.2, 1.2), color=BLACK, lw=5, solid_capstyle="butt", label="uniform vector"
    )
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
        ax.plot(counts, values.mean(axis=0), "o" + dashes, color=BLUE, lw=2.2, ms=5, label=name)
        ax.fill_between(
            counts, values.min(axis=0), values.max(axis=0), color=BLUE, alpha=0.15, lw=0
        )
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
    for row, values in enumerate(reversed(list(overlaps.values()))):
        known = np.asarray(values)[~np.isnan(values)]
        ax.plot(known, np.full(len(known), row), "o", color=BLUE, ms=6, alpha=0.45, mew=0)
        if len(known):
            mean = known.mean()
            ax.plot(mean, row, "D", color=BLACK, ms=7)
            ax.annotate(
                f"{mean:.2f}", (mean, row), xytext=(0, 9), textcoords="offset points", ha="center",
                fontsize=11,
            )  # fmt: skip
    ax.set_yticks(range(len(overlaps)), list(reversed(list(overlaps))))
    ax.set(xlim=(-0.03, 1.06), ylim=(-0.5, len(overlaps) - 0.4), xlabel="overlap (Jaccard)")
    ax.grid(axis="y", visible=False)
    ax.set_title(title)
    return ax
