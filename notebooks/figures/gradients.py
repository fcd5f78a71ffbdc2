"""What does a target ask of the logits? A table of pushes: beliefs down, targets across."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from figures.style import BLACK, BLUE, GREY, ORANGE

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
    axes[0, 0].text(
        0.5, 0.5, "belief ↓\ntarget →", transform=axes[0, 0].transAxes, ha="center", va="center",
        fontsize=12, color=BLACK,
    )  # fmt: skip
    for ax, (name, target) in zip(axes[0, 1:], targets.items(), strict=True):
        _distribution(ax, target)
        ax.set_title(name, fontsize=12.5, fontweight="bold")
    for ax, (name, belief) in zip(axes[1:, 0], beliefs.items(), strict=True):
        _distribution(ax, belief)
        ax.set_ylabel(name, fontsize=12.5, fontweight="bold", rotation=0, ha="right", va="center")
    for column, name in zip(axes[1:, 1:].T, targets, strict=True):
        for ax, push in zip(column, -np.asarray(gradients[name]), strict=True):
            _bars(ax, push, [BLUE if one > 0 else ORANGE for one in push])
            ax.set(ylim=(-1.05, 1.05), yticks=[])
            ax.spines["bottom"].set_visible(False)
            ax.axhline(0, color=BLACK, lw=1)
            small = np.flatnonzero(abs(push) < FAINT)
            ax.plot(small, np.zeros(len(small)), "o", color=GREY, ms=4)
    for ax in axes[-1]:
        ax.set_xticks(range(len(class_names)), class_names, fontsize=11.5)
    figure.legend(
        handles=[Patch(color=BLUE, label="pushed up"), Patch(color=ORANGE, label="pushed down")],
        loc="outside lower center", ncols=2, fontsize=12, title="the logit of this class is",
        title_fontsize=12,
    )  # fmt: skip
    return figure


def _distribution(ax: Axes, values: np.ndarray) -> None:
    _bars(ax, values, GREY)
    ax.set(ylim=(0, 1.05), yticks=[], facecolor="#f2f2f2")


def _bars(ax: Axes, values: np.ndarray, color: str | list[str]) -> None:
    ax.bar(range(len(values)), values, width=0.72, color=color)
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="x", length=0, labelsize=11.5)
