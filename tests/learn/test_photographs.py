"""From image files to a trained classifier with the call that digits take."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from genkl import (
    PHOTOGRAPHS,
    get_backbone,
    load_dataset,
    pretrain_models,
    run_genkl,
    run_method,
    small_cnn,
)
from genkl.features import Backbone
from tests.data.test_open_datasets import NEEDS, write_clothing
from tests.official_trees import write_clothing1m, write_food101, write_food101n

TINY = replace(
    PHOTOGRAPHS,
    first_ensemble=1,
    ensemble=1,
    max_rounds=1,
    pretrain=replace(PHOTOGRAPHS.pretrain, steps=10),
    train=replace(PHOTOGRAPHS.train, steps=10),
    finetune=replace(PHOTOGRAPHS.finetune, steps=2),
)


class Means(nn.Module):
    """A backbone of three features, the mean of each colour, that counts what it sees."""

    seen = 0

    def forward(self, images):
        type(self).seen += len(images)
        return images.mean(dim=(2, 3))


EYES = Backbone("means of colours", Means, size=8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path / "cache"))
    Means.seen = 0


def test_one_call_goes_from_files_to_a_classifier(tmp_path):
    write_clothing(tmp_path / "clothing-dataset")
    dataset, truth = load_dataset("clothing-dataset", data_root=tmp_path, **NEEDS)
    run = run_genkl(dataset, TINY, progress=False)
    assert run.features.startswith("efficientnet-lite0")
    assert run.best.role_counts["CLEAN"] == len(dataset.clean)
    assert run.best.is_nc.shape == truth.kinds.shape
    assert np.isfinite(run.best.test_accuracy)


@pytest.mark.filterwarnings("ignore:round 1")  # three colours can't tell what conforms
def test_the_papers_data_sets_take_the_same_call(tmp_path):
    write_clothing1m(tmp_path / "clothing1m")
    write_food101n(tmp_path / "Food-101N_release")
    write_food101(tmp_path / "food-101")
    for name in ("clothing1m", "food101n"):
        dataset, _ = load_dataset(name, data_root=tmp_path)
        config = replace(TINY, beta=0.001)
        run = run_genkl(dataset, config, backbone=EYES, progress=False)
        assert run.dataset == name
        assert run.features.startswith("means of colours")


def test_features_are_computed_once_for_all_that_learn_from_them(tmp_path):
    write_clothing(tmp_path / "clothing-dataset")
    dataset, _ = load_dataset("clothing-dataset", data_root=tmp_path, **NEEDS)
    models = pretrain_models(dataset, TINY, backbone=EYES)
    first = Means.seen
    assert first > 0
    run_genkl(dataset, TINY, backbone=EYES, predictor=models, progress=False)
    run_method("given labels", dataset, TINY, backbone=EYES, progress=False)
    other_seed, _ = load_dataset("clothing-dataset", seed=1, data_root=tmp_path, **NEEDS)
    run_method("given labels", other_seed, TINY, backbone=EYES, progress=False)
    assert Means.seen < 1.6 * first  # only images that the first seed left out


def test_digits_are_learned_from_as_they_are():
    dataset, _ = load_dataset("digits")
    assert run_method("given labels", dataset, TINY, progress=False).features is None


def test_a_network_of_ones_own_gets_the_images_themselves():
    dataset, _ = load_dataset("digits")
    as_bytes = dataset.map_inputs(lambda images: (255 * images).to(torch.uint8))
    run = run_method("given labels", as_bytes, TINY, make_model=small_cnn, progress=False)
    assert run.features is None
    assert run_method("given labels", as_bytes, TINY, backbone=EYES, progress=False).features


def test_a_split_that_is_missing_is_said_before_any_image_is_read(tmp_path):
    for name in ("ape/1.png", "bee/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("no image")
    dataset, _ = load_dataset("folder", folder=tmp_path)
    with pytest.raises(ValueError, match=r"the clean split .* is empty.*verify some"):
        run_genkl(dataset, TINY, progress=False)


def test_the_name_of_a_backbone_is_not_a_backbone():
    dataset, _ = load_dataset("digits")
    with pytest.raises(ValueError, match=r"pass 'auto', None, or get_backbone\('resnet18'\)"):
        run_genkl(dataset, TINY, backbone="resnet18", progress=False)
    assert get_backbone("resnet18", weights=None).name
