"""Pictures of the posterior as a target: the weight of the given label, "none", what came out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from genkl.plots import BLACK, BLUE, GREEN, GREY, ORANGE, RED


def label_share(q_y: np.ndarray, noise: float, num_classes: int) -> np.ndarray:
    """The posterior's share of the given label, where one other class has the rest.

    Args:
        q_y: predicted probability of the given label.
        noise: chance that a label is drawn from all classes alike.
        num_classes: k.
    """
    mine = (1 - noise) * q_y + noise / num_classes * q_y
    return mine / (mine + noise / num_classes * (1 - q_y))


def double_hot_share(q_y: np.ndarray, num_classes: int) -> np.ndarray:
    """The same of a double-hot target, in balanced classes."""
    weight = 1 / num_classes
    return np.where(q_y > 0.5, 1.0, weight / (weight + 1 - q_y))


def plot_label_share(ax: Axes, num_classes: int, noises: Sequence[float]) -> Axes:
    """How much of a target the given label has, over what the predictor says of it.

    Args:
        ax: where to draw.
        num_classes: k.
        noises: a curve of the posterior for each.
    """
    q_y = np.linspace(0, 1, 501)
    for noise, color in zip(noises, (GREEN, ORANGE, RED), strict=False):
        shares = label_share(q_y, noise, num_classes)
        ax.plot(q_y, shares, color=color, lw=2, label=f"posterior, {noise:.0%} random labels")
    ax.plot(q_y, double_hot_share(q_y, num_classes), color=BLUE, lw=3, ls="--", label="double-hot")
    ax.set(xlabel="predicted probability of the given label", ylabel="its share of the target")
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=10)
    return ax


def plot_p_values(ax: Axes, p_values: np.ndarray, nones: np.ndarray) -> Axes:
    """Conformal p-values, the decreasing density fitted to them, and the level of who conforms.

    Args:
        ax: where to draw.
        p_values: shape (N,).
        nones: the chance of "none" of each, shape (N,).
    """
    order = np.argsort(p_values)
    conforming = min(1, 2 * (p_values > 0.5).mean())
    ax.hist(p_values, bins=25, density=True, color=GREY, alpha=0.5, label="all noisy instances")
    density = conforming / (1 - nones[order])
    ax.plot(p_values[order], density, color=RED, lw=2, label="decreasing density f")
    ax.axhline(conforming, color=BLACK, ls="--", lw=1.5, label=r"those that conform, $\pi$")
    ax.set(xlabel="conformal p-value of the critical alpha", ylabel="density")
    ax.legend(fontsize=10)
    return ax


def plot_reliability(ax: Axes, nones: np.ndarray, is_nc: np.ndarray, bins: int = 8) -> Axes:
    """How many are non-conforming among those with a like chance of it.

    Args:
        ax: where to draw.
        nones: shape (N,).
        is_nc: the truth, shape (N,).
        bins: groups of equal size; their error bars are two standard errors.
    """
    parts = np.array_split(np.argsort(nones, kind="stable"), bins)
    said, true = (np.array([values[p].mean() for p in parts]) for values in (nones, is_nc))
    error = 2 * np.sqrt(true * (1 - true) / [len(part) for part in parts])
    ax.plot([0, 1], [0, 1], color=BLACK, ls="--", lw=1.5)
    ax.errorbar(said, true, yerr=error, fmt="o", ms=7, color=RED, capsize=3)
    ax.set(xlabel="estimated chance of none", ylabel="share that is non-conforming")
    ax.set(xlim=(-0.02, 1), ylim=(-0.02, 1))
    return ax


def against_each(found: pd.DataFrame, others: Sequence[str]) -> pd.DataFrame:
    """Long rows of the registered comparison, for `figures.comparisons.plot_over_base`.

    Args:
        found: a row for each data set, see `benchmarks.calibrated.judged`.
        others: methods it was held against.
    """
    return pd.DataFrame(
        {
            "set": row["title"],
            "method": f"less {other}",
            "difference": row[other],
            "low": row[f"{other} low"],
            "high": row[f"{other} high"],
        }
        for row in found.to_dict("records")
        for other in others
    )


def verdict(claims: pd.DataFrame, measured: int, planned: int) -> str:
    """In a sentence, how many of the claims hold, and on how many of the data sets.

    Args:
        claims: columns ``claim``, ``figure``, ``holds``.
        measured: data sets with a record.
        planned: data sets that were registered.
    """
    held = int(claims["holds"].sum())
    where = "all" if measured == planned else f"the {measured} measured so far"
    failed = "; ".join(claims.loc[~claims["holds"].astype(bool), "claim"])
    missed = f" What fails: {failed}." if failed else ""
    return f"{held} of {len(claims)} claims hold on {where} of {planned} data sets.{missed}"
