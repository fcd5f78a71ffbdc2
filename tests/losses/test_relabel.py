"""Relabelling: ratios, double-hot targets, roles (oracles, properties, bad input)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from genkl import Published, Role, double_hot, relabel_instances, reverse_class_ratio
from genkl.relabel import verified

counts = hnp.arrays(np.int64, st.integers(2, 40), elements=st.integers(1, 10**6))


@given(counts)
def test_reverse_class_ratio_is_normalised_and_inverse_to_the_counts(n):
    w = reverse_class_ratio(n)
    assert w.sum() == pytest.approx(1)
    assert np.allclose(w * n, w[0] * n[0])  # every class carries the same total weight


@given(counts)
def test_counts_come_back_from_the_ratio(n):
    w = reverse_class_ratio(n)
    assert np.allclose(n[0] * w[0] / w, n)


@given(st.integers(0, 1000), st.integers(2, 20))
def test_double_hot_has_its_two_entries_and_no_other(seed, k):
    rng = np.random.default_rng(seed)
    q, y = rng.dirichlet(np.ones(k), 30), rng.integers(0, k, 30)
    w = reverse_class_ratio(rng.integers(1, 100, k))
    targets = double_hot(q, y, w)
    for row in range(30):
        expected = np.zeros(k)
        expected[y[row]] += w[y[row]]
        expected[q[row].argmax()] += q[row].max()
        assert np.allclose(targets[row], expected, rtol=0, atol=1e-15)


def test_each_row_uses_the_weight_of_its_own_label():
    # Broadcasting the weights along the wrong axis would give both rows the same pair.
    q = np.array([[0.2, 0.8], [0.2, 0.8]])
    targets = double_hot(q, np.array([0, 1]), np.array([0.9, 0.1]))
    assert targets.tolist() == [[0.9, 0.8], [0.0, pytest.approx(0.9)]]


@pytest.mark.parametrize("flags", [[True, False, True], [False] * 3, [True] * 3])
def test_every_instance_gets_its_target_and_role(flags):
    q = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3]])
    y, w, flags = np.array([0, 1, 2]), np.array([0.5, 0.3, 0.2]), np.array(flags)
    result = relabel_instances(q, y, flags, w)
    assert (result.roles == np.where(flags, Role.NC, Role.NON_NC)).all()
    assert np.allclose(result.targets[flags], 1 / 3)
    assert np.array_equal(result.targets[~flags], double_hot(q, y, w)[~flags])


def test_torch_in_torch_out():
    q, y = torch.tensor([[0.7, 0.3], [0.4, 0.6]]), torch.tensor([1, 1])
    w = reverse_class_ratio(torch.tensor([3, 1]))
    result = relabel_instances(q, y, torch.tensor([False, True]), w)
    assert isinstance(w, torch.Tensor)
    assert isinstance(result.targets, torch.Tensor)
    assert result.roles.tolist() == [Role.NON_NC, Role.NC]
    assert torch.allclose(result.targets, torch.tensor([[0.7, 0.75], [0.5, 0.5]]).double())


def test_verified_labels_are_one_hot_and_clean():
    result = verified(torch.tensor([2, 0]), 3)
    assert result.targets.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert result.roles.tolist() == [Role.CLEAN, Role.CLEAN]


@pytest.mark.parametrize(
    ("class_counts", "message"),
    [
        ([3, 0, 5], "class_counts\\[1\\] is 0; every class needs"),
        ([3, -2], "class_counts\\[1\\] is -2"),
        ([3.0, np.nan], "class_counts\\[1\\] is nan"),
        ([3], "class_counts has shape \\(1,\\)"),
        ([[1, 2]], "class_counts has shape \\(1, 2\\)"),
    ],
)
def test_bad_class_counts_are_named(class_counts, message):
    with pytest.raises(ValueError, match=message):
        reverse_class_ratio(np.array(class_counts))


Q = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
W = np.full(3, 1 / 3)


@pytest.mark.parametrize(
    ("labels", "ratio", "message"),
    [
        (np.array([0, 3]), W, "given_labels\\[1\\] is 3, outside 0..2"),
        (np.array([-1, 0]), W, "given_labels\\[0\\] is -1"),
        (np.array([0]), W, "given_labels has shape \\(1,\\); expected \\(2,\\)"),
        (np.array([0, 1]), W[:, None], "class_ratio has shape \\(3, 1\\)"),
        (np.array([0, 1]), W[:2], "class_ratio has shape \\(2,\\)"),
    ],
)
def test_bad_labels_and_ratios_are_named(labels, ratio, message):
    with pytest.raises(ValueError, match=message):
        double_hot(Q, labels, ratio)


def test_labels_that_are_not_integers_and_masks_that_are_not_boolean_are_refused():
    with pytest.raises(TypeError, match="given_labels has dtype float64"):
        double_hot(Q, np.array([0.0, 1.0]), W)
    with pytest.raises(TypeError, match="is_nc has dtype int64"):
        relabel_instances(Q, np.array([0, 1]), np.array([0, 1]), W)
    with pytest.raises(ValueError, match="is_nc has shape"):
        relabel_instances(Q, np.array([0, 1]), np.array([True]), W)


def test_the_part_that_mixup_keeps_is_the_given_label_s_and_none_of_an_nc_instance():
    probs, ratio = np.array([[0.1, 0.7, 0.2], [0.3, 0.3, 0.4]]), np.array([0.2, 0.3, 0.5])
    made = relabel_instances(
        probs,
        np.array([2, 0]),
        np.array([False, True]),
        ratio,
        published_behaviour=Published.MIXUP_KEEPS_OWN_RATIO,
    )
    assert np.allclose(made.kept_part, [[0, 0, 0.5], [0, 0, 0]])
