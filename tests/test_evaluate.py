"""Figures and comparisons over seeds: by counting, by brute force, and by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import judged, prove
from sklearn.metrics import precision_recall_fscore_support

from genkl.evaluate import (
    auroc,
    average_precision,
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


# -- refusals -------------------------------------------------------------------------------------

S, T = np.arange(4.0), np.array([True, False, True, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auroc(S[:3], T), r"scores has shape \(3,\) and is_nc \(4,\)"),
        (lambda: average_precision(np.array([1, np.nan, 2, 3]), T), "contains NaN in row 1"),
        (lambda: recall_at_share(S, T, 1.5), r"share is 1\.5"),
        (lambda: precision_recall_f1(T[:2], T), r"is_flagged has shape \(2,\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
