"""Planted noise: its shares, its truth, and nothing else changed."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genkl import Kind, NoisyDataset, Truth, label_strangers, load_dataset
from genkl.data.base import make_split
from genkl.data.images import ImageTensor
from genkl.data.planting import plant_confusion, plant_noise
from genkl.data.solar_cells import load_solar_cells
from genkl.data.statistics import count_kinds, count_labels, noise_matrix


def toy(num_noisy=400, k=4, channels=3, dtype=torch.uint8, seed=0):
    """Images whose pixels tell their id; every label is right."""
    rng = np.random.default_rng(seed)
    start, splits, true = 0, {}, {}
    for name, count in (("clean", 8), ("noisy", num_noisy), ("validation", 8), ("test", 8)):
        ids = np.arange(start, start + count)
        true[name] = rng.integers(0, k, count)
        pixels = torch.as_tensor(ids % 251).reshape(-1, 1, 1, 1).expand(-1, channels, 6, 4)
        inputs = pixels.to(torch.uint8) if dtype == torch.uint8 else pixels.float() / 255
        splits[name] = make_split(inputs.clone(), true[name], ids)
        start += count
    dataset = NoisyDataset("toy", tuple("abcd"[:k]), **splits)
    kinds = np.full(num_noisy, Kind.CORRECT)
    return dataset, Truth(kinds, true["noisy"], "by hand", splits["noisy"].ids.numpy())


STRANGERS = torch.full((300, 1, 9, 9), 255, dtype=torch.uint8)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.floats(0, 0.35), st.floats(0, 0.35), st.integers(0, 9))
def test_shares_are_those_of_the_resulting_split(label_noise, ood_share, ambiguous_share, seed):
    dataset, truth = toy()
    noisier, told = plant_noise(
        dataset, truth, seed=seed, label_noise=label_noise, ood=STRANGERS, ood_share=ood_share,
        ambiguous_share=ambiguous_share,
    )  # fmt: skip
    size = len(noisier.noisy)
    counts = np.bincount(told.kinds, minlength=4)
    assert abs(counts[Kind.OOD] - ood_share * size) <= 1
    assert abs(counts[Kind.AMBIGUOUS] - ambiguous_share * size) <= 1
    plain = counts[Kind.CORRECT] + counts[Kind.MISLABELLED]
    assert counts[Kind.MISLABELLED] == round(label_noise * plain)
    assert len(dataset.noisy) == plain + 2 * counts[Kind.AMBIGUOUS]
    given_labels = noisier.noisy.labels.numpy()
    assert np.array_equal(
        told.kinds == Kind.MISLABELLED, (given_labels != told.labels) & (told.labels >= 0)
    )
    assert (told.labels[told.is_nc] == -1).all()
    assert noisier.clean is dataset.clean
    assert noisier.test is dataset.test


def test_what_the_truth_says_is_what_the_images_show():
    dataset, truth = toy()
    noisier, told = plant_noise(
        dataset, truth, seed=3, label_noise=0.2, ood=STRANGERS, ood_share=0.1, ambiguous_share=0.1
    )
    images, ids = noisier.noisy.inputs, noisier.noisy.ids.numpy()
    assert images.dtype == torch.uint8
    assert np.array_equal(told.ids, ids)
    assert (images[told.kinds == Kind.OOD] == 255).all()
    plain = told.kinds <= Kind.MISLABELLED
    assert np.array_equal(images[plain][:, 0, 0, 0].numpy(), ids[plain] % 251)
    source = dict(zip(dataset.noisy.ids.tolist(), truth.labels.tolist(), strict=True))
    assert [source[i] for i in ids[plain]] == told.labels[plain].tolist()
    consumed = set(dataset.noisy.ids.tolist()) - set(ids[plain].tolist())
    assert len(consumed) == 2 * (told.kinds == Kind.AMBIGUOUS).sum()
    assert ids[~plain].min() > max(int(split.ids.max()) for split in dataset.splits().values())
    by_class = {c: {i % 251 for i in consumed if source[i] == c} for c in range(4)}
    for row in np.flatnonzero(told.kinds == Kind.AMBIGUOUS):
        value, label = int(images[row, 0, 0, 0]), int(noisier.noisy.labels[row])
        others = set().union(*(by_class[c] for c in range(4) if c != label))
        assert any(round((a + b) / 2) == value for a in by_class[label] for b in others)


def test_images_of_another_size_and_type_are_brought_to_the_data_sets_own():
    dataset, truth = toy(channels=1, dtype=torch.float32)
    colourful = ImageTensor(torch.rand(50, 3, 20, 10))
    noisier, told = plant_noise(dataset, truth, ood=colourful, ood_share=0.1)
    added = noisier.noisy.inputs[torch.from_numpy(told.kinds == Kind.OOD)]
    assert added.shape[1:] == (1, 6, 4)
    assert added.dtype == torch.float32
    assert 0 < added.mean() < 1


def test_a_real_data_set_takes_another_one_as_strangers():
    cells, truth = load_solar_cells(0)
    digits, _ = load_dataset("digits", num_ambiguous=0, num_ood=0)
    noisier, told = plant_noise(cells, truth, ood=digits.noisy.inputs, ood_share=0.05, seed=1)
    assert noisier.noisy.inputs.shape[1:] == (1, 300, 300)
    assert (told.kinds == Kind.OOD).sum() == round(0.05 * len(told))
    assert (told.kinds == Kind.AMBIGUOUS).sum() == 401


def test_same_seed_same_noise():
    first, _ = plant_noise(*toy(), seed=1, label_noise=0.3, ambiguous_share=0.1)
    same, _ = plant_noise(*toy(), seed=1, label_noise=0.3, ambiguous_share=0.1)
    second, _ = plant_noise(*toy(), seed=2, label_noise=0.3, ambiguous_share=0.1)
    assert torch.equal(first.noisy.labels, same.noisy.labels)
    assert torch.equal(first.noisy.inputs, same.noisy.inputs)
    assert not torch.equal(first.noisy.labels, second.noisy.labels)


@given(st.integers(2, 6), st.integers(0, 60), st.integers(0, 99))
def test_confusion_gives_the_counts_of_its_matrix(k, size, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.dirichlet(np.ones(k), k)
    labels = rng.integers(0, k, size)
    noisy = plant_confusion(labels, matrix, rng)
    for label in range(k):
        expected = matrix[label] * (labels == label).sum()
        counts = np.bincount(noisy[labels == label], minlength=k)
        assert (abs(counts - expected) < 1).all()
    assert np.array_equal(plant_confusion(labels, np.eye(k), rng), labels)


def test_planted_confusion_is_found_again_in_the_noise_matrix():
    dataset, truth = toy(num_noisy=4000)
    matrix = np.full((4, 4), 0.1) + 0.6 * np.eye(4)
    noisier, told = plant_noise(dataset, truth, label_noise=matrix)
    assert np.allclose(noise_matrix(noisier, told), matrix, atol=0.002)
    kinds = count_kinds(noisier, told)
    assert list(kinds.columns) == ["correct", "mislabelled"]
    assert kinds.to_numpy().sum() == 4000
    assert count_labels(noisier).sum().tolist() == [8, 4000, 8, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_noise": 1.5}, "label_noise is 1.5"),
        ({"ood_share": 0.1}, "ood is None; pass the images"),
        ({"ood_share": 1.0, "ood": STRANGERS}, "ood_share is 1.0"),
        ({"ood_share": 0.9, "ood": STRANGERS}, "ood has 300; ask for fewer"),
        ({"label_noise": np.eye(3)}, "label_noise has 3 rows; the data set has 4 classes"),
        ({"label_noise": np.ones((4, 4))}, r"confusion\[0\] sums to 4"),
        ({"ood_labels": "nearest"}, "unknown ood_labels 'nearest'"),
        (
            {"ood": STRANGERS, "ood_share": 0.1, "ood_labels": np.arange(3)},
            r"ood_labels has shape \(3,\); expected \(44,\)",
        ),
    ],
)
def test_impossible_noise_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plant_noise(*toy(), **options)


def test_only_correct_instances_are_blended():
    dataset, truth = plant_noise(*toy(), label_noise=0.8)
    with pytest.raises(ValueError, match="67 blends need 134 correct instances, and there are 80"):
        plant_noise(dataset, truth, ambiguous_share=0.2)


def test_blends_need_two_classes():
    dataset, truth = toy(num_noisy=40, k=1)
    with pytest.raises(ValueError, match="too many correct instances are of one class"):
        plant_noise(dataset, truth, ambiguous_share=0.2)


def test_noise_is_planted_before_features_are_computed():
    dataset, truth = toy()
    features = dataset.map_inputs(lambda images: images.float().flatten(1))
    with pytest.raises(ValueError, match="before features are computed"):
        plant_noise(features, truth, ood=STRANGERS, ood_share=0.1)


def test_strangers_may_be_an_array_and_are_never_the_letters_of_a_path():
    dataset, truth = load_dataset("digits")
    strangers = np.zeros((200, 1, 8, 8), np.uint8)
    from_array, _ = plant_noise(dataset, truth, ood=strangers, ood_share=0.1)
    from_tensor, _ = plant_noise(dataset, truth, ood=torch.from_numpy(strangers), ood_share=0.1)
    assert torch.equal(from_array.noisy.inputs, from_tensor.noisy.inputs)
    with pytest.raises(ValueError, match="ood is 'photos/Shoes', which holds no images"):
        plant_noise(dataset, truth, ood="photos/Shoes", ood_share=0.1)


WAYS = ("random", "nearest class", "predictor")


def grey_of_class(label, rng):
    """An image whose grey says its class, and strangers that look like one, too."""
    return np.clip(60 * label + rng.integers(0, 20, (6, 4)), 0, 255).astype(np.uint8)


def grey_set(seed=0, num_noisy=200):
    rng = np.random.default_rng(seed)
    start, splits, true = 0, {}, {}
    for name, count in (("clean", 8), ("noisy", num_noisy), ("validation", 8), ("test", 80)):
        true[name] = np.arange(count) % 4
        images = np.stack([grey_of_class(label, rng) for label in true[name]])[:, None]
        splits[name] = make_split(torch.from_numpy(images), true[name], start + np.arange(count))
        start += count
    looks = rng.integers(0, 4, 60)
    strangers = np.stack([grey_of_class(label, rng) for label in looks])[:, None]
    dataset = NoisyDataset("grey", tuple("abcd"), **splits)
    truth = Truth(np.zeros(num_noisy, int), true["noisy"], "by hand", splits["noisy"].ids.numpy())
    return dataset, truth, strangers


def test_only_the_strangers_labels_depend_on_how_they_are_given():
    dataset, truth, strangers = grey_set()
    options = {"ood": strangers, "ood_share": 0.2, "label_noise": 0.3, "ambiguous_share": 0.1}
    made = {way: plant_noise(dataset, truth, ood_labels=way, **options) for way in WAYS}
    first, told = made["random"]
    strange = told.kinds == Kind.OOD
    for way, (noisier, truth_there) in made.items():
        assert torch.equal(noisier.noisy.inputs, first.noisy.inputs)
        assert np.array_equal(truth_there.kinds, told.kinds)
        plain = noisier.noisy.labels.numpy()[~strange]
        assert np.array_equal(plain, first.noisy.labels.numpy()[~strange])
        assert truth_there.source == f"by hand, and planted; strangers' labels: {way}"
    usual, _ = plant_noise(dataset, truth, **options)
    assert torch.equal(usual.noisy.labels, made["nearest class"][0].noisy.labels)
    # What they look like is what a plausible label says.
    looks = first.noisy.inputs.float().mean(dim=(1, 2, 3)).numpy()[strange] // 60
    agree = {way: (m[0].noisy.labels.numpy()[strange] == looks).mean() for way, m in made.items()}
    assert agree["nearest class"] == 1
    assert agree["predictor"] > 0.9
    assert agree["random"] < 0.5
    stated = np.arange(strange.sum()) % 4
    given, told = plant_noise(dataset, truth, ood_labels=stated, **options)
    assert given.noisy.labels.numpy()[strange].tolist() == stated.tolist()
    assert told.source.endswith("stated")


@pytest.mark.parametrize("wrap", [lambda x: x, ImageTensor])
def test_the_nearest_class_is_that_of_the_nearest_conforming_image(wrap):
    """By brute force, on features or pixels; wrong given labels and strangers don't count."""
    rng = np.random.default_rng(3)
    dataset, truth, strangers = grey_set()
    noisier, told = plant_noise(dataset, truth, label_noise=0.5, ood=strangers, ood_share=0.2)
    images = torch.from_numpy(rng.integers(0, 256, (len(told), 1, 16, 16)).astype(np.uint8))
    noisy = make_split(wrap(images), noisier.noisy.labels.numpy(), told.ids)
    found, source = label_strangers(dataclasses.replace(noisier, noisy=noisy), told)
    rows = images.flatten(1).double().numpy()
    known = np.flatnonzero(told.labels >= 0)
    for row, label in enumerate(found.noisy.labels.tolist()):
        if told.is_nc[row]:
            distance = np.linalg.norm(rows[known] - rows[row], axis=1)
            assert label == told.labels[known[distance.argmin()]]
        else:
            assert label == int(noisier.noisy.labels[row])
    assert source.source.count("strangers' labels") == 1


def test_drawn_labels_follow_the_predictors_belief():
    """Strangers half way between two classes get either label; those of one class, that one."""
    dataset, truth, _ = grey_set()
    between = np.full((200, 1, 6, 4), 100, np.uint8)  # of class 1 there are 60 to 79, of 2 120 on
    noisier, told = plant_noise(
        dataset, truth, ood=between, ood_share=0.5, ood_labels="predictor", seed=1
    )
    labels = noisier.noisy.labels.numpy()[told.kinds == Kind.OOD]
    shares = np.bincount(labels, minlength=4) / len(labels)
    assert shares[[1, 2]].min() > 0.2
    assert shares[[1, 2]].sum() > 0.6
    empty = dataclasses.replace(dataset, test=dataset.test.take(np.arange(0)))
    with pytest.raises(ValueError, match="the test split of grey is empty"):
        plant_noise(empty, truth, ood=between, ood_share=0.5, ood_labels="predictor")
    unknown = dataclasses.replace(truth, labels=np.full(200, -1), kinds=np.full(200, Kind.UNKNOWN))
    with pytest.raises(ValueError, match="no noisy instance is known to conform"):
        plant_noise(dataset, unknown, ood=between, ood_share=0.5)


def test_every_planted_set_states_how_strangers_got_their_labels():
    _, truth = load_dataset("digits")
    assert truth.source == "planted; strangers' labels: random"
