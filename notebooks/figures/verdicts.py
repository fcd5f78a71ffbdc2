"""Verdicts of the chapter on detection, computed from its records: who is better, on how many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

WAYS = ("random", "predictor", "nearest class", "human")
"""Ways to give strangers labels, in the order of figures; data sets have some of them."""


def of_total(count: int, total: int) -> str:
    """A count in words: "all 7", "none of 7", "5 of 7"."""
    if total and count == total:
        return f"all {total}"
    return f"{count or 'none'} of {total}"


def listed(names: Iterable[str]) -> str:
    """Names as one says them: "a, b and c"; "none" where there are none."""
    *first, last = [*names] or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def counted(names: Iterable[str], total: int) -> str:
    """How many of a total, and which: "none of 7", "2 of 7 (a and b)", "all 7"."""
    names = [*names]
    which = f" ({listed(names)})" if 0 < len(names) < total else ""
    return of_total(len(names), total) + which


def main_rows(intervals: pd.DataFrame, ways: Mapping[str, str]) -> pd.DataFrame:
    """Rows of the main way to give labels of each data set.

    Args:
        intervals: columns ``case`` and ``labels``.
        ways: data set -> its main way.
    """
    return intervals[intervals["labels"] == intervals["case"].map(ways)]


def against(rows: pd.DataFrame, method: str, column: str = "over") -> dict[str, Any]:
    """Where a difference's interval lies above zero, and where below.

    Args:
        rows: one row a data set of each method, columns ``case``, ``method``, the difference, and
            its ends under ``_low`` and ``_high``.
        method: whose differences.
        column: "over" (the base) or "over_random" (itself under labels at random).

    Returns:
        ``better`` and ``worse`` (how many), ``cases``, ``better_of`` and ``worse_of`` (these in
        words, and which), ``better_names``, ``least`` and ``most``.
    """
    mine = rows[(rows["method"] == method) & rows[column].notna()]
    above, below = mine[mine[f"{column}_low"] > 0], mine[mine[f"{column}_high"] < 0]
    return {
        "better": len(above),
        "worse": len(below),
        "cases": len(mine),
        "better_of": counted(above["case"], len(mine)),
        "worse_of": counted(below["case"], len(mine)),
        "better_names": listed(above["case"]),
        "least": float(mine[column].min()),
        "most": float(mine[column].max()),
    }


def leaders(rows: pd.DataFrame, value: str = "auroc", *, lowest: bool = False) -> dict[str, Any]:
    """Who is best on each data set, and who on most of them.

    Args:
        rows: one row a data set of each method.
        value: what is compared.
        lowest: whether less is better.

    Returns:
        ``by_case`` (data set -> method), ``first`` (best on most data sets), ``first_of`` (on how
        many, in words) and ``mean`` (the one with the best mean over data sets that all have).
    """
    wide = rows.pivot(index="case", columns="method", values=value)[rows["method"].unique()]
    wide = -wide if lowest else wide
    by_case = wide.idxmax(axis=1)
    counts = by_case.value_counts()
    first = str(counts.index[0])
    return {
        "by_case": by_case.to_dict(),
        "first": first,
        "first_of": of_total(int(counts.iloc[0]), len(by_case)),
        "mean": str(wide.dropna(axis=1).mean().idxmax()),
    }


def what_decides(rows: pd.DataFrame) -> str:
    """Whether AUROC differs more between data sets or between methods."""
    wide = rows.pivot(index="method", columns="case", values="auroc")
    more = wide.mean(axis=0).std() > wide.mean(axis=1).std()
    return "the data decide more than the method does" if more else "the method decides most"


def reading_labels(rows: pd.DataFrame, readers: Iterable[str]) -> str:
    """On how many data sets a detector that reads the given label is the best one, and on which.

    Args:
        rows: one row a data set of each method.
        readers: detectors that read it.
    """
    best = leaders(rows)["by_case"]
    won = [case for case, method in best.items() if method in set(readers)]
    return counted(won, len(best))


def promise(thresholds: pd.DataFrame, budget: float, methods: Iterable[str]) -> dict[str, Any]:
    """How often the share of conforming instances flagged stays within the budget, on average.

    Args:
        thresholds: columns ``case``, ``method``, ``budget_false_flags``, a row a seed.
        budget: that was promised.
        methods: who is asked.

    Returns:
        ``kept`` in words, of all pairs of a detector and a data set; ``most`` and ``where``, the
        largest share and its data set; ``verdict``: "keep it", "mostly keep it" or "break it".
    """
    mine = thresholds[thresholds["method"].isin(list(methods))]
    means = mine.groupby(["method", "case"])["budget_false_flags"].mean()
    kept = int((means <= budget).sum())
    verdict = "mostly keep it" if 2 * kept > len(means) else "break it"
    return {
        "kept": of_total(kept, len(means)),
        "most": float(means.max()),
        "where": str(means.idxmax()[1]),
        "verdict": "keep it" if kept == len(means) else verdict,
    }


def change(conditions: pd.DataFrame, condition: str) -> dict[str, float]:
    """What each score gains from the least to the greatest value of a condition.

    Args:
        conditions: columns ``condition``, ``value``, ``method``, ``auroc``.
        condition: whose values are numbers.

    Returns:
        Method -> mean AUROC at the greatest value less that at the least; means over data sets
        and seeds.
    """
    mine = conditions[conditions["condition"] == condition].astype({"value": float})
    wide = mine.pivot_table(index="value", columns="method", values="auroc").sort_index()
    return (wide.iloc[-1] - wide.iloc[0]).to_dict()


AXES = {
    "the predictor": ("clean per class", "pixels", "network"),
    "imbalance": ("imbalance",),
    "beta": ("beta",),
}
"""What the gap between divergence and entropy may hang on, and the conditions that vary it."""


def gaps(conditions: pd.DataFrame) -> pd.DataFrame:
    """How far the divergence ranks above entropy under each condition.

    Args:
        conditions: columns ``case``, ``condition``, ``value``, ``method``, ``auroc``,
            ``val_accuracy``; a row a seed.

    Returns:
        Means over seeds: ``axis`` of `AXES`, ``case``, ``x`` (the predictor's accuracy on its
        axis, else the condition's value) and ``gap``.
    """
    axis_of = {condition: axis for axis, names in AXES.items() for condition in names}
    mine = conditions[conditions["condition"].isin(axis_of)]
    mine = mine[mine["method"].isin(["GenKL", "entropy"])]
    by = ["case", "condition", "value"]
    wide = mine.pivot_table(index=by, columns="method", values="auroc", sort=False)
    accuracy = mine.groupby(by, sort=False)["val_accuracy"].mean()
    table = wide.assign(gap=wide["GenKL"] - wide["entropy"], x=accuracy).reset_index()
    table["axis"] = table["condition"].map(axis_of)
    table["x"] = table["x"].where(table["axis"] == "the predictor", table["value"]).astype(float)
    return table[["axis", "case", "x", "gap"]].sort_values(["axis", "case", "x"])


def gap_table(found: pd.DataFrame) -> pd.DataFrame:
    """For each axis: where the divergence is ahead, its largest gap and on which data set.

    Args:
        found: see `gaps`.
    """
    rows = {}
    for axis, part in found.groupby("axis", sort=False):
        top = part.loc[part["gap"].idxmax()]
        rows[axis] = {
            "divergence ahead": of_total(int((part["gap"] > 0).sum()), len(part)),
            "largest gap": f"{top['gap']:+.3f}",
            "on": top["case"],
            "smallest gap": f"{part['gap'].min():+.3f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("over")


def alike(gains: Mapping[str, float], within: float = 0.01) -> str:
    """Whether all gain as much, give or take: "alike", or "different"."""
    spread = max(gains.values()) - min(gains.values())
    return "alike" if spread <= within else "different"


def with_accuracy(conditions: pd.DataFrame) -> str:
    """How often a score ranks better under the most accurate predictor than under the least."""
    groups = conditions.groupby(["case", "condition", "value", "method"], as_index=False)
    means = groups[["auroc", "val_accuracy"]].mean()
    rises = []
    for _, part in means.groupby(["case", "condition", "method"]):
        ordered = part.sort_values("val_accuracy", kind="stable")["auroc"]
        if len(ordered) > 1:
            rises.append(ordered.iloc[-1] > ordered.iloc[0])
    return of_total(sum(rises), len(rises))


def effect(found: Mapping[str, Any]) -> str:
    """What reading the given label does, from `against`: "helps", "misleads", or neither."""
    if found["better"] == found["worse"]:
        return f"decides nothing ({found['better']} to {found['worse']})"
    word = "helps" if found["better"] > found["worse"] else "misleads"
    return f"{word} ({found['better']} to {found['worse']})"
