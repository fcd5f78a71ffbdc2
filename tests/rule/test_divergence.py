"""The divergence: against its definition, against KL, and its limits (properties and oracles)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import rel_entr

from genkl import entropy, generalized_kl, uniform_like_vectors


@st.composite
def simplex(draw, k, zeros=True):
    """A probability vector of length k, sometimes with exact zeros."""
    low = 0.0 if zeros else 1e-6
    raw = draw(hnp.arrays(np.float64, k, elements=st.floats(low, 1.0, allow_subnormal=False)))
    assume(raw.sum() > 1e-3)
    return raw / raw.sum()


@st.composite
def pair(draw, zeros=True):
    k = draw(st.integers(2, 12))
    return draw(simplex(k, zeros)), draw(simplex(k, zeros))


def by_definition(p, q, alpha, beta):
    """The sum of the paper, term by term, in plain Python."""
    tau = 1 / len(p) - beta
    negative_entropy = sum(x * math.log(x) for x in p if x > 0)
    cross = sum(
        x * (math.log(y) if y > 0 else -math.inf)
        for x, y in zip(p, q, strict=True)
        if y >= tau and x > 0
    )
    return alpha * negative_entropy - cross


@given(pair(), st.floats(0.05, 3), st.floats(0, 0.6))
def test_equals_the_definition_term_by_term(pq, alpha, beta):
    p, q = pq
    assert generalized_kl(p, q, alpha, beta) == pytest.approx(
        by_definition(p.tolist(), q.tolist(), alpha, beta), rel=1e-9, abs=1e-9
    )


@given(pair())
def test_is_kl_at_alpha_one_and_beta_at_least_one_over_k(pq):
    p, q = pq
    expected = rel_entr(p, q).sum()  # SciPy's KL, infinite where q is 0 and p is not
    assert generalized_kl(p, q, alpha=1.0, beta=1.0) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(pair(zeros=False), st.floats(0.1, 2), st.floats(0, 0.5))
def test_decomposes_into_kl_entropy_and_the_truncated_mass(pq, alpha, beta):
    p, q = pq
    k = len(p)
    dropped = q < 1 / k - beta
    expected = rel_entr(p, q).sum() + (1 - alpha) * entropy(p) - (p * np.log(1 / q))[dropped].sum()
    assert generalized_kl(p, q, alpha, beta) == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_one_hot_prediction_is_minus_alpha_times_entropy():
    p = uniform_like_vectors(5, 1, seed=3)[0]
    assert generalized_kl(p, np.eye(5)[2], 0.9, 0.1) == pytest.approx(-0.9 * entropy(p))


def test_zero_times_infinity_is_zero():
    # p puts nothing where q is 0, so KL is finite.
    p, q = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    assert generalized_kl(p, q, 1.0, 0.5) == pytest.approx(math.log(2))
    assert generalized_kl(q, p, 1.0, 0.5) == math.inf
    assert generalized_kl(p, p, 1.0, 0.5) == 0


def test_broadcasts_over_leading_axes():
    p = uniform_like_vectors(4, 3)
    q = np.random.default_rng(0).dirichlet(np.ones(4), size=(5, 2))
    result = generalized_kl(p[:, None, None, :], q, 0.9, 0.05)
    assert result.shape == (3, 5, 2)
    assert result[2, 4, 1] == pytest.approx(generalized_kl(p[2], q[4, 1], 0.9, 0.05))


def test_torch_in_torch_out_with_the_same_value_and_a_right_gradient():
    p, q = uniform_like_vectors(4, 1, seed=1)[0], np.array([0.5, 0.3, 0.15, 0.05])
    logits = torch.log(torch.from_numpy(q)).requires_grad_()
    result = generalized_kl(torch.from_numpy(p), logits.softmax(0), 0.9, 0.15)
    assert isinstance(result, torch.Tensor)
    assert result.item() == pytest.approx(generalized_kl(p, q, 0.9, 0.15))
    assert torch.autograd.gradcheck(
        lambda z: generalized_kl(torch.from_numpy(p), z.softmax(0), 0.9, 0.15), logits
    )


def test_mixed_kinds_give_a_tensor_and_single_precision_is_computed_in_double():
    p, q = uniform_like_vectors(3, 1)[0], torch.tensor([0.7, 0.2, 0.1])
    result = generalized_kl(p, q, 1.0, 0.1)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float64
    assert result.item() == pytest.approx(generalized_kl(p, q.double().numpy(), 1.0, 0.1))


@given(st.integers(2, 200), st.integers(1, 30), st.floats(0, 0.5), st.integers(0, 2**32 - 1))
def test_uniform_like_vectors_follow_the_published_sampling(k, n, sigma, seed):
    draws = np.random.RandomState(seed).normal(1 / k, sigma, (n, k))
    draws = np.where(draws < 0, 0.005, np.where(draws > 1, 1.0, draws))
    expected = draws / draws.sum(axis=1)[:, None]
    assert np.array_equal(uniform_like_vectors(k, n, sigma, seed), expected)


def test_sampling_touches_no_global_state():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    uniform_like_vectors(4, seed=123)
    assert np.array_equal(before, np.random.get_state()[1])


def test_sigma_zero_is_the_uniform_vector():
    assert np.allclose(uniform_like_vectors(7, 2, sigma=0.0), 1 / 7, rtol=0, atol=1e-16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes is 1"),
        ({"num_classes": 4, "num_vectors": 0}, "num_vectors is 0"),
        ({"num_classes": 4, "sigma": -0.1}, "sigma is -0.1"),
        ({"num_classes": 4, "sigma": math.nan}, "sigma is nan"),
    ],
)
def test_sampling_refuses_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        uniform_like_vectors(**arguments)


GOOD = np.array([0.5, 0.3, 0.2])


@pytest.mark.parametrize(
    ("p", "q", "alpha", "beta", "message"),
    [
        (GOOD, np.array([0.5, np.nan, 0.5]), 1, 0.1, "q contains NaN in row 0"),
        (GOOD, np.array([0.7, -0.1, 0.4]), 1, 0.1, "q contains a negative entry .*softmax"),
        (GOOD, np.array([0.7, 0.7, 0.7]), 1, 0.1, "q sums to 2.1, not to 1, in row 0"),
        (GOOD, np.array([2.0, 1.0, -3.0]), 1, 0.1, "q contains a negative entry"),
        (GOOD, np.array([0.5, 0.5]), 1, 0.1, "p has 3 classes and q has 2"),
        (np.array([1.0]), np.array([1.0]), 1, 0.1, "p has shape \\(1,\\)"),
        (GOOD, GOOD, 0, 0.1, "alpha is 0"),
        (GOOD, GOOD, -1, 0.1, "alpha is -1"),
        (GOOD, GOOD, math.nan, 0.1, "alpha is nan"),
        (GOOD, GOOD, 1, -0.1, "beta is -0.1"),
        (GOOD, GOOD, 1, math.nan, "beta is nan"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_bad_input_is_named(p, q, alpha, beta, message, kind):
    with pytest.raises(ValueError, match=message):
        generalized_kl(kind(p), kind(q), alpha, beta)


def test_the_first_bad_row_is_named():
    probs = np.full((5, 4), 0.25)
    probs[3] *= 2
    with pytest.raises(ValueError, match="row 3"):
        generalized_kl(np.full(4, 0.25), probs, 1, 0.1)
