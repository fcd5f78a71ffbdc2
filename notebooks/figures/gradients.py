"""Gradients of losses by the logits, as a table of bars: beliefs down, targets across."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from genkl.plots import BLACK, BLUE, GREY, ORANGE

FAINT = 0.02
"""A push smaller than this is drawn as a dot: it is there, and too short for a bar."""


def logit_gradients(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    target: np.ndarray,
    beliefs: np.ndarray,
) -> np.ndarray:
    r"""Gradient of a row loss with respect to the logits, by automatic differentiation.

    Args:
        loss: a row loss of `genkl.losses`.
        target: shape (k,), the same for every belief.
        beliefs: the network's predictions, shape (B, k), positive.

    Returns:
        :math:`\partial L / \partial z`, shape (B, k). Each row sums to 0, since a softmax does
        not notice a constant.
    """
    logits = torch.from_numpy(np.log(beliefs)).requires_grad_()
    targets = torch.as_tensor(np.asarray(target, dtype=np.float64)).expand_as(logits)
    (gradient,) = torch.autograd.grad(loss(logits, targets).sum(), logits)
    return gradient.numpy()


def plot_pushes(
    beliefs: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
    gradients: Mapping[str, np.ndarray],
    class_names: Sequence[str],
) -> Figure:
    """A table of small bar charts: what each target does to each belief's logits.

    The first row shows the targets, the first column the beliefs, and where they meet stands the
    push, minus the gradient: a bar upwards is a logit that grows.

    Args:
        beliefs: name -> prediction of the network, shape (k,).
        targets: name -> target, shape (k,).
        gradients: name of a target -> gradients, shape (B, k), in the order of the beliefs; see
            `logit_gradients`.
        class_names: k short names, below the bars.
    """
    rows, columns = len(beliefs) + 1, len(targets) + 1
    figure, axes = plt.subplots(
        rows, columns, figsize=(2 * columns, 1.12 * rows + 0.6), sharex=True, squeeze=False
    )
    axes[0, 0].axis("off")
    middle = {"transform": axes[0, 0].transAxes, "ha": "center", "va": "center"}
    axes[0, 0].text(0.5, 0.5, "belief ↓\ntarget →", fontsize=12, color=BLACK, **middle)
    for ax, (name, target) in zip(axes[0, 1:], targets.items(), strict=True):
        _distribution(ax, target)
        ax.set_title(name, fontsize=12.5, fontweight="bold")
    for ax, (name, belief) in zip(axes[1:, 0], beliefs.items(), strict=True):
        _distribution(ax, belief)
        ax.set_ylabel(name, fontsize=12.5, fontweight="bold", rotation=0, ha="right", va="center")
    for column, name in zip(axes[1:, 1:].T, targets, strict=True):
        for ax, push in zip(column, -np.asarray(gradients[name]), strict=True):
            plot_bars(ax, push, [BLUE if length > 0 else ORANGE for length in push])
            ax.spines["left"].set_visible(False)
            ax.set(ylim=(-1.05, 1.05), yticks=[])
            ax.spines["bottom"].set_visible(False)
            ax.axhline(0, color=BLACK, lw=1)
            small = np.flatnonzero(abs(push) < FAINT)
            ax.plot(small, np.zeros(len(small)), "o", color=GREY, ms=4)
    for ax in axes[-1]:
        ax.set_xticks(range(len(class_names)), class_names, fontsize=11.5)
        ax.tick_params(axis="x", length=0)
    handles = [Patch(color=BLUE, label="pushed up"), Patch(color=ORANGE, label="pushed down")]
    words = {"title": "the logit of this class is", "title_fontsize": 12, "fontsize": 12}
    figure.legend(handles=handles, loc="outside lower center", ncols=2, **words)
    return figure


def _distribution(ax: Axes, values: np.ndarray) -> None:
    plot_bars(ax, values, GREY)
    ax.spines["left"].set_visible(False)
    ax.set(ylim=(0, 1.05), yticks=[], facecolor="#f2f2f2")


def plot_bars(ax: Axes, values: np.ndarray, color: str | list[str]) -> Axes:
    """A bar for each class, without a grid."""
    ax.bar(range(len(values)), values, width=0.75, color=color)
    ax.grid(visible=False)
    return ax
