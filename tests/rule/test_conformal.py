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
