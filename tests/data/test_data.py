"""Data: splits never share an instance, planted noise is what its truth says it is."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits as sklearn_digits

from genkl import Kind, NoisyDataset, Role, Truth, load_dataset
from genkl.data.base import NON_CONFORMING, make_split
from genkl.data.planting import blend_pairs, plant_label_noise
from genkl.data.solar_cells import read_elpv
from genkl.data.splitting import take_stratified

SOURCE = sklearn_digits()


@pytest.fixture(scope="module")
def digits() -> tuple[NoisyDataset, Truth]:
    return load_dataset("digits", seed=0)


@pytest.fixture(scope="module")
def solar() -> tuple[NoisyDataset, Truth]:
    return load_dataset("solar-cells", seed=0)


def test_splits_are_stratified_and_share_no_instance(digits):
    dataset, _ = digits
    for name, per_class in (("clean", 8), ("validation", 25), ("test", 50)):
        counts = torch.bincount(getattr(dataset, name).labels)
        assert counts.tolist() == [per_class] * 8
    ids = torch.cat([split.ids for split in dataset.splits().values()])
    assert len(ids) == len(ids.unique())


def test_ids_lead_back_to_the_source_image(digits):
    dataset, truth = digits
    real = dataset.noisy.ids < len(SOURCE.target)
    sources = dataset.noisy.ids[real].numpy()
    images = dataset.noisy.inputs[real].numpy()[:, 0]
    assert np.allclose(images * 16, SOURCE.images[sources])
    kinds, digits_there = truth.kinds[real.numpy()], SOURCE.target[sources]
    assert (digits_there[kinds == Kind.OOD] >= 8).all()
    assert (digits_there[kinds <= Kind.MISLABELLED] < 8).all()


def test_truth_says_which_given_labels_are_right(digits):
    dataset, truth = digits
    given_labels = dataset.noisy.labels.numpy()
    plain = truth.kinds <= Kind.MISLABELLED
    right = given_labels[plain] == truth.labels[plain]
    assert np.array_equal(right, truth.kinds[plain] == Kind.CORRECT)
    assert (~right).mean() == pytest.approx(0.4, abs=1 / plain.sum())
    assert (truth.labels[~plain] == -1).all()
    assert (truth.kinds == Kind.OOD).sum() == 160
    assert (truth.kinds == Kind.AMBIGUOUS).sum() == 80
    assert truth.is_nc.sum() == 240


def test_a_blend_is_the_mean_of_two_images_that_appear_nowhere_else(digits):
    dataset, truth = digits
    used = torch.cat([split.ids for split in dataset.splits().values()]).numpy()
    unused = np.setdiff1d(np.flatnonzero(SOURCE.target < 8), used)
    assert len(unused) == 160
    row = np.flatnonzero(truth.kinds == Kind.AMBIGUOUS)[0]
    blend = dataset.noisy.inputs[row, 0].numpy() * 16
    halves = SOURCE.images[unused]
    matches = [
        (i, j)
        for i in range(len(unused))
        for j in np.flatnonzero(np.abs(halves[i] / 2 + halves / 2 - blend).max(axis=(1, 2)) < 1e-4)
        if i < j
    ]
    assert len(matches) == 1
    pair = SOURCE.target[unused[list(matches[0])]]
    assert pair[0] != pair[1]
    assert dataset.noisy.labels[row].item() in pair


def test_same_seed_same_data_and_other_seed_other_data(digits):
    again, _ = load_dataset("digits", seed=0)
    other, _ = load_dataset("digits", seed=1)
    assert torch.equal(digits[0].noisy.inputs, again.noisy.inputs)
    assert torch.equal(digits[0].noisy.labels, again.noisy.labels)
    assert not torch.equal(digits[0].clean.ids, other.clean.ids)


@given(
    st.integers(2, 12), st.floats(0, 1), st.integers(0, 100), st.sampled_from(["symmetric", "pair"])
)
def test_planted_label_noise_has_its_rate_and_a_changed_label_is_wrong(k, rate, seed, kind):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, 80)
    noisy = plant_label_noise(labels, k, rate, rng, kind)
    assert (noisy != labels).sum() == round(rate * 80)
    assert ((noisy >= 0) & (noisy < k)).all()
    if kind == "pair":
        changed = noisy != labels
        assert np.array_equal(noisy[changed], (labels[changed] + 1) % k)


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 100))
def test_blended_pairs_have_two_classes_and_use_an_image_once(labels, seed):
    labels = np.array(labels, dtype=np.int64)
    images = 2.0 ** np.arange(len(labels))  # a sum tells which two were used
    blends, classes = blend_pairs(images, labels, np.random.default_rng(seed))
    assert (classes[:, 0] != classes[:, 1]).all() if len(classes) else True
    bits = [int(2 * blend) for blend in blends]
    assert all(bit.bit_count() == 2 for bit in bits)
    assert sum(bits).bit_count() == 2 * len(bits)
    used = sum(bits)
    left = labels[[not used >> i & 1 for i in range(len(labels))]] if len(labels) else labels
    assert len(np.unique(left)) <= 1  # no further pair can be formed


def test_solar_cells_hold_the_experts_doubt_as_truth(solar):
    dataset, truth = solar
    _, grades, types = read_elpv()
    ids = dataset.noisy.ids.numpy()
    doubtful = (grades[ids] > 0.1) & (grades[ids] < 0.9)
    assert np.array_equal(truth.kinds == Kind.AMBIGUOUS, doubtful)
    assert doubtful.sum() == 401
    expected = 2 * (types[ids] == "poly") + (grades[ids] > 0.5)
    assert np.array_equal(dataset.noisy.labels.numpy(), expected)
    for name in ("clean", "validation", "test"):
        sure = grades[getattr(dataset, name).ids.numpy()]
        assert set(np.unique(sure)) == {0.0, 1.0}
    assert dataset.noisy.inputs.dtype == torch.uint8
    assert len({i for s in dataset.splits().values() for i in s.ids.tolist()}) == 2624


def test_every_loader_keeps_truth_out_of_the_data_set():
    for name in ("digits", "solar-cells"):
        dataset, truth = load_dataset(name, seed=1)
        assert not any(isinstance(value, Truth) for value in vars(dataset).values())
        assert len(truth.kinds) == len(truth.labels) == len(dataset.noisy)


def test_map_inputs_changes_inputs_and_nothing_else(digits):
    flat = digits[0].map_inputs(lambda images: images.flatten(1))
    assert flat.input_shape == (64,)
    assert torch.equal(flat.noisy.labels, digits[0].noisy.labels)


def test_unknown_data_set_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown data set 'mnist'; choose one of: digits, solar"):
        load_dataset("mnist")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"label_noise": 1.5}, "label_noise is 1.5"),
        ("digits", {"noise_kind": "flip"}, "unknown noise_kind 'flip'"),
        ("digits", {"num_ood": 355}, "num_ood is 355; there are 0 to 354"),
        ("digits", {"num_ambiguous": 400}, "num_ambiguous is 400; .* at most"),
        ("digits", {"test_per_class": 500}, "class 0 has .* ask for fewer"),
        ("solar-cells", {"label_noise": -0.1}, "label_noise is -0.1"),
        ("solar-cells", {"test_per_class": 5000}, "ask for fewer"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(name, **options)


def split(labels, start=0):
    return make_split(
        np.zeros((len(labels), 2)), np.array(labels), np.arange(start, start + len(labels))
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noisy": split([], 50)}, "the noisy split of toy is empty"),
        ({"noisy": split([0, 2], 50)}, "noisy.labels\\[1\\] is 2, outside 0..1"),
        ({"test": split([0, 1], 0)}, "instance 0 of toy is in clean and in test"),
    ],
)
def test_a_data_set_that_cannot_be_learned_from_is_refused(changed, message):
    good = {
        "clean": split([0, 1], 0), "noisy": split([0, 1], 10),
        "validation": split([0, 1], 20), "test": split([0, 1], 30),
    }  # fmt: skip
    NoisyDataset("toy", ("a", "b"), **good)
    with pytest.raises(ValueError, match=message):
        NoisyDataset("toy", ("a", "b"), **{**good, **changed})


def test_stratified_draw_has_as_many_of_each_and_only_available_ones():
    labels, available = np.repeat([0, 1], 10), np.arange(5, 15)
    drawn = take_stratified(labels, available, 3, np.random.default_rng(0))
    assert np.bincount(labels[drawn]).tolist() == [3, 3]
    assert set(drawn) <= set(available)


def test_roles_and_kinds_are_different_things():
    assert [kind.name for kind in NON_CONFORMING] == ["AMBIGUOUS", "OOD", "NC"]
    assert [role.name for role in Role] == ["CLEAN", "NON_NC", "NC"]
