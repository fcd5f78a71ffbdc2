"""The posterior of the class: enumeration, limits, planted truth, and the promises of its parts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genkl import (
    Role,
    class_posterior,
    double_hot,
    estimate_transition,
    fit_pool,
    none_probs,
    pool,
    posterior_targets,
    relabel_by_posterior,
    reverse_class_ratio,
)


def drawn(seed, rows=6, k=3):
    """Predictions, given labels, a transition matrix, shares of none, a label's share there."""
    rng = np.random.default_rng(seed)
    q, T = rng.dirichlet(np.ones(k), rows), rng.dirichlet(np.ones(k), k)
    return q, rng.integers(0, k, rows), T, rng.random(rows), rng.dirichlet(np.ones(k))


# -- the posterior --------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), k=st.integers(2, 5))
def test_the_posterior_is_that_of_enumeration(seed, k):
    q, y, T, n, r = drawn(seed, k=k)
    found = class_posterior(q, y, T, n, r)
    for row in range(len(q)):
        worlds = {}
        for truth, label in itertools.product(range(k + 1), range(k)):
            if truth == k:
                worlds[truth, label] = n[row] * r[label]
            else:
                worlds[truth, label] = (1 - n[row]) * q[row, truth] * T[truth, label]
        assert sum(worlds.values()) == pytest.approx(1)
        seen = [worlds[truth, y[row]] for truth in range(k + 1)]
        assert found[row] == pytest.approx(np.array(seen) / sum(seen))


@given(seed=st.integers(0, 10_000))
def test_none_is_decided_by_a_vote_where_its_odds_reach_those_of_the_label(seed):
    q, y, T, n, r = drawn(seed)
    surprise = r[y] / (q * T.T[y]).sum(axis=1)
    is_nc = n / (1 - n) * surprise >= 1
    assert np.array_equal(class_posterior(q, y, T, n, r)[:, -1] >= 0.5, is_nc)


def test_without_confusion_the_label_is_the_truth_and_with_nothing_but_it_says_nothing():
    q, y, *_ = drawn(1)
    assert np.allclose(posterior_targets(q, y, np.eye(3)), np.eye(3)[y])
    assert np.allclose(posterior_targets(q, y, np.full((3, 3), 1 / 3)), q)
    never = np.array([[0, 0.5, 0.5]] * 3)  # no class is ever given the first label
    assert np.allclose(posterior_targets(q, np.zeros(6, int), never), q)


# -- what the paper has instead -------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), noise=st.floats(0.01, 0.99))
def test_under_label_independent_noise_it_weighs_label_and_prediction(seed, noise):
    """T = (1 - e) I + e 1 r': the posterior is (1 - e) q_y e_y + e r_y q, but for its sum."""
    q, y, _, _, r = drawn(seed)
    T = (1 - noise) * np.eye(3) + noise * np.tile(r, (3, 1))
    rows = np.arange(len(q))
    expected = noise * r[y][:, None] * q
    expected[rows, y] += (1 - noise) * q[rows, y]
    expected /= expected.sum(axis=1, keepdims=True)
    assert np.allclose(posterior_targets(q, y, T), expected)


@given(seed=st.integers(0, 10_000))
def test_double_hot_is_that_posterior_at_a_noise_rate_of_its_own_for_each_row(seed):
    """With q cut to its peak, and e so that (1 - e) q_y / (e r_y) is the class ratio of y."""
    q, y, _, _, r = drawn(seed)
    w, rows = reverse_class_ratio(np.array([5.0, 10.0, 40.0])), np.arange(len(q))
    hot = double_hot(q, y, w)
    odds = w[y] * r[y] / q[rows, y]
    noise = 1 / (1 + odds)
    peak = np.where(q == q.max(axis=1, keepdims=True), q, 0)
    cut = (noise * r[y])[:, None] * peak
    cut[rows, y] += (1 - noise) * q[rows, y]
    assert np.allclose(cut / cut.sum(axis=1, keepdims=True), hot / hot.sum(axis=1, keepdims=True))
    assert noise.std() > 0  # no rate is that of all


def test_what_is_none_for_certain_has_the_uniform_target():
    q, y, T, *_ = drawn(2)
    assert np.allclose(posterior_targets(q, y, T, np.ones(6)), 1 / 3)


def test_it_relabels_where_double_hot_did():
    q, y, *_ = drawn(3, rows=40)
    is_nc = np.arange(40) % 5 == 0
    found = relabel_by_posterior(q, y, is_nc, np.full(3, 1 / 3))
    assert np.allclose(found.targets[is_nc], 1 / 3)
    assert np.allclose(found.targets.sum(axis=1), 1)
    assert (found.roles == np.where(is_nc, Role.NC, Role.NON_NC)).all()
    T = estimate_transition(q, y, is_nc.astype(float))
    assert np.allclose(found.targets[~is_nc], posterior_targets(q, y, T)[~is_nc])


# -- its parts ------------------------------------------------------------------------------------


def test_em_finds_the_planted_matrix_where_a_soft_confusion_matrix_blurs_it():
    rng = np.random.default_rng(0)
    k, count = 3, 20_000
    T = np.array([[0.7, 0.3, 0.0], [0.0, 0.9, 0.1], [0.2, 0.2, 0.6]])
    q = rng.dirichlet(np.full(k, 0.5), count)
    truth = np.array([rng.choice(k, p=row) for row in q])
    y = np.array([rng.choice(k, p=T[c]) for c in truth])
    assert np.abs(estimate_transition(q, y) - T).max() < 0.03
    blurred = estimate_transition(q, y, steps=1)
    assert np.abs(blurred - T).max() > 0.1
    assert np.allclose(blurred, (1 / k + q.T @ np.eye(k)[y]) / (1 + q.sum(axis=0))[:, None])


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_every_step_of_em_makes_the_labels_likelier(seed):
    q, y, _, n, _ = drawn(seed, rows=60)
    r = np.bincount(y, minlength=3) / len(y)

    def log_posterior(T):
        seen = ((1 - n)[:, None] * q * T.T[y]).sum(axis=1) + n * r[y]
        return np.log(seen).sum() + np.log(T).sum() / 3  # the pseudo-counts are a prior

    reached = [log_posterior(estimate_transition(q, y, n, steps=s)) for s in range(1, 12)]
    assert (np.diff(reached) > -1e-9).all()


def test_a_pool_of_one_voice_is_calibrated_and_a_second_that_knows_nothing_is_silent():
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.full(4, 0.6), 20_000)
    labels = np.array([rng.choice(4, p=row) for row in q])
    sharp = q**3 / (q**3).sum(axis=1, keepdims=True)
    (exponent,) = fit_pool([sharp], labels)
    assert exponent == pytest.approx(1 / 3, abs=0.02)
    assert np.allclose(pool([sharp], [1 / 3]), q, atol=2e-4)
    noise = rng.dirichlet(np.ones(4), len(q))
    assert fit_pool([q, noise], labels) == pytest.approx([1, 0], abs=0.05)
    assert fit_pool([q, q], labels).sum() == pytest.approx(1, abs=0.03)


def test_independent_voices_are_multiplied():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 30_000)
    seen = [rng.normal(3 * np.eye(3)[truth] / 2, 1) for _ in range(2)]
    voices = [np.exp(1.5 * x) / np.exp(1.5 * x).sum(axis=1, keepdims=True) for x in seen]
    assert fit_pool(voices, truth) == pytest.approx([1, 1], abs=0.05)


def test_none_is_found_at_its_planted_rate_and_not_where_there_is_none():
    rng = np.random.default_rng(0)
    known = rng.normal(size=2000)
    is_none = rng.random(20_000) < 0.3
    scores = rng.normal(size=20_000) + 2.5 * is_none
    found = none_probs(scores, known)
    assert found.mean() == pytest.approx(0.3, abs=0.05)
    for low, high in itertools.pairwise((0, 0.2, 0.5, 0.8, 1.0)):
        among = (found >= low) & (found < high)
        if among.sum() > 500:
            assert found[among].mean() == pytest.approx(is_none[among].mean(), abs=0.07)
    assert none_probs(rng.normal(size=20_000), known).mean() < 0.05


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 40), known=st.integers(1, 40))
def test_none_never_falls_with_the_score_and_only_its_order_matters(seed, rows, known):
    rng = np.random.default_rng(seed)
    scores, held_out = (rng.integers(0, 9, size).astype(float) for size in (rows, known))
    found = none_probs(scores, held_out)
    assert ((found >= 0) & (found < 1)).all()
    assert (np.diff(found[np.argsort(scores, kind="stable")]) >= -1e-12).all()
    assert np.allclose(none_probs(np.exp(scores), np.exp(held_out)), found)


# -- refusals -------------------------------------------------------------------------------------

Q, Y, T3 = np.full((4, 3), 1 / 3), np.zeros(4, int), np.eye(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_posterior(Q, Y[:3], T3), "given_labels"),
        (lambda: class_posterior(Q, Y + 3, T3), "given_labels"),
        (lambda: class_posterior(2 * Q, Y, T3), "class_probs"),
        (lambda: class_posterior(Q, Y, T3 / 2), "transition"),
        (lambda: class_posterior(Q, Y, np.eye(4)), r"transition has shape \(4, 4\)"),
        (lambda: class_posterior(Q, Y, T3, Q), r"nones has shape \(4, 3\); expected \(4,\)"),
        (lambda: class_posterior(Q, Y, T3, np.full(4, 2)), "nones must be finite and between 0"),
        (lambda: class_posterior(Q, Y, T3, None, -np.ones(3)), "label_shares must be finite"),
        (lambda: fit_pool([], Y), "voices is empty"),
        (lambda: fit_pool([Q], Y[:2]), "labels"),
        (lambda: pool([2 * Q], [1]), "voices"),
        (lambda: none_probs(np.array([]), Y), r"^scores has shape \(0,\)"),
        (lambda: none_probs(Y, np.array([np.nan])), "conforming_scores"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
