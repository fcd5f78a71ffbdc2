"""Statistics of the benchmarks: intervals and tests, by brute force and by what they promise."""

import functools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import judged, signal
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

import genkl
from benchmarks import statistics
from benchmarks.statistics import bootstrap_interval, delong_test, paired_comparison
from genkl.evaluate import auroc, average_precision, precision_recall_f1, recall_at_share

METRICS = (auroc, average_precision, recall_at_share, functools.partial(recall_at_share, share=0.3))


@settings(deadline=None, max_examples=30)
@given(case=judged(), seed=st.integers(0, 99))
def test_many_resamples_at_once_are_each_one_on_its_own(case, seed):
    scores, is_nc = case
    slow = lambda s, y: auroc(s, y)  # noqa: E731 (not recognised as fast)
    quick = statistics._over_resamples(auroc, (scores,), is_nc, seed, 7, 0.9)
    each = statistics._over_resamples(slow, (scores,), is_nc, seed, 7, 0.9)
    assert np.allclose(quick, each)


def test_infinite_scores_have_their_place_and_absent_kinds_are_nan():
    scores, is_nc = np.array([np.inf, 2.0, -np.inf, 1.0]), np.array([True, True, False, False])
    everyone = np.ones(4, dtype=bool)
    assert bootstrap_interval(auroc, scores, is_nc, seed=0, resamples=10) == (1, 1)
    for metric in METRICS:
        assert np.isnan(bootstrap_interval(metric, scores, ~everyone, seed=0)).all()
        assert math.isnan(paired_comparison(scores, scores, ~everyone, metric, seed=0).low)


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
    monkeypatch.setattr(statistics, "DRAWS_PER_BLOCK", 300 * 7)
    values = statistics._over_resamples(auroc, (scores,), is_nc, 1, 200, 0.95)
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
        drawn = {"seed": 0, "resamples": 200}
        same = paired_comparison(a, 2 * a, is_nc, metric, **drawn)
        assert (same.difference, same.low, same.high) == (0, 0, 0)
        close = paired_comparison(a, nearly, is_nc, metric, **drawn)
        apart = bootstrap_interval(metric, a, is_nc, **drawn)
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
    boot = paired_comparison(a, b, is_nc, seed=0)
    assert (found.low, found.high) == pytest.approx((boot.low, boot.high), abs=0.01)
    # Exchange A and B instance by instance, on ranks so that they can be exchanged.
    ranks = np.stack([np.argsort(np.argsort(x)) for x in (a, b)]).astype(float)
    gaps = []
    for _ in range(300):
        swap = rng.random(400) < 0.5
        first, second = np.where(swap, ranks[::-1], ranks)
        gaps.append(auroc(first, is_nc) - auroc(second, is_nc))
    permuted = np.mean(np.abs(gaps) >= abs(found.difference))
    assert found.p_value == pytest.approx(permuted, abs=0.07)


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


S, T = np.arange(4.0), np.array([True, False, True, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval(auroc, S[:2], T, seed=0), "must describe the same instances"),
        (lambda: bootstrap_interval(auroc, S * np.nan, T, seed=0), "contains NaN in row 0"),
        (lambda: bootstrap_interval(auroc, S, T, seed=0, resamples=0), "resamples is 0"),
        (lambda: bootstrap_interval(auroc, S, T, seed=0, level=95), "level is 95"),
        (lambda: paired_comparison(S, S[:2], T, seed=0), "must describe the same instances"),
        (lambda: delong_test(S, S, np.arange(4) < 1), "1 non-conforming and 3 conforming"),
        (lambda: delong_test(S, S[:3], T), "scores_b has shape"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_genkl_says_where_they_went():
    for name in ("bootstrap_interval", "delong_test", "paired_comparison"):
        with pytest.raises(AttributeError, match=f"from benchmarks.statistics import {name}"):
            getattr(genkl, name)
