"""Switches back to the scripts: each against an oracle by hand, and the default differs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from genkl import (
    DIGITS,
    PAPER_LOSSES,
    Examples,
    Phase,
    Published,
    Role,
    accuracy,
    double_hot,
    double_hot_loss,
    fit,
    flag_nothing,
    load_dataset,
    load_record,
    predict_probs,
    pretrain_models,
    relabel_instances,
    run_genkl,
    save_record,
    three_term_loss,
)
from genkl.data.base import make_split
from genkl.losses import Mixing
from genkl.published import check_published

Q = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.4, 0.3, 0.3], [0.1, 0.1, 0.8]])
Y = np.array([1, 1, 2, 0])
W = np.array([0.5, 0.3, 0.2])
NC = np.array([False, False, True, False])


def relabelled(switches):
    return relabel_instances(Q, Y, NC, W, published_behaviour=switches)


# -- targets ------------------------------------------------------------------------------------


def test_nc_keeps_its_prediction():
    result, default = relabelled(Published.NC_KEEPS_PREDICTION), relabelled(Published.NONE)
    assert result.targets[2].tolist() == [0.4, 0.3, 0.3]
    assert np.allclose(default.targets[2], 1 / 3)
    assert np.array_equal(result.targets[~NC], default.targets[~NC])
    assert np.array_equal(result.roles, default.roles)  # it still enters the NC loss


def test_the_ratio_fills_the_row():
    result, default = relabelled(Published.RATIO_OVER_ROW), relabelled(Published.NONE)
    assert np.allclose(result.targets[0], [0.3 + 0.6, 0.3, 0.3])
    assert np.allclose(result.targets[1], [0.3, 0.3 + 0.7, 0.3])
    assert np.allclose(result.targets[3], [0.5, 0.5, 0.5 + 0.8])
    assert np.allclose(result.targets[2], 1 / 3)
    assert np.allclose(default.targets[0], [0.6, 0.3, 0])


def test_with_the_ratio_over_the_row_the_given_label_is_a_constant_in_the_loss():
    logits = torch.tensor([[0.3, -1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    softmax = logits.detach().softmax(1)[0]

    def loss_and_gradient(label, switches):
        target = relabel_instances(
            Q[:1], np.array([label]), NC[:1], W, published_behaviour=switches
        ).targets
        loss = double_hot_loss(logits, torch.from_numpy(target)).sum()
        return loss.item(), torch.autograd.grad(loss, logits)[0]

    for label in range(3):
        loss, _ = loss_and_gradient(label, Published.RATIO_OVER_ROW)
        assert loss == pytest.approx(-np.log(W[label] + 0.6 * softmax[0].item()))
    # Equal weights: the label makes no difference at all, and by default it does.
    even = np.full(3, 1 / 3)
    for switches, same in ((Published.RATIO_OVER_ROW, True), (Published.NONE, False)):
        first, second = (
            relabel_instances(Q[:1], np.array([y]), NC[:1], even, published_behaviour=switches)
            for y in (0, 1)
        )
        assert np.allclose(first.targets, second.targets) is same


def test_relabelling_in_torch_gives_the_same():
    every = Published.NC_KEEPS_PREDICTION | Published.RATIO_OVER_ROW
    every |= Published.MIXUP_KEEPS_OWN_RATIO
    mine = relabelled(every)
    theirs = relabel_instances(
        torch.from_numpy(Q), torch.from_numpy(Y), torch.from_numpy(NC), W, published_behaviour=every
    )
    assert isinstance(theirs.targets, torch.Tensor)
    assert np.allclose(theirs.targets.numpy(), mine.targets)
    assert np.allclose(theirs.kept_part.numpy(), mine.kept_part)


# -- mixup --------------------------------------------------------------------------------------


@pytest.mark.parametrize("over_row", [False, True])
def test_the_lent_target_keeps_the_rows_own_ratio(over_row):
    switches = Published.MIXUP_KEEPS_OWN_RATIO
    switches |= Published.RATIO_OVER_ROW if over_row else Published.NONE
    result = relabelled(switches)
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=Q.shape))
    partner, keep = torch.tensor([1, 3, 2, 0]), torch.tensor([0.7, 0.7, 1.0, 0.7]).double()
    _, means = three_term_loss(
        logits,
        torch.from_numpy(result.targets),
        torch.from_numpy(result.roles),
        (1, 1, 1),
        mixing=Mixing(partner, keep),
        kept_part=torch.from_numpy(result.kept_part),
    )
    losses, default_losses = [], []
    for i in (0, 1, 3):
        j, lam = partner[i].item(), keep[i].item()
        probs = logits[i].softmax(0).numpy()

        def mass(prediction, label, probs=probs):
            """The probability under a target of prediction's class and label's ratio."""
            ratio = W[label] * (probs.sum() if over_row else probs[label])
            return ratio + prediction.max() * probs[prediction.argmax()]

        own, published, paper = mass(Q[i], Y[i]), mass(Q[j], Y[i]), mass(Q[j], Y[j])
        losses.append(-lam * np.log(own) - (1 - lam) * np.log(published))
        default_losses.append(-lam * np.log(own) - (1 - lam) * np.log(paper))
    assert means[Role.NON_NC].item() == pytest.approx(np.mean(losses))
    _, whole = three_term_loss(
        logits, torch.from_numpy(result.targets), torch.from_numpy(result.roles), (1, 1, 1),
        mixing=Mixing(partner, keep),
    )  # fmt: skip
    assert whole[Role.NON_NC].item() == pytest.approx(np.mean(default_losses))
    assert abs(np.mean(losses) - np.mean(default_losses)) > 1e-3


def test_the_kept_part_is_there_only_if_asked_for_and_zero_beside_the_noisy_rows():
    assert relabelled(Published.NONE).kept_part is None
    result = relabelled(Published.MIXUP_KEEPS_OWN_RATIO)
    assert np.allclose(result.kept_part, [[0, 0.3, 0], [0, 0.3, 0], [0, 0, 0], [0.5, 0, 0]])
    clean = Examples.clean(make_split(np.zeros((2, 3), np.float32), np.array([0, 1]), [0, 1]), 3)
    noisy = Examples.of(torch.ones(4, 3), result)
    assert (clean + noisy).kept_part[:2].abs().sum() == 0
    assert torch.equal((clean + noisy).kept_part[2:], noisy.kept_part)
    assert (clean + clean).kept_part is None


# -- training -----------------------------------------------------------------------------------


def points(seed, count=120):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    inputs = np.eye(3)[labels] * 2 + rng.normal(size=(count, 3)) + 5
    return make_split(inputs.astype(np.float32), labels, np.arange(count))


class Watched(nn.Sequential):
    """A normalised linear head that notes the mode of every batch it learns from."""

    def __init__(self):
        super().__init__(nn.BatchNorm1d(3), nn.Linear(3, 3))
        self.modes = []

    def forward(self, batch):
        if torch.is_grad_enabled():
            self.modes.append(self.training)
        return super().forward(batch)


def watched():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Watched()


PHASE = Phase(steps=9, learning_rate=0.1, batch_size=16, eval_every=3, schedule="constant")


def train(model, switches):
    examples = Examples.clean(points(0), 3)
    return fit(model, examples, PHASE, points(1, 40), seed=0, published_behaviour=switches)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_frozen_fine_tuning_moves_statistics_and_nothing_else(optimizer):
    phase = replace(PHASE, optimizer=optimizer)
    for switches in (Published.FROZEN_FINETUNING, Published.NONE):
        model = watched()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        fit(
            model, Examples.clean(points(0), 3), phase, points(1, 40), seed=0,
            published_behaviour=switches,
        )  # fmt: skip
        moved = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
        statistics = {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
        assert moved == (statistics if switches else set(before))


def test_pretraining_stays_in_evaluation_mode_after_the_first_evaluation():
    published, default = watched(), watched()
    train(published, Published.EVAL_MODE_PRETRAINING)
    train(default, Published.NONE)
    assert published.modes == [True] * 3 + [False] * 6
    assert default.modes == [True] * 9
    assert published[0].num_batches_tracked == 3


# -- runs ---------------------------------------------------------------------------------------

TINY = replace(
    DIGITS,
    first_ensemble=1,
    ensemble=1,
    max_rounds=1,
    pretrain=replace(DIGITS.pretrain, steps=50),
    train=replace(DIGITS.train, steps=50),
    finetune=replace(DIGITS.finetune, steps=10),
)
DATA, _ = load_dataset("digits", seed=0)


@pytest.fixture(scope="module")
def predictor():
    return pretrain_models(DATA, TINY, seed=0)


def run(predictor, switches=Published.NONE, data=DATA, **options):
    config = options.pop("config", TINY)
    return run_genkl(
        data, config, predictor=predictor, published_behaviour=switches, progress=False, **options
    )


def normalised_cnn(input_shape, num_classes):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(72, num_classes),
    )  # fmt: skip


def parameters_of(made):
    (model,) = made.models
    return torch.cat([value.detach().flatten() for value in model.state_dict().values()])


@pytest.mark.parametrize("switch", list(Published), ids=lambda switch: switch.name)
def test_every_switch_changes_a_run_and_is_recorded(switch, predictor, tmp_path):
    # Pre-training has to happen in the run for its switch to matter.
    own = () if switch is Published.EVAL_MODE_PRETRAINING else predictor
    # A validation split of the same labels shifted by one class disagrees with the test split.
    other = replace(DATA.validation, labels=(DATA.validation.labels + 1) % 8)
    data = replace(DATA, validation=other) if switch is Published.SELECTION_ON_TEST else DATA
    default = run(own, data=data, make_model=normalised_cnn)
    changed = run(own, switch, data=data, make_model=normalised_cnn)
    assert not torch.equal(parameters_of(default), parameters_of(changed))
    assert changed.published_behaviour == switch
    record = load_record(save_record(tmp_path / "r.json", title="t", runs=[default, changed]))
    assert [one["published_behaviour"] for one in record["runs"]] == [[], [switch.name]]


def test_no_switch_changes_nothing(predictor):
    default = run(predictor)
    again = run_genkl(DATA, TINY, predictor=predictor, progress=False)
    assert torch.equal(parameters_of(default), parameters_of(again))
    assert default.published_behaviour is Published.NONE


def test_targets_of_a_run_are_those_of_relabelling(predictor):
    seen = []

    def spy(*arguments, **options):
        seen.append((arguments, options, relabel_instances(*arguments, **options)))
        return seen[-1][2]

    every = Published.MINI_WEBVISION | Published.NC_KEEPS_PREDICTION
    run(predictor, every, relabel=spy)
    (probs, labels, mask, ratio), options, result = seen[0]
    assert options["published_behaviour"] == every & ~Published.SELECTION_ON_TEST
    expected = double_hot(probs, labels, ratio)
    expected = np.where(expected > 0, 0, ratio[labels][:, None]) + expected
    expected[np.arange(len(probs)), probs.argmax(1)] = probs.max(1) + ratio[labels]
    assert np.allclose(result.targets[~mask], expected[~mask])
    assert np.array_equal(result.targets[mask], probs[mask])


def test_selection_on_test_keeps_the_step_and_round_that_are_best_there(predictor):
    config = replace(TINY, max_rounds=2, train=replace(TINY.train, eval_every=10))
    options = {"config": config, "stop_early": False}
    published = run(predictor, Published.SELECTION_ON_TEST, **options)
    assert published.best.test_accuracy == max(one.test_accuracy for one in published.rounds)
    held = predict_probs(published.models, DATA.test.inputs)
    assert accuracy(held, DATA.test.labels.numpy()) == published.best.test_accuracy
    # The models are those that a run with the two splits exchanged would keep.
    exchanged = replace(DATA, validation=DATA.test, test=DATA.validation)
    options = {"config": replace(TINY, train=config.train), "identify": flag_nothing}
    one = run(predictor, Published.SELECTION_ON_TEST, **options)
    other = run(predictor, data=exchanged, **options)
    assert one.best.best_steps == other.best.best_steps
    assert torch.equal(parameters_of(one), parameters_of(other))
    # By default test labels change nothing but what is reported; here they change the models.
    shifted = replace(DATA, test=replace(DATA.test, labels=(DATA.test.labels + 1) % 8))
    same, different = (
        [run(predictor, switches, data=data, **options) for data in (DATA, shifted)]
        for switches in (Published.NONE, Published.SELECTION_ON_TEST)
    )
    assert torch.equal(parameters_of(same[0]), parameters_of(same[1]))
    assert not torch.equal(parameters_of(different[0]), parameters_of(different[1]))


# -- errors -------------------------------------------------------------------------------------


def test_a_switch_that_a_function_lacks_is_refused():
    with pytest.raises(
        ValueError, match=r"relabel_instances does not implement .*SELECTION_ON_TEST"
    ):
        relabelled(Published.SELECTION_ON_TEST)
    with pytest.raises(
        ValueError, match=r"fit does not implement .*RATIO_OVER_ROW; it implements F"
    ):
        train(watched(), Published.RATIO_OVER_ROW | Published.FROZEN_FINETUNING)
    with pytest.raises(ValueError, match=r"pretrain_models does not implement .*FROZEN_FINETUNING"):
        pretrain_models(DATA, TINY, published_behaviour=Published.FROZEN_FINETUNING)


def test_anything_but_a_switch_is_refused():
    with pytest.raises(TypeError, match="published_behaviour is 'all'; pass switches such as"):
        check_published("f", "all", Published.NONE)
    with pytest.raises(TypeError, match="published_behaviour is True"):
        run_genkl(DATA, TINY, published_behaviour=True, progress=False)


def test_the_paper_losses_are_not_touched_by_switches():
    assert set(PAPER_LOSSES) == set(Role)
