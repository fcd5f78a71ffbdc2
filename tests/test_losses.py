"""Losses: against their definitions in plain Python, at the extremes, and with empty roles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genkl import (
    PAPER_LOSSES,
    Role,
    descend_logits,
    double_hot_loss,
    soft_cross_entropy,
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


def test_descending_each_loss_ends_where_it_is_smallest():
    starts = np.array([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]])
    uniform = descend_logits(soft_cross_entropy, np.full(3, 1 / 3), starts, steps=500)
    assert uniform.shape == (501, 2, 3)
    assert np.allclose(uniform[0], starts)
    assert np.allclose(uniform[-1], 1 / 3, atol=1e-3)
    one_hot = descend_logits(soft_cross_entropy, np.eye(3)[1], starts, steps=2000)
    assert (one_hot[-1, :, 1] > 0.98).all()
    # A double-hot target is linear inside the logarithm: the heavier entry wins in the end.
    double = descend_logits(double_hot_loss, np.array([0.6, 0.3, 0.0]), starts, steps=5000)
    assert (double[-1, :, 0] > 0.98).all()


def test_images_as_bytes_are_mixed_like_any_others():
    images = torch.tensor([[0, 100], [200, 40]], dtype=torch.uint8)
    mixing = Mixing(torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    mixed = mixing.blend(images)
    assert mixed.dtype == torch.uint8
    assert mixed.tolist() == [[50, 85], [100, 70]]
