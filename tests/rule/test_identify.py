"""Identification: the score, the mask and the threshold, on properties and on planted truth."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genkl import (
    entropy_score,
    flag_above,
    generalized_kl,
    identify_nc,
    nc_score,
    threshold_for_budget,
    uniform_like_vectors,
)


def predictions(seed, k, count=200, concentration=0.5):
    return np.random.default_rng(seed).dirichlet(np.full(k, concentration), count)


settings = given(
    seed=st.integers(0, 10_000),
    k=st.integers(2, 30),
    alpha=st.floats(0.3, 2),
    share=st.floats(0, 0.99),
)


@settings
def test_vote_is_any_divergence_at_or_above_zero(seed, k, alpha, share):
    q, p, beta = predictions(seed, k), uniform_like_vectors(k, seed=seed), share / k
    divergences = generalized_kl(p[:, None, :], q, alpha, beta)
    sure = np.abs(divergences).min(axis=0) > 1e-9  # rounding may decide an exact tie
    expected = (divergences >= 0).any(axis=0)
    assert np.array_equal(identify_nc(q, alpha, beta, p)[sure], expected[sure])


@settings
def test_flagged_exactly_where_the_critical_alpha_reaches_alpha(seed, k, alpha, share):
    q, p, beta = predictions(seed, k), uniform_like_vectors(k, seed=seed), share / k
    scores = nc_score(q, beta, p)
    sure = np.abs(scores - alpha) > 1e-9
    assert np.array_equal(identify_nc(q, alpha, beta, p)[sure], flag_above(scores, alpha)[sure])


@settings
def test_nested_in_alpha_beta_and_the_number_of_vectors(seed, k, alpha, share):
    q, p, beta = predictions(seed, k), uniform_like_vectors(k, 20, seed=seed), share / k
    flagged = identify_nc(q, alpha, beta, p)
    assert not (identify_nc(q, alpha * 1.1, beta, p) & ~flagged).any()
    assert not (flagged & ~identify_nc(q, alpha, (beta + 1 / k) / 2, p)).any()
    assert not (identify_nc(q, alpha, beta, p[:7]) & ~flagged).any()


def test_one_hot_predictions_are_never_flagged():
    scores = nc_score(np.eye(6), 0.1, uniform_like_vectors(6))
    assert np.array_equal(scores, np.zeros(6))
    assert not identify_nc(np.eye(6), 1e-6, 0.1, uniform_like_vectors(6)).any()


def test_at_zero_divergence_an_instance_is_flagged():
    # k = 2, uniform q and p, alpha = 1: D is exactly 0, and the rule is D >= 0.
    half = np.full((1, 2), 0.5)
    assert generalized_kl(half[0], half[0], 1.0, 0.25) == 0
    assert identify_nc(half, 1.0, 0.25, half).tolist() == [True]


def test_planted_truth_is_found_and_confident_predictions_are_left_alone():
    rng = np.random.default_rng(0)
    k = 10
    confident = 0.97 * np.eye(k)[rng.integers(0, k, 300)] + 0.003
    # One class leads with 0.45, nine share the rest: far from uniform, and far from a decision.
    torn = np.full((100, k), 0.55 / 9)
    torn[np.arange(100), rng.integers(0, k, 100)] = 0.45
    q = np.concatenate([confident, torn])
    flagged = identify_nc(q, 1.0, 0.05, uniform_like_vectors(k))
    assert not flagged[:300].any()
    assert flagged[300:].all()
    # Entropy at the threshold the paper describes ("almost uniform") finds none of them.
    assert not flag_above(entropy_score(q), 0.9).any()


def test_a_vector_without_entropy_flags_everything():
    q = predictions(0, 4)
    assert np.isinf(nc_score(q, 0.1, np.eye(4)[:1])).all()
    assert identify_nc(q, 5.0, 0.1, np.eye(4)[:1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_in_torch_out(dtype):
    q = torch.from_numpy(predictions(1, 8)).to(dtype)
    p = uniform_like_vectors(8)
    scores, mask = nc_score(q, 0.05, p), identify_nc(q, 0.7, 0.05, p)
    assert isinstance(scores, torch.Tensor)
    assert mask.dtype == torch.bool
    assert np.allclose(scores.numpy(), nc_score(q.double().numpy(), 0.05, p), rtol=1e-12)
    assert np.array_equal(mask.numpy(), identify_nc(q.double().numpy(), 0.7, 0.05, p))
    assert isinstance(entropy_score(q), torch.Tensor)


@given(st.integers(0, 1000), st.integers(2, 20))
def test_entropy_score_runs_from_zero_to_one(seed, k):
    scores = entropy_score(
        np.concatenate([predictions(seed, k), np.eye(k), np.full((1, k), 1 / k)])
    )
    assert ((scores >= 0) & (scores <= 1 + 1e-12)).all()
    assert scores[-1] == pytest.approx(1)
    assert not scores[200:-1].any()


P4 = uniform_like_vectors(4)
Q4 = np.full((2, 4), 0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Q4, 0.0, 0.1, P4), "alpha is 0.0"),
        ((Q4, math.inf, 0.1, P4), "alpha is inf"),
        ((Q4, 1.0, 0.25, P4), "beta is 0.25; identification needs 0 <= beta < 1/k"),
        ((Q4, 1.0, -0.01, P4), "beta is -0.01"),
        ((Q4, 1.0, math.nan, P4), "beta is nan"),
        ((Q4[0], 1.0, 0.1, P4), "pred_probs has shape \\(4,\\); expected 2 axes"),
        (
            (Q4, 1.0, 0.1, uniform_like_vectors(3)),
            "uniform_like has 3 classes and pred_probs has 4",
        ),
        ((Q4, 1.0, 0.1, P4[:0]), "uniform_like has no rows"),
        ((Q4 * 2, 1.0, 0.1, P4), "pred_probs sums to 2"),
        ((np.where(np.eye(2, 4), np.nan, Q4), 1.0, 0.1, P4), "pred_probs contains NaN"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        identify_nc(*arguments)


def test_no_instances_is_an_empty_mask():
    assert identify_nc(np.empty((0, 4)), 1.0, 0.1, P4).shape == (0,)
    assert nc_score(np.empty((0, 4)), 0.1, P4).shape == (0,)


@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(0, 0.95))
def test_permutation_invariant_scores_do_not_see_the_names_of_classes(seed, k, share):
    rng = np.random.default_rng(seed)
    q, p = predictions(seed, k, 50), uniform_like_vectors(k, 5, seed=seed)
    closed = nc_score(q, share / k, p, permutation_invariant=True)
    renamed = nc_score(q[:, rng.permutation(k)], share / k, p, permutation_invariant=True)
    other_p = nc_score(q, share / k, rng.permuted(p, axis=1), permutation_invariant=True)
    assert np.allclose(closed, renamed, rtol=1e-12)
    assert np.allclose(closed, other_p, rtol=1e-12)
    assert (closed >= nc_score(q, share / k, p) - 1e-12).all()  # a larger set of vectors


def test_permutation_invariant_votes_agree_with_their_scores_up_to_ties():
    q, p = predictions(3, 14, 20_000).astype(np.float32), uniform_like_vectors(14)
    scores = nc_score(q, 0.03, p, permutation_invariant=True)
    for alpha in (0.3, 0.6, 0.9, float(scores[7])):
        votes = identify_nc(q, alpha, 0.03, p, permutation_invariant=True)
        sure = np.abs(scores - alpha) > 1e-5 * alpha
        assert np.array_equal(votes[sure], flag_above(scores, alpha)[sure])


def test_auto_alpha_keeps_the_budget_on_conforming_and_flags_more_of_the_rest():
    rng = np.random.default_rng(0)
    k, p = 10, uniform_like_vectors(10)
    conforming = rng.dirichlet(np.full(k, 0.05), 3000)
    torn = rng.dirichlet(np.full(k, 1.0), 1000)
    options = {"conforming_probs": conforming[:1000], "max_flag_rate": 0.1}
    flagged = identify_nc(np.concatenate([conforming[1000:], torn]), "auto", 0.05, p, **options)
    assert 0.05 < flagged[:2000].mean() < 0.15
    assert flagged[2000:].mean() > 0.8
    threshold = threshold_for_budget(nc_score(conforming[:1000], 0.05, p), 0.1)
    assert np.array_equal(flagged[2000:], nc_score(torn, 0.05, p) >= threshold)
    sure = identify_nc(conforming[1000:], "auto", 0.05, p, confidence=0.99, **options)
    assert sure.mean() < flagged[:2000].mean()


@pytest.mark.parametrize(
    ("alpha", "options", "message"),
    [
        ("auto", {}, "conforming_probs is missing; pass predictions on validation"),
        ("best", {}, "alpha is 'best'; pass a number, or 'auto'"),
        ("auto", {"conforming_probs": Q4[0]}, "expected 2 axes"),
        ("auto", {"conforming_probs": Q4, "max_flag_rate": 2}, "max_flag_rate is 2"),
        ("auto", {"conforming_probs": Q4 * 2}, "sums to 2"),
    ],
)
def test_auto_alpha_refuses_bad_input(alpha, options, message):
    with pytest.raises(ValueError, match=message):
        identify_nc(Q4, alpha, 0.1, P4, **options)


def test_auto_alpha_with_too_few_conforming_instances_flags_nothing():
    assert not identify_nc(Q4, "auto", 0.1, P4, conforming_probs=Q4).any()


def test_numpy_alone_suffices():
    """The rule runs where nothing but NumPy can be imported."""
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {"numpy", "genkl"} | set(sys.stdlib_module_names):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Missing())
import numpy as np, genkl
q, p = np.array([[0.97, 0.01, 0.01, 0.01], [0.4, 0.3, 0.2, 0.1]]), genkl.uniform_like_vectors(4)
assert genkl.identify_nc(q, 0.7, 0.05, p).tolist() == [False, True]
assert genkl.identify_nc(q, "auto", 0.05, p, conforming_probs=q).tolist() == [False, False]
assert (genkl.nc_score(q, 0.05, p) >= 0).all()
assert genkl.entropy_score(q)[1] > genkl.entropy_score(q)[0]
assert genkl.generalized_kl(p[0], q, 0.9, 0.05).shape == (2,)
assert genkl.alpha_path(q, 0.05, p).flagged(0.5) == 0.5
assert genkl.jaccard(q[0] > 0.5, q[1] > 0.3) == 1
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
