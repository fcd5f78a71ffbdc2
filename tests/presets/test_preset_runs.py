"""The paper's presets, end to end: miniature trees in the official layouts, small networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from official_trees import write_clothing1m, write_food101, write_food101n, write_webvision

from genkl import (
    CLOTHING1M,
    FOOD101N,
    MINI_WEBVISION,
    Engine,
    Role,
    load_dataset,
    run_genkl,
    run_method,
    small_cnn,
)
from genkl.learn import Examples, draw_batches, fit

SMALL = (("resize", 16), ("random crop", 12), ("random flip", None))
SMALL_TEST = (("resize", 16), ("centre crop", 12))
CPU = Engine(accelerator="cpu", num_workers=0)


def miniature(preset, dataset, **changes):
    """A preset with an epoch per phase, small images and small ensembles."""
    short = {
        name: replace(recipe, epochs=1)
        for name in ("pretrain", "train", "finetune")
        if (recipe := getattr(preset, name)) is not None
    }
    preset = replace(
        preset,
        num_classes=dataset.num_classes,
        batch_size=8,
        first_ensemble=2,
        ensemble=1,
        train_transforms=SMALL,
        test_transforms=SMALL_TEST,
        **short,
        **changes,
    )
    return preset.config(dataset, max_rounds=1)


def load(name, root):
    if name == "clothing1m":
        write_clothing1m(root / "clothing1m")
        return load_dataset(name, data_root=root)[0], CLOTHING1M
    if name == "food101n":
        write_food101n(root / "Food-101N_release")
        write_food101(root / "food-101")
        return load_dataset(name, data_root=root)[0], FOOD101N
    write_webvision(root / "webvision")
    return load_dataset(name, data_root=root, validation_per_class=1)[0], MINI_WEBVISION


@pytest.mark.filterwarnings("ignore:round 1")  # grey squares can't tell what conforms
@pytest.mark.parametrize("name", ["clothing1m", "food101n", "mini-webvision"])
def test_a_preset_runs_from_files_to_a_classifier_and_again_from_its_folder(tmp_path, name):
    dataset, preset = load(name, tmp_path)
    config = miniature(preset, dataset)
    options = {"make_model": small_cnn, "engine": CPU, "progress": False}
    run = run_genkl(dataset, config, run_dir=tmp_path / "run", **options)
    best = run.best
    assert np.isfinite([best.test_accuracy, best.val_accuracy]).all()
    counts = best.role_counts
    assert counts["NON_NC"] + counts["NC"] == len(dataset.noisy)
    assert counts["CLEAN"] == len(dataset.clean)
    again = run_genkl(dataset, config, run_dir=tmp_path / "run", resume=True, **options)
    assert again.best.test_accuracy == best.test_accuracy
    assert np.array_equal(again.best.pred_probs, best.pred_probs)


def test_epochs_become_steps_and_clean_rows_come_beside_the_noisy_ones(tmp_path):
    dataset, preset = load("clothing1m", tmp_path)
    config = preset.config(dataset)
    noisy, clean = len(dataset.noisy), len(dataset.clean)
    assert (noisy, clean) == (42, 28)
    assert (config.train.steps, config.train.eval_every) == (20 * (noisy // 32), noisy // 32)
    assert (config.pretrain.steps, config.finetune.steps) == (30, 25)  # an epoch has a step
    assert (config.train.batch_size, config.train.clean_batch_size) == (32, 32)
    assert config.weights == preset.weights
    roles = np.repeat([Role.CLEAN, Role.NON_NC], [clean, noisy])
    draw = next(draw_batches(roles, config.train, 0))
    assert np.bincount(roles[draw.rows]).tolist() == [28, 32]  # there are only 28 clean ones


def test_a_preset_for_other_classes_is_refused(tmp_path):
    dataset, _ = load("clothing1m", tmp_path)
    with pytest.raises(ValueError, match="has 14 classes and this preset has num_classes = 101"):
        FOOD101N.config(dataset)


def test_the_networks_belief_makes_instances_clean():
    """Of two given labels the network believes the first: it alone enters the clean loss."""
    inputs = torch.eye(4).repeat(8, 1)
    given = torch.arange(4).repeat(8)
    lies = (given + 1) % 4
    wrong = torch.arange(32) >= 16
    given = torch.where(wrong, lies, given)
    model = torch.nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        model.weight.copy_(8 * torch.eye(4))  # sure of the class of every input
    examples = Examples(
        inputs, torch.full((32, 4), 0.25), torch.full((32,), int(Role.NC))
    ).with_given(given)
    from genkl import Phase
    from genkl.data.base import make_split

    validation = make_split(torch.eye(4), np.arange(4), np.arange(4))
    phase = Phase(steps=1, learning_rate=1e-9, batch_size=32)
    for threshold, expected in ((0.5, [False, True, False]), (1.0, [True, True, False])):
        result = fit(
            model, examples, phase, validation, seed=0, clean_threshold=threshold, engine="cpu"
        )
        losses = [result.history[0][f"{n}_loss"] for n in ("clean", "non_nc", "nc")]
        assert np.isnan(losses).tolist() == expected
    assert losses[2] > 1  # NC rows are taught to be unsure, and the network isn't
    with pytest.raises(ValueError, match="needs given labels"):
        fit(model, replace(examples, given=None), phase, validation, seed=0, clean_threshold=0.5)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_on_disk_are_learned_from_whatever_decodes_them(tmp_path, workers):
    dataset, preset = load("clothing1m", tmp_path)
    config = miniature(preset, dataset)
    runs = [
        run_method(
            "given labels",
            dataset,
            config,
            make_model=small_cnn,
            engine=Engine(accelerator="cpu", num_workers=number),
            progress=False,
        )
        for number in (0, workers)
    ]
    first, second = (repr(run.best.role_losses) for run in runs)  # NaN is not equal to itself
    assert first == second


def test_images_on_disk_need_transforms_or_a_backbone(tmp_path):
    dataset, preset = load("clothing1m", tmp_path)
    config = replace(miniature(preset, dataset), train_transforms=(), test_transforms=())
    with pytest.raises(ValueError, match="state train_transforms and test_transforms"):
        run_method("given labels", dataset, config, make_model=small_cnn, progress=False)


def test_an_image_that_breaks_later_is_named(tmp_path):
    dataset, preset = load("clothing1m", tmp_path)
    some = next((tmp_path / "clothing1m" / "images").rglob("*.jpg"))
    for path in (tmp_path / "clothing1m" / "images").rglob("*.jpg"):
        path.write_bytes(some.read_bytes()[:50])
    with pytest.raises(OSError, match=r"\.jpg"):
        run_method(
            "given labels",
            dataset,
            miniature(preset, dataset),
            make_model=small_cnn,
            engine=CPU,
            progress=False,
        )
