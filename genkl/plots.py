"""Plots of data sets, scores, methods and rounds, in one colour per method and kind of instance.

The colours are a palette that colour-blind readers can tell apart (Okabe and Ito). Every plot is
drawn into axes that are given, which it returns. Pictures that belong to a single chapter of the
book are in its folder ``notebooks/figures``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from genkl.data import Kind, Truth

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY, BLACK = "#CC79A7", "#56B4E9", "#7F7F7F", "#222222"

METHOD_COLORS = {
    **dict.fromkeys(("GenKL", "divergence", "alpha within a budget"), BLUE),
    **dict.fromkeys(("GenKL, no NC stage", "GenKL invariant"), SKY),
    **dict.fromkeys(("GenKL, entropy", "GenKL, entropy instead", "entropy"), ORANGE),
    **dict.fromkeys(("GenKL, true NC known", "the truth", "GCE", "KNN"), BLACK),
    **dict.fromkeys(("clean set alone", "GenKL auto"), GREEN),
    **dict.fromkeys(("given labels", "max softmax", "alpha far too low"), RED),
    **dict.fromkeys(("given labels + fine-tuning", "mutual information"), PURPLE),
    "kNN relabelling": ORANGE,
    "GenKL, 250 clean ones besides": BLUE,
    "given labels + fine-tuning, 250 clean ones besides": PURPLE,
    "250 clean ones alone": GREEN,
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
    """Set fonts, grid and size for every figure that follows in this process.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "plots need matplotlib, which is not installed: pip install 'genkl[plots]'",
            name=error.name,
        ) from error
    sizes = {"font.size": 12, "axes.labelsize": 12, "axes.titlesize": 13, "legend.fontsize": 11}
    ticks = {f"{axis}tick.labelsize": 11 for axis in "xy"}
    colors = {"figure.facecolor": "white", "savefig.facecolor": "white", "grid.color": "#e6e6e6"}
    look = {
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "figure.dpi": 110,
        "legend.frameon": False,
        "patch.edgecolor": "white",
        "patch.force_edgecolor": True,
    }
    plt.style.use(["seaborn-v0_8-ticks", {**sizes, **ticks, **colors, **look}])


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
    factor, digits = (100, 1) if percent else (1, 3)

    def cell(mean: float, std: float) -> str:
        if np.isnan(mean):
            return "–"
        spread = "" if np.isnan(std) else f" ± {factor * std:.{digits}f}"
        return f"{factor * mean:.{digits}f}{spread}"

    shown = table.index.to_frame().iloc[:, :0]
    for column in columns:
        pairs = zip(table[(column, "mean")], table[(column, "std")], strict=True)
        shown[column.replace("_", " ")] = [cell(*pair) for pair in pairs]
    return shown


# -- instances ------------------------------------------------------------------------------------


def plot_roc(ax: Axes, scores: Mapping[str, np.ndarray], truth: Truth) -> Axes:
    """ROC curves of several scores for finding NC instances.

    Args:
        ax: where to draw.
        scores: method name -> scores (N,).
        truth: of the same instances.
    """
    from sklearn.metrics import roc_curve

    for name, values in scores.items():
        false, true, _ = roc_curve(truth.is_nc, values)
        ax.plot(false, true, color=method_color(name), lw=2.2, label=name)
    ax.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1.2)
    ax.set(xlabel="share of conforming instances flagged", ylabel="share of NC instances found")
    ax.set(aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    ax.legend(loc="lower right", fontsize=10)
    return ax


def plot_scores_by_kind(
    ax: Axes, scores: np.ndarray, truth: Truth, threshold: float, label: str
) -> Axes:
    """Distribution of a score for each kind of instance, and the threshold in use.

    Args:
        ax: where to draw.
        scores: shape (N,).
        truth: of the same instances.
        threshold: drawn as a line; instances to its right are flagged.
        label: of the score axis.
    """
    kinds = [kind for kind in Kind if (truth.kinds == kind).any()]
    beside = {"transform": ax.get_yaxis_transform(), "va": "center"}
    fliers = {"marker": ".", "ms": 3, "markeredgecolor": GREY}
    for row, kind in enumerate(kinds):
        values = scores[truth.kinds == kind]
        box = ax.boxplot(
            values,
            positions=[row],
            widths=0.6,
            orientation="horizontal",
            patch_artist=True,
            flierprops=fliers,
            medianprops={"color": BLACK},
            manage_ticks=False,
        )
        box["boxes"][0].set(facecolor=KIND_COLORS[kind])
        ax.text(1.01, row, f"{(values >= threshold).mean():.0%}", fontsize=11, **beside)
    ax.text(1.01, len(kinds) - 0.3, "flagged", fontsize=10, color=GREY, **beside)
    if np.isfinite(threshold):
        ax.axvline(threshold, color=BLACK, ls="--", lw=1.5)
    ax.set_yticks(range(len(kinds)), [KIND_NAMES[kind] for kind in kinds])
    ax.set(xlabel=label, ylim=(-0.5, len(kinds) - 0.3))
    ax.grid(axis="y", visible=False)
    return ax


# -- data sets ------------------------------------------------------------------------------------


# -- runs -----------------------------------------------------------------------------------------


def plot_methods(ax: Axes, frame: pd.DataFrame, metric: str, label: str, *, by="method") -> Axes:
    """One row per method: a dot per seed, the mean, and a bar of one standard deviation.

    Args:
        ax: where to draw.
        frame: one row per run (`runs_to_frame`).
        metric: the column to show, a share; drawn in percent.
        label: of the axis.
        by: the column that names the methods.
    """
    methods = list(dict.fromkeys(frame[by]))[::-1]
    for row, method in enumerate(methods):
        values = 100 * frame.loc[frame[by] == method, metric].to_numpy()
        mean, spread = values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0
        color = method_color(method)
        ax.errorbar(mean, row, xerr=spread, fmt="D", color=color, ms=8, lw=2.5, capsize=4)
        ax.plot(values, np.full(len(values), row - 0.25), "o", color=color, ms=5, alpha=0.6)
        above = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center"}
        ax.annotate(f"{mean:.1f}", (mean, row), fontsize=11, **above)
    ax.set_yticks(range(len(methods)), methods)
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
        rows, color = frame[frame["method"] == method], method_color(method)
        shift = 0.06 * (place - (len(methods) - 1) / 2)
        ax.plot(rows["index"] + shift, 100 * rows[metric], "o", color=color, ms=5, alpha=0.5)
        mean = 100 * rows.groupby("index")[metric].mean()
        ax.plot(mean.index + shift, mean, "D-", color=color, ms=7, lw=2.2, label=method)
    ax.set(xlabel="round", ylabel=label)
    ax.set_xticks(sorted(frame["index"].unique()))
    ax.legend(fontsize=10)
    return ax
