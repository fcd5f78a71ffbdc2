"""Figures of predictions and scores: accuracy, AUROC, average precision, recall, means over seeds.

Non-conforming is the positive class, and a higher score says "less conforming" throughout. A
figure whose class is absent is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import PermutationMethod, binomtest, t, wilcoxon
from sklearn.metrics import average_precision_score, roc_auc_score

from genkl.checks import check_labels, check_probabilities, to_numpy
from genkl.data import Kind, Truth

MOST_SIGNS = 1 << 16
"""Of differences with ties that the signed-rank test tries; all, up to 16 differences."""


def accuracy(pred_probs: np.ndarray, labels: np.ndarray) -> float:
    """Share of instances whose most probable class is the label.

    Args:
        pred_probs: shape (N, k).
        labels: integers in 0..k-1, shape (N,).

    Raises:
        ValueError: bad probabilities or labels out of range.
    """
    labels = np.asarray(labels)
    check_probabilities("pred_probs", pred_probs, ndim=2)
    check_labels("labels", labels, pred_probs.shape[1], pred_probs.shape[0])
    return float((pred_probs.argmax(axis=1) == labels).mean())


def auroc(scores: np.ndarray, is_nc: np.ndarray) -> float:
    """Chance that a non-conforming instance scores higher than a conforming one, ties half.

    Args:
        scores: shape (N,); infinite ones are allowed.
        is_nc: boolean, shape (N,).

    Returns:
        In [0, 1]; NaN where one kind is absent.

    Raises:
        ValueError: shapes that differ, or NaN among the scores.
    """
    scores, is_nc = check_scores(scores, is_nc)
    if is_nc.all() or not is_nc.any():
        return float("nan")
    return float(roc_auc_score(is_nc, _ranks(scores)))


def average_precision(scores: np.ndarray, is_nc: np.ndarray) -> float:
    """Precision averaged over the recall gained at each threshold, as scikit-learn does.

    A score that knows nothing has about the share of non-conforming instances.

    Args:
        scores: shape (N,); infinite ones are allowed.
        is_nc: boolean, shape (N,).

    Returns:
        In (0, 1]; NaN where no instance is non-conforming.

    Raises:
        ValueError: as `auroc`.
    """
    scores, is_nc = check_scores(scores, is_nc)
    if not is_nc.any():
        return float("nan")
    return float(average_precision_score(is_nc, _ranks(scores)))


def recall_at_share(scores: np.ndarray, is_nc: np.ndarray, share: float = 0.05) -> float:
    """Share of the non-conforming instances among the highest-scored share of all.

    Where the cut falls into a tie, or between two instances, this is the expectation over a fair
    draw. A constant score has exactly ``share``.

    Args:
        scores: shape (N,); infinite ones are allowed.
        is_nc: boolean, shape (N,).
        share: of all instances that is flagged, in [0, 1].

    Returns:
        In [0, 1], and at most share * N over the number of non-conforming instances; NaN where
        there is none.

    Raises:
        ValueError: share outside [0, 1], and as `auroc`.

    Example:
        >>> scores, is_nc = np.array([3.0, 2.0, 2.0, 1.0]), np.array([False, True, False, True])
        >>> recall_at_share(scores, is_nc, share=0.5)  # the first, and one of the next two
        0.25
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; state a share between 0 and 1")
    scores, is_nc = check_scores(scores, is_nc)
    if not is_nc.any():
        return float("nan")
    falling, fallen_nc = np.sort(-scores), -scores[is_nc]
    above, at_least = (np.searchsorted(falling, fallen_nc, side) for side in ("left", "right"))
    flagged = np.clip((share * len(scores) - above) / (at_least - above), 0, 1)
    return float(flagged.mean())


def precision_recall_f1(is_flagged: np.ndarray, is_nc: np.ndarray) -> dict[str, float]:
    """Precision, recall and their harmonic mean.

    Args:
        is_flagged: boolean mask, shape (N,).
        is_nc: boolean, shape (N,).

    Returns:
        ``precision`` (NaN where nothing is flagged), ``recall`` and ``f1`` (NaN where nothing is
        non-conforming; f1 is 0 where nothing is flagged).

    Raises:
        ValueError: shapes that differ.
    """
    is_flagged, is_nc = to_numpy(is_flagged).astype(bool), to_numpy(is_nc).astype(bool)
    check_same("is_flagged", is_flagged, is_nc)
    hits, flagged, present = (int(x.sum()) for x in (is_flagged & is_nc, is_flagged, is_nc))
    return {
        "precision": hits / flagged if flagged else float("nan"),
        "recall": hits / present if present else float("nan"),
        "f1": 2 * hits / (flagged + present) if present else float("nan"),
    }


def identification_report(
    scores: np.ndarray, is_flagged: np.ndarray, truth: Truth
) -> dict[str, float]:
    """Hold a score and the mask it led to against the truth; NC is the positive class.

    Args:
        scores: larger means less conforming, shape (N,).
        is_flagged: boolean mask, shape (N,).
        truth: of the same N instances.

    Returns:
        ``flagged`` (share of all instances), ``precision``, ``recall``, ``f1``,
        ``false_flags`` (share of conforming instances flagged), ``auroc`` and
        ``average_precision`` of the score, ``recall_ood`` and ``recall_ambiguous``, ``auroc_ood``
        and ``auroc_ambiguous`` (that kind against the conforming ones). A figure whose class is
        absent is NaN; precision is NaN where nothing is flagged.

    Raises:
        ValueError: shapes that differ.
    """
    scores, is_flagged, is_nc = np.asarray(scores), np.asarray(is_flagged), truth.is_nc
    if not scores.shape == is_flagged.shape == is_nc.shape:
        raise ValueError(
            f"scores {scores.shape}, is_flagged {is_flagged.shape} and the truth {is_nc.shape} "
            "must describe the same instances"
        )
    figures = {
        "flagged": float(is_flagged.mean()),
        **precision_recall_f1(is_flagged, is_nc),
        "false_flags": precision_recall_f1(is_flagged, ~is_nc)["recall"],
        "auroc": auroc(scores, is_nc),
        "average_precision": average_precision(scores, is_nc),
    }
    for kind in (Kind.OOD, Kind.AMBIGUOUS):
        of_kind = truth.kinds == kind
        among = of_kind | ~is_nc
        name = kind.name.lower()
        figures[f"recall_{name}"] = precision_recall_f1(is_flagged, of_kind)["recall"]
        figures[f"auroc_{name}"] = auroc(scores[among], of_kind[among])
    return figures


def mean_and_std(frame: pd.DataFrame, by: str | list[str]) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds of every numeric column.

    Args:
        frame: one row per run, with a column ``seed``.
        by: the columns that name a method; rows keep their first-seen order.

    Returns:
        One row per group; columns (name, "mean"), (name, "std"), and ("seeds", "count").
    """
    keys = [by] if isinstance(by, str) else list(by)
    numeric = frame.drop(columns=["seed"]).select_dtypes("number").columns.difference(keys)
    ordered = [column for column in frame.columns if column in numeric]
    groups = frame.groupby(keys, sort=False)
    table = groups[ordered].agg(["mean", "std"])
    table[("seeds", "count")] = groups["seed"].nunique()
    return table


def mean_and_interval(
    frame: pd.DataFrame, by: str | Sequence[str], value: str, *, level: float = 0.95
) -> pd.DataFrame:
    """Mean over seeds and its t-interval.

    Args:
        frame: one row per setting and seed.
        by: column or columns that name the setting.
        value: column to average; NaN is left out.
        level: of the interval, in (0, 1).

    Returns:
        Columns ``mean``, ``low``, ``high`` (NaN with fewer than 2 seeds) and ``seeds``; indexed
        by setting, in order of first appearance.

    Raises:
        ValueError: a bad level.
    """
    check_level(level)
    groups = frame.groupby(by, sort=False)[value]
    mean, count = groups.mean(), groups.count()
    half = _half_width(groups.std(ddof=1), count, level)
    return pd.DataFrame({"mean": mean, "low": mean - half, "high": mean + half, "seeds": count})


@dataclass(frozen=True)
class OverSeeds:
    """A against B over seeds.

    Attributes:
        seeds: how many.
        difference: mean of a - b.
        low: lower end of its t-interval; NaN with fewer than 2 seeds.
        high: upper end.
        a_higher: number of seeds where A is higher.
        b_higher: number of seeds where B is.
        sign_p: two-sided p-value of the exact sign test, ties left out.
        wilcoxon_p: two-sided p-value of the exact signed-rank test, zeros left out.
    """

    seeds: int
    difference: float
    low: float
    high: float
    a_higher: int
    b_higher: int
    sign_p: float
    wilcoxon_p: float


def paired_over_seeds(a: np.ndarray, b: np.ndarray, *, level: float = 0.95) -> OverSeeds:
    """Whether A beats B when the data, the models and the noise are drawn again.

    With five seeds neither exact test can go below 2/32 = .0625, however large the difference:
    read the interval, which assumes normal differences, and the number of seeds.

    Args:
        a: a figure of A for each seed, shape (seeds,).
        b: the same figure of B for the same seeds, in the same order.
        level: of the interval, in (0, 1).

    Returns:
        The mean difference with its interval, counts, p-values.

    Raises:
        ValueError: shapes that differ, no seeds, NaN, or a bad level.

    Source: :cite:t:`wilcoxon1945individual`, with the exact distribution also under ties.
    """
    a, b = to_numpy(a).astype(np.float64), to_numpy(b).astype(np.float64)
    check_same("a", a, b, "b")
    check_level(level)
    if len(a) == 0 or np.isnan(a).any() or np.isnan(b).any():
        raise ValueError(f"a is {a} and b is {b}; pass at least one seed, and no NaN")
    gaps = a - b
    mean, count = float(gaps.mean()), len(gaps)
    half = float(_half_width(gaps.std(ddof=1), count, level)) if count > 1 else float("nan")
    higher, lower = int((gaps > 0).sum()), int((gaps < 0).sum())
    sign_p = binomtest(higher, higher + lower).pvalue if higher + lower else 1.0
    return OverSeeds(
        count, mean, mean - half, mean + half, higher, lower, float(sign_p), _signed_rank_p(gaps)
    )


def over_base(
    frame: pd.DataFrame,
    value: str,
    base: str,
    *,
    groups: Sequence[str] = (),
    method: str = "method",
    level: float = 0.95,
) -> pd.DataFrame:
    """Every method against one of them, paired by seed: `paired_over_seeds`, for a whole table.

    Args:
        frame: one row per method and seed (and group), columns ``seed``, ``method`` and value.
        value: column to compare.
        base: name of the method that the others are held against.
        groups: columns, such as the data set, within which to compare.
        method: column with the methods' names.
        level: of the interval.

    Returns:
        One row per group and other method, columns as `OverSeeds`. Only seeds that both have
        count, and pairs without a common seed have no row.

    Raises:
        ValueError: the base is not among the methods, or a method has two rows for one seed.
    """
    if base not in set(frame[method]):
        raise ValueError(f"base is {base!r}; choose among {sorted(set(frame[method]))}")
    rows = []
    for key, part in frame.groupby(list(groups), sort=False) if groups else [((), frame)]:
        if part.duplicated(["seed", method]).any():
            raise ValueError(f"{method}s have several rows for one seed; add a column to groups")
        wide = part.pivot(index="seed", columns=method, values=value)
        for name in part[method].unique() if base in wide else ():
            pair = wide[[name, base]].dropna() if name != base else wide[:0]
            if len(pair):
                found = paired_over_seeds(pair[name], pair[base], level=level)
                rows.append({**dict(zip(groups, key, strict=True)), method: name, **vars(found)})
    return pd.DataFrame(rows)


def _half_width(deviation, count, level: float):
    """Half of the t-interval of a mean, from the sample standard deviation; NaN for one value."""
    return t.ppf((1 + level) / 2, np.maximum(count - 1, 1)) * deviation / count**0.5


def _signed_rank_p(gaps: np.ndarray) -> float:
    """Two-sided p-value; SciPy's exact distribution knows no ties, so all signs are tried then."""
    gaps = gaps[gaps != 0]
    if len(gaps) == 0:
        return 1.0
    has_ties = len(np.unique(np.abs(gaps))) < len(gaps)
    signs = PermutationMethod(n_resamples=min(2 ** len(gaps), MOST_SIGNS), rng=0)
    return float(wilcoxon(gaps, method=signs if has_ties else "exact").pvalue)


def check_scores(
    scores: np.ndarray, is_nc: np.ndarray, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (float64) and truth (boolean) of the same instances; refuses NaN and other shapes."""
    scores, is_nc = to_numpy(scores).astype(np.float64), to_numpy(is_nc).astype(bool)
    check_same(name, scores, is_nc)
    if np.isnan(scores).any():
        row = int(np.argmax(np.isnan(scores)))
        raise ValueError(f"{name} contains NaN in row {row}; it has no place in an order")
    return scores, is_nc


def check_same(
    name: str, values: np.ndarray, reference: np.ndarray, reference_name: str = "is_nc"
) -> None:
    """Refuse two arrays that don't have one axis of the same length."""
    if values.ndim != 1 or values.shape != reference.shape:
        raise ValueError(
            f"{name} has shape {values.shape} and {reference_name} {reference.shape}; both need "
            "one axis, and the same instances"
        )


def check_level(level: float) -> None:
    """Refuse a confidence level outside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; state a probability between 0 and 1, such as 0.95")


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks instead of scores: the same order and ties, and finite."""
    return np.unique(scores, return_inverse=True)[1]
