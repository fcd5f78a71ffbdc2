"""Statistics of the benchmarks: resamples one by one, and what their intervals promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import judged, signal
from scipy import stats

import genkl
from benchmarks.statistics import (
    Resamples,
    hierarchical_interval,
    missed_at_noise_rate,
    percentile_interval,
    resampled_auroc,
)
from genkl.evaluate import auroc, recall_at_share


@settings(deadline=None, max_examples=40)
@given(case=judged(), seed=st.integers(0, 99))
def test_many_resamples_at_once_are_each_one_on_its_own(case, seed):
    scores, is_nc = case
    times = np.random.default_rng(seed).integers(0, 4, (len(scores), 7)).astype(np.int32)
    areas, missed = (f(scores, is_nc, times) for f in (resampled_auroc, missed_at_noise_rate))
    for draw in range(7):
        rows = np.repeat(np.arange(len(scores)), times[:, draw])
        assert areas[draw] == pytest.approx(auroc(scores[rows], is_nc[rows]), nan_ok=True)
        rate = is_nc[rows].mean() if len(rows) else np.nan
        if not rate > 0:
            assert np.isnan(missed[draw])
        else:
            found = recall_at_share(scores[rows], is_nc[rows], rate)
            assert missed[draw] == pytest.approx(1 - found)


def test_misses_by_hand():
    """Two are positive, so two are flagged: the first, and one of the next two."""
    scores, is_nc = np.array([3.0, 2.0, 2.0, 1.0]), np.array([False, True, False, True])
    assert missed_at_noise_rate(scores, is_nc) == pytest.approx(0.75)
    assert missed_at_noise_rate(-scores, is_nc) == pytest.approx(0.25)
    perfect = np.array([0.0, np.inf, -np.inf, 5.0])
    assert missed_at_noise_rate(perfect, is_nc) == 0
    assert np.isnan(missed_at_noise_rate(scores, np.zeros(4, bool)))


def test_a_draw_takes_an_image_in_every_seed_that_has_it_and_a_sender_whole():
    groups = [np.array([7, 7, 3, 9]), np.array([3, 5, 7])]
    draws = Resamples.of(groups, 500, seed=1)
    first, second = draws.times
    assert np.array_equal(first[0], first[1])  # one sender's two images
    assert np.array_equal(first[0], second[2])
    assert np.array_equal(first[2], second[0])
    assert not np.array_equal(first[2], first[3])
    assert first[3].mean() == pytest.approx(1, abs=0.15)
    assert (draws.seeds.sum(axis=1) == 2).all()
    assert set(draws.seeds[:, 0]) == {0, 1, 2}
    again = Resamples.of(groups, 500, seed=1)
    assert np.array_equal(again.times[0], first)
    assert not np.array_equal(Resamples.of(groups, 500, seed=2).times[0], first)


def test_the_mean_over_drawn_seeds_leaves_out_what_is_not_a_number():
    draws = Resamples(np.array([[2, 0], [1, 1], [0, 2]]), ())
    mean = draws.mean([np.array([1.0, 1.0, 1.0]), np.array([3.0, 3.0, np.nan])])
    assert mean[1] == 2
    assert mean[0] < 1  # the mean is 2, the first seed's 1, and that way is stretched
    assert np.isnan(mean[2])
    alone = Resamples(np.array([[1], [1]]), ())
    assert alone.mean([np.array([1.0, 3.0])]).tolist() == [1, 3]


def test_without_images_that_vary_the_interval_is_the_t_interval():
    seeds = np.random.default_rng(0).normal(size=6)
    low, high = hierarchical_interval(np.repeat(seeds[:, None], 20, axis=1), draws=20_000)
    half = stats.t.ppf(0.975, 5) * seeds.std(ddof=1) / 6**0.5
    assert high - low == pytest.approx(2 * half, rel=0.05)
    assert (low + high) / 2 == pytest.approx(seeds.mean(), abs=0.2 * half)


def crossed(rng, seeds=5, images=150, share=0.8, of_image=1.0, of_seed=0.05, noise=0.3):
    """Values with an effect of the image and of the seed, of most images each; NaN elsewhere."""
    values = of_image * rng.normal(size=images) + of_seed * rng.normal(size=(seeds, 1))
    values = values + noise * rng.normal(size=(seeds, images))
    values[rng.random(values.shape) > share] = np.nan
    return values


@pytest.mark.parametrize(
    ("of_image", "of_seed"), [(1.0, 0.05), (1.0, 0.2), (0.1, 0.5)], ids=["images", "both", "seeds"]
)
def test_an_interval_covers_whatever_varies(of_image, of_seed):
    """One over seeds alone does not where they share images, nor one over images alone."""
    covered, naive = 0, {"images": 0, "seeds": 0}
    for trial in range(150):
        rng = np.random.default_rng(trial)
        values = crossed(rng, of_image=of_image, of_seed=of_seed)
        low, high = hierarchical_interval(values, level=0.9, draws=300, seed=trial)
        covered += low <= 0 <= high
        for over, axis in (("seeds", 1), ("images", 0)):
            means = np.nanmean(values[:, ~np.isnan(values).all(axis=0)], axis=axis)
            error = means.std(ddof=1) / len(means) ** 0.5
            naive[over] += abs(means.mean()) <= stats.t.ppf(0.95, len(means) - 1) * error
    assert covered / 150 >= 0.85
    if of_seed == 0.05:
        assert naive["seeds"] / 150 < 0.7
    if of_seed == 0.5:
        assert naive["images"] / 150 < 0.5


def test_senders_widen_an_interval_as_far_as_their_images_are_alike():
    rng = np.random.default_rng(0)
    senders = np.repeat(np.arange(30), 10)
    values = rng.normal(size=30)[senders] + 0.1 * rng.normal(size=(3, 300))
    apart, together = (
        hierarchical_interval(values, groups, draws=500) for groups in (None, senders)
    )
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(10**0.5, rel=0.25)


def test_an_interval_of_areas_covers_over_images_and_seeds():
    """Scores of shared images under noise of each seed; the truth is the area of fresh ones."""
    fresh = np.random.default_rng(1000)
    base, is_nc = signal(1000, 4000)
    truth = np.mean([auroc(base + 0.5 * fresh.normal(size=4000), is_nc) for _ in range(5)])
    covered = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        base, is_nc = signal(trial, 200)
        rows = [rng.permutation(200)[:160] for _ in range(3)]
        draws = Resamples.of(rows, 200, trial)
        areas = [
            resampled_auroc((base + 0.5 * rng.normal(size=200))[r], is_nc[r], times)
            for r, times in zip(rows, draws.times, strict=True)
        ]
        low, high = percentile_interval(draws.mean(areas), 0.9)
        covered += low <= truth <= high
    assert covered / 60 >= 0.8


S, T, ONCE = np.arange(4.0), np.array([True, False, True, False]), np.ones((4, 1), np.int32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resampled_auroc(S[:2], T, ONCE), "both need one axis, and the same instances"),
        (lambda: missed_at_noise_rate(S * np.nan, T), "contains NaN in row 0"),
        (lambda: Resamples.of([np.arange(3)], 0), "draws is 0"),
        (lambda: Resamples.of([]), "groups has 0 seeds"),
        (lambda: percentile_interval(S, 95), "level is 95"),
        (lambda: hierarchical_interval(S), r"values has shape \(4,\)"),
        (lambda: hierarchical_interval(S[None], np.arange(3)), r"groups \(3,\); pass"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_genkl_says_what_replaced_them():
    for name in ("bootstrap_interval", "delong_test", "paired_comparison"):
        with pytest.raises(AttributeError, match="import hierarchical_interval, Resamples"):
            getattr(genkl, name)
