"""Journeys of single images through the method: a row per image, a column per step."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.gradients import plot_bars
from genkl.data import Kind
from genkl.plots import BLACK, BLUE, GREY, KIND_COLORS, KIND_NAMES, RED

STEPS = (
    "the image and\nits given label",
    "what each\nmodel predicts",
    "their average,\ndominant if ≥ τ",
    "D with each vector:\nflagged if any ≥ 0",
    "the target it\nlearns from",
    "the prediction\nafterwards",
)
"""Headings of the columns."""


@dataclass(frozen=True)
class Journeys:
    """R instances on their way through the method.

    Attributes:
        images: shape (R, H, W) or (R, 1, H, W).
        kinds: what each one is in truth, see `Kind`, shape (R,).
        given: given labels, shape (R,).
        true: true classes, shape (R,); -1 where no single class is true.
        members: predictions of M models, shape (M, R, k).
        tau: the dominance threshold.
        divergences: D with each of n uniform-like vectors, shape (n, R).
        is_nc: whether the rule flags it, shape (R,).
        targets: shape (R, k).
        after: the averaged prediction of the trained models, shape (R, k).
    """

    images: np.ndarray
    kinds: np.ndarray
    given: np.ndarray
    true: np.ndarray
    members: np.ndarray
    tau: float
    divergences: np.ndarray
    is_nc: np.ndarray
    targets: np.ndarray
    after: np.ndarray


def median_of_each_kind(scores: np.ndarray, kinds: np.ndarray) -> dict[Kind, int]:
    """The instance in the middle of each kind: a rule that leaves nothing to taste.

    Args:
        scores: shape (N,).
        kinds: shape (N,), see `Kind`.

    Returns:
        Kind -> position of the instance with the (lower) median score, of equal scores the
        middle one in their order; kinds without an instance are left out.
    """
    found = {}
    for kind in Kind:
        rows = np.flatnonzero(np.asarray(kinds) == kind)
        if len(rows):
            order = rows[np.argsort(np.asarray(scores)[rows], kind="stable")]
            found[kind] = int(order[(len(order) - 1) // 2])
    return found


def verdict(kind: Kind, is_nc: bool) -> str:
    """What the rule did with an instance, and whether that was right, in three words at most."""
    conforming = kind in (Kind.CORRECT, Kind.MISLABELLED)
    if is_nc:
        return "flagged ✗" if conforming else "flagged ✓"
    return "not flagged ✓" if conforming else "not flagged ✗"


def plot_journeys(journeys: Journeys) -> Figure:
    """Draw the journeys: image, members, average, divergences, target, prediction afterwards.

    A tick or a cross says whether a step did the right thing by the truth, which the method never
    sees: flagged where no single class fits, and the true class predicted where one does.

    Args:
        journeys: of a few instances, one row each.
    """
    rows, k = journeys.targets.shape
    size, widths = (11, 1.62 * rows + 0.55), [0.8, 1, 1, 1.05, 1, 1]
    figure, axes = plt.subplots(rows, 6, figsize=size, width_ratios=widths, squeeze=False)
    top = max(1.0, float(journeys.targets.max()))
    low, high = float(journeys.divergences.min()), float(journeys.divergences.max())
    margin = 0.08 * max(high - low, 0.1)
    span = (min(low, 0) - margin, max(high, 0) + margin)
    for row, line in enumerate(axes):
        kind, given = Kind(journeys.kinds[row]), int(journeys.given[row])
        _image(line[0], journeys.images[row], kind, given)
        members = journeys.members[:, row]
        _members(line[1], members)
        _average(line[2], members.mean(axis=0), journeys.tau)
        _divergences(line[3], journeys.divergences[:, row], span)
        line[3].set_title(verdict(kind, bool(journeys.is_nc[row])), fontsize=12)
        _target(line[4], journeys.targets[row], given, bool(journeys.is_nc[row]))
        plot_bars(line[5], journeys.after[row], BLUE)
        line[5].set_title(_outcome(journeys.after[row], int(journeys.true[row])), fontsize=12)
        for place in (1, 2, 4, 5):
            line[place].set(xlim=(-0.7, k - 0.3), yticks=[0, 1], ylim=(0, 1.08))
            line[place].set_xticks(range(k), [str(label) for label in range(k)], fontsize=10.5)
        line[4].set(ylim=(0, 1.08 * top))
    for ax, step in zip(axes[0], STEPS, strict=True):
        above = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
        words = ax.annotate(step, (0.5, 1), (0, 26), annotation_clip=False, **above)
        words.set(va="bottom", fontsize=11.5, fontweight="bold")
    for ax in axes[-1, [1, 2, 4, 5]]:
        ax.set_xlabel("class", fontsize=12)
    axes[-1, 3].set_xlabel("D (nats)", fontsize=12)
    return figure


def _image(ax: Axes, image: np.ndarray, kind: Kind, given: int) -> None:
    ax.imshow(np.squeeze(image), cmap="gray")
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set(visible=True, color=KIND_COLORS[kind], lw=3)
    ax.set_title(f"“{given}”", fontsize=12)
    name = KIND_NAMES[kind].replace(" ", "\n", 1)
    ax.set_ylabel(name, fontsize=12.5, fontweight="bold", rotation=0, ha="right", va="center")


def _members(ax: Axes, members: np.ndarray) -> None:
    """A dot for each model and class; a model's dots stand a little beside the others'."""
    shifts = np.linspace(-0.28, 0.28, len(members)) if len(members) > 1 else [0.0]
    for shift, member in zip(shifts, members, strict=True):
        ax.plot(np.arange(len(member)) + shift, member, "o", color=BLUE, ms=3.5, clip_on=False)
    ax.grid(visible=False)


def _average(ax: Axes, average: np.ndarray, tau: float) -> None:
    plot_bars(ax, average, [BLUE if share >= tau else GREY for share in average])
    ax.axhline(tau, color=BLACK, ls="--", lw=1.3)
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    ax.annotate("τ", (1, tau), (3, 0), va="center", fontsize=12, **beside)


def _divergences(ax: Axes, values: np.ndarray, span: tuple[float, float]) -> None:
    heights = np.linspace(0.2, 0.8, len(values)) if len(values) > 1 else np.array([0.5])
    for mask, color in ((values < 0, GREY), (values >= 0, RED)):
        ax.plot(values[mask], heights[mask], "o", color=color, ms=5)
    ax.axvline(0, color=BLACK, ls="--", lw=1.3)
    ax.set(xlim=span, ylim=(0, 1), yticks=[])
    ax.tick_params(axis="x", labelsize=10.5)
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)


def _target(ax: Axes, target: np.ndarray, given: int, is_nc: bool) -> None:
    """Grey if uniform; else the given label's entry in red and the predicted one's in blue."""
    colors = [GREY if is_nc else BLUE] * len(target)
    if not is_nc:
        colors[given] = RED
    plot_bars(ax, target, colors)


def _outcome(after: np.ndarray, true: int) -> str:
    predicted = int(after.argmax())
    if true < 0:
        return f"{after[predicted]:.0%} for {predicted}"
    return f"{predicted} ✓" if predicted == true else f"{predicted} ✗ not {true}"
