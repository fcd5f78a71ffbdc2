"""Pictures of the posterior: their curves are the package's, their verdicts the record's."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from figures.posterior import (
    against_each,
    double_hot_share,
    label_share,
    plot_label_share,
    plot_p_values,
    plot_reliability,
    verdict,
)
from hypothesis import given
from hypothesis import strategies as st

from genkl import double_hot, posterior_targets


@given(q_y=st.floats(0.01, 0.99), noise=st.floats(0.01, 0.99), k=st.integers(2, 20))
def test_the_curves_are_those_of_the_targets(q_y, noise, k):
    q = np.zeros((1, k))
    q[0, :2] = q_y, 1 - q_y
    given_label, uniform = np.array([0]), np.full(k, 1 / k)
    T = (1 - noise) * np.eye(k) + noise / k
    expected = posterior_targets(q, given_label, T)[0, 0]
    assert label_share(np.array([q_y]), noise, k)[0] == pytest.approx(expected)
    if abs(q_y - 0.5) > 1e-6:
        hot = double_hot(q, given_label, uniform)[0]
        assert double_hot_share(np.array([q_y]), k)[0] == pytest.approx(hot[0] / hot.sum())


def test_the_curves_are_named(ax):
    plot_label_share(ax, 10, (0.2, 0.4))
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["posterior, 20% random labels", "posterior, 40% random labels", "double-hot"]


def test_p_values_have_a_density_that_falls_and_ends_at_those_who_conform(ax):
    p_values = np.linspace(0.01, 1, 100) ** 2
    nones = 0.5 - p_values / 2
    plot_p_values(ax, p_values, nones)
    curve, level = ax.lines
    assert (np.diff(curve.get_ydata()) <= 0).all()
    assert curve.get_ydata()[-1] == pytest.approx(level.get_ydata()[0])


def test_groups_of_like_chance_lie_at_their_share(ax):
    nones = np.repeat([0.1, 0.9], 50)
    is_nc = np.concatenate([np.arange(50) < 10, np.arange(50) < 40])
    plot_reliability(ax, nones, is_nc, bins=2)
    said, true = ax.lines[1].get_data()
    assert said == pytest.approx([0.1, 0.9])
    assert true == pytest.approx([0.2, 0.8])


def test_the_registered_comparison_has_a_row_for_each_pair():
    row = {"title": "digits"}
    for at, other in enumerate(("GenKL", "GCE")):
        row |= {other: at, f"{other} low": at - 1, f"{other} high": at + 1}
    rows = against_each(pd.DataFrame([row]), ("GenKL", "GCE"))
    assert rows["method"].tolist() == ["less GenKL", "less GCE"]
    assert rows[["low", "difference", "high"]].to_numpy().tolist() == [[-1, 0, 1], [0, 1, 2]]


def test_the_verdict_counts_claims_and_names_those_that_fail():
    claims = pd.DataFrame({"claim": ["a", "b"], "figure": [0, 0], "holds": [True, False]})
    assert verdict(claims, 7, 7) == "1 of 2 claims hold on all of 7 data sets. What fails: b."
    told = verdict(claims.assign(holds=True), 3, 7)
    assert told == "2 of 2 claims hold on the 3 measured so far of 7 data sets."
