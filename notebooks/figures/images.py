"""Grids of images."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from genkl.data import Images
from genkl.data.images import as_images, resize_image


def plot_images(
    inputs: Tensor | Images,
    rows: Sequence[Sequence[int]],
    row_names: Sequence[str],
    titles: Sequence[str] | None = None,
    side: int = 96,
) -> Figure:
    """A grid of images, one row of the figure per class or kind.

    Args:
        inputs: images in memory or on disk; only those shown are read.
        rows: for each row of the figure the positions of its images.
        row_names: written to the left of each row.
        titles: written above the images, one for each of the inputs; None writes nothing.
        side: pixels of a thumbnail; each is padded to a square, none is cut or squeezed.
    """
    images, columns = as_images(inputs), max(len(row) for row in rows)
    size = (0.95 * columns + 1.2, (1.3 if titles else 0.98) * len(rows))
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for line, positions, name in zip(axes, rows, row_names, strict=True):
        for ax, position in zip(line, positions, strict=False):
            ax.imshow(_thumbnail(images, int(position), side), interpolation="nearest")
            ax.set_title(titles[position] if titles else "", fontsize=10)
        middle = {"transform": line[0].transAxes, "ha": "right", "va": "center"}
        line[0].text(-0.12, 0.5, name, fontsize=11, **middle)
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
