"""Losses: against their definitions in plain Python, at the extremes, and with empty roles."""

import functools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from genkl import (
    PAPER_LOSSES,
    ROW_LOSSES,
    Role,
    double_hot_loss,
    generalized_cross_entropy,
    hard_bootstrapping,
    kl_loss,
    losses_of,
    mean_absolute_error,
    mean_squared_error,
    on_normalized,
    soft_bootstrapping,
    soft_cross_entropy,
    symmetric_cross_entropy,
    three_term_loss,
)
from genkl.losses import Mixing, mixup


def batch(seed, rows=12, k=4):
    """Logits, targets and roles: every role has rows, targets are what relabelling makes."""
    rng = np.random.default_rng(seed)
    roles = np.concatenate([[0, 1, 2], rng.integers(0, 3, rows - 3)])
    targets = np.full((rows, k), 1 / k)
    for row, role in enumerate(roles):
        if role == Role.CLEAN:
            targets[row] = np.eye(k)[rng.integers(k)]
        elif role == Role.NON_NC:
            targets[row] = 0
            targets[row, rng.integers(k)] += 0.25
            targets[row, rng.integers(k)] += rng.uniform(0.3, 1)
    logits = torch.from_numpy(rng.normal(size=(rows, k))).requires_grad_()
    return logits, torch.from_numpy(targets), torch.from_numpy(roles)


def softmax(z):
    e = [math.exp(v) for v in z]
    return [v / sum(e) for v in e]


def definition(logit_row, target_row, role):
    probs = softmax(logit_row)
    if role == Role.NON_NC:
        return -math.log(sum(p * t for p, t in zip(probs, target_row, strict=True)))
    return -sum(t * math.log(p) for p, t in zip(probs, target_row, strict=True))


@given(st.integers(0, 500))
def test_total_is_the_weighted_sum_of_role_means(seed):
    logits, targets, roles = batch(seed)
    weights = (0.5, 2.0, 0.25)
    total, means = three_term_loss(logits, targets, roles, weights)
    for role in Role:
        rows = np.flatnonzero(roles.numpy() == role)
        expected = np.mean(
            [definition(logits[r].tolist(), targets[r].tolist(), role) for r in rows]
        )
        assert means[role].item() == pytest.approx(expected)
    assert total.item() == pytest.approx(sum(w * m for w, m in zip(weights, means, strict=True)))


@given(st.integers(0, 500))
def test_mixing_weighs_both_partners_with_their_own_targets(seed):
    logits, targets, roles = batch(seed)
    mixing = mixup(roles.numpy(), 0.5, np.random.default_rng(seed))
    _, means = three_term_loss(logits, targets, roles, (1, 1, 1), mixing=mixing)
    for role in Role:
        expected = []
        for row in np.flatnonzero(roles.numpy() == role):
            other, keep = mixing.partner[row].item(), mixing.keep[row].item()
            own = definition(logits[row].tolist(), targets[row].tolist(), role)
            lent = definition(logits[row].tolist(), targets[other].tolist(), role)
            expected.append(keep * own + (1 - keep) * lent)
        assert means[role].item() == pytest.approx(np.mean(expected))


@given(st.integers(0, 500), st.floats(0.05, 5))
def test_mixup_stays_within_roles_and_leaves_nc_alone(seed, a):
    roles = batch(seed)[2].numpy()
    mixing = mixup(roles, a, np.random.default_rng(seed))
    partner, keep = mixing.partner.numpy(), mixing.keep.numpy()
    assert (roles[partner] == roles).all()
    assert sorted(partner) == list(range(len(roles)))
    assert ((keep >= 0.5) & (keep <= 1)).all()
    nc = roles == Role.NC
    assert (keep[nc] == 1).all()
    assert (partner[nc] == np.flatnonzero(nc)).all()
    for role in (Role.CLEAN, Role.NON_NC):
        assert len(set(keep[roles == role])) == 1


def test_blend_is_the_convex_combination():
    mixing = Mixing(torch.tensor([1, 0]), torch.tensor([0.75, 1.0], dtype=torch.float64))
    images = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    assert torch.equal(mixing.blend(images)[0], torch.full((1, 2, 2), 0.25))
    assert torch.equal(mixing.blend(images)[1], images[1])


def test_mixup_can_be_off_and_refuses_a_negative_parameter():
    assert mixup(np.array([0, 1]), 0.0, np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match="mixup_alpha is -1"):
        mixup(np.array([0, 1]), -1, np.random.default_rng(0))


@pytest.mark.parametrize("only", list(Role))
@pytest.mark.parametrize("mixed", [False, True])
def test_roles_without_rows_contribute_exactly_nothing(only, mixed):
    logits, targets, roles = batch(1)
    rows = roles == only
    logits = logits[rows].detach().requires_grad_()
    mixing = mixup(roles[rows].numpy(), 0.5, np.random.default_rng(0)) if mixed else None
    total, means = three_term_loss(logits, targets[rows], roles[rows], (1, 1, 1), mixing=mixing)
    total.backward()
    assert total.item() == pytest.approx(means[only].item())
    assert [means[role].item() for role in Role if role != only] == [0.0, 0.0]
    assert torch.isfinite(logits.grad).all()


def test_extreme_logits_stay_finite_in_value_and_gradient():
    logits = torch.tensor([[200.0, 0.0, -200.0]] * 3, requires_grad=True)
    targets = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    total, _ = three_term_loss(logits, targets, torch.tensor([0, 1, 2]), (1, 1, 1))
    total.backward()
    assert math.isfinite(total.item())
    assert torch.isfinite(logits.grad).all()


def test_gradients_are_right():
    logits, targets, roles = batch(3, rows=6)
    mixing = mixup(roles.numpy(), 0.5, np.random.default_rng(0))
    assert torch.autograd.gradcheck(
        lambda z: three_term_loss(z, targets, roles, (1, 2, 3), mixing=mixing)[0], logits
    )


def test_double_hot_loss_does_not_care_how_the_mass_is_split():
    # Any prediction on the two hot entries with equal weights costs the same: that is its point.
    targets = torch.tensor([[0.5, 0.5, 0.0]])
    torn = double_hot_loss(torch.log(torch.tensor([[0.45, 0.45, 0.1]])), targets)
    sure = double_hot_loss(torch.log(torch.tensor([[0.89, 0.01, 0.1]])), targets)
    assert torn.item() == pytest.approx(sure.item())
    assert soft_cross_entropy(
        torch.log(torch.tensor([[0.89, 0.01, 0.1]])), targets
    ) > soft_cross_entropy(torch.log(torch.tensor([[0.45, 0.45, 0.1]])), targets)


def test_the_paper_losses_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        PAPER_LOSSES[Role.NC] = double_hot_loss


@given(st.integers(0, 500))
def test_double_hot_gradient_is_prediction_minus_responsibilities(seed):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(5, 4))).requires_grad_()
    targets = torch.from_numpy(rng.uniform(size=(5, 4)) * (rng.uniform(size=(5, 4)) < 0.7) + 1e-3)
    (gradient,) = torch.autograd.grad(double_hot_loss(logits, targets).sum(), logits)
    probs = logits.detach().softmax(1)
    responsibilities = probs * targets / (probs * targets).sum(1, keepdim=True)
    assert torch.allclose(gradient, probs - responsibilities)


def test_images_as_bytes_are_mixed_like_any_others():
    images = torch.tensor([[0, 100], [200, 40]], dtype=torch.uint8)
    mixing = Mixing(torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    mixed = mixing.blend(images)
    assert mixed.dtype == torch.uint8
    assert mixed.tolist() == [[50, 85], [100, 70]]


# -- the losses of the ablations ----------------------------------------------------------------

NEEDS_DISTRIBUTION = [name for name in ROW_LOSSES if name != "double-hot"]


def distributions(seed, rows=6, k=5):
    """Logits, targets that sum to 1 (some entries are 0), and the softmax as NumPy sees it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(rows, k))
    targets = rng.dirichlet(np.full(k, 0.5), size=rows) * (rng.uniform(size=(rows, k)) < 0.7)
    targets[:, 0] += 0.1
    targets /= targets.sum(1, keepdims=True)
    return logits, targets, scipy.special.softmax(logits, axis=1)


def evaluated(loss, logits, targets, **parameters):
    return loss(torch.from_numpy(logits), torch.from_numpy(targets), **parameters).numpy()


def labels_of(seed, rows, k):
    y = np.random.default_rng(seed).integers(k, size=rows)
    return y, np.eye(k)[y]


@given(st.integers(0, 500), st.integers(2, 12))
@settings(deadline=None)
def test_squared_and_absolute_errors_are_the_norms_of_their_paper(seed, k):
    logits, targets, probs = distributions(seed, k=k)
    squared = evaluated(mean_squared_error, logits, targets)
    absolute = evaluated(mean_absolute_error, logits, targets)
    np.testing.assert_allclose(squared, np.linalg.norm(probs - targets, 2, axis=1) ** 2, atol=1e-12)
    np.testing.assert_allclose(absolute, np.linalg.norm(probs - targets, 1, axis=1), atol=1e-12)
    assert (squared < 2 + 1e-12).all()
    assert (absolute < 2 + 1e-12).all()
    y, hot = labels_of(seed, len(probs), k)
    right = probs[np.arange(len(probs)), y]
    np.testing.assert_allclose(
        evaluated(mean_squared_error, logits, hot), 1 + (probs**2).sum(1) - 2 * right, atol=1e-12
    )
    np.testing.assert_allclose(
        evaluated(mean_absolute_error, logits, hot), 2 - 2 * right, atol=1e-12
    )


@given(st.integers(0, 500), st.integers(2, 12), st.floats(0, 1))
@settings(deadline=None)
def test_absolute_error_over_all_labels_is_constant_so_it_tolerates_noise(seed, k, noise):
    logits, _, _ = distributions(seed, k=k)
    over_labels = np.stack(
        [
            evaluated(mean_absolute_error, logits, np.tile(np.eye(k)[j], (len(logits), 1)))
            for j in range(k)
        ]
    )
    np.testing.assert_allclose(over_labels.sum(0), 2 * k - 2)
    # Evenly spread noise therefore only scales and shifts what the loss says about a prediction.
    y, _ = labels_of(seed, len(logits), k)
    chance = np.full((k, len(logits)), noise / (k - 1))
    chance[y, np.arange(len(logits))] = 1 - noise
    noisy = (chance * over_labels).sum(0)
    clean = over_labels[y, np.arange(len(logits))]
    np.testing.assert_allclose(noisy, (1 - noise * k / (k - 1)) * clean + 2 * noise, atol=1e-12)


@pytest.mark.parametrize("name", ["ce", "mse", "kl", "gce"])
def test_the_others_are_not_constant_over_all_labels(name):
    logits = torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    total = sum(ROW_LOSSES[name](logits, torch.eye(3)[j].expand(2, 3)) for j in range(3))
    assert abs(total[0] - total[1]) > 0.1


@given(st.integers(0, 500), st.integers(2, 12))
@settings(deadline=None)
def test_kl_loss_is_cross_entropy_less_the_entropy_of_the_target(seed, k):
    logits, targets, probs = distributions(seed, k=k)
    values = evaluated(kl_loss, logits, targets)
    np.testing.assert_allclose(values, scipy.stats.entropy(targets, probs, axis=1), atol=1e-12)
    z, t = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(targets)
    oracle = F.kl_div(z.log_softmax(1), t, reduction="none").sum(1)
    np.testing.assert_allclose(values, oracle.detach().numpy(), atol=1e-12)
    entropy = scipy.stats.entropy(targets, axis=1)
    np.testing.assert_allclose(
        values, evaluated(soft_cross_entropy, logits, targets) - entropy, atol=1e-12
    )
    gradients = [
        torch.autograd.grad(loss(z, t).sum(), z)[0] for loss in (kl_loss, soft_cross_entropy)
    ]
    torch.testing.assert_close(*gradients)


@given(st.integers(0, 500), st.floats(0.01, 1))
@settings(deadline=None)
def test_generalized_cross_entropy_leads_from_cross_entropy_to_absolute_error(seed, q):
    logits, targets, probs = distributions(seed)
    at = functools.partial(evaluated, generalized_cross_entropy, logits)
    np.testing.assert_allclose(at(targets, q=q), (targets * (1 - probs**q) / q).sum(1), atol=1e-12)
    np.testing.assert_array_equal(at(targets), at(targets, q=0.7))
    y, hot = labels_of(seed, *probs.shape)
    right = probs[np.arange(len(probs)), y]
    np.testing.assert_allclose(at(hot, q=q), (1 - right**q) / q, atol=1e-12)
    np.testing.assert_allclose(at(hot, q=1), 1 - right, atol=1e-12)
    np.testing.assert_allclose(
        at(hot, q=1), evaluated(mean_absolute_error, logits, hot) / 2, atol=1e-12
    )
    np.testing.assert_allclose(
        at(targets, q=1e-9), evaluated(soft_cross_entropy, logits, targets), rtol=1e-6, atol=1e-12
    )


def test_generalized_cross_entropy_does_not_cancel_for_a_small_q_in_single_precision():
    logits, targets = torch.tensor([[2.0, 0.0, -3.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    limit = F.cross_entropy(logits, torch.tensor([1])).item()
    assert generalized_cross_entropy(logits, targets, q=1e-6).item() == pytest.approx(limit, 1e-5)


@given(st.integers(0, 500), st.floats(0, 10), st.floats(0, 10), st.floats(-10, -0.01))
@settings(deadline=None)
def test_symmetric_cross_entropy_is_its_two_terms(seed, a, b, log_zero):
    logits, targets, probs = distributions(seed)
    at = functools.partial(evaluated, symmetric_cross_entropy, logits)
    forward = -(targets * np.log(probs)).sum(1)
    reverse = -(probs * np.log(np.maximum(targets, math.exp(log_zero)))).sum(1)
    np.testing.assert_allclose(
        at(targets, a=a, b=b, log_zero=log_zero), a * forward + b * reverse, atol=1e-10
    )
    np.testing.assert_array_equal(at(targets), at(targets, a=0.1, b=1.0, log_zero=-4.0))
    y, hot = labels_of(seed, *probs.shape)
    oracle = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(y), reduction="none")
    np.testing.assert_allclose(at(hot, a=a, b=0), a * oracle.numpy(), atol=1e-10)
    absolute = evaluated(mean_absolute_error, logits, hot)
    np.testing.assert_allclose(
        at(hot, a=0, b=b, log_zero=log_zero), -log_zero * b * absolute / 2, atol=1e-10
    )


@pytest.mark.parametrize(
    ("loss", "parameters", "message"),
    [
        (generalized_cross_entropy, {"q": 0}, "q is 0; use a number in"),
        (generalized_cross_entropy, {"q": 1.5}, "q is 1.5"),
        (symmetric_cross_entropy, {"a": -1}, "a is -1"),
        (symmetric_cross_entropy, {"b": math.nan}, "b is nan"),
        (symmetric_cross_entropy, {"log_zero": 0}, "log_zero is 0"),
    ],
)
def test_parameters_out_of_range_are_refused(loss, parameters, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), **parameters)


@given(st.integers(0, 500))
@settings(deadline=None)
@pytest.mark.parametrize("name", ["mse", "mae", "kl"])
def test_distances_are_zero_at_the_target_and_positive_elsewhere(name, seed):
    logits, targets, probs = distributions(seed)
    np.testing.assert_allclose(evaluated(ROW_LOSSES[name], logits, probs), 0, atol=1e-12)
    assert (evaluated(ROW_LOSSES[name], logits, targets) > 0).all()


@given(st.integers(0, 500), st.floats(-50, 50))
@settings(deadline=None)
@pytest.mark.parametrize("name", ROW_LOSSES)
def test_row_losses_ignore_the_order_of_classes_the_level_of_logits_and_other_rows(
    name, seed, level
):
    logits, targets, _ = distributions(seed)
    values = evaluated(ROW_LOSSES[name], logits, targets)
    assert values.shape == (len(logits),)
    assert np.isfinite(values).all()
    order = np.random.default_rng(seed).permutation(logits.shape[1])
    same = functools.partial(np.testing.assert_allclose, desired=values, atol=1e-10)
    same(evaluated(ROW_LOSSES[name], logits[:, order], targets[:, order]))
    same(evaluated(ROW_LOSSES[name], logits + level, targets))
    same(np.concatenate([
        evaluated(ROW_LOSSES[name], logits[[i]], targets[[i]]) for i in range(len(logits))
    ]))  # fmt: skip


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", ROW_LOSSES)
def test_row_losses_stay_finite_at_the_extremes(name, normalized):
    loss = on_normalized(ROW_LOSSES[name]) if normalized else ROW_LOSSES[name]
    rows = [[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, -1e4, -1e4], [1e4, 1e4, 1e4], [0, 0, 0]]
    kinds = [[0, 1, 0], [0, 0.3, 0.9], [0, 0.01, 0.02], [1 / 3, 1 / 3, 1 / 3], [1e-30, 1, 0]]
    logits = torch.tensor([row for row in rows for _ in kinds], requires_grad=True)
    targets = torch.tensor(kinds * len(rows))
    assert logits.dtype == torch.float32
    values = loss(logits, targets)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", ROW_LOSSES)
def test_row_losses_have_the_right_gradients(name):
    logits, targets, _ = distributions(7, rows=4)
    z, t = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(targets)
    assert torch.autograd.gradcheck(lambda z: ROW_LOSSES[name](z, t), z)
    assert torch.autograd.gradcheck(lambda z: on_normalized(ROW_LOSSES[name])(z, 3 * t), z)


@given(st.integers(0, 500), st.floats(0.01, 100))
@settings(deadline=None)
@pytest.mark.parametrize("name", ROW_LOSSES)
def test_normalized_targets_have_no_scale_and_one_hot_ones_stay_as_they_are(name, seed, scale):
    logits, targets, _ = distributions(seed)
    loss = on_normalized(ROW_LOSSES[name])
    np.testing.assert_allclose(
        evaluated(loss, logits, scale * targets),
        evaluated(ROW_LOSSES[name], logits, targets),
        atol=1e-10,
    )
    _, hot = labels_of(seed, *logits.shape)
    np.testing.assert_array_equal(
        evaluated(loss, logits, hot), evaluated(ROW_LOSSES[name], logits, hot)
    )


def test_a_normalized_loss_is_one_object_with_a_name_that_can_be_recorded():
    assert on_normalized(kl_loss) is on_normalized(kl_loss)
    assert on_normalized(kl_loss).__qualname__ == "on_normalized(genkl.losses.kl_loss)"
    bound = functools.partial(generalized_cross_entropy, q=0.5)
    expected = "on_normalized(genkl.losses.generalized_cross_entropy(q=0.5))"
    assert on_normalized(bound).__qualname__ == expected


def test_ablations_have_one_loss_for_all_roles():
    assert losses_of("paper") is PAPER_LOSSES
    assert dict(losses_of("double-hot")) == dict.fromkeys(Role, double_hot_loss)
    for name in NEEDS_DISTRIBUTION:
        assert dict(losses_of(name)) == dict.fromkeys(Role, on_normalized(ROW_LOSSES[name]))
    with pytest.raises(ValueError, match="unknown losses 'nonsense'; choose one of: paper, ce, do"):
        losses_of("nonsense")
    with pytest.raises(TypeError):
        losses_of("ce")[Role.NC] = double_hot_loss
    with pytest.raises(TypeError):
        ROW_LOSSES["ce"] = double_hot_loss


def test_double_hot_teaches_nc_rows_nothing_and_does_not_mind_the_scale():
    logits, targets, _ = distributions(0)
    uniform = np.full_like(targets, 1 / targets.shape[1])
    np.testing.assert_allclose(evaluated(double_hot_loss, logits, uniform), math.log(5))
    np.testing.assert_allclose(
        evaluated(double_hot_loss, logits, 3 * targets) + math.log(3),
        evaluated(double_hot_loss, logits, targets),
    )


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", ROW_LOSSES)
def test_an_ablation_costs_every_role_by_its_normalized_targets(name, mixed):
    logits, targets, roles = batch(5)
    mixing = mixup(roles.numpy(), 0.5, np.random.default_rng(5)) if mixed else None
    total, means = three_term_loss(
        logits, targets, roles, (1, 2, 3), losses=losses_of(name), mixing=mixing
    )
    total.backward()
    assert torch.isfinite(logits.grad).all()
    whole = targets if name == "double-hot" else targets / targets.sum(1, keepdim=True)
    cost = ROW_LOSSES[name](logits, whole)
    if mixed:
        lent = ROW_LOSSES[name](logits, whole[mixing.partner])
        cost = mixing.keep * cost + (1 - mixing.keep) * lent
    for role in Role:
        assert means[role].item() == pytest.approx(cost[roles == role].mean().item())


def test_a_loss_with_bound_parameters_replaces_one_of_the_papers():
    logits, targets, roles = batch(6)
    half = on_normalized(functools.partial(generalized_cross_entropy, q=0.5))
    _, means = three_term_loss(
        logits, targets, roles, (1, 1, 1), losses={**PAPER_LOSSES, Role.NON_NC: half}
    )
    _, paper = three_term_loss(logits, targets, roles, (1, 1, 1))
    rows = roles == Role.NON_NC
    assert means[Role.NON_NC].item() == pytest.approx(
        half(logits[rows], targets[rows]).mean().item()
    )
    assert torch.equal(means[[Role.CLEAN, Role.NC]], paper[[Role.CLEAN, Role.NC]])


# -- batches in parts, ensembles, compilation ---------------------------------------------------


@given(st.integers(0, 500), st.integers(1, 11))
@settings(deadline=None)
def test_parts_of_a_batch_with_the_counts_of_the_whole_add_up_to_it(seed, cut):
    logits, targets, roles = batch(seed)
    counts = torch.bincount(roles, minlength=3)
    whole, means = three_term_loss(logits, targets, roles, (1, 2, 3))
    (gradient,) = torch.autograd.grad(whole, logits)
    parts = [
        three_term_loss(logits[part], targets[part], roles[part], (1, 2, 3), role_counts=counts)
        for part in (slice(None, cut), slice(cut, None))
    ]
    torch.testing.assert_close(sum(part[0] for part in parts), whole)
    torch.testing.assert_close(sum(part[1] for part in parts), means)
    (summed,) = torch.autograd.grad(sum(part[0] for part in parts), logits)
    torch.testing.assert_close(summed, gradient)
    own = three_term_loss(logits[:cut], targets, roles, (1, 2, 3), own=slice(None, cut))
    torch.testing.assert_close(own, parts[0])


def test_counts_of_the_batch_itself_change_nothing_and_absent_roles_cost_nothing():
    logits, targets, roles = batch(2)
    itself = three_term_loss(
        logits, targets, roles, (1, 2, 3), role_counts=torch.bincount(roles, minlength=3)
    )
    assert all(map(torch.equal, itself, three_term_loss(logits, targets, roles, (1, 2, 3))))
    clean = roles == Role.CLEAN
    _, means = three_term_loss(
        logits[clean], targets[clean], roles[clean], (1, 1, 1), role_counts=torch.tensor([20, 5, 0])
    )
    assert means[1:].tolist() == [0, 0]


def ensemble(members):
    """A leading axis of members on logits, targets, roles, partner, keep and the role counts."""
    columns = []
    for seed in range(members):
        logits, targets, roles = batch(seed)
        mixing = mixup(roles.numpy(), 0.5, np.random.default_rng(seed))
        counts = 2 * torch.bincount(roles, minlength=3)
        columns.append((logits.detach(), targets, roles, mixing.partner, mixing.keep, counts))
    return [torch.stack(column) for column in zip(*columns, strict=True)]


def mixed_loss(logits, targets, roles, partner, keep, counts=None, losses=PAPER_LOSSES):
    return three_term_loss(
        logits,
        targets,
        roles,
        (1, 2, 3),
        losses=losses,
        mixing=Mixing(partner, keep),
        role_counts=counts,
    )


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("name", ["paper", *ROW_LOSSES])
def test_an_ensemble_under_vmap_costs_what_its_members_cost(name, counted):
    tensors = ensemble(4)
    tensors = tensors if counted else tensors[:-1]
    cost = functools.partial(mixed_loss, losses=losses_of(name))
    together = torch.vmap(cost)(*tensors)
    alone = [cost(*member) for member in zip(*tensors, strict=True)]
    torch.testing.assert_close(together[0], torch.stack([total for total, _ in alone]))
    torch.testing.assert_close(together[1], torch.stack([means for _, means in alone]))

    def total(*member):
        return cost(*member)[0]

    gradients = torch.vmap(torch.func.grad(total))(*tensors)
    for gradient, member in zip(gradients, zip(*tensors, strict=True), strict=True):
        torch.testing.assert_close(gradient, torch.func.grad(total)(*member))


def test_an_ensemble_that_shares_its_batch_needs_an_axis_on_the_logits_only():
    logits = ensemble(4)[0]
    _, targets, roles = batch(0)
    together, _ = torch.vmap(lambda z: three_term_loss(z, targets, roles, (1, 2, 3)))(logits)
    alone = [three_term_loss(z, targets, roles, (1, 2, 3))[0] for z in logits]
    torch.testing.assert_close(together, torch.stack(alone))


@pytest.mark.parametrize("name", ["paper", "sce"])
def test_the_loss_is_one_graph_without_waiting_for_the_host(name):
    member = [tensor[0] for tensor in ensemble(1)]
    cost = functools.partial(mixed_loss, losses=losses_of(name))

    def compiled(*tensors):
        return cost(*tensors)

    graph = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    logits = member[0].requires_grad_()
    expected, traced = cost(*member)[0], graph(*member)[0]
    torch.testing.assert_close(traced, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(total, logits)[0] for total in (traced, expected))
    )
    on_no_device = [tensor.to("meta") for tensor in member]  # where there are no values to read
    assert cost(*on_no_device)[0].shape == ()


@given(st.integers(0, 500), st.integers(2, 12), st.floats(0, 1))
@settings(deadline=None)
def test_bootstrapping_learns_label_and_prediction_together(seed, k, beta):
    logits, targets, probs = distributions(seed, k=k)
    predicted = np.eye(k)[probs.argmax(1)]
    for loss, believed in ((soft_bootstrapping, probs), (hard_bootstrapping, predicted)):
        expected = -((beta * targets + (1 - beta) * believed) * np.log(probs)).sum(1)
        np.testing.assert_allclose(evaluated(loss, logits, targets, beta=beta), expected)


def test_bootstrapping_is_cross_entropy_where_the_label_is_all_that_counts():
    logits, targets, probs = distributions(0)
    plain = evaluated(soft_cross_entropy, logits, targets)
    entropy = scipy.stats.entropy(probs, axis=1)
    for loss in (soft_bootstrapping, hard_bootstrapping):
        np.testing.assert_array_equal(evaluated(loss, logits, targets, beta=1), plain)
    np.testing.assert_allclose(evaluated(soft_bootstrapping, logits, targets, beta=0), entropy)


def test_the_gradient_of_bootstrapping_is_that_of_its_definition():
    # Hard: cross-entropy against a fixed target. Soft: entropy is minimised, too.
    logits, targets, probs = distributions(1)
    z = torch.from_numpy(logits).requires_grad_()
    (hard,) = torch.autograd.grad(hard_bootstrapping(z, torch.from_numpy(targets)).sum(), z)
    blend = 0.8 * targets + 0.2 * np.eye(probs.shape[1])[probs.argmax(1)]
    np.testing.assert_allclose(hard.numpy(), probs - blend, atol=1e-12)
    (soft,) = torch.autograd.grad(soft_bootstrapping(z, torch.from_numpy(targets)).sum(), z)
    surprise = -np.log(probs)
    of_entropy = probs * (surprise - (probs * surprise).sum(1, keepdims=True))
    np.testing.assert_allclose(
        soft.numpy(), 0.95 * (probs - targets) + 0.05 * of_entropy, atol=1e-12
    )


@pytest.mark.parametrize("loss", [soft_bootstrapping, hard_bootstrapping])
@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_bootstrapping_refuses_what_is_no_share(loss, beta):
    with pytest.raises(ValueError, match="1 is cross-entropy"):
        loss(torch.zeros(1, 2), torch.eye(2)[:1], beta=beta)
