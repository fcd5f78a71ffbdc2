"""Instances: what they look like, how they score, which are flagged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from figures.style import BLACK, GREY, KIND_COLORS, KIND_NAMES, method_color
from genkl.data import Kind, Truth


def plot_images(
    images: np.ndarray,
    titles: Sequence[str],
    columns: int = 8,
    row_names: Sequence[str] | None = None,
) -> Figure:
    """A grid of grey images with a title each.

    Args:
        images: shape (N, H, W) or (N, 1, H, W).
        titles: N strings.
        columns: images per row.
        row_names: written to the left of each row.
    """
    images = np.asarray(images).reshape(len(images), *np.asarray(images).shape[-2:])
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.25 * columns, (1.6 if any(titles) else 1.3) * rows), squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(image, cmap="gray", interpolation="nearest")
        ax.set_title(title, fontsize=10)
    for ax, name in zip(axes[:, 0], row_names or [], strict=False):
        ax.text(
            -0.15, 0.5, name.replace(" ", "\n", 1), transform=ax.transAxes, ha="right", va="center"
        )
    return figure


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
    groups = [kind for kind in Kind if (truth.kinds == kind).any()]
    data = [scores[truth.kinds == kind] for kind in groups]
    for row, (kind, values) in enumerate(zip(groups, data, strict=True)):
        box = ax.boxplot(
            values, positions=[row], widths=0.6, orientation="horizontal", patch_artist=True,
            flierprops={"marker": ".", "ms": 3, "markeredgecolor": GREY}, manage_ticks=False,
            medianprops={"color": BLACK},
        )  # fmt: skip
        box["boxes"][0].set_facecolor(KIND_COLORS[kind])
        share = float((values >= threshold).mean())
        ax.text(
            1.01, row, f"{share:.0%}", transform=ax.get_yaxis_transform(), va="center", fontsize=11
        )
    ax.text(
        1.01, len(groups) - 0.35, "flagged", transform=ax.get_yaxis_transform(), fontsize=10,
        color=GREY,
    )  # fmt: skip
    if np.isfinite(threshold):
        ax.axvline(threshold, color=BLACK, ls="--", lw=1.5)
    ax.set_yticks(range(len(groups)), [KIND_NAMES[kind] for kind in groups])
    ax.set(xlabel=label, ylim=(-0.5, len(groups) - 0.3))
    ax.grid(axis="y", visible=False)
    return ax


def plot_flagged_by_threshold(
    ax: Axes, scores: np.ndarray, truth: Truth, thresholds: np.ndarray, label: str
) -> Axes:
    """Share of each kind of instance that is flagged, as the threshold moves.

    Args:
        ax: where to draw.
        scores: shape (N,).
        truth: of the same instances.
        thresholds: shape (T,), ascending.
        label: of the threshold axis.
    """
    for kind in Kind:
        values = scores[truth.kinds == kind]
        if len(values):
            share = (values[None, :] >= np.asarray(thresholds)[:, None]).mean(axis=1)
            ax.plot(thresholds, share, color=KIND_COLORS[kind], lw=2.2, label=KIND_NAMES[kind])
    ax.set(xlabel=label, ylabel="share flagged", ylim=(-0.02, 1.02))
    ax.legend(fontsize=10)
    return ax


def plot_roc(ax: Axes, scores: Mapping[str, np.ndarray], truth: Truth) -> Axes:
    """ROC curves of several scores for finding NC instances.

    Args:
        ax: where to draw.
        scores: method name -> scores (N,).
        truth: of the same instances.
    """
    for name, values in scores.items():
        false, true, _ = roc_curve(truth.is_nc, values)
        ax.plot(false, true, color=method_color(name), lw=2.2, label=name)
    ax.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1.2)
    ax.set(
        xlabel="share of conforming instances flagged", ylabel="share of NC instances found",
        aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01),
    )  # fmt: skip
    ax.legend(loc="lower right", fontsize=10)
    return ax
