"""Backbones: the pip-shipped weights are really ImageNet's, and features are cached safely."""

import numpy as np
import pytest
import torch
from torch import nn

from genkl import EFFICIENTNET_LITE0, extract_features, featurize, load_dataset
from genkl.backbones import Backbone, build_efficientnet_lite0, load_by_position, preprocess

CALLS = []


def tiny_module() -> nn.Module:
    CALLS.append(1)
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())


TINY = Backbone("tiny", tiny_module)
IMAGES = torch.randint(0, 256, (10, 1, 12, 12), dtype=torch.uint8, generator=torch.manual_seed(0))


@pytest.fixture(autouse=True)
def _no_calls_yet():
    CALLS.clear()


def run(cache, images=IMAGES, backbone=TINY, **options):
    return extract_features(images, backbone, cache_dir=cache, progress=False, size=8, **options)


def test_features_come_in_order_and_the_second_time_from_the_cache(tmp_path):
    first = run(tmp_path, batch_size=3)
    assert torch.allclose(first, tiny_module()(preprocess(IMAGES, 8, TINY)))
    CALLS.clear()
    assert torch.equal(run(tmp_path), first)
    assert not CALLS


def test_other_images_sizes_or_backbones_are_not_confused(tmp_path):
    run(tmp_path)
    changed = IMAGES.clone()
    changed[4, 0, 0, 0] ^= 1
    run(tmp_path, changed)
    run(tmp_path, backbone=Backbone("other", tiny_module))
    run(tmp_path, backbone=Backbone("tiny", tiny_module, mean=(0, 0, 0)))
    extract_features(IMAGES, TINY, cache_dir=tmp_path, progress=False, size=9)
    assert len(CALLS) == 5
    assert len(list(tmp_path.iterdir())) == 5


def test_a_damaged_cache_file_is_recomputed(tmp_path):
    first = run(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:20])
    assert torch.equal(run(tmp_path), first)
    assert len(CALLS) == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_computation_leaves_no_file(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, backbone=Backbone("stopped", interrupted))
    assert not list(tmp_path.glob("*"))


def test_the_cache_folder_can_be_set_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path / "there"))
    run(None)
    assert len(list((tmp_path / "there").iterdir())) == 1


def test_featurize_keeps_each_instance_with_its_features_whatever_the_split(tmp_path):
    by_id = []
    for seed in (0, 1):
        dataset, _ = load_dataset("digits", seed=seed)
        features = featurize(dataset, TINY, size=8, cache_dir=tmp_path, progress=False)
        direct = tiny_module()(preprocess(dataset.test.inputs, 8, TINY))
        assert torch.allclose(features.test.inputs, direct)
        assert torch.equal(features.test.labels, dataset.test.labels)
        by_id.append(dict(zip(features.test.ids.tolist(), features.test.inputs, strict=True)))
    shared = by_id[0].keys() & by_id[1].keys()
    assert shared
    assert all(torch.equal(by_id[0][i], by_id[1][i]) for i in shared)


def test_seeds_of_the_solar_cells_share_one_cache_file(tmp_path):
    for seed in (0, 1):
        dataset, _ = load_dataset("solar-cells", seed=seed)
        featurize(dataset, TINY, size=8, cache_dir=tmp_path, progress=False)
    assert len(CALLS) == 1


def test_preprocessing_scales_repeats_grey_and_normalises():
    white = torch.full((1, 1, 30, 30), 255, dtype=torch.uint8)
    result = preprocess(white, 10, TINY)
    assert result.shape == (1, 3, 10, 10)
    expected = [(1 - m) / s for m, s in zip(TINY.mean, TINY.std, strict=True)]
    assert np.allclose(result[0].mean(dim=(1, 2)).numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="images have shape"):
        preprocess(torch.zeros(1, 2, 5, 5), 10, TINY)


def test_shipped_weights_are_matched_by_position_and_checked():
    model = build_efficientnet_lite0()
    assert not model.training
    with torch.inference_mode():
        features = model(preprocess(IMAGES[:2], 64, EFFICIENTNET_LITE0))
    assert features.shape == (2, 1280)
    assert torch.isfinite(features).all()
    # Trained statistics, not an initialisation: running variances are far from 1.
    variances = [b for n, b in model.named_buffers() if n.endswith("running_var")]
    assert sum(float((v - 1).abs().mean() > 0.1) for v in variances) > 0.9 * len(variances)


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(RuntimeError, match="hold 1 tensors, the model needs 2"):
        load_by_position(nn.Linear(2, 3), {"w": torch.zeros(3, 2)})
    with pytest.raises(RuntimeError, match="weight w has shape \\(2, 3\\), but weight needs"):
        load_by_position(nn.Linear(2, 3), {"w": torch.zeros(2, 3), "b": torch.zeros(3)})
