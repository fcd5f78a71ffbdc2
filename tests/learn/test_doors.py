"""What a run refuses before it works, and what it takes: losses, rules, numbers, single images."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from genkl import (
    DIGITS,
    PAPER_LOSSES,
    Engine,
    GenKLConfig,
    Phase,
    linear_head,
    load_dataset,
    run_genkl,
    run_method,
    soft_cross_entropy,
    three_term_loss,
)
from genkl.learn.rules import Decision
from genkl.networks import pick_device
from genkl.relabel import Role

SHORT = Phase(steps=2, learning_rate=0.01, batch_size=16)
TINY = GenKLConfig(
    first_ensemble=1, ensemble=1, max_rounds=1, pretrain=SHORT, train=SHORT, finetune=SHORT
)
QUIET = {"engine": "cpu", "progress": False}


@pytest.fixture(scope="module")
def digits():
    """Digits as rows of 64 numbers: heads on features learn from them."""
    dataset, _ = load_dataset("digits", seed=0)
    return dataset.map_splits(lambda split: replace(split, inputs=split.inputs.flatten(1).float()))


@pytest.fixture
def no_work(monkeypatch):
    """Nothing may be trained."""

    def refuse(*_, **__):
        raise AssertionError("work began")

    monkeypatch.setattr("genkl.learn.iteration.fit_together", refuse)


def scalar(logits, targets):
    return soft_cross_entropy(logits, targets).mean()


def test_a_loss_of_one_number_is_refused_where_three_means_would_be_alike():
    logits, targets = torch.randn(6, 3), torch.full((6, 3), 1 / 3)
    roles = torch.tensor([0, 0, 1, 1, 2, 2])
    for losses in (dict.fromkeys(Role, scalar), PAPER_LOSSES | {Role.NC: scalar}):
        with pytest.raises(ValueError, match=r"scalar gives shape \(\) for 6 rows.*reduction"):
            three_term_loss(logits, targets, roles, (1, 1, 1), losses=losses)


@pytest.mark.parametrize("loss", [scalar, nn.CrossEntropyLoss(), lambda z, t: z - t])
def test_such_a_loss_is_refused_before_a_run_works(loss, digits, no_work):
    with pytest.raises(ValueError, match="one value a row"):
        run_genkl(digits, TINY, losses={Role.NON_NC: loss}, **QUIET)


def test_losses_of_some_roles_leave_the_others_their_own(digits):
    some = run_genkl(digits, TINY, losses={Role.NC: soft_cross_entropy}, **QUIET)
    every = run_genkl(digits, TINY, **QUIET)
    assert some.best.test_accuracy == every.best.test_accuracy  # it is the paper's for NC
    with pytest.raises(ValueError, match="unknown role in losses 'clean'"):
        run_genkl(digits, TINY, losses={"clean": soft_cross_entropy}, **QUIET)


def test_the_papers_losses_can_be_changed_as_a_dictionary_can():
    changed = PAPER_LOSSES | {Role.NC: scalar}
    assert dict(changed) == {**PAPER_LOSSES, Role.NC: scalar}
    assert dict({Role.NC: scalar} | PAPER_LOSSES) == dict(PAPER_LOSSES)
    assert PAPER_LOSSES[Role.NC] is soft_cross_entropy
    PAPER_LOSSES | {Role.NC: partial(scalar)} | changed


def test_a_rule_may_return_a_mask(digits):
    mask = np.arange(len(digits.noisy)) % 4 == 0
    for flags in (mask, torch.from_numpy(mask)):
        run = run_genkl(digits, TINY, identify=lambda *_, flags=flags: flags, **QUIET)
        np.testing.assert_array_equal(run.best.is_nc, mask)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda p, _: Decision(np.full(len(p), math.nan), 1.0), "NaN among scores or threshold"),
        (lambda p, _: Decision(np.zeros(len(p)), math.nan), "NaN among scores or threshold"),
        (lambda p, _: np.zeros(len(p)), r"return Decision\(scores, threshold\) or a boolean mask"),
        (lambda p, _: np.zeros(3, dtype=bool), "it gives Decision.*boolean mask, of shape"),
        (lambda p, _: None, "it gives None"),
    ],
)
def test_what_flags_nothing_unseen_is_refused(rule, words, digits):
    with pytest.raises(ValueError, match=f"identify: .*{words}"):
        run_genkl(digits, TINY, identify=rule, **QUIET)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: replace(SHORT, steps=1e1), "steps is 10.0; it must be a whole number"),
        (lambda: replace(SHORT, batch_size=True), "batch_size is True"),
        (lambda: replace(SHORT, clean_batch_size=1.5), "use None for mixed batches"),
        (lambda: replace(SHORT, weight_decay=math.nan), "weight_decay is nan"),
        (lambda: replace(TINY, ensemble=2.5), "ensemble is 2.5"),
        (lambda: replace(DIGITS, num_vectors="20"), "num_vectors is 20"),
    ],
)
def test_settings_that_count_are_whole_numbers(make, words):
    with pytest.raises(ValueError, match=words):
        make()
    assert replace(SHORT, steps=np.int64(3)).steps == 3


def test_a_single_verified_image_is_refused_before_the_run(digits, no_work):
    single = replace(digits, clean=digits.clean.take([0]))
    options = {"make_model": linear_head, **QUIET}
    with pytest.raises(ValueError, match=r"one at a time .*verify more than one image"):
        run_method("given labels + fine-tuning", single, TINY, **options)
    with pytest.raises(ValueError, match="more than one image"):
        run_genkl(digits, replace(TINY, train=replace(SHORT, batch_size=1)), **options)


def test_where_nothing_is_tuned_or_normalised_a_single_verified_image_will_do(digits):
    single = replace(digits, clean=digits.clean.take([0]))
    run_method("given labels", single, TINY, make_model=linear_head, **QUIET)
    plain = partial(lambda shape, k: nn.Linear(shape[0], k))
    run_method("given labels + fine-tuning", single, TINY, make_model=plain, **QUIET)


def test_the_only_instance_that_a_network_believes_is_not_tuned_on_alone(digits):
    none = replace(digits, clean=digits.clean.take([]))
    unsure = replace(TINY, clean_threshold=1.0, finetune=replace(SHORT, steps=1))
    assert run_genkl(none, unsure, make_model=linear_head, **QUIET).rounds


def test_a_network_for_another_input_size_is_refused_before_the_run(digits, no_work):
    def of_another_size(shape, k):
        return nn.Linear(shape[0] + 1, k)

    with pytest.raises(ValueError, match=r"can't learn from inputs of shape \(64,\).*another"):
        run_genkl(digits, TINY, make_model=of_another_size, **QUIET)


def test_a_dry_run_makes_the_checks_and_nothing_else(digits, no_work, tmp_path):
    options = {"dry_run": True, "run_dir": tmp_path / "run", **QUIET}
    assert run_genkl(digits, TINY, **options) is None
    assert run_method("given labels", digits, TINY, **options) is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="clean"):
        run_genkl(replace(digits, clean=digits.clean.take([])), TINY, **options)
    with pytest.raises(ValueError, match=r"beta is 0\.5"):
        run_genkl(digits, replace(TINY, beta=0.5), **options)


def test_a_dry_run_sees_that_a_folder_holds_another_run(digits, tmp_path):
    options = {"run_dir": tmp_path / "run", **QUIET}
    run_method("given labels", digits, TINY, seed=0, **options)
    kept = sorted(tmp_path.rglob("*"))
    run_method("given labels", digits, TINY, seed=0, resume=True, dry_run=True, **options)
    with pytest.raises(ValueError, match="seed"):
        run_method("given labels", digits, TINY, seed=1, resume=True, dry_run=True, **options)
    assert sorted(tmp_path.rglob("*")) == kept


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_line():
    for device in ("cuda", "cuda:1", "gpu"):
        with pytest.raises(ValueError, match=f"device is '{device}', which this machine"):
            pick_device(device)
    with pytest.raises(ValueError, match=r"accelerator is 'cuda'.*use cpu"):
        Engine(accelerator="cuda").device  # noqa: B018
