"""The paper's settings, held against a table typed from the scripts; and what is done with them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from genkl import (
    CLOTHING1M,
    FOOD101N,
    MINI_WEBVISION,
    PaperPreset,
    Published,
    identify_nc,
    uniform_like_vectors,
)
from genkl.presets import Recipe

PRESETS = (CLOTHING1M, FOOD101N, MINI_WEBVISION)

# Independent of the code: one line per setting, in the order of PRESETS.
TABLE = {
    "num_classes": (14, 101, 50),
    "alpha": (1.05, 1.1, 0.9),
    "beta": (0.03, 0.008, 0.015),
    "sigma": (0.05, 0, 0.05),
    "num_vectors": (20, 20, 20),
    "seeds": ((0, 1, 2), (0,), (42,)),
    "omega": ((1, 32, 1), (20, 100, 1), (10, 32, 4)),
    "batch_size": (32, 128, 32),
    "mixup_alpha": (0.5, 0, 3),
    "network": ("ResNet-50",) * 3,
    "initial_weights": ("ImageNet", "ImageNet", "random"),
    "clean_threshold": (None, None, 0.5),
    "first_ensemble": (5, 5, 5),
    "ensemble": (3, 3, 3),
}
RECIPES = {
    "optimizer": (("sgd", "sgd", "sgd"), ("adam", "sgd", "adam")),
    "learning_rate": ((1e-3, 1e-3, 1e-2), (5e-7, 1e-3, 5e-7)),
    "epochs": ((20, 40, 300), (25, 40, 50)),
    "momentum": ((0.9, 0.9, 0.9), (0, 0.9, 0)),
    "nesterov": ((True, True, False), (False, True, False)),
    "weight_decay": ((1e-3, 5e-3, 1e-4), (1e-3, 5e-3, 1e-3)),
    "schedule": (("plateau", "cosine", "cosine"), ("constant", "plateau", "constant")),
    "patience": ((3, None, None), (None, 4, None)),
}


@pytest.mark.parametrize("setting", TABLE)
def test_settings_are_those_of_the_scripts(setting):
    assert tuple(getattr(preset, setting) for preset in PRESETS) == TABLE[setting]


@pytest.mark.parametrize("setting", RECIPES)
def test_recipes_are_those_of_the_scripts(setting):
    training, finetuning = RECIPES[setting]
    assert tuple(getattr(preset.train, setting) for preset in PRESETS) == training
    assert tuple(getattr(preset.finetune, setting) for preset in PRESETS) == finetuning


def test_only_clothing1m_publishes_how_its_first_predictor_is_trained():
    first = CLOTHING1M.pretrain
    assert (first.optimizer, first.learning_rate, first.epochs) == ("sgd", 1e-2, 30)
    assert (first.momentum, first.nesterov, first.weight_decay) == (0.9, True, 1e-3)
    assert (first.schedule, first.patience) == ("plateau", 4)
    assert FOOD101N.pretrain is MINI_WEBVISION.pretrain is None


@pytest.mark.parametrize(
    ("preset", "training", "testing"),
    [
        (CLOTHING1M, "resize 256, random crop 224, random flip", "resize 256, centre crop 224"),
        (
            FOOD101N,
            "random rotation 30, resize 256, random flip, random crop 224",
            "resize 256, centre crop 224",
        ),
        (
            MINI_WEBVISION,
            "resize 320, random resized crop 299, random flip",
            "resize 320, centre crop 299",
        ),
    ],
)
def test_images_are_prepared_as_in_the_scripts(preset, training, testing):
    def words(steps):
        return ", ".join(name if size is None else f"{name} {size}" for name, size in steps)

    assert words(preset.train_transforms) == training
    assert words(preset.test_transforms) == testing


def test_tau_and_loss_weights_follow():
    assert [round(p.tau, 5) for p in PRESETS] == [0.04143, 0.0019, 0.005]
    assert CLOTHING1M.weights == (1 / 32, 1, 1 / 32)
    assert FOOD101N.weights == (0.15625, 0.78125, 0.0078125)
    assert MINI_WEBVISION.weights == (0.3125, 1, 0.125)


def test_accuracies_are_those_the_paper_reports():
    assert [percent for p in PRESETS for _, percent in p.reported] == [81.34, 85.73, 78.99, 92.54]
    assert dict(CLOTHING1M.test_sets) == {"clean_test": 10_526}
    assert dict(FOOD101N.test_sets) == {"Food-101 test": 25_250}
    assert dict(MINI_WEBVISION.test_sets)["WebVision validation"] == 2_500


@pytest.mark.parametrize("preset", PRESETS)
def test_a_module_header_tells_command_time_and_number(preset):
    import importlib

    names = {"CLOTHING1M": "clothing1m", "FOOD101N": "food101n", "MINI_WEBVISION": "mini_webvision"}
    (name,) = [n for n, p in zip(names, PRESETS, strict=True) if p is preset]
    header = " ".join(importlib.import_module(f"genkl.presets.{names[name]}").__doc__.split())
    assert f"genkl.{name}.identify(pred_probs)" in header
    assert "Full training was not measured here" in header
    for _, percent in preset.reported:
        assert f"{percent} %" in header
    assert "reported by the paper, not reproduced here" in header


@pytest.mark.parametrize("preset", PRESETS)
def test_the_vectors_are_drawn_as_the_scripts_draw_them(preset):
    for seed in (None, 7):
        drawn = preset.uniform_like(seed)
        legacy = np.random.RandomState(preset.seeds[0] if seed is None else seed)
        k, n = preset.num_classes, preset.num_vectors
        expected = legacy.normal(1 / k, preset.sigma, (n, k))
        expected = np.clip(np.where(expected < 0, 0.005, expected), None, 1)
        expected /= expected.sum(axis=1, keepdims=True)
        assert np.allclose(drawn, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("preset", PRESETS)
def test_identify_is_the_vote_with_the_preset_settings(preset):
    k = preset.num_classes
    rng = np.random.default_rng(0)
    probs = np.concatenate([rng.dirichlet(np.full(k, a), 300) for a in (0.05, 0.3, 5.0)])
    probs[:3] = 0.58 / (k - 1)  # one peak, the others equal: non-conforming in every preset
    probs[:3, 1] = 0.42
    flagged = preset.identify(probs)
    vectors = uniform_like_vectors(k, 20, preset.sigma, preset.seeds[0])
    assert np.array_equal(flagged, identify_nc(probs, preset.alpha, preset.beta, vectors))
    kept = probs >= 1 / k - preset.beta
    cost = np.where(kept, -np.log(np.where(kept, probs, 1)), 0)
    own_entropy = -(vectors * np.log(vectors)).sum(axis=1)
    by_hand = (cost @ vectors.T - preset.alpha * own_entropy >= 0).any(axis=1)
    assert np.array_equal(flagged, by_hand)
    assert 0 < flagged.mean() < 1


def test_another_seed_votes_differently_and_all_permutations_flag_more():
    probs = np.random.default_rng(0).dirichlet(np.full(14, 0.5), 4000)
    published = CLOTHING1M.identify(probs)
    assert not np.array_equal(published, CLOTHING1M.identify(probs, seed=1))
    closed = CLOTHING1M.identify(probs, permutation_invariant=True)
    assert closed.sum() > published.sum()
    assert not (published & ~closed).any()


def test_predictions_for_other_classes_are_refused():
    with pytest.raises(ValueError, match="Clothing1M has 14 classes"):
        CLOTHING1M.identify(np.full((2, 10), 0.1))
    with pytest.raises(ValueError, match="sums to"):
        CLOTHING1M.identify(np.full((2, 14), 0.1))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_classes": 1}, "num_classes is 1"),
        ({"alpha": 0.0}, "alpha is 0.0; it must be"),
        ({"beta": 0.08}, r"beta is 0\.08; identification needs"),
        ({"sigma": -1.0}, "sigma is -1.0; it must be 0"),
        ({"mixup_alpha": -1.0}, "mixup_alpha is -1.0; use 0"),
        ({"num_vectors": 0}, "num_vectors is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"ensemble": 0}, "ensemble is 0"),
        ({"seeds": ()}, r"seeds is \(\); state at least one"),
        ({"seeds": (-1,)}, r"seeds is \(-1,\)"),
        ({"omega": (1.0, 1.0)}, "omega is .* pass three weights"),
        ({"omega": (0.0, 0.0, 0.0)}, "omega is"),
        ({"clean_threshold": 1.5}, "clean_threshold is 1.5"),
        ({"reported": (("top-1", 0.79 * 1000),)}, "reported 'top-1' is 790.0; state"),
    ],
)
def test_bad_presets_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CLOTHING1M, **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"optimizer": "lamb"}, "unknown optimizer 'lamb'"),
        ({"schedule": "warm"}, "unknown schedule 'warm'"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"epochs": 0}, "epochs is 0.*leave the recipe out"),
        ({"momentum": -0.9}, "momentum is -0.9"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"patience": 3}, "patience is 3 with schedule 'constant'"),
        ({"schedule": "plateau"}, "patience is None with schedule 'plateau'"),
    ],
)
def test_bad_recipes_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"optimizer": "sgd", "learning_rate": 0.1, "epochs": 1, **setting})


def test_presets_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CLOTHING1M.alpha = 2.0
    assert isinstance(CLOTHING1M, PaperPreset)
    assert hash(CLOTHING1M) != hash(FOOD101N)


def test_every_departure_of_a_preset_is_a_switch():
    assert CLOTHING1M.departures == Published.CLOTHING1M
    assert FOOD101N.departures == Published.FOOD101N
    assert MINI_WEBVISION.departures == Published.MINI_WEBVISION
    together = Published.CLOTHING1M | Published.FOOD101N | Published.MINI_WEBVISION
    assert set(together) == set(Published)


def test_each_phase_counts_epochs_over_its_own_data():
    sized = SimpleNamespace(num_classes=14, name="sized", noisy=range(6400), clean=range(640))
    config = CLOTHING1M.config(sized)
    phases = (config.pretrain, config.train, config.finetune)
    assert [phase.steps for phase in phases] == [30 * 20, 20 * 200, 25 * 20]
    assert [phase.eval_every for phase in phases] == [20, 200, 20]
    assert config.train.clean_batch_size == 32
    unverified = MINI_WEBVISION.config(SimpleNamespace(**vars(sized) | {"num_classes": 50}))
    phases = (unverified.pretrain, unverified.train, unverified.finetune)
    assert [phase.steps for phase in phases] == [10 * 200, 300 * 200, 50 * 200]
    assert unverified.train.clean_batch_size is None
