"""Ambiguous or out of distribution: the evidence by hand, and the call on planted truth."""

import numpy as np
import pytest
import torch

from genkl import looks_ambiguous, nc_evidence, neighbor_distance


def test_evidence_counts_and_adds_dominant_entries():
    probs = np.array([[0.5, 0.3, 0.12, 0.08], [0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0]])
    evidence = nc_evidence(probs, 0.1)  # tau = .15
    assert evidence["dominant_entries"].tolist() == [2, 4, 1]
    assert evidence["dominant_mass"].tolist() == pytest.approx([0.8, 1, 1])
    assert evidence["top_two_mass"].tolist() == pytest.approx([0.8, 0.5, 1])
    assert evidence["peak"].tolist() == pytest.approx([0.5, 0.25, 1])
    assert "distance" not in evidence
    assert evidence.equals(nc_evidence(torch.from_numpy(probs), 0.1))


def test_distance_is_to_the_so_many_th_neighbour_by_direction():
    reference = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    asked = np.array([[5.0, 0.0], [1.0, 1.0]])
    assert neighbor_distance(asked, reference, 1) == pytest.approx([0, 1 - 0.5**0.5])
    assert neighbor_distance(asked, reference, 2) == pytest.approx([1, 1 - 0.5**0.5])
    assert neighbor_distance(asked, reference, 3) == pytest.approx([2, 1 + 0.5**0.5])


def test_planted_kinds_are_told_apart_by_predictions_and_by_distance():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 20))
    conforming = np.repeat(centres, 30, axis=0) + 0.1 * rng.normal(size=(180, 20))
    pairs = np.array([rng.choice(6, 2, replace=False) for _ in range(100)])
    blends = centres[pairs].mean(axis=1) + 0.1 * rng.normal(size=(100, 20))
    strangers = rng.normal(size=(100, 20))
    ambiguous = np.full((100, 6), 0.01)
    ambiguous[np.arange(100)[:, None], pairs] = 0.48
    spread = rng.dirichlet(np.full(6, 5.0), 100)
    evidence = nc_evidence(
        np.concatenate([ambiguous, spread]),
        0.05,
        features=np.concatenate([blends, strangers]),
        conforming_features=conforming,
    )
    truth = np.arange(200) < 100
    assert (looks_ambiguous(evidence) == truth).mean() > 0.95
    between = evidence["distance"][truth].median(), evidence["distance"][~truth].median()
    assert between[0] < between[1]
    by_distance = looks_ambiguous(evidence, max_distance=float(np.mean(between)))
    assert (by_distance == truth).mean() > 0.85


Q = np.full((3, 4), 0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": np.ones((3, 2))}, "together, or neither"),
        (
            {"features": np.ones((2, 2)), "conforming_features": np.ones((9, 2))},
            "features has 2 rows and pred_probs has 3",
        ),
        (
            {"features": np.ones((3, 2)), "conforming_features": np.ones((9, 3))},
            "as many columns",
        ),
        (
            {"features": np.ones((3, 2)), "conforming_features": np.ones((4, 2))},
            "neighbors is 5; choose from 1 to 4",
        ),
    ],
)
def test_evidence_refuses_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        nc_evidence(Q, 0.1, **options)


def test_calls_refuse_bad_input():
    with pytest.raises(ValueError, match="no distance; pass features"):
        looks_ambiguous(nc_evidence(Q, 0.1), max_distance=0.5)
    with pytest.raises(ValueError, match="min_top_two_mass is 0"):
        looks_ambiguous(nc_evidence(Q, 0.1), min_top_two_mass=0)
    with pytest.raises(ValueError, match=r"beta is 0\.3"):
        nc_evidence(Q, 0.3)
