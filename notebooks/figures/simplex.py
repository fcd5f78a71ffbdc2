"""Triangles of predictions over three classes: regions, losses, paths, ensembles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from genkl.losses import RowLoss
from genkl.plots import BLACK, RED


def simplex_points(resolution: int = 120) -> np.ndarray:
    """A triangular grid of predictions over three classes.

    Args:
        resolution: steps along each edge.

    Returns:
        Shape (P, 3), rows sum to 1, P = (resolution + 1)(resolution + 2) / 2.
    """
    first, second = np.meshgrid(np.arange(resolution + 1), np.arange(resolution + 1))
    inside = first + second <= resolution
    first, second = first[inside], second[inside]
    return np.stack([first, second, resolution - first - second], axis=1) / resolution


def simplex_xy(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Plane coordinates of predictions (P, 3): an equilateral triangle, class 1 at the top."""
    return points[:, 2] + 0.5 * points[:, 0], np.sqrt(3) / 2 * points[:, 0]


def _frame_simplex(ax: Axes, title: str) -> None:
    corners = np.eye(3)[[0, 1, 2, 0]]
    ax.plot(*simplex_xy(corners), color=BLACK, lw=1.2)
    ax.plot(*simplex_xy(np.full((1, 3), 1 / 3)), "+", color=BLACK, ms=9, mew=1.5)
    ax.text(0.5, 0.9, "class 1", ha="center", va="bottom", fontsize=10)
    ax.text(0, -0.03, "class 2", ha="center", va="top", fontsize=10)
    ax.text(1, -0.03, "class 3", ha="center", va="top", fontsize=10)
    ax.set(xlim=(-0.12, 1.12), ylim=(-0.12, 1.02), aspect="equal")
    ax.axis("off")
    ax.set_title(title, fontsize=11.5)


def plot_simplex_region(
    ax: Axes, is_nc: Callable[[np.ndarray], np.ndarray], title: str, color: str, resolution=150
) -> Axes:
    """Shade the predictions over three classes that a rule flags as non-conforming.

    Args:
        ax: where to draw.
        is_nc: maps predictions (P, 3) to a mask (P,).
        title: above the triangle; the flagged share of the triangle's area is added.
        color: of the region.
        resolution: grid steps along each edge.
    """
    points = simplex_points(resolution)
    flagged = np.asarray(is_nc(points))
    x, y = simplex_xy(points)
    look = {"cmap": ListedColormap(["#f2f2f2", color]), "vmin": 0, "vmax": 1, "rasterized": True}
    ax.tripcolor(x, y, flagged.astype(float), shading="gouraud", **look)
    _frame_simplex(ax, f"{title}\n{flagged.mean():.0%} of the triangle")
    return ax


def plot_simplex_values(
    ax: Axes,
    values: Callable[[np.ndarray], np.ndarray],
    title: str,
    *,
    vmax: float,
    colorbar: bool = False,
) -> Axes:
    """Contours of a loss over the predictions of three classes, from 0 to vmax nats.

    Args:
        ax: where to draw.
        values: maps predictions (P, 3) to losses (P,).
        title: above the triangle.
        vmax: losses above it share the darkest colour.
        colorbar: draw the scale to the right.
    """
    points = simplex_points(90)
    points = (points + 1e-4) / (1 + 3e-4)  # keep logarithms finite at the border
    numbers = np.clip(np.asarray(values(points)), 0, vmax)
    mesh = ax.tricontourf(
        *simplex_xy(points), numbers, levels=np.linspace(0, vmax, 13), cmap="cividis_r"
    )
    if colorbar:
        scale = ax.figure.colorbar(mesh, ax=ax, shrink=0.7, label="loss (nats)", format="%.0f")
        scale.set_ticks(np.arange(0, vmax + 0.5))
    _frame_simplex(ax, title)
    return ax


def loss_over(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], target: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """A row loss as a function of the prediction, for `plot_simplex_values`.

    Args:
        loss: a row loss of `genkl.losses`.
        target: shape (k,).

    Returns:
        Maps predictions (P, k) to losses (P,).
    """
    targets = torch.as_tensor(np.asarray(target, dtype=np.float64))

    def values(points: np.ndarray) -> np.ndarray:
        logits = torch.from_numpy(np.log(points))
        return loss(logits, targets.expand_as(logits)).numpy()

    return values


def plot_simplex_paths(ax: Axes, paths: np.ndarray) -> Axes:
    """Draw paths of predictions over three classes into a triangle: open dot to filled dot.

    Args:
        ax: a triangle drawn by `plot_simplex_values` or `plot_simplex_region`.
        paths: shape (T, S, 3), see `descend_logits`.
    """
    for place in range(paths.shape[1]):
        x, y = simplex_xy(paths[:, place])
        ax.plot(x, y, color=RED, lw=1.8)
        ax.plot(x[0], y[0], "o", color="white", mec=RED, ms=6, mew=1.5)
        ax.plot(x[-1], y[-1], "o", color=RED, ms=6)
    return ax


def plot_simplex_members(ax: Axes, members: np.ndarray) -> Axes:
    """Draw the predictions of several models and their average into a triangle.

    Args:
        ax: a triangle drawn by `plot_simplex_region`.
        members: shape (M, 3); open dots, and a filled diamond for their average.
    """
    average = members.mean(axis=0, keepdims=True)
    for member in members:
        x, y = simplex_xy(np.stack([member, average[0]]))
        ax.plot(x, y, color=BLACK, lw=1, ls=":")
    ax.plot(*simplex_xy(members), "o", color="white", mec=BLACK, ms=9, mew=1.8, label="one model")
    ax.plot(*simplex_xy(average), "D", color=BLACK, mec="white", ms=10, label="their average")
    return ax


def descend_logits(
    loss: RowLoss, target: np.ndarray, starts: np.ndarray, steps: int = 200, rate: float = 0.1
) -> np.ndarray:
    """Follow a loss downhill from given predictions, as if the logits were free to move.

    No network, no data: what is left is what the loss itself asks for.

    Args:
        loss: a row loss.
        target: shape (k,), the same for every start.
        starts: predictions to start from, shape (S, k), positive.
        steps: gradient steps.
        rate: step length.

    Returns:
        Predictions along the paths, shape (steps + 1, S, k), the starts first.
    """
    logits = torch.from_numpy(np.log(starts)).requires_grad_()
    targets = torch.from_numpy(np.asarray(target, dtype=np.float64)).expand_as(logits)
    path = [logits.detach().softmax(dim=1)]
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss(logits, targets).sum(), logits)
        logits = (logits - rate * gradient).detach().requires_grad_()
        path.append(logits.detach().softmax(dim=1))
    return torch.stack(path).numpy()
