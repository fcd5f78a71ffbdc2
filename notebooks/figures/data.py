"""What is in a data set: class counts, the noise matrix, the photographs themselves."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from figures.style import BLACK, BLUE, KIND_COLORS, KIND_NAMES
from genkl.data import Images, Kind
from genkl.data.images import as_images, resize_image


def plot_class_counts(ax: Axes, counts: pd.DataFrame, label: str) -> Axes:
    """Instances of each class as bars; stacked by kind where the truth is known.

    Args:
        ax: where to draw.
        counts: one row per class, one column per kind (`count_kinds`) or a single column.
        label: of the count axis.
    """
    left = np.zeros(len(counts))
    places = np.arange(len(counts))
    for name in counts.columns:
        kind = Kind.__members__.get(str(name).upper())
        color = BLUE if kind is None else KIND_COLORS[kind]
        text = name if kind is None else KIND_NAMES[kind]
        ax.barh(places, counts[name], left=left, color=color, label=text, height=0.75)
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
    values = 100 * matrix.to_numpy()
    k = len(values)
    ax.imshow(np.nan_to_num(values), cmap="Blues", vmin=0, vmax=100, aspect="equal")
    if k <= 20:
        for row, column in zip(*np.nonzero(np.nan_to_num(values) >= 1), strict=True):
            ax.text(
                column, row, f"{values[row, column]:.0f}", ha="center", va="center",
                fontsize=10 if k <= 10 else 8,
                color="white" if values[row, column] > 55 else BLACK,
            )  # fmt: skip
        ax.set_xticks(range(k), [str(name) for name in matrix.columns], rotation=45, ha="right")
        ax.set_yticks(range(k), [str(name) for name in matrix.index])
    ax.set(xlabel="given label (% of the true class)", ylabel="true class")
    ax.grid(visible=False)
    return ax


def plot_photographs(
    inputs: Tensor | Images,
    rows: Sequence[Sequence[int]],
    row_names: Sequence[str],
    side: int = 96,
) -> Figure:
    """A grid of images, one row of the figure per class or kind.

    Args:
        inputs: images in memory or on disk; only those shown are read.
        rows: for each row of the figure the positions of its images.
        row_names: written to the left of each row.
        side: pixels of a thumbnail; each is padded to a square, none is cut or squeezed.
    """
    images, columns = as_images(inputs), max(len(row) for row in rows)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(0.95 * columns + 1.2, 0.98 * len(rows)), squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    for line, positions, name in zip(axes, rows, row_names, strict=True):
        for ax, position in zip(line, positions, strict=False):
            ax.imshow(_thumbnail(images, int(position), side), interpolation="nearest")
        line[0].text(
            -0.12, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=11
        )
    return figure


def _thumbnail(images: Images, position: int, side: int) -> np.ndarray:
    image = images.read(position)
    scale = side / max(image.shape[1:])
    size = [max(1, round(length * scale)) for length in image.shape[1:]]
    small = resize_image(image, size).permute(1, 2, 0).numpy()
    padded = np.full((side, side, 3), 255, dtype=np.uint8)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    padded[top : top + size[0], left : left + size[1]] = small
    return padded
