"""The threshold within a flag budget: what it promises, measured on draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genkl import flag_above, threshold_for_budget


@given(st.integers(0, 1000), st.integers(1, 200), st.floats(0.01, 0.6, exclude_max=True))
def test_budget_is_kept_on_the_held_out_set_itself(seed, m, rate):
    scores = np.random.default_rng(seed).normal(size=m)
    threshold = threshold_for_budget(scores, rate)
    # The (m+1)-th, unseen instance is worst: even if flagged, the share stays within the budget.
    assert ((scores >= threshold).sum() + 1) / (m + 1) <= max(rate, 1 / (m + 1)) + 1e-9
    if math.isfinite(threshold):
        lower = np.sort(scores)[::-1]
        kept_back = int((scores >= threshold).sum())
        assert (kept_back + 2) / (m + 1) > rate - 1e-9 or kept_back == m  # not needlessly strict
        assert threshold > lower[kept_back]


def test_budget_holds_for_new_instances_on_average():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(2000):
        threshold = threshold_for_budget(rng.exponential(size=60), 0.1)
        rates.append((rng.exponential(size=50) >= threshold).mean())
    # 1/61 below the budget at most (the rank is rounded up), and never above it beyond 4 errors.
    error = np.std(rates) / math.sqrt(len(rates))
    assert 0.1 - 1 / 61 - 4 * error < np.mean(rates) < 0.1 + 4 * error


def test_ties_are_not_flagged_and_too_few_scores_flag_nothing():
    assert not flag_above(np.ones(50), threshold_for_budget(np.ones(50), 0.1)).any()
    assert threshold_for_budget(np.arange(5.0), 0.05) == math.inf


@pytest.mark.parametrize(
    ("scores", "rate", "message"),
    [
        (np.ones(5), 0.0, "max_flag_rate is 0.0"),
        (np.ones(5), 1.0, "max_flag_rate is 1.0"),
        (np.ones(0), 0.1, "at least one score"),
        (np.array([1.0, np.nan]), 0.1, "contains NaN"),
        (np.ones((2, 2)), 0.1, "shape \\(2, 2\\)"),
    ],
)
def test_budget_refuses_bad_input(scores, rate, message):
    with pytest.raises(ValueError, match=message):
        threshold_for_budget(scores, rate)


@pytest.mark.parametrize(("m", "rate", "confidence"), [(60, 0.1, 0.9), (200, 0.05, 0.95)])
def test_confidence_holds_for_the_share_of_held_out_sets_it_states(m, rate, confidence):
    rng = np.random.default_rng(0)
    # The true share flagged by each threshold is known: scores are uniform on [0, 1].
    thresholds = np.array(
        [threshold_for_budget(rng.random(m), rate, confidence=confidence) for _ in range(4000)]
    )
    kept = (1 - np.minimum(thresholds, 1) <= rate).mean()
    error = math.sqrt(confidence * (1 - confidence) / 4000)
    assert kept > confidence - 4 * error
    # Not needlessly high: one rank lower breaks the promise.
    ranks = np.sort(rng.random((4000, m)), axis=1)
    used = round(float(np.mean(np.minimum(thresholds, 1)) * (m + 1)))
    assert (1 - ranks[:, used - 2] <= rate).mean() < confidence + 4 * error


@given(st.integers(0, 500), st.integers(1, 300), st.floats(0.01, 0.9), st.floats(0.5, 0.999))
def test_confidence_never_lowers_the_threshold_below_even_odds(seed, m, rate, confidence):
    scores = np.random.default_rng(seed).normal(size=m)
    with_confidence = threshold_for_budget(scores, rate, confidence=confidence)
    # Half of the held-out sets is about what "on average" promises: one rank at most.
    average = (scores >= threshold_for_budget(scores, rate)).sum()
    assert (scores >= with_confidence).sum() <= average + 1
    if (1 - rate) ** m > 1 - confidence:
        assert with_confidence == math.inf


def test_confidence_outside_zero_to_one_is_refused():
    for confidence in (0, 1, 1.5, math.nan):
        with pytest.raises(ValueError, match="confidence is"):
            threshold_for_budget(np.ones(5), 0.1, confidence=confidence)


def test_scores_may_be_a_tensor():
    scores = torch.arange(50.0, requires_grad=True)
    assert threshold_for_budget(scores, 0.1) == threshold_for_budget(np.arange(50.0), 0.1)


# -- where new instances are not like the held-out ones -------------------------------------------

RATE = 0.1
HELD_OUT = np.array([0.5, 0.3, 0.2])
"""Shares of the classes where the threshold is set; class c scores c higher than class 0."""


def draw(rng, shares, count):
    labels = rng.choice(3, size=count, p=shares)
    return rng.normal(loc=labels), labels


def false_flags(shares, flag, count=1200, held_out=150):
    """Of new conforming instances with other shares: mean over held-out sets, and its error."""
    rng, rates = np.random.default_rng(0), []
    for _ in range(count):
        known, new = draw(rng, HELD_OUT, held_out), draw(rng, shares, 60)
        rates.append(flag(*known, *new).mean())
    return np.mean(rates), np.std(rates) / math.sqrt(count)


def plain(scores, labels, new, new_labels):
    return new >= threshold_for_budget(scores, RATE)


def weighted_for(shares):
    def flag(scores, labels, new, new_labels):
        weights = (np.array(shares) / HELD_OUT)[labels]
        return new >= threshold_for_budget(scores, RATE, weights=weights)

    return flag


def any_class(scores, labels, new, new_labels):
    return new >= threshold_for_budget(scores, RATE, classes=labels).max()


@pytest.mark.parametrize("shares", [[0.1, 0.2, 0.7], [0.2, 0.6, 0.2], [0.0, 0.5, 0.5]])
def test_class_weights_keep_the_budget_under_the_label_shift_that_breaks_the_plain_one(shares):
    broken, error = false_flags(shares, plain)
    assert broken > RATE + 4 * error
    kept, error = false_flags(shares, weighted_for(shares))
    assert kept < RATE + 4 * error
    assert (
        kept > RATE - 0.035
    )  # the largest weight, 3.5 of 150 at most, and the rank are rounded up


def test_the_plain_threshold_holds_where_shares_or_scores_do_not_depend_on_the_class():
    same, error = false_flags(HELD_OUT, plain)
    assert RATE - 1 / 151 - 4 * error < same < RATE + 4 * error

    def blind(scores, labels, new, new_labels):  # the score doesn't see the class
        return plain(scores - labels, labels, new - new_labels, new_labels)

    other, error = false_flags([0.1, 0.2, 0.7], blind)
    assert RATE - 1 / 151 - 4 * error < other < RATE + 4 * error


@pytest.mark.parametrize("shares", [[1, 0, 0], [0, 0, 1], [0.1, 0.2, 0.7]])
def test_the_largest_class_threshold_keeps_the_budget_under_any_label_shift(shares):
    kept, error = false_flags(shares, any_class)
    assert kept < RATE + 4 * error


def test_a_threshold_of_each_class_keeps_the_budget_within_each():
    rng, flagged, seen = np.random.default_rng(0), np.zeros(3), np.zeros(3)
    plainly = np.zeros(3)
    for _ in range(1500):
        scores, labels = draw(rng, HELD_OUT, 150)
        new, kind = draw(rng, [0.1, 0.2, 0.7], 60)
        thresholds = threshold_for_budget(scores, RATE, classes=labels)
        flagged += np.bincount(kind[new >= thresholds[kind]], minlength=3)
        plainly += np.bincount(kind[plain(scores, labels, new, kind)], minlength=3)
        seen += np.bincount(kind, minlength=3)
    error = np.sqrt(RATE * (1 - RATE) / 1500)  # of a threshold, at most
    assert (flagged / seen < RATE + 4 * error).all()
    assert plainly[2] / seen[2] > 2 * RATE


@given(st.integers(0, 1000), st.integers(1, 60), st.floats(0.01, 0.9))
def test_weights_are_those_of_the_definition(seed, m, rate):
    """The lowest score whose mass at or below, of all and a new one's at infinity, is enough."""
    rng = np.random.default_rng(seed)
    scores, weights = rng.integers(0, 12, m).astype(float), rng.integers(0, 4, m).astype(float)
    found = threshold_for_budget(scores, rate, weights=weights)
    total = weights.sum() + weights.max()
    enough = [s for s in scores if weights[scores <= s].sum() >= (1 - rate) * total - 1e-9]
    expected = np.nextafter(min(enough), math.inf) if enough and weights.any() else math.inf
    assert found == expected
    # Equal weights of any size are none.
    assert threshold_for_budget(scores, rate, weights=np.full(m, 0.3)) == threshold_for_budget(
        scores, rate
    )


@given(st.integers(0, 1000), st.sampled_from([None, 0.9]))
def test_thresholds_of_classes_are_those_of_their_own_scores(seed, confidence):
    scores, labels = draw(np.random.default_rng(seed), HELD_OUT, 80)
    labels = labels * 2  # a class in between has nobody, and flags nobody
    found = threshold_for_budget(scores, 0.3, classes=labels, confidence=confidence)
    assert found.shape == (labels.max() + 1,)
    for label, threshold in enumerate(found):
        own = scores[labels == label]
        alone = threshold_for_budget(own, 0.3, confidence=confidence) if len(own) else math.inf
        assert threshold == alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": np.ones(4)}, r"weights has shape \(4,\); expected \(5,\)"),
        ({"weights": -np.ones(5)}, "weights must be finite and at least 0; the lowest is -1"),
        ({"weights": np.full(5, np.nan)}, "weights must be finite"),
        ({"classes": np.arange(5)[:, None]}, r"classes has shape \(5, 1\)"),
        ({"classes": np.arange(5) - 1}, "classes must be finite and at least 0"),
        ({"weights": np.ones(5), "confidence": 0.9}, "confidence and weights exclude each other"),
    ],
)
def test_weights_and_classes_are_refused_where_they_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        threshold_for_budget(np.arange(5.0), 0.1, **options)
