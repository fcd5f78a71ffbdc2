"""What does it look like? The book's figures, drawn from arrays and records.

One colour per method and per kind of instance in the whole book, from a palette that colour-blind
readers can tell apart (Okabe and Ito). Every function draws into axes it is given and returns
them, or makes a figure and returns that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from genkl.data import Kind, Truth

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY, BLACK = "#CC79A7", "#56B4E9", "#7F7F7F", "#222222"

METHOD_COLORS = {
    "GenKL": BLUE,
    "GenKL, no NC stage": SKY,
    "GenKL, entropy instead": ORANGE,
    "GenKL, true NC known": BLACK,
    "divergence": BLUE,
    "entropy": ORANGE,
    "given labels": RED,
    "given labels + fine-tuning": PURPLE,
    "clean set alone": GREEN,
    "alpha within a budget": BLUE,
    "alpha far too low": RED,
}
"""Method name, as in the records -> colour. An unknown name is drawn in grey."""

KIND_COLORS = {
    Kind.CORRECT: GREEN,
    Kind.MISLABELLED: SKY,
    Kind.AMBIGUOUS: ORANGE,
    Kind.OOD: RED,
}
KIND_NAMES = {
    Kind.CORRECT: "correct label",
    Kind.MISLABELLED: "wrong label",
    Kind.AMBIGUOUS: "ambiguous",
    Kind.OOD: "out of distribution",
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


# -- the simplex of three classes ------------------------------------------------------------


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
    for name, (x, y), va in zip(
        ("class 1", "class 2", "class 3"), ((0.5, 0.9), (0, -0.03), (1, -0.03)),
        ("bottom", "top", "top"), strict=True,
    ):  # fmt: skip
        ax.text(x, y, name, ha="center", va=va, fontsize=10)
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
    ax.tripcolor(
        x, y, flagged.astype(float), shading="gouraud", cmap=ListedColormap(["#f2f2f2", color]),
        vmin=0, vmax=1, rasterized=True,
    )  # fmt: skip
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
        paths: shape (T, S, 3), see `genkl.losses.descend_logits`.
    """
    for place in range(paths.shape[1]):
        x, y = simplex_xy(paths[:, place])
        ax.plot(x, y, color=RED, lw=1.8)
        ax.plot(x[0], y[0], "o", color="white", mec=RED, ms=6, mew=1.5)
        ax.plot(x[-1], y[-1], "o", color=RED, ms=6)
    return ax


# -- instances ----------------------------------------------------------------------------------


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


# -- runs ---------------------------------------------------------------------------------------


def plot_methods(
    ax: Axes, frame: pd.DataFrame, metric: str, label: str, *, by: str = "method"
) -> Axes:
    """One row per method: a dot per seed, the mean, and a bar of one standard deviation.

    Args:
        ax: where to draw.
        frame: one row per run.
        metric: the column to show, a share; drawn in percent.
        label: of the axis.
        by: the column that names the methods.
    """
    methods = list(dict.fromkeys(frame[by]))
    for row, method in enumerate(reversed(methods)):
        values = 100 * frame.loc[frame[by] == method, metric].to_numpy()
        color = method_color(method)
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        ax.errorbar(values.mean(), row, xerr=spread, fmt="D", color=color, ms=8, lw=2.5, capsize=4)
        ax.plot(values, np.full(len(values), row - 0.25), "o", color=color, ms=5, alpha=0.6)
        ax.annotate(
            f"{values.mean():.1f}", (values.mean(), row), xytext=(0, 9), ha="center",
            textcoords="offset points", fontsize=11,
        )  # fmt: skip
    ax.set_yticks(range(len(methods)), list(reversed(methods)))
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
        mine = frame[frame["method"] == method]
        color = method_color(method)
        shift = 0.06 * (place - (len(methods) - 1) / 2)
        ax.plot(mine["index"] + shift, 100 * mine[metric], "o", color=color, ms=5, alpha=0.5)
        mean = 100 * mine.groupby("index")[metric].mean()
        ax.plot(mean.index + shift, mean, "D-", color=color, ms=7, lw=2.2, label=method)
    ax.set(xlabel="round", ylabel=label)
    ax.set_xticks(sorted(frame["index"].unique()))
    ax.legend(fontsize=10)
    return ax


def plot_sweep(
    ax: Axes, frame: pd.DataFrame, setting: str, metric: str, method: str, label: str
) -> Axes:
    """A metric over a setting: mean over seeds, band of one standard deviation.

    Args:
        ax: where to draw.
        frame: one row per setting and seed.
        setting: the column of the horizontal axis.
        metric: the column of the vertical axis.
        method: names the line and gives its colour.
        label: of the vertical axis.
    """
    groups = frame.groupby(setting)[metric]
    mean, std = groups.mean(), groups.std().fillna(0.0)
    color = method_color(method)
    ax.plot(mean.index, mean, "o-", color=color, lw=2.2, label=method)
    ax.fill_between(mean.index, mean - std, mean + std, color=color, alpha=0.18, lw=0)
    ax.set(xlabel=setting, ylabel=label)
    ax.legend(fontsize=10)
    return ax


def plot_level(ax: Axes, frame: pd.DataFrame, metric: str, method: str) -> Axes:
    """A horizontal line at a method's mean over seeds, with a band of one standard deviation."""
    mean, std = frame[metric].mean(), frame[metric].std(ddof=1) if len(frame) > 1 else 0.0
    color = method_color(method)
    ax.axhline(mean, color=color, lw=2.2, label=method)
    ax.axhspan(mean - std, mean + std, color=color, alpha=0.15, lw=0)
    ax.legend(fontsize=10)
    return ax


def plot_role_losses(ax: Axes, history: pd.DataFrame) -> Axes:
    """Training loss of each role over the steps.

    Args:
        ax: where to draw.
        history: of `genkl.train.FitResult`, one row per evaluation.
    """
    for column, name, color in (
        ("clean_loss", "clean", GREEN),
        ("non_nc_loss", "non-NC", BLUE),
        ("nc_loss", "NC", RED),
    ):
        if history[column].notna().any():
            ax.plot(history["step"], history[column], color=color, lw=2.2, label=name)
    ax.set(xlabel="step", ylabel="mean loss (nats)")
    ax.legend(fontsize=10)
    return ax


# -- theory --------------------------------------------------------------------------------------


def plot_peak_band(
    ax: Axes,
    peaks: np.ndarray,
    votes: np.ndarray,
    by_uniform: tuple[float, float],
    by_any: tuple[float, float],
    title: str,
) -> Axes:
    """Which one-peak predictions are flagged: by the uniform vector, and by sampled ones.

    Args:
        ax: where to draw.
        peaks: probability of the leading class, shape (G,), ascending.
        votes: share of the sampled vectors that flag, shape (G,).
        by_uniform: the peaks that the exactly uniform vector flags, from and to.
        by_any: the peaks that any of the sampled vectors flags.
        title: above the axes.
    """
    ax.fill_between(peaks, votes, color=BLUE, alpha=0.3, lw=0, label="votes of sampled vectors")
    ax.plot(by_any, (1.1, 1.1), color=BLUE, lw=5, solid_capstyle="butt", label="any sampled vector")
    ax.plot(
        by_uniform, (1.2, 1.2), color=BLACK, lw=5, solid_capstyle="butt", label="uniform vector"
    )
    ax.set(xlim=(0, 1), ylim=(0, 1.3), xlabel="probability m of the leader")
    ax.set_yticks((0, 0.5, 1), ("none", "half", "all"))
    ax.set_title(title)
    return ax


def plot_by_count(ax: Axes, counts: Sequence[int], shares: Mapping[str, np.ndarray]) -> Axes:
    """Flagged share against the number of uniform-like vectors: mean, and range over seeds.

    Args:
        ax: where to draw; its horizontal axis becomes logarithmic.
        counts: numbers of vectors n, shape (C,).
        shares: name of a rule -> shares flagged (S, C), one row per seed; solid and dashed lines.
    """
    for (name, values), dashes in zip(shares.items(), ("-", "--", ":"), strict=False):
        ax.plot(counts, values.mean(axis=0), "o" + dashes, color=BLUE, lw=2.2, ms=5, label=name)
        ax.fill_between(
            counts, values.min(axis=0), values.max(axis=0), color=BLUE, alpha=0.15, lw=0
        )
    ax.set(xlabel="number of vectors n", ylabel="share flagged", xscale="log", ylim=(0, 1))
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.minorticks_off()
    ax.legend(loc="upper left", fontsize=10)
    return ax


def plot_overlaps(ax: Axes, overlaps: Mapping[str, np.ndarray], title: str) -> Axes:
    """One row per rule: the overlap of each pair of NC sets as a dot, their mean as a number.

    Args:
        ax: where to draw.
        overlaps: name of a rule -> Jaccard overlaps, shape (pairs,); NaN (both sets empty) is
            left out.
        title: above the axes.
    """
    for row, values in enumerate(reversed(list(overlaps.values()))):
        known = np.asarray(values)[~np.isnan(values)]
        ax.plot(known, np.full(len(known), row), "o", color=BLUE, ms=6, alpha=0.45, mew=0)
        if len(known):
            mean = known.mean()
            ax.plot(mean, row, "D", color=BLACK, ms=7)
            ax.annotate(
                f"{mean:.2f}", (mean, row), xytext=(0, 9), textcoords="offset points", ha="center",
                fontsize=11,
            )  # fmt: skip
    ax.set_yticks(range(len(overlaps)), list(reversed(list(overlaps))))
    ax.set(xlim=(-0.03, 1.06), ylim=(-0.5, len(overlaps) - 0.4), xlabel="overlap (Jaccard)")
    ax.grid(axis="y", visible=False)
    ax.set_title(title)
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


# -- choosing -------------------------------------------------------------------------------------


def plot_alpha_paths(
    ax: Axes,
    alphas: np.ndarray,
    shares: Mapping[str, np.ndarray],
    marks: Mapping[str, float],
) -> Axes:
    """The share flagged at every alpha, one line per set of predictions.

    Args:
        ax: where to draw.
        alphas: shape (A,), ascending.
        shares: name -> share flagged, shape (A,); drawn in percent.
        marks: name of an alpha -> its value; dotted.
    """
    for (name, share), color in zip(shares.items(), (BLUE, ORANGE, GREEN, RED), strict=False):
        ax.plot(alphas, 100 * share, color=color, lw=2.4, label=name)
    for name, alpha in marks.items():
        ax.axvline(alpha, color=BLACK, ls=":", lw=1.4)
        ax.annotate(name, (alpha, 97), rotation=90, va="top", ha="right", fontsize=9.5, color=BLACK)
    ax.set(xlabel="alpha", ylabel="flagged (%)", ylim=(0, 100), xlim=(alphas[0], alphas[-1]))
    ax.legend(loc="center right", fontsize=10)
    return ax


def plot_flag_rates(ax: Axes, rates: np.ndarray, budget: float, title: str) -> Axes:
    """How often each share of conforming instances was flagged, over many held-out sets.

    Args:
        ax: where to draw.
        rates: shares flagged, shape (repeats,); drawn in percent.
        budget: the share that was promised.
        title: above the axes.
    """
    edges = np.linspace(0, 100 * 3 * budget, 31)
    within = rates <= budget
    for group, color, name in ((within, BLUE, "kept"), (~within, RED, "exceeded")):
        values = np.minimum(100 * rates[group], edges[-1])
        label = f"{name}: {group.mean():.0%}"
        ax.hist(values, edges, color=color, alpha=0.75, label=label)
    ax.axvline(100 * budget, color=BLACK, ls="--", lw=1.5)
    ax.annotate(
        f"mean {100 * rates.mean():.1f} %", (100 * rates.mean(), 0), xytext=(0, 4),
        textcoords="offset points", ha="center", fontsize=10,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )  # fmt: skip
    ax.set(xlabel="conforming instances flagged (%)", ylabel="held-out sets", title=title)
    ax.legend(fontsize=10)
    return ax


# -- speed ----------------------------------------------------------------------------------------


def plot_growth(ax: Axes, frame: pd.DataFrame, letter: str, label: str) -> Axes:
    """Time against one of N, k and n, and the straight line of least squares through it.

    Args:
        ax: where to draw.
        frame: rows of the record's table ``growth``, columns ``grows``, N, k, n, ``seconds``.
        letter: which one grows.
        label: of the horizontal axis.
    """
    mine = frame[frame["grows"] == letter].sort_values(letter)
    milliseconds = 1e3 * mine["seconds"]
    slope, intercept = np.polyfit(mine[letter], milliseconds, 1)
    ends = np.array([0, mine[letter].max()])
    ax.plot(ends, intercept + slope * ends, color=GREY, lw=1.6, ls="--", label="straight line")
    ax.plot(mine[letter], milliseconds, "o", color=BLUE, ms=7, label="measured")
    ax.set(xlabel=label, ylabel="time (ms)", xlim=(0, None), ylim=(0, None))
    return ax


# -- tables --------------------------------------------------------------------------------------


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
