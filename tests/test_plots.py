"""General plots: they show the numbers they are given, with labels, in one colour per method."""

import sys

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from drawn import FRAME, SCORES, TRUTH
from matplotlib.colors import to_hex

from genkl import Kind, plots


def test_the_book_style_stays_in_the_process_and_needs_matplotlib(monkeypatch):
    with matplotlib.rc_context():
        plots.use_book_style()
        assert matplotlib.rcParams["figure.constrained_layout.use"]
        assert not matplotlib.rcParams["axes.spines.top"]
        assert matplotlib.rcParams["axes.labelsize"] == 12
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'genkl\[plots\]'"):
        plots.use_book_style()


def test_boxes_are_labelled_with_the_share_that_is_flagged(ax):
    plots.plot_scores_by_kind(ax, SCORES, TRUTH, 0.5, "score")
    texts = [text.get_text() for text in ax.texts]
    assert texts[:4] == ["0%", "0%", "100%", "100%"]
    expected = [plots.KIND_NAMES[kind] for kind in Kind if (TRUTH.kinds == kind).any()]
    assert [t.get_text() for t in ax.get_yticklabels()] == expected


def test_a_perfect_score_has_a_perfect_curve(ax):
    plots.plot_roc(ax, {"entropy": TRUTH.is_nc.astype(float)}, TRUTH)
    assert {(0.0, 1.0)} <= set(zip(*ax.lines[0].get_data(), strict=True))
    assert to_hex(ax.lines[0].get_color()) == plots.METHOD_COLORS["entropy"].lower()


def test_methods_show_their_mean_in_percent_top_down_in_order(ax):
    plots.plot_methods(ax, FRAME, "test_accuracy", "test accuracy (%)")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["given labels", "GenKL"]
    assert {a.get_text() for a in ax.texts} == {"92.0", "80.0"}
    assert ax.get_xlabel() == "test accuracy (%)"


def test_rounds_follow_the_means(ax):
    plots.plot_rounds(ax, FRAME, "test_accuracy", "accuracy (%)")
    line = next(entry for entry in ax.lines if entry.get_label() == "GenKL")
    assert np.allclose(line.get_ydata(), [90, 94])


def test_tables_show_mean_and_spread():
    columns = pd.MultiIndex.from_product([["x"], ["mean", "std"]])
    table = pd.DataFrame([[0.5, 0.01], [np.nan, np.nan], [0.25, np.nan]], columns=columns)
    assert list(plots.style_mean_and_std(table, ["x"])["x"]) == ["0.500 ± 0.010", "–", "0.250"]
    assert plots.style_mean_and_std(table, ["x"], percent=True)["x"].iloc[0] == "50.0 ± 1.0"


def test_colours_can_be_told_apart():
    # In a simulation of red-green blindness (Machado 2009, severity 1), methods that share a
    # figure keep their distance.
    deutan = np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    )
    for group in (
        ["divergence", "entropy"],
        ["GenKL", "GenKL, no NC stage", "given labels", "clean set alone", "GenKL, true NC known"],
    ):
        seen = [deutan @ matplotlib.colors.to_rgb(plots.METHOD_COLORS[name]) for name in group]
        for i, first in enumerate(seen):
            for second in seen[:i]:
                assert np.linalg.norm(first - second) > 0.15
    assert set(plots.KIND_COLORS) == set(Kind)


def test_every_kind_has_a_colour_of_its_own_and_a_name():
    assert len(set(plots.KIND_COLORS.values())) == len(Kind) == len(plots.KIND_NAMES)
