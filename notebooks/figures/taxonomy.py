"""The taxonomy of label noise: a tree of two questions, with real images at its leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genkl.data import Kind, NoisyDataset, Truth
from genkl.plots import BLACK, BLUE, GREY, KIND_COLORS, KIND_NAMES

Example = tuple[str, np.ndarray]
"""The given label, and the image, shape (H, W) or (1, H, W)."""

FIELD_NAMES = {
    Kind.CORRECT: "clean",
    Kind.MISLABELLED: "closed-set (ID) noise",
    Kind.AMBIGUOUS: "ambiguous ID (AID)",
    Kind.OOD: "open-set (OOD) noise",
}
"""What the literature calls each leaf."""

INTENTIONS = {
    Kind.CORRECT: "label = prediction:\nthe label stays",
    Kind.MISLABELLED: "offers both, label and\nprediction (double-hot)",
    Kind.AMBIGUOUS: "if flagged, teaches\ndoubt (uniform target)",
    Kind.OOD: "if flagged, teaches\ndoubt (uniform target)",
}
"""What GenKL means to do with each leaf. It sees the predictions only, and can be wrong."""

SIDES = ("yes: conforming", "no: non-conforming (NC)")
QUESTIONS = ("Is the given label right?", "How many classes fit?")
ANSWERS = ("yes", "no", "two, or unclear", "none")
LEAVES = tuple(FIELD_NAMES)
MIDDLE = {"ha": "center", "va": "center", "color": BLACK}


def examples_by_kind(
    dataset: NoisyDataset, truth: Truth, count: int, seed: int = 0
) -> dict[Kind, list[Example]]:
    """Draw instances of each kind from the noisy split at random.

    Args:
        dataset: with inputs of shape (N, 1, H, W).
        truth: about its noisy split.
        count: instances of each kind, or all where there are fewer.
        seed: of the draw.

    Returns:
        Kind -> (given label, image) of each instance drawn; kinds without an instance are left
        out.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[Kind, list[Example]] = {}
    for kind in LEAVES:
        rows = np.flatnonzero(truth.kinds == kind)
        if not len(rows):
            continue
        drawn[kind] = [
            (
                dataset.class_names[int(dataset.noisy.labels[row])],
                dataset.noisy.inputs[int(row)].numpy()[0],
            )
            for row in rng.choice(rows, min(count, len(rows)), replace=False)
        ]
    return drawn


def plot_taxonomy(examples: Mapping[Kind, Sequence[Example]]) -> Figure:
    """Draw the tree: does one class fit, is the label right, how many fit; images at the leaves.

    Args:
        examples: for each of `LEAVES` up to four examples; the given label is written above each.

    Raises:
        KeyError: a leaf without examples.
    """
    width, height = 10.0, 7.6
    figure = plt.figure(figsize=(width, height), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(0.2, height))
    ax.axis("off")
    for place, (question, side) in enumerate(zip(QUESTIONS, SIDES, strict=True)):
        x = 2.53 + 4.94 * place
        _branch(ax, (5, 7.25), (x, 6.3), side)
        _box(ax, x, 6.3, question)
    _box(ax, 5, 7.25, "Does exactly one class fit the image?")
    for place, kind in enumerate(LEAVES):
        x = 1.3 + 2.47 * place
        _branch(ax, (2.53 if place < 2 else 7.47, 6.05), (x, 5.22), ANSWERS[place])
        _leaf(ax, x, kind, examples[kind])
    return figure


def _box(ax: Axes, x: float, y: float, text: str) -> None:
    box = {"boxstyle": "round,pad=0.45", "fc": "#f2f2f2", "ec": GREY, "lw": 1}
    ax.text(x, y, text, fontsize=13.5, zorder=3, bbox=box, **MIDDLE)


def _branch(ax: Axes, start: tuple[float, float], end: tuple[float, float], answer: str) -> None:
    ax.plot(*zip(start, end, strict=True), color=GREY, lw=2, zorder=1)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    box = {"boxstyle": "square,pad=0.12", "fc": "white", "ec": "none"}
    ax.text(x, y, answer, fontsize=12.5, style="italic", zorder=2, bbox=box, **MIDDLE)


def _leaf(ax: Axes, x: float, kind: Kind, examples: Sequence[Example]) -> None:
    """A leaf's name, the field's name, its images two by two, and what GenKL means to do."""
    ax.plot([x - 1.13, x + 1.13], [5.2, 5.2], color=KIND_COLORS[kind], lw=7, solid_capstyle="butt")
    for y, text, size, weight in (
        (4.92, KIND_NAMES[kind], 14, "bold"),
        (4.63, FIELD_NAMES[kind], 12, "normal"),
        (0.95, "GenKL", 12, "bold"),
        (0.56, INTENTIONS[kind], 12, "normal"),
    ):
        ax.text(x, y, text, fontsize=size, fontweight=weight, **MIDDLE)
    side = 1.04
    for place, (label, image) in enumerate(examples[:4]):
        left, top = x - 1.13 + (place % 2) * 1.22, 4.08 - (place // 2) * 1.62
        inner = ax.inset_axes((left, top - side, side, side), transform=ax.transData)
        inner.imshow(np.squeeze(image), cmap="gray")
        inner.set(xticks=[], yticks=[])
        inner.grid(visible=False)
        for spine in inner.spines.values():
            spine.set(visible=True, color=KIND_COLORS[kind], lw=2)
        above = {"ha": "center", "va": "bottom", "fontsize": 11.5, "linespacing": 0.95}
        words = f"“{label}”".replace(" ", "\n")
        ax.text(left + side / 2, top + 0.06, words, color=BLACK, **above)


def plot_class_counts(ax: Axes, counts: pd.DataFrame, label: str) -> Axes:
    """Instances of each class as bars; stacked by kind where the truth is known.

    Args:
        ax: where to draw.
        counts: one row per class, one column per kind (`count_kinds`) or a single column.
        label: of the count axis.
    """
    places, left = np.arange(len(counts)), np.zeros(len(counts))
    for name in counts.columns:
        kind = Kind.__members__.get(str(name).upper())
        look = {"color": KIND_COLORS.get(kind, BLUE), "label": KIND_NAMES.get(kind, name)}
        ax.barh(places, counts[name], left=left, height=0.75, **look)
        left = left + counts[name].to_numpy()
    ax.set_yticks(places, [str(name) for name in counts.index])
    ax.invert_yaxis()
    ax.set(xlabel=label)
    ax.grid(axis="y", visible=False)
    if len(counts.columns) > 1:
        ax.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    return ax


def plot_noise_matrix(ax: Axes, matrix: pd.DataFrame) -> Axes:
    """Which class gets which label, in percent of the true class.

    Args:
        ax: where to draw.
        matrix: from `noise_matrix`; numbers are written into cells of 1 % and more, up to 20
            classes.
    """
    values, k = np.nan_to_num(100 * matrix.to_numpy()), len(matrix)
    ax.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="equal")
    if k <= 20:
        middle = {"ha": "center", "va": "center", "fontsize": 10 if k <= 10 else 8}
        for row, column in np.argwhere(values >= 1):
            color = "white" if values[row, column] > 55 else BLACK
            ax.text(column, row, f"{values[row, column]:.0f}", color=color, **middle)
        ax.set_xticks(range(k), [str(name) for name in matrix.columns], rotation=45, ha="right")
        ax.set_yticks(range(k), [str(name) for name in matrix.index])
    ax.set(xlabel="given label (% of the true class)", ylabel="true class")
    ax.grid(visible=False)
    return ax
