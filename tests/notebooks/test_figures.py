"""Figures of chapters: they show the numbers they are given, and what is right by the truth."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from drawn import FRAME, SCORES, TRUTH
from figures.comparisons import (
    plot_condition,
    plot_over_base,
    plot_plausibility,
    plot_recall,
    plot_score_grid,
)
from figures.curves import plot_processes, plot_role_losses
from figures.gradients import logit_gradients, plot_pushes
from figures.images import plot_images
from figures.journey import Journeys, median_of_each_kind, plot_journeys
from figures.learning import (
    claims_held,
    claims_table,
    counted,
    gain_per_point,
    joined,
    plot_gains,
    plot_measures,
    plot_reversal,
    reversals,
    sides,
    state_of,
)
from figures.report import REPORT_COLORS, plot_looks
from figures.rules import plot_budgets, plot_flagged_by_threshold, plot_level, plot_sweep
from figures.simplex import (
    descend_logits,
    loss_over,
    plot_simplex_paths,
    plot_simplex_region,
    plot_simplex_values,
    simplex_points,
    simplex_xy,
)
from figures.taxonomy import (
    examples_by_kind,
    plot_class_counts,
    plot_noise_matrix,
    plot_taxonomy,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgba

from genkl import Kind, double_hot_loss, load_dataset, plots, soft_cross_entropy


def test_looks_are_bars_that_fill_the_row(ax):
    shares = pd.DataFrame(
        [[0.5, 0.0, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0]],
        index=["one", "other"],
        columns=list(REPORT_COLORS),
    )
    plot_looks(ax, shares)
    widths = np.array([bar.get_width() for bar in ax.patches]).reshape(4, 2)
    np.testing.assert_allclose(widths.T, 100 * shares)
    assert sorted(text.get_text() for text in ax.texts) == ["100", "20", "30", "50"]
    assert to_hex(ax.patches[0].get_facecolor()) == REPORT_COLORS["looks ambiguous"].lower()


def test_the_grid_covers_the_simplex_evenly():
    points = simplex_points(20)
    assert len(points) == 21 * 22 / 2 == len(np.unique(points, axis=0))
    assert np.allclose(points.sum(axis=1), 1)
    assert points.min() == 0
    x, y = simplex_xy(np.eye(3))
    corners = np.stack([x, y], axis=1)
    sides = [np.linalg.norm(corners[i] - corners[i - 1]) for i in range(3)]
    assert np.allclose(sides, 1)


def test_a_region_states_its_share(ax):
    plot_simplex_region(ax, lambda q: q[:, 0] >= 0, "all", "#0072B2", resolution=20)
    assert ax.get_title() == "all\n100% of the triangle"


def test_loss_values_and_paths_are_drawn(ax):
    values = loss_over(double_hot_loss, np.array([0.5, 0.5, 0]))
    assert values(np.array([[0.5, 0.25, 0.25]])) == pytest.approx(-np.log(0.375))
    plot_simplex_values(ax, values, "loss", vmax=3, colorbar=True)
    plot_simplex_paths(ax, np.full((4, 2, 3), 1 / 3))
    assert ax.figure.axes[1].get_ylabel() == "loss (nats)"


def test_flagged_share_falls_as_the_threshold_rises(ax):
    plot_flagged_by_threshold(ax, SCORES, TRUTH, np.linspace(0, 1.1, 12), "alpha")
    assert len(ax.lines) == 4
    for line in ax.lines:
        assert (np.diff(line.get_ydata()) <= 0).all()
        assert line.get_ydata()[0] == 1 or line.get_ydata()[0] >= 0.8


def test_sweeps_follow_the_means(ax):
    plot_sweep(ax, FRAME, "index", "test_accuracy", "GenKL", "accuracy")
    assert np.allclose(ax.lines[0].get_ydata(), [0.85, 0.87])
    plot_level(ax, FRAME, "test_accuracy", "entropy")
    assert np.allclose(ax.lines[1].get_ydata(), 0.86)


def test_role_losses_leave_out_a_role_without_rows(ax):
    history = pd.DataFrame(
        {
            "step": [1, 2],
            "clean_loss": [1.0, 0.5],
            "non_nc_loss": [2.0, 1.0],
            "nc_loss": [np.nan] * 2,
        }
    )
    plot_role_losses(ax, history)
    assert [line.get_label() for line in ax.lines] == ["clean", "non-NC"]


def test_curves_of_one_process_are_lines_and_of_two_circles(ax):
    losses = {"clean_loss": [2.0, 1.0], "non_nc_loss": [3.0, 2.0], "nc_loss": [2.0, 2.0]}
    one = pd.DataFrame({"step": [1, 2], "processes": 1} | losses)
    plot_processes(ax, pd.concat([one, one.assign(processes=2)]))
    lines = [line for line in ax.lines if len(line.get_xdata())]
    assert [line.get_marker() for line in lines] == ["None"] * 3 + ["o"] * 3
    assert np.allclose(lines[0].get_ydata(), lines[3].get_ydata())


def test_photographs_are_shown_whole_whatever_their_shape():
    wide = torch.zeros(2, 3, 10, 40, dtype=torch.uint8)
    figure = plot_images(wide, [[0, 1], [1]], ["first", "second"], side=20)
    shown = [axis.get_images()[0].get_array() for axis in figure.axes[:3]]
    assert all(image.shape == (20, 20, 3) for image in shown)
    assert (shown[0][:7] == 255).all()
    assert (shown[0][8:12] == 0).all()
    assert [axis.get_title() for axis in figure.axes] == [""] * 4
    plt.close(figure)
    titled = plot_images(wide, [[1], [0]], ["first", "second"], ["a", "b"], side=20)
    assert [axis.get_title() for axis in titled.axes] == ["b", "a"]
    plt.close(titled)


def test_differences_to_a_base_have_a_row_per_data_set_and_a_zero_line(ax):
    frame = pd.DataFrame(
        {
            "case": ["digits", "clothes"] * 2,
            "method": ["GenKL"] * 2 + ["GenKL auto"] * 2,
            "difference": [-0.1, 0.2, 0.0, 0.1],
            "low": [-0.2, 0.1, -0.1, 0.0],
            "high": [0.0, 0.3, 0.1, 0.2],
        }
    )
    plot_over_base(ax, frame, "case", "AUROC less entropy's")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["clothes", "digits"]
    assert any(np.allclose(line.get_xdata(), 0) for line in ax.get_lines())
    drawn = np.concatenate([line.get_xdata() for line in ax.get_lines()])
    assert set(frame["difference"]) <= set(np.round(drawn, 6))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["GenKL", "GenKL auto"]


def test_the_grid_of_scores_shows_every_number_and_leaves_out_what_is_missing(ax):
    table = pd.DataFrame({"digits": [0.9, np.nan], "clothes": [0.5, 0.4]}, index=["A", "B"])
    plot_score_grid(ax, table)
    assert sorted(text.get_text() for text in ax.texts) == ["0.40", "0.50", "0.90"]


def test_recall_is_held_against_chance_and_the_best_there_is(ax):
    frame = pd.DataFrame({"method": "GenKL", "seed": 0, "flagged": [0.1, 0.5], "recall": [0.3, 1]})
    plot_recall(ax, frame, ["GenKL"], prevalence=0.2)
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert np.allclose(lines["at random"].get_xydata(), [[0, 0], [0.5, 0.5]])
    assert np.allclose(lines["at best"].get_xydata(), [[0, 0], [0.2, 1], [0.5, 1]])
    assert np.allclose(lines["GenKL"].get_xydata(), [[0.1, 0.3], [0.5, 1]])


def test_a_condition_keeps_the_order_of_its_values(ax):
    frame = pd.DataFrame(
        {"value": [10, 1, 10, 1], "method": "GenKL", "auroc": [0.8, 0.6, 0.9, 0.7]}
    )
    plot_condition(ax, frame, ["GenKL"], "models")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["10", "1"]
    assert np.allclose(ax.get_lines()[0].get_ydata(), [0.85, 0.65])


# --- Pictures of ideas ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", seed=0, label_noise=0.4)


def test_examples_are_of_their_kind_under_their_given_label(digits):
    dataset, truth = digits
    drawn = examples_by_kind(dataset, truth, 3, seed=1)
    assert set(drawn) == {Kind.CORRECT, Kind.MISLABELLED, Kind.AMBIGUOUS, Kind.OOD}
    inputs = dataset.noisy.inputs.numpy()[:, 0]
    for kind, examples in drawn.items():
        assert len(examples) == 3
        for label, image in examples:
            rows = np.flatnonzero((inputs == image).all(axis=(1, 2)))
            assert any(
                truth.kinds[row] == kind
                and dataset.class_names[int(dataset.noisy.labels[row])] == label
                for row in rows
            )


def test_the_taxonomy_hangs_images_at_every_leaf(digits):
    dataset, truth = digits
    drawn = examples_by_kind(dataset, truth, 4)
    figure = plot_taxonomy(drawn)
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    for kind in drawn:
        assert plots.KIND_NAMES[kind] in words
    assert len(figure.axes[0].child_axes) == 16
    plt.close(figure)
    with pytest.raises(KeyError):
        plot_taxonomy({Kind.CORRECT: drawn[Kind.CORRECT]})


def test_the_middle_of_each_kind():
    scores = np.array([0.9, 0.1, 0.5, 0.3, 0.7, 0.2])
    kinds = np.array([Kind.OOD, Kind.CORRECT, Kind.OOD, Kind.CORRECT, Kind.OOD, Kind.CORRECT])
    assert median_of_each_kind(scores, kinds) == {Kind.CORRECT: 5, Kind.OOD: 4}
    assert median_of_each_kind(scores[:2], kinds[:2]) == {Kind.CORRECT: 1, Kind.OOD: 0}


@pytest.mark.parametrize(
    ("kind", "is_nc", "words"),
    [
        (Kind.CORRECT, False, "not flagged ✓"),
        (Kind.MISLABELLED, True, "flagged ✗"),
        (Kind.AMBIGUOUS, True, "flagged ✓"),
        (Kind.OOD, False, "not flagged ✗"),
    ],
)
def test_a_journey_says_whether_each_step_was_right(kind, is_nc, words):
    k = 4
    certain = np.eye(k)[[2]]
    journey = Journeys(
        images=np.zeros((1, 1, 8, 8)),
        kinds=np.array([kind]),
        given=np.array([1]),
        true=np.array([2 if kind in (Kind.CORRECT, Kind.MISLABELLED) else -1]),
        members=np.stack([certain, certain]),
        tau=0.2,
        divergences=np.array([[0.1], [-0.3], [0.0]]),
        is_nc=np.array([is_nc]),
        targets=np.full((1, k), 1 / k),
        after=certain,
    )
    figure = plot_journeys(journey)
    axes = figure.axes
    assert axes[3].get_title() == words
    dots = {to_hex(line.get_color()): len(line.get_xdata()) for line in axes[3].lines[:2]}
    assert dots == {plots.GREY.lower(): 1, plots.RED.lower(): 2}  # 0 itself is flagged
    assert axes[5].get_title() == ("100% for 2" if journey.true[0] < 0 else "2 ✓")
    dominant = [to_hex(bar.get_facecolor()) == plots.BLUE.lower() for bar in axes[2].patches]
    assert dominant == [False, False, True, False]
    plt.close(figure)


@settings(max_examples=40, deadline=None)
@given(k=st.integers(2, 6), seed=st.integers(0, 99))
def test_gradients_are_those_of_the_book(k, seed):
    rng = np.random.default_rng(seed)
    beliefs, target = rng.dirichlet(np.ones(k), 3), rng.dirichlet(np.ones(k))
    one_hot = np.eye(k)[rng.integers(k)]
    for t in (target, one_hot):
        found = logit_gradients(soft_cross_entropy, t, beliefs)
        np.testing.assert_allclose(found, beliefs - t, atol=1e-9)
    responsible = beliefs * target
    responsible /= responsible.sum(axis=1, keepdims=True)
    found = logit_gradients(double_hot_loss, target, beliefs)
    np.testing.assert_allclose(found, beliefs - responsible, atol=1e-9)


def test_pushes_go_up_where_the_gradient_is_negative():
    beliefs = {"sure": np.array([0.8, 0.1, 0.1]), "undecided": np.full(3, 1 / 3)}
    targets = {"one-hot": np.eye(3)[1], "uniform": np.full(3, 1 / 3)}
    pushed = {
        name: logit_gradients(soft_cross_entropy, target, np.array([*beliefs.values()]))
        for name, target in targets.items()
    }
    figure = plot_pushes(beliefs, targets, pushed, ["a", "b", "c"])
    table = np.array(figure.axes).reshape(3, 3)
    bars = table[1, 1].patches  # sure, one-hot
    assert [bar.get_height() > 0 for bar in bars] == [False, True, False]
    assert to_hex(bars[1].get_facecolor()) == plots.BLUE.lower()
    assert len(table[2, 2].lines[-1].get_xdata()) == 3  # nothing to push: three dots
    plt.close(figure)


def test_budgets_are_drawn_at_the_mean_and_reach_to_the_seed_that_flags_most(ax):
    frame = pd.DataFrame(
        {
            "data": ["a", "a", "b", "b"] * 2,
            "threshold": ["plain"] * 4 + ["class weights"] * 4,
            "false_flags": [0.02, 0.06, 0.1, 0.1, 0.01, 0.03, 0.04, 0.06],
        }
    )
    plot_budgets(ax, frame, 0.05)
    marks = {line.get_label(): line.get_xdata() for line in ax.lines}
    assert marks["plain"].tolist() == pytest.approx([4, 10])
    assert marks["class weights"].tolist() == pytest.approx([2, 5])
    reach = [segment[1, 0] for segment in ax.collections[0].get_segments()]
    assert reach == pytest.approx([6, 10])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


def test_plausible_labels_go_from_left_to_right_with_their_intervals(ax):
    frame = pd.DataFrame(
        [
            (way, method, area, area - 0.02, area + 0.03)
            for method, areas in {"entropy": (0.8, 0.8), "DSOS": (0.9, 0.6)}.items()
            for way, area in zip(("random", "nearest class"), areas, strict=True)
        ],
        columns=["labels", "method", "auroc", "auroc_low", "auroc_high"],
    ).iloc[::-1]
    plot_plausibility(
        ax, frame, ["entropy", "DSOS", "AUM"], ["random", "predictor", "nearest class"]
    )
    assert [text.get_text() for text in ax.get_xticklabels()] == ["random", "nearest class"]
    assert ax.get_legend_handles_labels()[1] == ["entropy", "DSOS"]
    entropy, dsos = ax.containers
    assert dsos.lines[0].get_ydata().tolist() == [0.9, 0.6]
    assert entropy.lines[0].get_ydata().tolist() == [0.8, 0.8]
    ends = [segment[:, 1].tolist() for segment in dsos.lines[2][0].get_segments()]
    assert np.allclose(ends, [[0.88, 0.93], [0.58, 0.63]])


# -- learning -----------------------------------------------------------------------------------


def test_what_tuning_turns_round_is_coloured(ax):
    gaps = pd.DataFrame({"default": [-2.0, 1.0], "tuned": [3.0, 2.0]}, index=["one", "other"])
    plot_reversal(ax, gaps, "points")
    arrows = [text.arrow_patch for text in ax.texts]
    ends = [(arrow.get_edgecolor(), text.xy) for arrow, text in zip(arrows, ax.texts, strict=True)]
    assert [to_hex(color) for color, _ in ends] == [plots.GREY.lower(), plots.RED.lower()]
    assert [xy for _, xy in ends] == [(2.0, 0), (3.0, 1)]  # the first data set on top
    assert [label.get_text() for label in ax.get_yticklabels()] == ["other", "one"]


def test_measures_are_in_percent_and_in_order(ax):
    figures = {"accuracy": [0.8, 0.7], "balanced_accuracy": [0.7, 0.7], "worst_recall": [0.4, 0.5]}
    plot_measures(ax, pd.DataFrame(figures, index=["a", "b"]))
    accuracy, _, worst = ax.lines
    assert accuracy.get_xdata().tolist() == pytest.approx([80, 70])
    assert worst.get_xdata().tolist() == pytest.approx([40, 50])
    assert accuracy.get_ydata().tolist() == [1, 0]


def test_the_gain_of_a_point_of_auroc_is_the_slope(ax):
    auroc = np.array([0.5, 0.7, 0.9, 1.0])
    found = pd.DataFrame({"auroc": auroc, "difference": 20 * auroc - 9})
    slope, at = gain_per_point(found)
    assert (slope, at) == pytest.approx((0.2, -9))
    names = ["random", "entropy", "KNN", "oracle"]
    plot_gains(ax, found.assign(noise="OOD", find=names), "title")
    dots, star, line = ax.lines[:3]
    assert dots.get_xdata().tolist() == [0.5, 0.7, 0.9]
    assert star.get_ydata().tolist() == pytest.approx([11])
    assert line.get_ydata().tolist() == pytest.approx([1, 11])


def test_verdicts_are_counted():
    assert [counted(k, 3) for k in range(4)] == [
        "none of the 3",
        "1 of the 3",
        "2 of the 3",
        "all 3",
    ]
    assert reversals(0, 9).startswith("for none of them")
    assert reversals(2, 9).startswith("for 2 of the 9 both intervals")
    frame = pd.DataFrame(
        {"method": ["a"] * 3 + ["b"], "low": [-2.0, 1, -1, -3], "high": [-1.0, 2, 1, -2]}
    )
    assert sides(frame, "a") == "below on 1 of the 3, above on 1 of the 3"
    assert sides(frame, "b") == "below on all 1, above on none of the 1"


def test_records_are_joined_and_a_missing_one_is_named():
    machine = {"processor": "a mill", "cores": 2, "gpu": None}
    known = {
        name: {
            "provenance": {"machine": machine, "versions": {}},
            "settings": {},
            "code": code,
            "tables": {"runs": [{"data": name, "x": x}]},
        }
        for name, code, x in (("a", {}, 1), ("b", {"genkl.losses": "other"}, 2))
    }
    assert joined(known.values())["runs"].to_dict("list") == {"data": ["a", "b"], "x": [1, 2]}
    said = state_of(known, ["a", "b", "c"]).splitlines()
    assert said[0] == "Measured on a mill, 2 cores, GPU: None."
    assert [line.split("**")[1] for line in said[2:]] == ["Stale: b", "Not measured yet"]
    assert said[-1].endswith("below: c.")
    assert len(state_of({"a": known["a"]}, ["a"]).splitlines()) == 1


@pytest.mark.parametrize(
    ("holds", "words"), [((True, True), "all 2"), ((True, False), "1 of the 2")]
)
def test_registered_claims_hold_or_fail(holds, words):
    numbers = {"difference": 3.1, "difference_low": 1.0, "difference_high": 5.2}
    claims = [{"claim": "GCE is ahead", **numbers, "holds": kept} for kept in holds]
    records = [
        {"tables": {"claims": [claim]}, "settings": {"title": title}}
        for claim, title in zip(claims, ("worst", "aggregate"), strict=True)
    ]
    table = claims_table(records)
    assert table.loc["GCE is ahead", "worst"] == "holds: +3.1 (+1.0 to +5.2)"
    assert table.loc["GCE is ahead", "aggregate"].startswith("holds" if holds[1] else "fails")
    assert claims_held(table) == f"Of the registered claims {words} hold."


def test_descending_each_loss_ends_where_it_is_smallest():
    starts = np.array([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]])
    uniform = descend_logits(soft_cross_entropy, np.full(3, 1 / 3), starts, steps=500)
    assert uniform.shape == (501, 2, 3)
    assert np.allclose(uniform[0], starts)
    assert np.allclose(uniform[-1], 1 / 3, atol=1e-3)
    one_hot = descend_logits(soft_cross_entropy, np.eye(3)[1], starts, steps=2000)
    assert (one_hot[-1, :, 1] > 0.98).all()
    # A double-hot target is linear inside the logarithm: the heavier entry wins in the end.
    double = descend_logits(double_hot_loss, np.array([0.6, 0.3, 0.0]), starts, steps=5000)
    assert (double[-1, :, 0] > 0.98).all()


def test_class_counts_are_stacked_by_kind(ax):
    counts = pd.DataFrame({"correct": [3, 1], "ood": [2, 2]}, index=["cat", "dog"])
    plot_class_counts(ax, counts, "images")
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert ends == [3, 1, 5, 3]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "correct label",
        "out of distribution",
    ]
    assert ax.patches[2].get_facecolor() == to_rgba(plots.KIND_COLORS[Kind.OOD])


def test_the_noise_matrix_shows_percentages_and_survives_an_empty_class(ax):
    matrix = pd.DataFrame([[0.9, 0.1], [np.nan, np.nan]], index=["a", "b"], columns=["a", "b"])
    plot_noise_matrix(ax, matrix)
    assert [text.get_text() for text in ax.texts] == ["90", "10"]
