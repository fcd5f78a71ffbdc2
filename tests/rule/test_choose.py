"""Choosing: every alpha at once, and what a choice does."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import genkl
from genkl import (
    alpha_path,
    diagnose,
    identify_nc,
    jaccard,
    nc_score,
)
from genkl import uniform_like_vectors as draw


def predictions(seed, k=8, count=500, concentration=0.5):
    return np.random.default_rng(seed).dirichlet(np.full(k, concentration), count)


@given(st.integers(0, 1000), st.floats(0.01, 2))
def test_the_path_gives_the_nc_set_of_every_alpha(seed, alpha):
    q, p = predictions(seed), draw(8)
    path = alpha_path(q, 0.05, p)
    votes = identify_nc(q, alpha, 0.05, p)
    sure = np.abs(path.scores - alpha) > 1e-9
    assert np.array_equal(path.mask(alpha)[sure], votes[sure])
    assert path.flagged(alpha) == pytest.approx(path.mask(alpha).mean())


def test_the_path_gives_shares_for_many_alphas_at_once():
    path = alpha_path(torch.from_numpy(predictions(0)), 0.05, draw(8))
    alphas = np.array([[0.1, 0.5], [0.9, 1.5]])
    shares = path.flagged(alphas)
    assert shares.shape == (2, 2)
    assert [path.mask(a).mean() for a in alphas.ravel()] == pytest.approx(shares.ravel().tolist())


@given(st.integers(0, 100), st.floats(0, 1))
def test_alpha_for_a_share_is_the_lowest_that_keeps_it(seed, share):
    path = alpha_path(predictions(seed, count=97), 0.05, draw(8))
    alpha = path.alpha_for(share)
    assert path.flagged(alpha) <= share + 1e-12
    lower = path.ordered[path.ordered < alpha]
    if len(lower):
        assert path.flagged(lower[-1]) > share - 1e-9


def test_alpha_for_a_share_leaves_ties_out():
    path = alpha_path(np.repeat(predictions(0, count=2), 50, axis=0), 0.05, draw(8))
    assert path.flagged(path.alpha_for(0.7)) == pytest.approx(0.5)
    assert path.flagged(path.alpha_for(0.3)) == 0
    assert path.flagged(path.alpha_for(1)) == 1
    with pytest.raises(ValueError, match=r"share is 1\.1"):
        path.alpha_for(1.1)


def planted(rng, k=8, conforming=2000, nc=500):
    """Confident predictions that conform; NC ones share all between one leader and the rest."""
    sure = rng.dirichlet(np.full(k, 0.04), conforming)
    torn = np.full((nc, k), 0.5 / (k - 1)) * rng.uniform(0.9, 1.1, (nc, k))
    torn[:, 0] += 0.5
    return sure, torn / torn.sum(axis=1, keepdims=True)


def test_a_diagnosis_says_what_is_flagged():
    q, p = predictions(0), draw(8)
    mask = identify_nc(q, 0.6, 0.05, p)
    found = diagnose(q, 0.6, 0.05, p)
    assert found.flagged == mask.mean()
    predicted = q.argmax(axis=1)
    for c in range(8):
        assert found.by_class.loc[c, "instances"] == (predicted == c).sum()
        assert found.by_class.loc[c, "flagged"] == pytest.approx(mask[predicted == c].mean())
    assert found.peaks.loc["flagged", "median"] == pytest.approx(np.median(q.max(axis=1)[mask]))
    assert found.dominant_entries["instances"].sum() == len(q)
    shares = found.nearby["flagged"].to_numpy()
    assert shares[2] == mask.mean()
    assert (np.diff(shares) <= 0).all()
    assert f"flagged: {mask.mean():.2%}" in str(found)


def test_a_diagnosis_warns_of_each_danger_and_only_then():
    q, p = predictions(0), draw(8)
    assert "nothing is flagged" in diagnose(q, math.inf, 0.05, p).warnings[0]
    assert "nothing is flagged" in str(diagnose(q, 50.0, 0.05, p))
    assert "of all instances are flagged" in diagnose(q, 0.01, 0.1, p).warnings[0]
    # One class is predicted with a leader of .5, all others are sure.
    rng = np.random.default_rng(0)
    sure, torn = planted(rng)
    sure = sure[sure.argmax(axis=1) > 0]
    one_class = diagnose(np.concatenate([sure, torn]), 0.8, 0.08, p)
    assert any("predicted as class 0 are flagged" in text for text in one_class.warnings)
    renamed = diagnose(predictions(1, 14, 4000), 1.02, 0.03, draw(14))
    assert any("renaming the classes keeps only" in text for text in renamed.warnings)
    closed = diagnose(predictions(1, 14, 4000), 1.02, 0.03, draw(14), permutation_invariant=True)
    assert closed.renaming_agreement == 1
    assert not any("renaming" in text for text in closed.warnings)
    flat = draw(8, 1, sigma=0.0)
    assert any("uniform prediction is not" in t for t in diagnose(q, 1.01, 0.12, flat).warnings)
    assert not any("uniform prediction" in t for t in diagnose(q, 0.99, 0.12, flat).warnings)
    peaked = np.tile([0.6, 0.2, 0.1, 0.1], (50, 1))
    score = float(nc_score(peaked[:1], 0.1, draw(4))[0])
    assert any("cliff" in text for text in diagnose(peaked, score * 0.99, 0.1, draw(4)).warnings)


def test_a_diagnosis_refuses_bad_input():
    with pytest.raises(ValueError, match="no rows"):
        diagnose(np.empty((0, 4)), 1.0, 0.1, draw(4))
    with pytest.raises(ValueError, match="alpha is -1"):
        diagnose(predictions(0), -1.0, 0.1, draw(8))


def test_jaccard_is_intersection_over_union():
    a, b = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert jaccard(a, b) == pytest.approx(1 / 3)
    assert jaccard(a, a) == 1
    assert math.isnan(jaccard(~a & a, ~a & a))


def test_the_withdrawn_choice_of_beta_says_where_it_went():
    with pytest.raises(AttributeError, match=r"withdrawn .*beta = 0.5 / k; or benchmarks.choosing"):
        genkl.choose_alpha_beta  # noqa: B018
