"""Models trained together are the models that `fit` makes, one after the other."""

import math
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from genkl import (
    DIGITS,
    Checkpoint,
    Engine,
    Examples,
    Phase,
    Role,
    fit,
    linear_head,
    load_dataset,
    run_genkl,
    run_method,
    small_cnn,
)
from genkl.data.base import make_split
from genkl.data.images import ImageTensor
from genkl.learn import FitOptions, fit_together, read_log
from genkl.learn.trainer import why_not_together
from genkl.losses import PAPER_LOSSES, mean_absolute_error, soft_cross_entropy
from genkl.networks import seeded_model
from genkl.published import Published

K, FEATURES = 4, 6
ENGINE = Engine(accelerator="cpu")
PHASE = Phase(steps=50, learning_rate=0.05, batch_size=16, eval_every=15)
WEIGHTS = (0.5, 1.0, 0.25)


def points(seed, count):
    """Noisy corners of a cube, with an offset that normalisation has to take off."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, count)
    inputs = 5 + np.eye(K, FEATURES)[labels] * 2 + rng.normal(size=(count, FEATURES))
    return make_split(inputs.astype(np.float32), labels, np.arange(count))


VALIDATION = points(1, 70)


def all_roles(count=101, kept=False, seed=0):
    """Clean, double-hot and uniform targets; 101 examples leave a rest of every batch size."""
    split, rng = points(seed, count), np.random.default_rng(seed)
    hot = torch.eye(K)[split.labels]
    roles = torch.from_numpy(rng.choice([0, 1, 2], count, p=[0.2, 0.5, 0.3]))
    kept_part = 0.2 * hot
    double = kept_part + 0.7 * torch.eye(K)[torch.from_numpy(rng.integers(0, K, count))]
    targets = torch.where((roles == Role.NON_NC)[:, None], double, hot)
    targets = torch.where((roles == Role.NC)[:, None], torch.tensor(1 / K), targets)
    own = torch.where((roles == Role.NON_NC)[:, None], kept_part, torch.zeros_like(kept_part))
    return Examples(split.inputs, targets.float(), roles, own.float() if kept else None)


def perceptron(input_shape, num_classes):
    return nn.Sequential(
        nn.Linear(*input_shape, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, num_classes)
    )


def build(count, factory=linear_head, shape=(FEATURES,)):
    return [seeded_model(factory, shape, K, seed) for seed in range(count)]


def in_turn(models, *data, seeds, **options):
    return [fit(m, *data, seed=s, **options) for m, s in zip(models, seeds, strict=True)]


def assert_same(ours, theirs, tolerance=1e-4):
    """Results and models, up to rounding: the best steps and what is counted exactly."""
    for mine, other in zip(ours[0], theirs[0], strict=True):
        assert mine.best_step == other.best_step
        assert mine.val_accuracy == pytest.approx(other.val_accuracy)
        assert mine.val_loss == pytest.approx(other.val_loss, rel=tolerance)
        assert len(mine.history) == len(other.history)
        for entry, expected in zip(mine.history, other.history, strict=True):
            assert entry == pytest.approx(expected, rel=tolerance, nan_ok=True)
            assert list(entry) == list(expected)
    for mine, other in zip(ours[1], theirs[1], strict=True):
        assert mine.training == other.training
        for name, value in other.state_dict().items():
            assert torch.allclose(mine.state_dict()[name], value, rtol=1e-4, atol=1e-5), name
            if not value.dtype.is_floating_point:
                assert torch.equal(mine.state_dict()[name], value)


def compare(examples, phase, *, count=3, factory=linear_head, **options):
    options = {"weights": WEIGHTS, "engine": ENGINE} | options
    data, seeds = (examples, phase, VALIDATION), [7 + member for member in range(count)]
    ours, theirs = build(count, factory), build(count, factory)
    together_ = fit_together(ours, *data, seeds=seeds, **options)
    assert_same((together_, ours), (in_turn(theirs, *data, seeds=seeds, **options), theirs))
    return together_


@pytest.mark.parametrize("kept", [False, True], ids=["", "kept"])
@pytest.mark.parametrize("mixup_alpha", [0.0, 0.5])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_same_as_one_after_the_other(optimizer, schedule, mixup_alpha, kept):
    phase = replace(PHASE, optimizer=optimizer, schedule=schedule)
    compare(all_roles(kept=kept), phase, mixup_alpha=mixup_alpha)


@pytest.mark.parametrize("factory", [linear_head, perceptron])
@pytest.mark.parametrize(
    "change",
    [
        {"count": 1},
        {"count": 7},
        {"steps": 1},
        {"eval_every": 1000},
        {"batch_size": 1000},
        {"batch_size": 8, "clean_batch_size": 5},
        {"momentum": 0.0, "weight_decay": 0.1},
        {"learning_rate": 0.3, "nesterov": False},
    ],
    ids=str,
)
def test_the_same_in_every_shape(change, factory):
    change = dict(change)
    count = change.pop("count", 3)
    compare(
        all_roles(), replace(PHASE, **change), count=count, factory=factory, mixup_alpha=0.5
    )  # fmt: skip


def test_a_role_may_be_missing_in_a_batch_or_altogether():
    examples = all_roles()
    few = examples.take(np.flatnonzero(examples.roles.numpy() != Role.CLEAN))
    few = few + examples.take(np.flatnonzero(examples.roles.numpy() == Role.CLEAN)[:1])
    compare(few, replace(PHASE, batch_size=4), mixup_alpha=0.5)
    only = Examples.clean(points(0, 50), K)
    results = compare(only, PHASE, mixup_alpha=0.5)
    assert math.isnan(results[0].history[-1]["nc_loss"])


def test_the_same_with_losses_of_ones_own():
    def by_value(logits, targets):  # looks at values, which not every way of batching allows
        return soft_cross_entropy(logits, targets) if float(targets.sum()) else logits.sum(dim=1)

    losses = dict.fromkeys(Role, mean_absolute_error)
    compare(all_roles(), PHASE, losses=losses, mixup_alpha=0.5)
    compare(all_roles(), PHASE, losses={**PAPER_LOSSES, Role.NC: by_value}, mixup_alpha=0.5)


@pytest.mark.parametrize(
    "published", [Published.FROZEN_FINETUNING, Published.EVAL_MODE_PRETRAINING]
)
@pytest.mark.parametrize("factory", [linear_head, perceptron])
def test_the_same_as_the_published_scripts(published, factory):
    compare(all_roles(), PHASE, factory=factory, published_behaviour=published, keep_initial=True)


def test_the_state_that_a_model_came_with_may_win():
    flipped = all_roles()
    wrong = Examples(flipped.inputs, flipped.targets.roll(1, 1), torch.zeros_like(flipped.roles))
    models = build(3)
    in_turn(models, Examples.clean(points(0, 100), K), PHASE, VALIDATION, seeds=range(3))
    before = [{n: v.clone() for n, v in model.state_dict().items()} for model in models]
    phase = replace(PHASE, learning_rate=0.5, schedule="constant")
    results = fit_together(models, wrong, phase, VALIDATION, seeds=range(3), keep_initial=True)
    for model, state, result in zip(models, before, results, strict=True):
        assert result.best_step == 0
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name])


def test_no_steps_change_nothing():
    compare(all_roles(), replace(PHASE, steps=0))


def test_features_far_from_zero_cost_no_digits():
    far = all_roles()
    far = Examples(1000 + 0.1 * far.inputs, far.targets, far.roles)
    validation = replace(VALIDATION, inputs=1000 + 0.1 * VALIDATION.inputs)
    models, others = build(2), build(2)
    ours = fit_together(models, far, PHASE, validation, seeds=(0, 1))
    theirs = in_turn(others, far, PHASE, validation, seeds=(0, 1))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.val_loss == pytest.approx(other.val_loss, rel=0.01)


def test_a_member_does_not_depend_on_its_companions():
    data = (all_roles(), PHASE, VALIDATION)
    two, five = build(2), build(5)
    few = fit_together(two, *data, seeds=range(2), mixup_alpha=0.5)
    many = fit_together(five, *data, seeds=range(5), mixup_alpha=0.5)
    assert_same((few, two), (many[:2], five[:2]), tolerance=1e-6)
    seeds = [model[1].weight.sum().item() for model in five]
    assert len(set(seeds)) == 5


def test_global_randomness_is_neither_used_nor_changed():
    torch.manual_seed(7)
    np.random.seed(7)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    fit_together(build(2), all_roles(), PHASE, VALIDATION, seeds=(0, 1), mixup_alpha=0.5)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_whoever_watches_is_told_of_every_step_and_every_members_evaluation():
    told = []
    fit_together(
        build(2), all_roles(), PHASE, VALIDATION, seeds=(0, 1),
        watch=lambda event, facts: told.append((event, dict(facts))),
    )  # fmt: skip
    assert sum(facts["steps"] for event, facts in told if event == "step") == 100
    seen = [(f["member"], f["step"]) for event, f in told if event == "evaluation"]
    assert seen == [(m, step) for step in (15, 30, 45, 50) for m in (0, 1)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("factory", [linear_head, perceptron])
def test_an_interrupted_ensemble_goes_on_to_the_same_weights(factory, optimizer, tmp_path):
    phase = replace(PHASE, optimizer=optimizer)
    checkpoint, told = Checkpoint(tmp_path / "a.safetensors", every=8), []

    def train(stop_at=None, **options):
        def watch(event, facts):
            told.append((event, facts["steps"] if event == "step" else facts["member"]))
            if sum(count for event, count in told if event == "step") == stop_at:
                raise KeyboardInterrupt

        told.clear()
        models = build(3, factory)
        data = (models, all_roles(kept=True), phase, VALIDATION)
        results = fit_together(*data, seeds=(4, 5, 6), mixup_alpha=0.5, watch=watch, **options)
        return [repr(result.history) for result in results], [m.state_dict() for m in models]

    whole = train()
    with pytest.raises(KeyboardInterrupt):
        train(stop_at=3 * 29, checkpoint=checkpoint)
    rest = train(checkpoint=checkpoint)
    # Told at once of the 24 steps that were kept, with their evaluation, and of each that follows.
    assert told[:4] == [("step", 3 * 24), ("evaluation", 0), ("evaluation", 1), ("evaluation", 2)]
    assert [count for event, count in told[4:] if event == "step"] == [3] * 26
    assert rest[0] == whole[0]
    for mine, theirs in zip(rest[1], whole[1], strict=True):
        for name, value in theirs.items():
            assert torch.equal(mine[name], value), name


def test_a_checkpoint_of_other_models_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.safetensors", every=8)
    data = (all_roles(), PHASE, VALIDATION)
    fit_together(build(2), *data, seeds=(0, 1), checkpoint=checkpoint)
    with pytest.raises(RuntimeError, match="size mismatch"):
        fit_together(build(3), *data, seeds=(0, 1, 2), checkpoint=checkpoint)


# -- who can't -------------------------------------------------------------------------------------


def dropout_head(input_shape, num_classes):
    return nn.Sequential(nn.Linear(*input_shape, 8), nn.Dropout(0.5), nn.Linear(8, num_classes))


def normalised_head(input_shape, num_classes):
    return nn.Sequential(nn.BatchNorm1d(*input_shape), nn.Linear(*input_shape, num_classes))


def tied_head(input_shape, num_classes):
    layer = nn.Linear(8, 8)
    return nn.Sequential(nn.Linear(*input_shape, 8), layer, layer, nn.Linear(8, num_classes))


def wide_head(input_shape, num_classes):
    return nn.Sequential(nn.Linear(*input_shape, 60_000), nn.Linear(60_000, num_classes))


class OwnHead(nn.Linear):
    """A module of the reader's own may do anything."""


def changed(models, change):
    change(models[-1])
    return models


@pytest.mark.parametrize(
    ("why", "case"),
    [
        ("its own learning rate", {"phase": replace(PHASE, schedule="plateau")}),
        ("its own roles", {"clean_threshold": 0.5}),
        ("not compiled", {"engine": Engine(accelerator="cpu", compile=True)}),
        ("32-true", {"engine": Engine(accelerator="cpu", precision="bf16-mixed")}),
        ("Dropout may have randomness", {"models": build(2, dropout_head)}),
        ("BatchNorm1d may have", {"models": build(2, normalised_head)}),
        ("OwnHead may have", {"models": build(2, lambda shape, k: OwnHead(*shape, k))}),
        ("in two places", {"models": build(2, tied_head)}),
        ("weights, and 1 to", {"models": build(2, wide_head)}),
        ("weights, and 1 to", {"models": [nn.Sequential(nn.Flatten())] * 2}),
        ("models is empty", {"models": []}),
        ("differ in more", {"models": [*build(1), *build(1, perceptron)]}),
        ("hooks", {"models": changed(build(2), lambda m: m.register_forward_hook(print))}),
        ("have to learn", {"models": changed(build(2), lambda m: m[1].requires_grad_(False))}),
        ("float32", {"models": [model.double() for model in build(2)]}),
    ],
)
def test_what_differs_by_member_is_left_to_fit(why, case):
    case = dict(case)
    models = case.pop("models", None)
    models = build(2) if models is None else models
    phase, threshold = case.pop("phase", PHASE), case.pop("clean_threshold", None)
    data = (all_roles(), phase, VALIDATION)
    how = FitOptions(clean_threshold=threshold, **case)
    assert why in why_not_together(models, *data, how)
    assert why_not_together(build(2), all_roles(), PHASE, VALIDATION, FitOptions()) is None
    with pytest.raises(ValueError, match=why):
        fit_together(models, *data, seeds=range(len(models)), clean_threshold=threshold, **case)


def test_images_and_other_inputs_are_left_to_fit():
    examples = all_roles()
    bytes_ = torch.zeros(len(examples), 3, 8, 8, dtype=torch.uint8)
    for inputs in (ImageTensor(bytes_), bytes_, examples.inputs.double()):
        other = replace(examples, inputs=inputs)
        assert why_not_together(build(2), other, PHASE, VALIDATION, FitOptions())
        unlike = replace(VALIDATION, inputs=inputs, labels=torch.zeros(len(examples)).long())
        unlike = replace(unlike, ids=torch.arange(len(examples)))
        assert why_not_together(build(2), examples, PHASE, unlike, FitOptions())
    double = replace(examples, targets=examples.targets.double())
    assert why_not_together(build(2), double, PHASE, VALIDATION, FitOptions())
    digits, _ = load_dataset("digits")
    clean = Examples.clean(digits.clean, 8)
    cnn = build(2, small_cnn, digits.input_shape)
    assert why_not_together(cnn, clean, PHASE, digits.validation, FitOptions())


def test_several_processes_are_left_to_fit(monkeypatch):
    monkeypatch.setattr(Engine, "world_size", property(lambda self: 2))
    how = FitOptions(engine=ENGINE)
    assert "2 processes" in why_not_together(build(2), all_roles(), PHASE, VALIDATION, how)


@pytest.mark.parametrize("factory", [linear_head, perceptron])
def test_a_loss_that_is_not_finite_names_step_and_member(factory):
    models = build(3, factory)
    models[1][-1].bias.data[0] = float("nan")
    with pytest.raises(FloatingPointError, match="member 1 is not finite at step 15; lower learn"):
        fit_together(models, all_roles(), PHASE, VALIDATION, seeds=range(3))
    inputs = all_roles().inputs.clone()
    inputs[5, 0] = float("nan")
    broken = replace(all_roles(), inputs=inputs)
    with pytest.raises(FloatingPointError, match=r"member \d is not finite at step 15"):
        fit_together(build(3, factory), broken, PHASE, VALIDATION, seeds=range(3))


def test_bad_arguments_are_named():
    data = (all_roles(), PHASE, VALIDATION)
    with pytest.raises(ValueError, match="3 seeds for 2 models"):
        fit_together(build(2), *data, seeds=range(3))
    with pytest.raises(ValueError, match="examples is empty"):
        fit_together(build(1), all_roles().take(np.arange(0)), PHASE, VALIDATION, seeds=[0])
    with pytest.raises(ValueError, match="fit does not implement"):
        fit_together(build(1), *data, seeds=[0], published_behaviour=Published.SELECTION_ON_TEST)
    with pytest.raises(ValueError, match="mixup_alpha is -1"):
        fit_together(build(1), *data, seeds=[0], mixup_alpha=-1)
    with pytest.raises(ValueError, match=r"a batch has one row.*raise batch_size"):
        fit_together(build(2), all_roles(), replace(PHASE, batch_size=1), VALIDATION, seeds=[0, 1])


# -- in a run --------------------------------------------------------------------------------------

APART = Engine(accelerator="cpu", batch_heads=False)
DATASET = load_dataset("digits", seed=0)[0].map_inputs(lambda images: images.flatten(1))
CONFIG = replace(
    DIGITS,
    first_ensemble=3,
    ensemble=3,
    max_rounds=2,
    pretrain=replace(DIGITS.pretrain, steps=60),
    train=replace(DIGITS.train, steps=80),
    finetune=replace(DIGITS.finetune, steps=30, learning_rate=1e-3),
)
go = partial(run_genkl, DATASET, CONFIG, seed=3, stop_early=False, progress=False)


def assert_same_run(ours, theirs, tolerance):
    for mine, other in zip(ours.rounds, theirs.rounds, strict=True):
        assert mine.role_counts == pytest.approx(other.role_counts, abs=2)
        for name in ("threshold", "flagged", "val_accuracy", "test_accuracy",
                     "ensemble_test_accuracy", "predictor_val_accuracy"):  # fmt: skip
            assert getattr(mine, name) == pytest.approx(
                getattr(other, name), abs=tolerance, nan_ok=True
            ), name
        assert mine.role_losses == pytest.approx(other.role_losses, rel=1e-2, nan_ok=True)
    assert ours.rounds[0].best_steps == theirs.rounds[0].best_steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run whose heads are trained together, with its folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, go(engine=ENGINE, run_dir=folder)


def test_a_run_comes_to_the_same_numbers(whole, monkeypatch):
    monkeypatch.setattr("genkl.learn.ensemble.HeadEnsemble", None)
    assert_same_run(whole[1], go(engine=APART), 2 / len(DATASET.test))


def test_a_run_does_train_heads_together(monkeypatch):
    alone = nn.BatchNorm1d.forward
    monkeypatch.setattr(
        nn.BatchNorm1d, "forward", lambda self, x: None if self.training else alone(self, x)
    )
    go(engine=ENGINE)
    for method in ("given labels + fine-tuning", "clean set alone"):
        run_method(method, DATASET, CONFIG, engine=ENGINE, progress=False)


def test_a_baseline_comes_to_the_same_numbers():
    runs = [
        run_method("given labels + fine-tuning", DATASET, CONFIG, engine=one, progress=False)
        for one in (ENGINE, APART)
    ]
    assert_same_run(*runs, 2 / len(DATASET.test))


def test_the_log_and_the_bar_have_every_unit(tmp_path, monkeypatch):
    from genkl.learn import folder

    bars = []

    class Counted(folder.RunBar):
        def __init__(self, description="", total=0, shown=False):
            super().__init__(description, total, shown)
            self.total, self.taken = total, 0
            bars.append(self)

        def steps(self, count):
            self.taken += count

    monkeypatch.setattr(folder, "RunBar", Counted)
    logs = []
    for name, engine in (("together", ENGINE), ("apart", APART)):
        go(engine=engine, run_dir=tmp_path / name)
        logs.append(sorted((r["unit"], r["step"]) for r in read_log(tmp_path / name / "log.jsonl")))
    assert logs[0] == logs[1]
    assert [bar.taken for bar in bars] == [bar.total for bar in bars]
    assert [f.name for f in sorted((tmp_path / "together/models").iterdir())] == [
        f.name for f in sorted((tmp_path / "apart/models").iterdir())
    ]


def test_what_is_finished_is_read_and_the_rest_is_trained(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    for name in ("record.json", "rounds/round-2.json"):
        (folder / name).unlink()
    for member in (0, 2):
        (folder / f"models/round-2-model-{member}-finetune.safetensors").unlink()
    again = go(engine=ENGINE, run_dir=folder, resume=True)
    assert_same_run(again, whole[1], 1e-12)
    assert not list(folder.glob("checkpoints/*"))
    logged = [
        [(row["unit"], row["step"]) for row in read_log(place / "log.jsonl")]
        for place in (folder, whole[0])
    ]
    assert sorted(logged[0]) == sorted(logged[1])


def test_a_run_that_was_cut_off_between_phases_goes_on(whole, tmp_path):
    from genkl import divergence_rule

    calls = []

    def interrupting(pred_probs, validation_probs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return divergence_rule(CONFIG)(pred_probs, validation_probs)

    options = {"engine": ENGINE, "run_dir": tmp_path / "run", "identify": interrupting}
    with pytest.raises(KeyboardInterrupt):
        go(**options)
    assert_same_run(go(**options, resume=True), whole[1], 1e-12)


def test_a_run_whose_heads_were_cut_off_in_a_phase_goes_on_in_it(whole, tmp_path, monkeypatch):
    from genkl.learn.folder import RunBar

    options = {"engine": ENGINE, "run_dir": tmp_path / "run", "checkpoint_every": 7}
    taken = []

    def interrupting(bar, count):
        taken.append(count)
        if sum(taken) == 3 * (60 + 41):  # in the first round's training
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunBar, "steps", interrupting)
        with pytest.raises(KeyboardInterrupt):
            go(**options)
    names = {file.name for file in (tmp_path / "run/checkpoints").iterdir()}
    name = "round-1-model-0-train-and-2-more.safetensors"
    assert {name, f"previous-{name}"} == names
    monkeypatch.setattr(RunBar, "steps", lambda bar, count: taken.append(count))
    taken.clear()
    assert_same_run(go(**options, resume=True), whole[1], 1e-12)
    assert taken[:4] == [60, 60, 60, 3 * 35]
    assert not list((tmp_path / "run/checkpoints").iterdir())
