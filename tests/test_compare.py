"""Figures, intervals and tests: by counting, by brute force, and by what they promise."""

import functools
import itertools
import math
import time

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm, t, wilcoxon
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from genkl import compare
from genkl.compare import (
    auroc,
    average_precision,
    bootstrap_interval,
    delong_test,
    mean_and_interval,
    over_base,
    paired_comparison,
    paired_over_seeds,
    precision_recall_f1,
    recall_at_share,
)

METRICS = (auroc, average_precision, recall_at_share, functools.partial(recall_at_share, share=0.3))


def prove(**strategies):
    """A property; without a deadline, since other work may share the machine."""
    return lambda test: settings(deadline=None)(given(**strategies)(test))


@st.composite
def judged(draw, least=1):
    """Scores with ties, and at least so many instances of either kind."""
    kinds = draw(st.lists(st.booleans(), max_size=30)) + least * [True, False]
    kinds = draw(st.permutations(kinds))
    scores = draw(st.lists(st.integers(-3, 3), min_size=len(kinds), max_size=len(kinds)))
    return np.array(scores) / 2, np.array(kinds)


def signal(seed=0, count=300, strength=1.0, share=0.3, columns=1):
    rng = np.random.default_rng(seed)
    is_nc = rng.random(count) < share
    scores = rng.normal(size=(columns, count)) + strength * is_nc
    return (*scores, is_nc)


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
    for metric in METRICS[:2]:
        assert metric(scores, is_nc) == 1
        assert metric(torch.from_numpy(scores), torch.from_numpy(is_nc)) == 1
    assert recall_at_share(scores, is_nc, 0.25) == 0.5
    assert bootstrap_interval(auroc, scores, is_nc, seed=0, resamples=10) == (1, 1)


def test_absent_kinds_are_nan():
    scores, everyone = np.arange(4.0), np.ones(4, dtype=bool)
    assert math.isnan(auroc(scores, everyone))
    assert math.isnan(auroc(scores, ~everyone))
    assert math.isnan(average_precision(scores, ~everyone))
    assert math.isnan(recall_at_share(scores, ~everyone))
    assert math.isnan(precision_recall_f1(everyone, ~everyone)["recall"])
    for metric in METRICS:
        assert np.isnan(bootstrap_interval(metric, scores, ~everyone, seed=0)).all()
        assert math.isnan(paired_comparison(scores, scores, ~everyone, metric, seed=0).low)


# -- intervals ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(case=judged(), seed=st.integers(0, 99))
def test_many_resamples_at_once_are_each_one_on_its_own(case, seed):
    scores, is_nc = case
    for metric in METRICS:
        slow = lambda s, y, metric=metric: metric(s, y)  # noqa: E731 (not recognised as fast)
        quick = compare._over_resamples(metric, [(scores,)], is_nc, seed, 7, 0.9)[0]
        one_by_one = compare._over_resamples(slow, [(scores,)], is_nc, seed, 7, 0.9)[0]
        assert np.allclose(quick, one_by_one)


def test_the_fast_figures_of_the_data_itself_are_scikit_learns():
    scores, is_nc = signal()
    scores = scores.round(1)
    once = compare._Standing.of(scores, is_nc, np.ones((len(scores), 1), dtype=np.int32))
    assert compare._auroc(once)[0] == pytest.approx(roc_auc_score(is_nc, scores))
    precision = average_precision_score(is_nc, scores)
    assert compare._average_precision(once)[0] == pytest.approx(precision)


def test_resamples_keep_both_kinds_as_large_as_they_are():
    scores, is_nc = signal(count=50)
    sizes = []

    def look(values, truth):
        sizes.append((len(values), int(truth.sum())))
        assert set(values[truth]) <= set(scores[is_nc])
        return 0.0

    bootstrap_interval(look, scores, is_nc, seed=3, resamples=20)
    assert set(sizes) == {(50, int(is_nc.sum()))}
    assert len(sizes) == 20


def test_a_seed_decides_and_blocks_change_no_promise(monkeypatch):
    scores, is_nc = signal()
    first = bootstrap_interval(auroc, scores, is_nc, seed=1, resamples=200)
    assert first == bootstrap_interval(auroc, scores, is_nc, seed=1, resamples=200)
    assert first != bootstrap_interval(auroc, scores, is_nc, seed=2, resamples=200)
    monkeypatch.setattr(compare, "DRAWS_PER_BLOCK", 300 * 7)
    values = compare._over_resamples(auroc, [(scores,)], is_nc, 1, 200, 0.95)[0]
    assert values.shape == (200,)
    assert len(np.unique(values)) > 180
    assert np.quantile(values, 0.025) == pytest.approx(first.low, abs=0.02)


def test_a_bootstrap_interval_covers_about_as_often_as_it_says():
    truth = 0.5 * (1 + math.erf(1 / 2))  # of two normal distributions one apart
    covered, widths = 0, []
    for seed in range(200):
        scores, is_nc = signal(seed, 150)
        low, high = bootstrap_interval(auroc, scores, is_nc, seed=seed, resamples=300, level=0.9)
        covered += low <= truth <= high
        widths.append(high - low)
    assert 0.83 <= covered / 200 <= 0.96
    narrow = bootstrap_interval(auroc, *signal(0, 150), seed=0, level=0.5)
    assert narrow.high - narrow.low < np.mean(widths) / 2


def test_a_function_of_ones_own_with_several_arrays():
    a, b, is_nc = signal(columns=2)
    low, high = bootstrap_interval(
        lambda x, y, truth: x[truth].mean() - y[truth].mean(), a, b, is_nc, seed=0, resamples=300
    )
    spread = (a - b)[is_nc].std() / math.sqrt(is_nc.sum())
    centre = (a - b)[is_nc].mean()
    assert (low, high) == pytest.approx((centre - 1.96 * spread, centre + 1.96 * spread), abs=0.05)
    rare = bootstrap_interval(
        lambda mask, truth: precision_recall_f1(mask, truth)["precision"],
        np.arange(len(a)) == np.flatnonzero(is_nc)[0], is_nc, seed=0, resamples=50,
    )  # fmt: skip
    assert rare == (1, 1)  # resamples without a flag are left out


def test_a_paired_comparison_shares_its_resamples():
    a, is_nc = signal(count=200)
    nearly = a + 0.05 * np.random.default_rng(0).normal(size=200)
    for metric in METRICS:
        same = paired_comparison(a, 2 * a, is_nc, metric, seed=0)
        assert (same.difference, same.low, same.high) == (0, 0, 0)
        close = paired_comparison(a, nearly, is_nc, metric, seed=0)
        apart = bootstrap_interval(metric, a, is_nc, seed=0)
        assert close.low <= close.difference <= close.high
        assert close.high - close.low < 0.5 * (apart.high - apart.low)
        assert close.a == metric(a, is_nc)
        assert close.b == metric(nearly, is_nc)
        assert close.difference == close.a - close.b
    better = paired_comparison(a + is_nc, a, is_nc, seed=0)
    assert better.low > 0
    swapped = paired_comparison(a, a + is_nc, is_nc, seed=0)
    assert (swapped.low, swapped.high) == pytest.approx((-better.high, -better.low))


def test_thirty_detectors_take_seconds():
    rng = np.random.default_rng(0)
    is_nc = rng.random(5000) < 0.1
    base = rng.normal(size=5000) + is_nc
    start = time.perf_counter()
    for _ in range(3):
        scores = rng.normal(size=5000) + is_nc
        bootstrap_interval(auroc, scores, is_nc, seed=0)
        paired_comparison(scores, base, is_nc, seed=0)
    assert time.perf_counter() - start < 15  # 0.5 s on a quiet core


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


# -- DeLong ---------------------------------------------------------------------------------------


def jackknife_variance(a, b, is_nc):
    """Of the difference of areas: leave one out, one kind at a time (Arvesen's estimate)."""
    variance = 0.0
    for kind in (is_nc, ~is_nc):
        left = []
        for row in np.flatnonzero(kind):
            rest = np.arange(len(a)) != row
            left.append(roc_auc_score(is_nc[rest], a[rest]) - roc_auc_score(is_nc[rest], b[rest]))
        count = kind.sum()
        variance += (count - 1) ** 2 / count * np.var(left, ddof=1)
    return variance


@settings(deadline=None, max_examples=15)
@given(case=judged(least=3), seed=st.integers(0, 99))
def test_delong_is_the_jackknife(case, seed):
    a, is_nc = case
    b = np.random.default_rng(seed).integers(0, 4, len(a)).astype(float)
    found = delong_test(a, b, is_nc)
    assert (found.a, found.b) == pytest.approx((auroc(a, is_nc), auroc(b, is_nc)))
    error = (found.high - found.low) / 2 / norm.ppf(0.975)
    assert error**2 == pytest.approx(jackknife_variance(a, b, is_nc), abs=1e-9)
    if error > 1e-6:
        assert found.z == pytest.approx(found.difference / error)
        assert found.p_value == pytest.approx(math.erfc(abs(found.z) / math.sqrt(2)))


def test_delong_agrees_with_the_bootstrap_and_with_permutations():
    rng = np.random.default_rng(3)
    is_nc = rng.random(400) < 0.4
    common = rng.normal(size=400)
    a, b = (common + 0.7 * rng.normal(size=400) + s * is_nc for s in (1.0, 0.8))
    found = delong_test(a, b, is_nc)
    boot = paired_comparison(a, b, is_nc, seed=0, resamples=2000)
    assert (found.low, found.high) == pytest.approx((boot.low, boot.high), abs=0.01)
    # Exchange A and B instance by instance, on ranks so that they can be exchanged.
    ranks = np.stack([np.argsort(np.argsort(x)) for x in (a, b)]).astype(float)
    gaps = []
    for _ in range(1000):
        swap = rng.random(400) < 0.5
        first, second = np.where(swap, ranks[::-1], ranks)
        gaps.append(auroc(first, is_nc) - auroc(second, is_nc))
    permuted = np.mean(np.abs(gaps) >= abs(found.difference))
    assert found.p_value == pytest.approx(permuted, abs=0.05)


def test_delong_holds_its_level():
    rejected = 0
    for seed in range(400):
        a, b, is_nc = signal(seed, 120, 0.8, columns=2)
        rejected += delong_test(a, b, is_nc).p_value < 0.1
    assert 0.06 <= rejected / 400 <= 0.15


def test_delong_without_variance():
    scores, is_nc = np.arange(6.0), np.arange(6) >= 3
    same = delong_test(scores, 3 * scores, is_nc)
    assert (same.difference, same.z, same.p_value, same.low, same.high) == (0, 0, 1, 0, 0)
    opposite = delong_test(scores, -scores, is_nc)
    assert (opposite.difference, opposite.z, opposite.p_value) == (1, math.inf, 0)


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
        (lambda: bootstrap_interval(auroc, S[:2], T, seed=0), "must describe the same instances"),
        (lambda: bootstrap_interval(auroc, S * np.nan, T, seed=0), "contains NaN in row 0"),
        (lambda: bootstrap_interval(auroc, S, T, seed=0, resamples=0), "resamples is 0"),
        (lambda: bootstrap_interval(auroc, S, T, seed=0, level=95), "level is 95"),
        (
            lambda: bootstrap_interval(functools.partial(recall_at_share, share=2), S, T, seed=0),
            "share is 2",
        ),
        (lambda: paired_comparison(S, S[:2], T, seed=0), "must describe the same instances"),
        (lambda: paired_over_seeds(S, S[:2]), r"a has shape \(4,\) and b \(2,\)"),
        (lambda: paired_over_seeds(S * np.nan, S), "at least one seed, and no NaN"),
        (lambda: paired_over_seeds(S, S, level=0), "level is 0"),
        (lambda: delong_test(S, S, np.arange(4) < 1), "1 non-conforming and 3 conforming"),
        (lambda: delong_test(S, S[:3], T), "scores_b has shape"),
        (lambda: over_base(table_of(), "auroc", "best"), "base is 'best'; choose among"),
        (lambda: over_base(table_of(), "auroc", "base"), "several rows for one seed"),
        (lambda: mean_and_interval(table_of(), "case", "auroc", level=2), "level is 2"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
