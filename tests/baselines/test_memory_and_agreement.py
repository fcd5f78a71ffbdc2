"""Methods that remember examples, and methods that believe whom others agree with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from test_baselines import CONFIG, clusters, run, weights

from genkl import Groundwork, run_method
from genkl.baselines.agreement import (
    cufit,
    dividemix,
    low_loss_posterior,
    refined_targets,
    reliable_sizes,
    reliable_votes,
    select_by_ssr,
    ssr,
    wann,
)
from genkl.baselines.memory import RememberingLoss, elr_step, sop_step
from genkl.engine import Engine

LONG = replace(CONFIG, train=replace(CONFIG.train, steps=400))


def work_on(noise=0.3, spread=0.6, config=CONFIG, noisy=400):
    """Groundwork on planted clusters, and which given labels are wrong."""
    dataset, true = clusters(noise=noise, spread=spread, noisy=noisy)
    wrong = dataset.noisy.labels.numpy() != true
    return Groundwork.prepare(dataset, config, engine="cpu"), true, wrong


def taught(lesson, work):
    """Labels that the noisy instances are taught, and whether they are learned from."""
    kept = np.full(len(work.dataset.noisy), -1)
    clean = len(work.dataset.clean)
    row = {tuple(x): at for at, x in enumerate(work.dataset.noisy.inputs.numpy().tolist())}
    for x, target in zip(
        lesson.examples.inputs[clean:].tolist(), lesson.examples.targets[clean:], strict=True
    ):
        kept[row[tuple(x)]] = int(target.argmax())
    return kept


# -- ELR ----------------------------------------------------------------------------------------


@given(st.integers(0, 200))
@settings(deadline=None, max_examples=25)
def test_elr_is_the_published_loss_and_gradient(seed):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(5, 4)), requires_grad=True)
    labels, before = rng.integers(4, size=5), torch.tensor(rng.dirichlet(np.ones(4), 5))
    costs, after = elr_step(logits, torch.eye(4)[labels].double(), before, strength=3, momentum=0.7)
    probs = np.exp(logits.detach().numpy())
    probs /= probs.sum(axis=1, keepdims=True)
    target = 0.7 * before.numpy() + 0.3 * probs
    agreed = (target * probs).sum(axis=1)
    np.testing.assert_allclose(after, target, atol=1e-3)  # the source clamps at 1e-4
    plain = -np.log(probs[np.arange(5), labels])
    np.testing.assert_allclose(costs.detach(), plain + 3 * np.log(1 - agreed), atol=5e-3)
    costs.sum().backward()
    pull = 3 * probs * (target - agreed[:, None]) / (1 - agreed)[:, None]
    np.testing.assert_allclose(logits.grad, probs - np.eye(4)[labels] - pull, atol=5e-3)


def test_what_is_remembered_is_each_model_s_and_each_example_s():
    def count(logits, targets, memory):
        return logits[:, 0], memory + logits.detach()[:, :1]

    loss = RememberingLoss(count, torch.zeros(6, 1), batch_size=2, steps=3)

    def batch(*rows):
        return torch.tensor([[0.0, row] for row in rows])

    for _ in range(2):  # two phases: the second begins anew
        loss(torch.tensor([[1.0], [2.0], [10.0], [20.0]]), batch(0, 5, 5, 3))
        loss(torch.tensor([[4.0], [8.0], [40.0], [80.0]]), batch(5, 1, 0, 3))
        assert loss.memory[:, :, 0].tolist() == [[1, 8, 0, 0, 0, 6], [40, 0, 0, 100, 0, 10]]
        loss(torch.zeros(4, 1), batch(0, 1, 0, 1))


@pytest.mark.parametrize("name", ["ELR", "SOP"])
def test_models_remember_alike_together_and_in_turn(name):
    config = replace(CONFIG, finetune=replace(CONFIG.finetune, steps=0))
    chosen = {"start": 0.1} if name == "SOP" else {}
    dataset, _ = clusters()
    made = [
        run_method(name, dataset, config, settings=chosen, progress=False,
                   engine=Engine(accelerator="cpu", batch_heads=together))
        for together in (True, False)
    ]  # fmt: skip
    assert torch.allclose(weights(made[0]), weights(made[1]), atol=1e-4)


def test_elr_without_strength_is_training_on_given_labels():
    dataset, _ = clusters()
    off = run("ELR", dataset, settings={"strength": 0.0})
    plain = run("given labels + fine-tuning", dataset)
    assert torch.allclose(weights(off), weights(plain), atol=1e-5)


@pytest.fixture
def remembered(monkeypatch):
    """The losses with a memory that runs make."""
    made, init = [], RememberingLoss.__init__
    monkeypatch.setattr(
        RememberingLoss, "__init__", lambda self, *own: made.append(self) or init(self, *own)
    )
    return made


def test_elr_believes_the_truth_where_labels_are_wrong(remembered):
    work, true, wrong = work_on(config=LONG)
    run("ELR", work.dataset, LONG)
    believed = remembered[0].memory[0, len(work.dataset.clean) :].argmax(dim=1).numpy()
    assert (believed == true)[wrong].mean() > 0.9


# -- SOP ----------------------------------------------------------------------------------------


@given(st.integers(0, 200))
@settings(deadline=None, max_examples=25)
def test_sop_descends_its_two_losses(seed):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(3, 4)), requires_grad=True)
    labels, rows = rng.integers(4, size=3), np.arange(3)
    u, v = rng.uniform(0.1, 0.6, (3, 1)), rng.uniform(0.02, 0.1, (3, 4))
    before = torch.tensor(np.hstack([u, v]))
    hot = np.eye(4)[labels]
    costs, after = sop_step(logits, torch.tensor(hot), before, rate=0.5, batch_size=3)
    probs = torch.softmax(logits, dim=1).detach().numpy()
    mixed = probs + u**2 * hot - v**2 * (1 - hot)
    if (mixed < 1e-3).any():
        return  # where the source clamps
    total = mixed.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(costs.detach(), -np.log((mixed / total)[rows, labels]), rtol=1e-5)
    of_y = mixed[rows, labels]
    slope_u = 2 * u[:, 0] * (-1 / of_y + 1 / total[:, 0])
    hard = np.eye(4)[probs.argmax(axis=1)]
    slope_v = -4 * v * (1 - hot) * (hard - v**2)
    expected = np.hstack([u - 0.5 * slope_u[:, None] / 3, v - 0.5 * slope_v / 3])
    np.testing.assert_allclose(after, expected, atol=1e-6)


def test_sop_finds_the_planted_noise(remembered):
    work, _, wrong = work_on(config=LONG)
    run("SOP", work.dataset, LONG, settings={"start": 0.1})
    found = remembered[0].memory[0, len(work.dataset.clean) :, 0].square().numpy()
    assert roc_auc_score(wrong, found) > 0.95


# -- WANN ---------------------------------------------------------------------------------------


@given(st.integers(0, 200))
@settings(deadline=None, max_examples=25)
def test_wann_votes_as_the_algorithms_say(seed):
    rng = np.random.default_rng(seed)
    labels, near = rng.integers(3, size=40), np.array([rng.permutation(40)[:9] for _ in range(40)])
    sizes = reliable_sizes(near, labels, smallest=3, largest=9)
    for row, own in enumerate(labels):
        fits = (k for k in (3, 5, 7) if np.bincount(labels[near[row, :k]]).argmax() == own)
        assert sizes[row] == next(fits, 9)
    votes = reliable_votes(near, labels, sizes, 3)
    for row in range(40):
        asked = near[row, : sizes[near[row, 0]]]
        each = [(1 / sizes[asked])[labels[asked] == label].sum() for label in range(3)]
        np.testing.assert_allclose(votes[row], each / np.sum(each))


def test_wann_and_cufit_repair_or_leave_out_planted_noise():
    work, true, wrong = work_on(spread=0.4)
    voted = taught(wann(work, {"largest": 51}), work)
    assert (voted == true)[wrong].mean() > 0.95
    assert (voted == true)[~wrong].mean() > 0.95
    learned = taught(cufit(work, {"models": 2}), work) >= 0
    assert learned[~wrong].mean() > 0.9
    assert learned[wrong].mean() < 0.1


# -- SSR ----------------------------------------------------------------------------------------


def test_ssr_relabels_the_sure_and_keeps_whom_neighbours_confirm():
    probs = np.array([[0.95, 0.05], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    given_labels, verified = np.array([1, 0, 0, 1]), np.array([0, 1])
    # The labels become 0 1 | 0 0 0 1, four and two of a class: a vote for 1 counts twice.
    near = np.array([[0, 3], [1, 5], [0, 2], [1, 5]])
    chosen = select_by_ssr(probs, given_labels, verified, near, threshold=0.9)
    assert chosen.targets.argmax(axis=1).tolist() == [0, 0, 0, 1]
    assert chosen.is_kept.tolist() == [True, False, True, True]
    assert chosen.is_believed.tolist() == [False, False, True, True]


def test_ssr_and_dividemix_tell_planted_noise():
    work, true, wrong = work_on(spread=0.5)
    learned = taught(ssr(work, {"threshold": 0.9, "neighbors": 50}), work)
    assert (learned == true)[learned >= 0].mean() > 0.97
    assert (learned == true)[~wrong].mean() > 0.9
    learned = taught(dividemix(work, {"threshold": 0.5}), work)
    assert (learned == true)[wrong].mean() > 0.9
    assert (learned == true)[~wrong].mean() > 0.95


# -- DivideMix ----------------------------------------------------------------------------------


def test_low_losses_are_told_from_high_ones():
    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.gamma(2, 0.1, 300), rng.normal(3, 0.6, 200)])
    posterior = low_loss_posterior(losses)
    assert ((posterior > 0.5) == (np.arange(500) < 300)).mean() > 0.97


def test_targets_are_label_and_belief_sharpened():
    probs = np.array([[0.6, 0.4], [0.6, 0.4]])
    made = refined_targets(probs, np.array([1, 1]), np.array([0.75, 0.5]))
    # .75 of the label and .25 of the belief: (.15, .85); elsewhere the belief alone.
    np.testing.assert_allclose(made[0], np.array([0.15**2, 0.85**2]) / (0.15**2 + 0.85**2))
    np.testing.assert_allclose(made[1], np.array([0.36, 0.16]) / 0.52)
