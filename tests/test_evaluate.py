"""Figures and comparisons over seeds: by counting, by brute force, and by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import judged, prove
from scipy.stats import binom, t, wilcoxon
from sklearn.metrics import precision_recall_fscore_support

from genkl.evaluate import (
    auroc,
    average_precision,
    mean_and_interval,
    over_base,
    paired_over_seeds,
    precision_recall_f1,
    recall_at_share,
)

# -- figures --------------------------------------------------------------------------------------


@prove(case=judged())
def test_auroc_counts_pairs_and_ties_half(case):
    scores, is_nc = case
    pairs = list(itertools.product(scores[is_nc], scores[~is_nc]))
    won = sum((a > b) + 0.5 * (a == b) for a, b in pairs)
    assert auroc(scores, is_nc) == pytest.approx(won / len(pairs))
    assert auroc(-scores, is_nc) == pytest.approx(1 - won / len(pairs))
    assert auroc(np.exp(scores), is_nc) == auroc(scores, is_nc)


@prove(case=judged())
def test_average_precision_by_hand(case):
    scores, is_nc = case
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        flagged = scores >= threshold
        gained = is_nc[flagged].sum() / is_nc.sum() - recall
        recall += gained
        total += gained * is_nc[flagged].mean()
    assert average_precision(scores, is_nc) == pytest.approx(total)


@prove(case=judged(), share=st.floats(0, 1))
def test_recall_at_share_bounds(case, share):
    scores, is_nc = case
    recall = recall_at_share(scores, is_nc, share)
    assert -1e-12 <= recall <= min(1, share * len(scores) / is_nc.sum()) + 1e-12
    assert recall <= recall_at_share(scores, is_nc, min(1, share + 0.1)) + 1e-12
    assert recall_at_share(np.zeros(len(scores)), is_nc, share) == pytest.approx(share)
    best, worst = (recall_at_share(s * is_nc.astype(float), is_nc, share) for s in (1, -1))
    assert worst - 1e-12 <= recall <= best + 1e-12
    assert best == pytest.approx(min(1, share * len(scores) / is_nc.sum()))
    assert recall_at_share(scores, is_nc, 1) == 1


@settings(deadline=None, max_examples=40)
@given(case=judged(), data=st.data())
def test_recall_at_share_is_the_mean_over_ways_to_break_ties(case, data):
    scores, is_nc = (part[:7] for part in case)
    if not is_nc.any():
        return
    flagged = data.draw(st.integers(0, len(scores)))
    recalls = [
        is_nc[sorted(order, key=lambda i: -scores[i])[:flagged]].sum() / is_nc.sum()
        for order in itertools.permutations(range(len(scores)))
    ]
    share = flagged / len(scores)
    assert recall_at_share(scores, is_nc, share) == pytest.approx(np.mean(recalls))


@prove(case=judged())
def test_precision_recall_f1_are_scikit_learns(case):
    scores, is_nc = case
    flagged = scores >= 0.5
    figures = precision_recall_f1(flagged, is_nc)
    expected = precision_recall_fscore_support(is_nc, flagged, average="binary", zero_division=0)
    assert figures["recall"] == pytest.approx(expected[1])
    assert figures["f1"] == pytest.approx(expected[2])
    if flagged.any():
        assert figures["precision"] == pytest.approx(expected[0])
    else:
        assert math.isnan(figures["precision"])


def test_infinite_scores_and_tensors_have_their_place():
    scores, is_nc = np.array([np.inf, 2.0, -np.inf, 1.0]), np.array([True, True, False, False])
    for metric in (auroc, average_precision):
        assert metric(scores, is_nc) == 1
        assert metric(torch.from_numpy(scores), torch.from_numpy(is_nc)) == 1
    assert recall_at_share(scores, is_nc, 0.25) == 0.5


def test_absent_kinds_are_nan():
    scores, everyone = np.arange(4.0), np.ones(4, dtype=bool)
    assert math.isnan(auroc(scores, everyone))
    assert math.isnan(auroc(scores, ~everyone))
    assert math.isnan(average_precision(scores, ~everyone))
    assert math.isnan(recall_at_share(scores, ~everyone))
    assert math.isnan(precision_recall_f1(everyone, ~everyone)["recall"])


# -- tests over seeds -----------------------------------------------------------------------------


def test_over_seeds_by_hand():
    a, b = np.array([0.8, 0.7, 0.9, 0.6, 0.75]), np.array([0.7, 0.72, 0.8, 0.5, 0.75])
    found = paired_over_seeds(a, b)
    gaps = a - b
    half = t.ppf(0.975, 4) * gaps.std(ddof=1) / math.sqrt(5)
    assert found.difference == pytest.approx(gaps.mean())
    assert (found.low, found.high) == pytest.approx((gaps.mean() - half, gaps.mean() + half))
    assert (found.seeds, found.a_higher, found.b_higher) == (5, 3, 1)
    assert found.sign_p == pytest.approx(2 * binom.cdf(1, 4, 0.5))
    best = paired_over_seeds(np.arange(5) + 1.0, np.arange(5) / 10)
    assert best.sign_p == best.wilcoxon_p == pytest.approx(2 / 32)


@prove(gaps=st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_signed_rank_p_is_exact_also_under_ties(gaps):
    gaps = np.array(gaps, dtype=float)
    found = paired_over_seeds(gaps, np.zeros(len(gaps))).wilcoxon_p
    kept = gaps[gaps != 0]
    sizes = np.abs(kept)
    ranks = [(sizes < s).sum() + ((sizes == s).sum() + 1) / 2 for s in sizes]
    sums = [
        sum(rank for rank, up in zip(ranks, signs, strict=True) if up)
        for signs in itertools.product([False, True], repeat=len(kept))
    ]
    observed = sum(rank for rank, gap in zip(ranks, kept, strict=True) if gap > 0)
    tails = np.mean([s <= observed for s in sums]), np.mean([s >= observed for s in sums])
    assert found == pytest.approx(min(1, 2 * min(tails)))


def test_signed_rank_p_is_scipys_without_ties():
    rng = np.random.default_rng(0)
    for count in (3, 8, 20):
        gaps = rng.normal(size=count) + 0.3
        found = paired_over_seeds(gaps, np.zeros(count))
        assert found.wilcoxon_p == pytest.approx(wilcoxon(gaps, method="exact").pvalue)


def test_one_seed_and_no_difference():
    alone = paired_over_seeds(np.array([0.8]), np.array([0.7]))
    assert math.isnan(alone.low)
    assert alone.sign_p == 1
    same = paired_over_seeds(np.full(3, 0.5), np.full(3, 0.5))
    assert (same.low, same.high, same.sign_p, same.wilcoxon_p) == (0, 0, 1, 1)


# -- tables -------------------------------------------------------------------------------------


def table_of(seeds=5, gap=0.1):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"case": case, "seed": seed, "method": method, "auroc": level + shift + extra}
        for case, level in (("easy", 0.8), ("hard", 0.6))
        for seed, extra in enumerate(rng.normal(0, 0.2, seeds))
        for method, shift in (("base", 0.0), ("other", gap))
    )


def test_a_whole_table_is_paired_by_seed():
    frame = table_of()
    found = over_base(frame, "auroc", "base", groups=["case"])
    assert list(found["case"]) == ["easy", "hard"]
    assert list(found["method"]) == ["other", "other"]
    assert np.allclose(found["difference"], 0.1)  # the seeds' own ups and downs cancel
    assert (found["low"] > 0.099).all()
    without = frame.drop(index=frame[(frame.seed == 2) & (frame.method == "base")].index)
    assert set(over_base(without, "auroc", "base", groups=["case"])["seeds"]) == {4}
    whole = over_base(frame[frame["case"] == "easy"], "auroc", "base")
    assert whole["difference"].item() == pytest.approx(0.1)


def test_means_have_t_intervals():
    frame = table_of()
    table = mean_and_interval(frame, ["case", "method"], "auroc")
    values = frame.loc[(frame["case"] == "easy") & (frame["method"] == "base"), "auroc"]
    expected = scipy.stats.t.interval(0.95, 4, values.mean(), scipy.stats.sem(values))
    assert np.allclose(table.loc[("easy", "base"), ["low", "high"]].astype(float), expected)
    assert list(table.index) == [("easy", "base"), ("easy", "other"), ("hard", "base"),
                                 ("hard", "other")]  # fmt: skip
    one = mean_and_interval(frame[frame.seed == 0], ["case", "method"], "auroc")
    assert one["low"].isna().all()
    assert (one["seeds"] == 1).all()


# -- refusals -------------------------------------------------------------------------------------

S, T = np.arange(4.0), np.array([True, False, True, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auroc(S[:3], T), r"scores has shape \(3,\) and is_nc \(4,\)"),
        (lambda: average_precision(np.array([1, np.nan, 2, 3]), T), "contains NaN in row 1"),
        (lambda: recall_at_share(S, T, 1.5), r"share is 1\.5"),
        (lambda: precision_recall_f1(T[:2], T), r"is_flagged has shape \(2,\)"),
        (lambda: paired_over_seeds(S, S[:2]), r"a has shape \(4,\) and b \(2,\)"),
        (lambda: paired_over_seeds(S * np.nan, S), "at least one seed, and no NaN"),
        (lambda: paired_over_seeds(S, S, level=0), "level is 0"),
        (lambda: over_base(table_of(), "auroc", "best"), "base is 'best'; choose among"),
        (lambda: over_base(table_of(), "auroc", "base"), "several rows for one seed"),
        (lambda: mean_and_interval(table_of(), "case", "auroc", level=2), "level is 2"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
