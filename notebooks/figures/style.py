"""Colours, names and the look that all figures share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns

from genkl.data import Kind

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY, BLACK = "#CC79A7", "#56B4E9", "#7F7F7F", "#222222"

METHOD_COLORS = {
    "GenKL": BLUE,
    "GenKL, no NC stage": SKY,
    "GenKL, entropy instead": ORANGE,
    "GenKL, true NC known": BLACK,
    "divergence": BLUE,
    "entropy": ORANGE,
    "GenKL invariant": SKY,
    "GenKL auto": GREEN,
    "max softmax": RED,
    "mutual information": PURPLE,
    "KNN": BLACK,
    "given labels": RED,
    "given labels + fine-tuning": PURPLE,
    "clean set alone": GREEN,
    "kNN relabelling": ORANGE,
    "GCE": BLACK,
    "GenKL, entropy": ORANGE,
    "GenKL, 250 clean ones besides": BLUE,
    "given labels + fine-tuning, 250 clean ones besides": PURPLE,
    "250 clean ones alone": GREEN,
    "the truth": BLACK,
    "alpha within a budget": BLUE,
    "alpha far too low": RED,
}
"""Method name, as in the records -> colour. An unknown name is drawn in grey."""

KIND_COLORS = {
    Kind.CORRECT: GREEN,
    Kind.MISLABELLED: SKY,
    Kind.AMBIGUOUS: ORANGE,
    Kind.OOD: RED,
    Kind.NC: PURPLE,
    Kind.WRONG: BLUE,
    Kind.UNKNOWN: GREY,
}
KIND_NAMES = {
    Kind.CORRECT: "correct label",
    Kind.MISLABELLED: "wrong label",
    Kind.AMBIGUOUS: "ambiguous",
    Kind.OOD: "out of distribution",
    Kind.NC: "non-conforming",
    Kind.WRONG: "wrong, or of no class",
    Kind.UNKNOWN: "unknown",
}


def method_color(method: str) -> str:
    """The colour of a method in the whole book; grey for one that `METHOD_COLORS` lacks."""
    return METHOD_COLORS.get(method, GREY)


def use_book_style() -> None:
    """Set fonts, grid and size for every figure that follows in this process."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        rc={
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 13,
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "font.size": 12,
            "grid.color": "#e6e6e6",
            "legend.frameon": False,
            "savefig.facecolor": "white",
        },
    )


def style_mean_and_std(
    table: pd.DataFrame, columns: Sequence[str], percent: bool = False
) -> pd.DataFrame:
    """A table of "mean ± standard deviation" for reading.

    Args:
        table: from `mean_and_std`.
        columns: the metrics to show, in order.
        percent: multiply by 100 and show one decimal, instead of three.

    Returns:
        A frame of strings with one column per metric; underscores become spaces.
    """

    def cell(mean: float, std: float) -> str:
        if np.isnan(mean):
            return "–"
        spread = "" if np.isnan(std) else f" ± {100 * std:.1f}" if percent else f" ± {std:.3f}"
        return (f"{100 * mean:.1f}" if percent else f"{mean:.3f}") + spread

    return pd.DataFrame(
        {
            column.replace("_", " "): [
                cell(row[(column, "mean")], row[(column, "std")]) for _, row in table.iterrows()
            ]
            for column in columns
        },
        index=table.index,
    )
