"""Learning compared: what tuning turns round, what accuracy hides, what finding is worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from genkl import load_record, stale_because
from genkl.plots import BLACK, BLUE, GREEN, GREY, ORANGE, RED

NOISE_COLORS = {"wrong labels": BLUE, "OOD": RED, "AID": GREEN}
MEASURES = {
    "accuracy": ("accuracy", "o", BLUE),
    "balanced_accuracy": ("balanced accuracy", "s", GREEN),
    "worst_recall": ("recall of the worst class", "D", ORANGE),
}
"""Column -> name, mark and colour."""
REPEATED = {
    "memorised": ("wrong labels", "o", BLUE),
    "memorised_nc": ("labels of images of no class", "s", RED),
}
"""What a network repeats of the labels it was given: column -> name, mark and colour."""


def records_of(folder: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The records ``NAME.json`` that are in a folder, by name."""
    paths = {name: Path(folder) / f"{name}.json" for name in names}
    return {name: load_record(path) for name, path in paths.items() if path.exists()}


def joined(records: Iterable[Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """Tables of several records, one below the other, by name."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for record in records:
        for name, rows in record["tables"].items():
            parts.setdefault(name, []).append(pd.DataFrame(rows))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def state_of(known: Mapping[str, Mapping[str, Any]], asked: Sequence[str]) -> str:
    """Where records were made, which are stale and which are not there yet, as Markdown.

    Args:
        known: records by data set.
        asked: data sets that a page shows, with a record or without.
    """
    machines = dict.fromkeys(
        f"{m['processor']}, {m['cores']} cores, GPU: {m['gpu']}"
        for m in (record["provenance"]["machine"] for record in known.values())
    )
    lines = [f"Measured on {'; '.join(machines)}.", ""] if known else []
    for name, record in known.items():
        if why := stale_because(record):
            lines.append(f"- **Stale: {name}**: {'; '.join(why)}.")
    if missing := [name for name in asked if name not in known]:
        lines.append(f"- **Not measured yet**, and in no number below: {', '.join(missing)}.")
    return "\n".join(lines)


def claims_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """What was registered and what came out: a row a claim, a column a data set.

    Args:
        records: of the confirmation, with a table ``claims``.
    """
    parts = [
        pd.DataFrame(record["tables"]["claims"]).assign(set=record["settings"]["title"])
        for record in records
    ]
    claims = pd.concat(parts)
    claims["found"] = [
        f"{'holds' if row.holds else 'fails'}: {row.difference:+.1f} "
        f"({row.difference_low:+.1f} to {row.difference_high:+.1f})"
        for row in claims.itertuples()
    ]
    return claims.pivot(index="claim", columns="set", values="found").reindex(
        index=claims["claim"].unique(), columns=claims["set"].unique()
    )


def claims_held(claims: pd.DataFrame) -> str:
    """How many of the registered claims hold, over all data sets, in words; see `claims_table`."""
    held = claims.stack().str.startswith("holds")
    return f"Of the registered claims {counted(int(held.sum()), len(held))} hold."


def plot_reversal(ax: Axes, gaps: pd.DataFrame, label: str) -> Axes:
    """What tuning both sides does to a difference: an arrow for each data set.

    Args:
        ax: where to draw.
        gaps: points, index data sets, columns ``default`` and ``tuned``; arrows that cross zero
            are coloured.
        label: of the horizontal axis.
    """
    for row, (default, tuned) in enumerate(gaps[["default", "tuned"]].to_numpy()[::-1]):
        color = RED if default * tuned < 0 else GREY
        line = {"arrowstyle": "-|>", "color": color, "lw": 2, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (tuned, row), (default, row), arrowprops=line)
        ax.plot(default, row, "o", ms=9, mfc="white", mec=color, mew=2)
        ax.plot(tuned, row, "o", ms=9, color=color)
    for name, face in (("as it comes", "white"), ("tuned", BLACK)):
        ax.plot([], [], "o", ms=9, mfc=face, mec=BLACK, mew=2, label=name)
    ax.plot([], [], "-", color=RED, lw=2, label="another wins")
    ax.axvline(0, color=BLACK, lw=1.5)
    ax.set_yticks(range(len(gaps)), gaps.index[::-1])
    ax.set(xlabel=label, ylim=(-0.6, len(gaps) - 0.4))
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=10)
    return ax


def plot_measures(
    ax: Axes,
    means: pd.DataFrame,
    measures: Mapping[str, tuple[str, str, str]] = MEASURES,
    label: str = "mean over the data sets (%)",
) -> Axes:
    """Accuracy, balanced accuracy and the worst class's recall of each method, in percent.

    Args:
        ax: where to draw.
        means: index methods, drawn from the top; columns of the measures, shares.
        measures: column -> name, mark and colour, such as `REPEATED`.
        label: of the horizontal axis.
    """
    rows = np.arange(len(means))[::-1]
    ends = 100 * means[list(measures)]
    ax.hlines(rows, ends.min(axis=1), ends.max(axis=1), color=GREY, lw=1.5)
    for column, (name, mark, color) in measures.items():
        ax.plot(ends[column], rows, mark, color=color, ms=7, label=name)
    ax.set_yticks(rows, means.index)
    ax.set(xlabel=label, ylim=(-0.6, len(means) - 0.4))
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, fontsize=10)
    return ax


def plot_gains(ax: Axes, found: pd.DataFrame, title: str) -> Axes:
    """Points gained by finding over the AUROC of finding, with a line through each kind of noise.

    Args:
        ax: where to draw.
        found: columns ``noise``, ``find``, ``auroc``, ``difference``; the oracle has a star.
        title: of the panel.
    """
    for noise, color in NOISE_COLORS.items():
        mine = found[found["noise"] == noise]
        if mine.empty:
            continue
        oracle = mine["find"] == "oracle"
        ax.plot(mine["auroc"][~oracle], mine["difference"][~oracle], "o", color=color, ms=7)
        ax.plot(mine["auroc"][oracle], mine["difference"][oracle], "*", color=color, ms=15)
        slope, at = gain_per_point(mine)
        ends = np.array([mine["auroc"].min(), mine["auroc"].max()])
        ax.plot(ends, at + 100 * slope * ends, color=color, lw=1.6, ls="--", label=noise)
    ax.axhline(0, color=BLACK, lw=1.2)
    ax.set(xlabel="AUROC of finding", ylabel="points gained", title=title)
    return ax


def gain_per_point(found: pd.DataFrame) -> tuple[float, float]:
    """Points of accuracy gained per point of AUROC, by least squares, and the line's height at 0.

    Args:
        found: columns ``auroc`` (a share) and ``difference`` (points).
    """
    slope, at = np.polyfit(found["auroc"], found["difference"], 1)
    return float(slope) / 100, float(at)


def counted(found: int, total: int) -> str:
    """So many of so many, in words: "none of the 9", "all 9", "3 of the 9"."""
    if found == total:
        return f"all {total}"
    return f"{found or 'none'} of the {total}"


def reversals(opposite: int, total: int) -> str:
    """What to think of pairs whose winner changes, by how often both winners are beyond noise."""
    if not opposite:
        return "for none of them do both intervals exclude zero: two winners, each within the noise"
    return (
        f"for {counted(opposite, total)} both intervals exclude zero: a paper that stopped at the "
        "hollow dots would have reported a significant result, and one that stopped at the filled "
        "dots its opposite"
    )


def sides(frame: pd.DataFrame, method: str, names: Sequence[str] = ("below", "above")) -> str:
    """On how many data sets an interval lies below zero, and on how many above, in words.

    Args:
        frame: columns ``method``, ``low`` and ``high``, a row for each data set.
        method: whose rows.
        names: of the two sides.
    """
    mine = frame[frame["method"] == method]
    below, above = int((mine["high"] < 0).sum()), int((mine["low"] > 0).sum())
    return f"{names[0]} on {counted(below, len(mine))}, {names[1]} on {counted(above, len(mine))}"
