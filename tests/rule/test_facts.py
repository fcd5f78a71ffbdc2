"""The fifteen facts of the theory chapter: each by property, by brute force or by an oracle."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from scipy.stats import spearmanr

from genkl import (
    CLOTHING1M,
    FOOD101N,
    MINI_WEBVISION,
    entropy,
    entropy_score,
    generalized_kl,
    identify_nc,
    nc_score,
    uniform_like_vectors,
)

PRESETS = (CLOTHING1M, FOOD101N, MINI_WEBVISION)
every_preset = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.dataset)


def prove(**strategies):
    """A property; without a deadline, since other work may share the machine."""
    return lambda test: settings(deadline=None)(given(**strategies)(test))


anything = prove(
    seed=st.integers(0, 100_000),
    k=st.integers(2, 16),
    alpha=st.floats(0.3, 2),
    share=st.floats(0.02, 0.98),  # beta is this share of 1/k
)


def uniform(k):
    return np.full((1, k), 1 / k)


def dirichlet(seed, k, count=100, concentration=0.5):
    """Predictions without zeros."""
    rows = np.random.default_rng(seed).dirichlet(np.full(k, concentration), count) + 1e-9
    return rows / rows.sum(axis=1, keepdims=True)


def costs(q, tau):
    """-log q_j where q_j reaches tau, in plain Python."""
    return [-math.log(x) if x >= tau else 0.0 for x in q]


def one_peak(m, k):
    q = np.full(k, (1 - m) / (k - 1))
    q[0] = m
    return q


def tau_of(preset):
    return 1 / preset.num_classes - preset.beta


def vectors_of(preset):
    return uniform_like_vectors(preset.num_classes, preset.num_vectors, preset.sigma, seed=0)


# -- what the divergence is -----------------------------------------------------------------------


@anything
def test_fact_01_decomposition(seed, k, alpha, share):
    p, q, beta = dirichlet(seed + 1, k, 1)[0], dirichlet(seed, k), share / k
    p[0] = 0
    p /= p.sum()
    cut = np.where(q < 1 / k - beta, p * np.log(1 / q), 0).sum(axis=1)
    expected = rel_entr(p, q).sum(axis=1) + (1 - alpha) * entropy(p) - cut
    assert np.allclose(generalized_kl(p, q, alpha, beta), expected, rtol=1e-9, atol=1e-9)
    # Its hypothesis is needed: with a zero where p has mass, KL is infinite and D is not.
    zero = np.append(q[0, :-1] / q[0, :-1].sum(), 0.0)
    assert np.isinf(rel_entr(p, zero).sum())
    assert np.isfinite(generalized_kl(p, zero, alpha, beta))


@prove(seed=st.integers(0, 100_000), k=st.integers(2, 16), factor=st.floats(1.001, 3))
def test_fact_02_without_truncation_it_is_kl_and_flags_everything(seed, k, factor):
    p, q = dirichlet(seed + 1, k, 1)[0], dirichlet(seed, k)
    divergence = generalized_kl(p, q, 1.0, factor / k)
    assert np.allclose(divergence, rel_entr(p, q).sum(axis=1), rtol=1e-9, atol=1e-9)
    assert (divergence >= -1e-12).all()
    assert np.isinf(generalized_kl(p, np.eye(k), 1.0, factor / k)).all()
    itself = generalized_kl(np.eye(k)[0], np.eye(k), 1.0, factor / k)
    assert itself[0] == 0
    assert np.isinf(itself[1:]).all()


@prove(
    seed=st.integers(0, 100_000),
    k=st.integers(2, 16),
    alpha=st.floats(0.05, 0.999),
    share=st.floats(0.02, 0.98),
)
def test_fact_03_nothing_below_tau_and_alpha_at_most_one(seed, k, alpha, share):
    tau = (1 - share) / k
    q = 1.000001 * tau + (1 - 1.000001 * k * tau) * dirichlet(seed, k)
    q /= q.sum(axis=1, keepdims=True)
    p = uniform_like_vectors(k, 5, seed=seed)
    assert (generalized_kl(p[:, None], q, alpha, share / k) >= 0).all()
    assert identify_nc(q, alpha, share / k, p).all()
    # Neither hypothesis can go: alpha above 1, or a single entry below tau.
    assert generalized_kl(uniform(k)[0], uniform(k)[0], alpha + 1, share / k) < 0
    below = np.array([0.19, 0.27, 0.27, 0.27])
    assert generalized_kl(uniform(4)[0], below, 0.999, 0.05) < 0


@anything
def test_fact_04_nested(seed, k, alpha, share):
    q, beta = dirichlet(seed, k, 200), share / k
    p = uniform_like_vectors(k, 20, seed=seed)
    first, other = p[:, None], q[None]
    # The derivative in alpha is -H(p), and beta adds the cost of what it lets in.
    slope = generalized_kl(first, other, alpha + 1, beta) - generalized_kl(
        first, other, alpha, beta
    )
    assert np.allclose(slope, -entropy(p)[:, None])
    more = (beta + 1 / k) / 2
    let_in = (q >= 1 / k - more) & (q < 1 / k - beta)
    gain = generalized_kl(first, other, alpha, more) - generalized_kl(first, other, alpha, beta)
    assert np.allclose(gain, p @ np.where(let_in, -np.log(q), 0).T, atol=1e-9)
    assert (gain >= -1e-12).all()
    # Hence nested NC sets, and in n because a longer draw begins with the shorter one.
    flagged = identify_nc(q, alpha, beta, p)
    assert not (identify_nc(q, 1.1 * alpha, beta, p) & ~flagged).any()
    assert not (flagged & ~identify_nc(q, alpha, more, p)).any()
    longer = uniform_like_vectors(k, 60, seed=seed)
    assert np.array_equal(longer[:20], p)
    assert not (flagged & ~identify_nc(q, alpha, beta, longer)).any()


def test_fact_04_in_the_long_run_every_prediction_but_a_one_hot_one_is_flagged():
    # Two classes, so that vectors with little entropy come up soon; the prediction is confident.
    q, beta = np.array([[0.9, 0.1], [0.1, 0.9], [1.0, 0.0]]), 0.3
    few, many = (uniform_like_vectors(2, n, sigma=0.5, seed=4) for n in (1, 20_000))
    assert identify_nc(q, 1.05, beta, few).tolist() == [False, False, False]
    assert identify_nc(q, 1.05, beta, many).tolist() == [True, True, False]
    k14 = dirichlet(0, 14, 5000, concentration=1.0)
    shares = [
        identify_nc(k14, 1.05, 0.03, uniform_like_vectors(14, n)).mean() for n in (1, 20, 1000)
    ]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 5 * shares[1]


@anything
def test_fact_05_certainty_is_never_flagged(seed, k, alpha, share):
    beta, p = share / k, uniform_like_vectors(k, 1, seed=seed)
    tau, leader = 1 / k - beta, seed % k
    divergence = generalized_kl(p[0], np.eye(k), alpha, beta)
    assert np.allclose(divergence, -alpha * entropy(p[0]))
    assert not identify_nc(np.eye(k), alpha, beta, p).any()
    # Above 1 - tau only the leader counts, and there is a closed bound on its probability.
    bound = math.exp(-alpha * entropy(p[0]) / p[0, leader])
    for m in (bound * (1 - 1e-6), bound * (1 + 1e-6), 1 - 0.5 * tau, 1 - 1e-3 * tau):
        if 1 - tau < m < 1:
            q = np.roll(one_peak(m, k), leader)[None]
            assert identify_nc(q, alpha, beta, p)[0] == (m <= bound)


@prove(seed=st.integers(0, 100_000), k=st.integers(2, 16), share=st.floats(0.02, 0.98))
def test_fact_05_sharpening_needs_a_single_leader(seed, k, share):
    logits, p = np.random.default_rng(seed).normal(size=k), uniform_like_vectors(k, 5, seed=seed)
    logits[seed % k] = logits.max() + 0.05
    sharp = np.exp(1e4 * (logits - logits.max()))
    assert not identify_nc((sharp / sharp.sum())[None], 0.3, share / k, p)[0]
    # A tie of all classes stays uniform at every temperature, and is flagged up to alpha = 1.
    assert identify_nc(uniform(k), 0.999, share / k, p)[0]


# -- what it flags ---------------------------------------------------------------------------------


@anything
def test_fact_06_critical_alpha(seed, k, alpha, share):
    q, p, beta = dirichlet(seed, k, 30), uniform_like_vectors(k, 4, seed=seed), share / k
    scores = nc_score(q, beta, p)
    by_hand = [
        max(np.dot(row, costs(x, 1 / k - beta)) / -sum(row * np.log(row)) for row in p) for x in q
    ]
    assert np.allclose(scores, by_hand, rtol=1e-9)
    for factor in (0.5, 1 - 1e-6, 1 + 1e-6, 1.5):
        for x, score in zip(q[scores > 1e-6], scores[scores > 1e-6], strict=True):
            highest = generalized_kl(p, x, factor * score, beta).max()
            assert (highest >= 0) == (factor <= 1)
    sure = np.abs(scores - alpha) > 1e-9
    assert np.array_equal(identify_nc(q, alpha, beta, p)[sure], (scores >= alpha)[sure])


@prove(
    seed=st.integers(0, 100_000),
    k=st.integers(2, 60),
    share=st.floats(0, 0.98),
    sigma=st.sampled_from([0.0, 0.01, 0.05, 0.3]),
)
def test_fact_07_the_uniform_prediction(seed, k, share, sigma):
    p = uniform_like_vectors(k, 20, sigma, seed)
    limit = math.log(k) / entropy(p).min()
    assert limit >= 1 - 1e-12
    assert limit == pytest.approx(1) if sigma == 0 else limit > 1
    assert identify_nc(uniform(k), limit * (1 - 1e-6), share / k, p)[0]
    assert not identify_nc(uniform(k), limit * (1 + 1e-6), share / k, p)[0]


def test_fact_07_of_the_presets_only_food_releases_it():
    flagged = [
        bool(identify_nc(uniform(one.num_classes), one.alpha, one.beta, vectors_of(one))[0])
        for one in PRESETS
    ]
    assert flagged == [True, False, True]


@prove(
    k=st.integers(2, 60),
    share=st.floats(0.02, 0.98),
    alpha=st.floats(0.02, 2),
    where=st.floats(0, 0.999),
)
def test_fact_08_one_peak(k, share, alpha, where):
    assume(alpha > 1.001 / k)
    beta, m = share / k, 1 / k + where * (1 - 1 / k)
    end = 1 / k + (k - 1) * beta
    surplus = -math.log(m) - (k - 1) * math.log((1 - m) / (k - 1)) - alpha * k * math.log(k)
    assume(abs(m - end) > 1e-9 and abs(surplus) > 1e-9)
    divergence = generalized_kl(uniform(k)[0], one_peak(m, k), alpha, beta)
    assert (divergence >= 0) == (m <= end and surplus >= 0)


def test_fact_08_needs_alpha_above_one_over_k():
    # Two classes, alpha 0.3: the rival is below tau, and the leader's own cost is enough.
    q = one_peak(0.65, 2)
    assert q[0] > 1 / 2 + 0.1
    assert generalized_kl(uniform(2)[0], q, 0.3, 0.1) >= 0


@pytest.mark.parametrize(
    ("preset", "lowest", "highest"),
    [(CLOTHING1M, 0.2735, 0.4614), (FOOD101N, 0.4014, 0.8099), (MINI_WEBVISION, 0.02, 0.755)],
)
def test_fact_08_intervals_of_the_presets_by_brute_force(preset, lowest, highest):
    k = preset.num_classes
    grid = np.linspace(1 / k, 1 - 1e-6, 20_001)
    predictions = np.stack([one_peak(m, k) for m in grid])
    flagged = generalized_kl(uniform(k)[0], predictions, preset.alpha, preset.beta) >= 0
    assert np.diff(flagged.astype(int)).tolist().count(-1) == 1  # one interval
    assert grid[flagged].min() == pytest.approx(lowest, abs=2e-4)
    assert grid[flagged].max() == pytest.approx(highest, abs=2e-4)


def largest_peak(k, alpha, tau):
    """The theorem's formula; None where no prediction is flagged."""
    needed = alpha * k * math.log(k)
    for s in range(1, k):
        if s * math.log(1 / tau) - math.log(1 - s * tau) >= needed:
            return max(1 - s * tau, math.exp((s - 1) * math.log(1 / tau) - needed))
    return None


def largest_peak_by_dynamic_programming(k, alpha, tau, steps):
    """The same over all predictions whose other entries are multiples of tau / steps."""
    units = np.arange(int(1 / tau * steps) + 1)
    cost = np.where(units >= steps, -np.log(np.maximum(units, 1) * tau / steps), 0.0)
    best = np.where(units == 0, 0.0, -np.inf)  # most that no class can cost, by units handed out
    for _ in range(k - 1):
        best = np.array([np.max(best[: w + 1][::-1] + cost[: w + 1]) for w in units])
    peaks = 1 - units * tau / steps
    inside = peaks >= 1 / k
    flagged = best[inside] - np.log(peaks[inside]) >= alpha * k * math.log(k)
    return peaks[inside][flagged].max() if flagged.any() else None


@pytest.mark.parametrize(
    ("preset", "steps", "expected"),
    [(CLOTHING1M, 12, 0.503), (FOOD101N, 2, 0.844), (MINI_WEBVISION, 5, 0.830)],
)
def test_fact_09_largest_peak_of_the_presets(preset, steps, expected):
    k, alpha, tau = preset.num_classes, preset.alpha, tau_of(preset)
    assert largest_peak(k, alpha, tau) == pytest.approx(expected, abs=5e-4)
    found = largest_peak_by_dynamic_programming(k, alpha, tau, steps)
    assert found == pytest.approx(largest_peak(k, alpha, tau), abs=1e-9)


@prove(k=st.integers(2, 7), alpha=st.floats(0.15, 1.5), share=st.floats(0.05, 0.9))
def test_fact_09_largest_peak(k, alpha, share):
    tau, steps = (1 - share) / k, 16
    needed = alpha * k * math.log(k)
    ties = [s * math.log(1 / tau) - math.log(1 - s * tau) - needed for s in range(k)]
    assume(min(map(abs, ties)) > 1e-9)
    formula = largest_peak(k, alpha, tau)
    found = largest_peak_by_dynamic_programming(k, alpha, tau, steps)
    if formula is None:
        assert found is None
    else:  # the grid holds every 1 - s tau, and any other peak up to a step
        assert formula - tau / steps - 1e-9 <= found <= formula + 1e-9


def test_fact_09_the_peak_can_stand_above_one_minus_s_tau():
    k, tau, alpha = 14, tau_of(CLOTHING1M), 0.9655
    peak = largest_peak(k, alpha, tau)
    assert 1 - 12 * tau + 0.01 < peak < 1 - 11 * tau
    q = np.zeros(k)
    q[1:12], q[12] = tau * (1 + 1e-12), 1 - peak - 11 * tau
    q[0] = 1 - q.sum() - 1e-9
    q[13] = 1e-9
    assert (q >= tau).sum() == 12
    assert generalized_kl(uniform(k)[0], q, alpha, CLOTHING1M.beta) == pytest.approx(0, abs=1e-8)


@anything
def test_fact_10_the_jump(seed, k, alpha, share):
    tau, p = (1 - share) / k, uniform_like_vectors(k, 1, seed=seed)[0]
    j, tiny = seed % k, 1e-10

    def divergence(entry):
        q = np.full(k, (1 - entry) / (k - 1))
        q[j] = entry
        return generalized_kl(p, q, alpha, share / k)

    jump = divergence(tau * (1 + tiny)) - divergence(tau * (1 - tiny))
    assert jump == pytest.approx(p[j] * math.log(1 / tau), abs=1e-7)


@pytest.mark.parametrize(
    ("preset", "nats"), [(CLOTHING1M, 0.2274), (FOOD101N, 0.0620), (MINI_WEBVISION, 0.1060)]
)
def test_fact_10_jumps_of_the_presets(preset, nats):
    k, tau = preset.num_classes, tau_of(preset)
    q = np.full((2, k), (1 - tau) / (k - 1))
    q[:, 0] = tau * (1 - 1e-12), tau * (1 + 1e-12)
    below, above = generalized_kl(uniform(k)[0], q, preset.alpha, preset.beta)
    assert above - below == pytest.approx(nats, abs=5e-5)


@anything
def test_fact_11_without_scatter(seed, k, alpha, share):
    q, beta, p = dirichlet(seed, k), share / k, uniform_like_vectors(k, 20, sigma=0.0)
    mean_cost = np.array([sum(costs(x, 1 / k - beta)) / k for x in q])
    surplus = mean_cost - alpha * math.log(k)
    sure = np.abs(surplus) > 1e-9
    assert np.array_equal(identify_nc(q, alpha, beta, p)[sure], (surplus >= 0)[sure])


def filled(p, tau):
    """max(tau, p / c), with c such that it sums to 1: by bisection of c."""
    low, high = 1e-9, 1e9
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if np.maximum(tau, p / middle).sum() > 1 else (low, middle)
    return np.maximum(tau, p / high)


@anything
def test_fact_11_the_smallest_divergence_where_every_class_is_dominant(seed, k, alpha, share):
    beta, rng = share / k, np.random.default_rng(seed)
    tau = 1 / k - beta
    q = tau + (1 - k * tau) * rng.dirichlet(np.ones(k), 50)  # every class dominant, tau > 0
    assert (q >= tau).all()
    for p in (
        uniform(k)[0],
        rng.dirichlet(np.full(k, 0.5)),
        uniform_like_vectors(k, 1, seed=seed)[0],
    ):
        bound = (1 - alpha) * entropy(p)
        found = generalized_kl(p, q, alpha, beta)
        assert np.allclose(found - bound, rel_entr(p, q).sum(axis=1), atol=1e-9)
        lowest = filled(p, tau)
        # A millionth above tau, so that rounding makes no entry jump.
        least = generalized_kl(p, (1 - 1e-6) * lowest + 1e-6 / k, alpha, beta)
        assert (found >= least - 1e-5).all()
        if p.min() >= tau:
            assert np.allclose(lowest, p)
            assert least == pytest.approx(bound, abs=1e-5)
        else:  # p is not among them, and the bound isn't reached
            assert least - bound >= rel_entr(p, lowest).sum() - 1e-5
            assert rel_entr(p, lowest).sum() > 0


def test_fact_11_needs_every_class_of_p_dominant():
    p, tau = np.array([0.01, 0.29, 0.7]), 0.1
    at_p, lowest = (generalized_kl(p, q, 1.0, 1 / 3 - tau) for q in (p, filled(p, tau) + 1e-12))
    # At p its first entry falls out of the sum, and D is below the bound of all that have it in.
    assert at_p < 0 < lowest


# -- thresholds and rankings -----------------------------------------------------------------------


@prove(seed=st.integers(0, 100_000), k=st.integers(2, 16), mix=st.floats(0.01, 0.5))
def test_fact_12_with_every_class_dominant_the_score_runs_against_entropy(seed, k, mix):
    q = dirichlet(seed, k)
    i, j = np.random.default_rng(seed).permutation(k)[:2]
    evened = q.copy()  # two entries moved towards each other: closer to uniform
    evened[:, i] = (1 - mix) * q[:, i] + mix * q[:, j]
    evened[:, j] = (1 - mix) * q[:, j] + mix * q[:, i]
    beta = 1 / k - 1e-10
    assert (nc_score(evened, beta, uniform(k)) <= nc_score(q, beta, uniform(k)) + 1e-12).all()
    assert (entropy_score(evened) >= entropy_score(q) - 1e-12).all()


@prove(seed=st.integers(0, 100_000))
def test_fact_12_two_classes_turn_from_minus_one_to_plus_one(seed):
    q = dirichlet(seed, 2)
    normal = entropy_score(q)
    assert spearmanr(nc_score(q, 0.5 - 1e-10, uniform(2)), normal)[0] == pytest.approx(-1)
    assert spearmanr(nc_score(q, 0.0, uniform(2)), normal)[0] == pytest.approx(1)


def test_fact_12_ten_classes_as_measured():
    q = np.random.default_rng(0).dirichlet(np.full(10, 0.5), 5000)
    ranks = [
        spearmanr(nc_score(q, 0.1 - tau, uniform(10)), entropy_score(q))[0]
        for tau in (1e-9, 0.01, 0.08)
    ]
    assert ranks == pytest.approx([-0.77, 0.37, 0.74], abs=0.03)


@every_preset
def test_fact_13_neither_rule_contains_the_other(preset):
    k, tau, p = preset.num_classes, tau_of(preset), vectors_of(preset)
    # Flagged with little entropy: the tallest peak, its costs in the order of one vector.
    s = round((1 - largest_peak(k, preset.alpha, tau)) / tau)
    q = np.zeros(k)
    q[:s], q[s] = tau * (1 + 1e-9), 1 - s * tau * (1 + 1e-9)
    flagged = np.empty((1, k))
    flagged[0, np.argsort(-p[0], kind="stable")] = q
    # Spared with much: some entries just below tau, the rest even.
    for r in range(k):
        spared = np.full((1, k), 0.999 * tau)
        spared[0, r:] = (1 - r * 0.999 * tau) / (k - r)
        if not identify_nc(spared, preset.alpha, preset.beta, p)[0]:
            break
    assert identify_nc(flagged, preset.alpha, preset.beta, p)[0]
    assert not identify_nc(spared, preset.alpha, preset.beta, p)[0]
    assert entropy_score(flagged)[0] < 0.75
    assert entropy_score(spared)[0] > 0.95


# -- ensembles, seeds and names --------------------------------------------------------------------


@anything
def test_fact_14_convex_on_a_fixed_support(seed, k, alpha, share):
    rng, tau, p = np.random.default_rng(seed), (1 - share) / k, uniform_like_vectors(k, 5)
    dominant = rng.random(k) < 0.5
    dominant[0] = True
    low = np.where(dominant, 1.001 * tau, 0)
    high = np.where(dominant, 1, 0.999 * tau)
    rows = np.minimum(rng.random((50, k)) * high, high)
    rows = np.where(dominant, low, rows)
    rows[:, ~dominant] *= 0.5
    room = 1 - rows.sum(axis=1, keepdims=True)
    assume((room > 0).all())
    rows += room * np.where(dominant, rng.dirichlet(np.where(dominant, 1.0, 1e-3), 50), 0)
    rows[:, 0] += 1 - rows.sum(axis=1)
    assert ((rows >= tau) == dominant).all()
    weights = rng.dirichlet(np.ones(5), 50)
    members = rng.integers(0, 50, (50, 5))
    averages = np.einsum("nm,nmk->nk", weights, rows[members])
    each = generalized_kl(p[:, None], rows, alpha, share / k)
    bound = np.einsum("nm,pnm->pn", weights, each[:, members])
    assert (generalized_kl(p[:, None], averages, alpha, share / k) <= bound + 1e-9).all()
    # Hence the average of predictions that are all spared is spared.
    scores, score = nc_score(rows, share / k, p), nc_score(averages, share / k, p)
    assert (score <= scores[members].max(axis=1) + 1e-9).all()


def rotations(q):
    return np.array([np.roll(q, shift) for shift in range(len(q))])


@pytest.mark.parametrize(
    ("members", "alpha", "tau", "each", "average"),
    [
        # created across supports: four certain models that contradict each other
        (rotations([0.91, 0.03, 0.03, 0.03]), 0.9, 0.05, -1.2241, 0.1386),
        # destroyed on one support
        (rotations([0.7, 0.1, 0.1, 0.1]), 1.05, 0.05, 0.3605, -0.0693),
        # destroyed across supports: two models that each see another rival
        (np.array([[0.8, 0.2, 0.0], [0.8, 0.0, 0.2]]), 0.5, 0.15, 0.0616, -0.4749),
    ],
)
def test_fact_14_averaging_creates_and_destroys(members, alpha, tau, each, average):
    k = members.shape[1]
    alone = generalized_kl(uniform(k)[0], members, alpha, 1 / k - tau)
    together = generalized_kl(uniform(k)[0], members.mean(axis=0), alpha, 1 / k - tau)
    assert alone == pytest.approx(each, abs=1e-4)
    assert together == pytest.approx(average, abs=1e-4)
    assert ((alone >= 0) != (together >= 0)).all()


@prove(
    seed=st.integers(0, 100_000),
    k=st.integers(2, 6),
    share=st.floats(0.02, 0.98),
    sigma=st.sampled_from([0.02, 0.05, 0.2]),
)
def test_fact_15_one_sort_replaces_every_permutation(seed, k, share, sigma):
    q, p = dirichlet(seed, k, 20), uniform_like_vectors(k, 3, sigma, seed)
    every = np.array(
        [list(row[list(order)]) for row in p for order in itertools.permutations(range(k))]
    )
    by_brute_force = nc_score(q, share / k, every)
    exact = nc_score(q, share / k, p, permutation_invariant=True)
    assert np.allclose(exact, by_brute_force, rtol=1e-9)
    assert (exact >= nc_score(q, share / k, uniform(k)) - 1e-12).all()


@anything
def test_fact_15_invariant_jointly_but_not_as_sampled(seed, k, alpha, share):
    rng = np.random.default_rng(seed)
    q, p, order = dirichlet(seed, k), uniform_like_vectors(k, 5, seed=seed), rng.permutation(k)
    renamed = generalized_kl(p[:, None, order], q[:, order], alpha, share / k)
    assert np.allclose(renamed, generalized_kl(p[:, None], q, alpha, share / k))
    closed = nc_score(q, share / k, p, permutation_invariant=True)
    other = nc_score(q[:, order], share / k, p, permutation_invariant=True)
    assert np.allclose(closed, other, rtol=1e-12)


def test_fact_15_the_sampled_rule_depends_on_names_and_seed():
    q, p = dirichlet(0, 14, 5000, concentration=1.0), uniform_like_vectors(14)
    sampled = identify_nc(q, 1.05, 0.03, p)
    renamed = identify_nc(q[:, ::-1], 1.05, 0.03, p)
    reseeded = identify_nc(q, 1.05, 0.03, uniform_like_vectors(14, seed=1))
    for other in (renamed, reseeded):
        assert (sampled & other).sum() < 0.5 * (sampled | other).sum()
