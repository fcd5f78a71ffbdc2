"""Training: it learns, keeps its best validated step, repeats exactly, and says what is wrong."""

import numpy as np
import pytest
import torch
from torch import nn

from genkl import Examples, Phase, Role, fit, linear_head, small_cnn
from genkl.data.base import make_split
from genkl.learn.phase import Schedule, make_optimizer
from genkl.networks import default_model, seeded_model
from genkl.predict import predict_logits, predict_probs


def blobs(seed, count, k=3, spread=0.5):
    """Points around the corners of a k-cube: separable by a linear head."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, count)
    points = np.eye(k)[labels] * 3 + rng.normal(scale=spread, size=(count, k))
    return make_split(points.astype(np.float32), labels, np.arange(count))


TRAIN, VALIDATION = blobs(0, 200), blobs(1, 60)
PHASE = Phase(steps=60, learning_rate=0.1, batch_size=32, eval_every=20)


def head(seed=0):
    return seeded_model(linear_head, (3,), 3, seed)


def trained(seed=0, **options):
    model = head()
    result = fit(model, Examples.clean(TRAIN, 3), PHASE, VALIDATION, seed=seed, **options)
    return model, result


def test_learns_and_holds_the_best_validated_step():
    model, result = trained()
    logits = predict_logits(model, VALIDATION.inputs)
    held = (logits.argmax(1) == VALIDATION.labels).double().mean().item()
    assert held == result.val_accuracy > 0.9
    best = max(result.history, key=lambda h: (h["val_accuracy"], -h["val_loss"]))
    assert (result.best_step, result.val_accuracy) == (best["step"], best["val_accuracy"])
    assert [h["step"] for h in result.history] == [20, 40, 60]


def test_weights_of_the_best_step_are_brought_back():
    # A huge learning rate on flipped labels ruins the model; the initial state must win.
    model, _ = trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flipped = make_split(TRAIN.inputs, (TRAIN.labels.numpy() + 1) % 3, TRAIN.ids.numpy())
    phase = Phase(steps=40, learning_rate=0.5, schedule="constant", eval_every=10)
    result = fit(model, Examples.clean(flipped, 3), phase, VALIDATION, seed=0, keep_initial=True)
    assert result.best_step == 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_same_seed_same_numbers_and_other_seed_other_numbers():
    first, again, other = trained(3), trained(3), trained(4)
    assert repr(first[1].history) == repr(again[1].history)  # NaN is not equal to itself
    assert torch.equal(first[0][1].weight, again[0][1].weight)
    assert not torch.equal(first[0][1].weight, other[0][1].weight)


def test_global_randomness_is_neither_used_nor_changed():
    torch.manual_seed(7)
    np.random.seed(7)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    trained(mixup_alpha=0.5)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_history_tells_the_loss_of_each_role_and_nan_where_there_is_none():
    _, result = trained()
    assert 0 < result.history[-1]["clean_loss"] < result.history[0]["clean_loss"]
    assert np.isnan(result.history[-1]["nc_loss"])


def test_only_the_roles_with_weight_teach():
    # Flipped labels in the NON_NC role, with weight 0, do no harm.
    wrong = Examples.clean(TRAIN, 3)
    wrong = Examples(
        wrong.inputs, wrong.targets.roll(1, 1), torch.full_like(wrong.roles, int(Role.NON_NC))
    )
    both = Examples.clean(TRAIN, 3) + wrong
    good, bad = head(), head()
    fit(good, both, PHASE, VALIDATION, seed=0, weights=(1, 0, 0))
    fit(bad, both, PHASE, VALIDATION, seed=0, weights=(0.01, 1, 0))
    scores = [
        (predict_logits(m, VALIDATION.inputs).argmax(1) == VALIDATION.labels).double().mean()
        for m in (good, bad)
    ]
    assert scores[0] > 0.9 > 0.5 > scores[1]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_schedule_and_optimizer_trains(schedule, optimizer):
    phase = Phase(
        steps=60, learning_rate=0.05, schedule=schedule, optimizer=optimizer, eval_every=20
    )
    result = fit(head(), Examples.clean(TRAIN, 3), phase, VALIDATION, seed=0)
    assert result.val_accuracy > 0.9


def test_no_steps_changes_nothing():
    model = head()
    before = model[1].weight.clone()
    phase = Phase(steps=0, learning_rate=0.1)
    result = fit(model, Examples.clean(TRAIN, 3), phase, VALIDATION, seed=0)
    assert result.best_step == 0
    assert torch.equal(before, model[1].weight)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_remedy():
    inputs = TRAIN.inputs.clone()
    inputs[5, 0] = float("nan")
    examples = Examples.clean(make_split(inputs, TRAIN.labels.numpy(), TRAIN.ids.numpy()), 3)
    with pytest.raises(FloatingPointError, match="not finite at step 20; lower learning_rate"):
        fit(head(), examples, PHASE, VALIDATION, seed=0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": -1}, "steps is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"eval_every": 0}, "eval_every is 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"optimizer": "lamb"}, "unknown optimizer 'lamb'; choose one of: sgd, adam"),
        ({"schedule": "warm"}, "unknown schedule 'warm'"),
    ],
)
def test_bad_phase_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        Phase(**{"steps": 10, "learning_rate": 0.1, **setting})


def test_nothing_to_train_on_is_refused():
    nothing = Examples(torch.empty(0, 3), torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="examples is empty"):
        fit(head(), nothing, PHASE, VALIDATION, seed=0)


def test_ensemble_prediction_is_the_mean_of_softmaxes_in_order():
    models = [head(0), head(1)]
    together = predict_probs(models, VALIDATION.inputs, batch_size=7)
    each = [predict_logits(m, VALIDATION.inputs).double().softmax(1).numpy() for m in models]
    assert np.allclose(together, (each[0] + each[1]) / 2, atol=1e-6)
    assert np.allclose(together.sum(axis=1), 1)
    assert models[0].training  # the mode is as it was


def test_prediction_without_models_or_with_broken_ones_is_refused():
    with pytest.raises(ValueError, match="models is empty"):
        predict_probs([], VALIDATION.inputs)
    broken = head()
    broken[1].weight.data[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="model 1"):
        predict_probs([head(), broken], VALIDATION.inputs)


def test_default_model_fits_the_input_and_says_what_it_expects():
    assert default_model((3,), 4)(torch.zeros(2, 3)).shape == (2, 4)
    assert default_model((1, 8, 8), 4)(torch.zeros(2, 1, 8, 8)).shape == (2, 4)
    with pytest.raises(ValueError, match="input_shape"):
        small_cnn((8, 8), 4)
    with pytest.raises(ValueError, match="input_shape"):
        linear_head((1, 8, 8), 4)


def test_a_plateau_lowers_the_rate_to_a_tenth():
    phase = Phase(steps=10, learning_rate=0.5, schedule="plateau", patience=1)
    optimizer = make_optimizer(nn.Linear(2, 2), phase)
    schedule = Schedule(optimizer, phase)
    rates = []
    for val_loss in (1.0, 0.9, 0.95, 0.95, 0.95):
        schedule.after_step()
        schedule.after_evaluation(val_loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.05])
