"""The methods to compare with: what each makes of the labels, and that all are treated alike."""

import functools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from genkl import (
    DETECTORS,
    METHODS,
    Evidence,
    GenKLConfig,
    Groundwork,
    Method,
    Phase,
    Role,
    dataset_from_arrays,
    double_hot_loss,
    estimate_transition,
    load_record,
    posterior_targets,
    run_method,
    save_record,
    search_settings,
    soft_cross_entropy,
)
from genkl.baselines import (
    Card,
    anchor_transition,
    average_transition,
    forward_targets,
    nearest_neighbors,
    neighbor_labels,
    select_by_dsos,
    select_by_jo_src,
)
from genkl.baselines.groundwork import divide
from genkl.baselines.method import CANDIDATES, FACTOR, RATES
from genkl.baselines.rounds import known_before
from genkl.baselines.selection import select_by_confident_learning, upper_component
from genkl.data.planting import plant_label_noise
from genkl.learn.folder import RunBar
from genkl.predict import predict_probs

CLASSES, SIDE = 4, 12

CONFIG = GenKLConfig(
    beta=0.03,
    first_ensemble=2,
    ensemble=2,
    max_rounds=1,
    max_flag_rate=0.1,
    pretrain=Phase(steps=30, learning_rate=0.05, batch_size=16, eval_every=15),
    train=Phase(steps=40, learning_rate=0.05, batch_size=32, eval_every=20),
    finetune=Phase(steps=10, learning_rate=1e-3, optimizer="adam", batch_size=16, eval_every=10),
)
NEEDS_NO_CLEAN = [name for name, method in METHODS.items() if not method.needs_clean]


def clusters(seed=0, noise=0.3, kind="symmetric", clean=6, noisy=240, spread=1.0, features=SIDE):
    """Four clusters of features; the noisy split's labels are partly wrong. With its truth."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(CLASSES, features))
    sizes = {"clean": clean * CLASSES, "validation": 40, "test": 60, "noisy": noisy}
    true = np.concatenate([np.arange(size) % CLASSES for size in sizes.values()])
    inputs = centres[true] + spread * rng.normal(size=(len(true), features))
    ends = np.cumsum(list(sizes.values()))
    rows = {
        name: np.arange(end - size, end)
        for (name, size), end in zip(sizes.items(), ends, strict=True)
    }
    given = true.copy()
    given[rows["noisy"]] = plant_label_noise(true[rows["noisy"]], CLASSES, noise, rng, kind)
    dataset, _ = dataset_from_arrays(
        "clusters",
        inputs,
        given,
        **{name: (rows[name], true[rows[name]]) for name in ("clean", "validation", "test")},
    )
    return dataset, true[rows["noisy"]]


DATA, TRUE = clusters()
UNVERIFIED = replace(DATA, clean=DATA.clean.take(np.arange(0)))


def run(name, dataset=DATA, config=CONFIG, **options):
    return run_method(name, dataset, config, engine="cpu", progress=False, **options)


@functools.cache
def usual(name, verified=True):
    """The run of a method that most tests look at, made once, and its bar: (run, steps, total)."""
    taken, totals = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunBar, "steps", lambda bar, count: taken.append(count))
        patch.setattr(RunBar, "close", lambda bar: totals.append(bar.bar.total))
        done = run(name, DATA if verified else UNVERIFIED)
    (total,) = totals
    return done, sum(taken), total


def weights(done):
    return torch.cat([p.flatten() for model in done.models for p in model.state_dict().values()])


# -- all alike ----------------------------------------------------------------------------------


def test_the_methods_of_the_comparison_are_there_with_their_sources():
    assert list(METHODS) == [
        "clean set alone",
        "given labels",
        "given labels + fine-tuning",
        "label smoothing",
        "mixup",
        "GCE",
        "bootstrapping",
        "gold loss correction",
        "forward correction",
        "confident learning",
        "Jo-SRC selection",
        "DSOS selection",
        "kNN relabelling",
        "ELR",
        "SOP",
        "WANN",
        "SSR",
        "CUFIT",
        "DivideMix core",
        "GenKL",
        "GenKL, no NC stage",
        "GenKL, entropy",
        "GenKL calibrated",
    ]
    bibliography = (Path(__file__).parents[2] / "book" / "references.bib").read_text()
    keys = set(re.findall(r"^@\w+\{(\w+),", bibliography, re.MULTILINE))
    assert {method.source for method in METHODS.values()} <= keys
    for method in METHODS.values():
        assert isinstance(method.card, Card)
        assert method.card.formula.count("$") % 2 == 0
        assert min(len(method.card.formula), len(method.card.differs)) > 10


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_tuned_as_much_and_for_its_learning_rate(name):
    method = METHODS[name]
    candidates = list(method.candidates())
    assert len({tuple(one.values()) for one in candidates}) == CANDIDATES == 4
    assert len({one[FACTOR] for one in candidates}) >= 2
    assert dict(method.settings) in candidates
    for one in candidates:
        assert method.with_settings(one) == one


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_from_a_clean_split_and_noisy_labels(name):
    done, _, _ = usual(name)
    assert (done.method, done.dataset, done.clean_labels) == (name, "clusters", len(DATA.clean))
    assert done.settings == dict(METHODS[name].settings)
    assert done.best.test_accuracy > 0.6  # chance is 0.25
    assert done.best.role_counts["CLEAN"] >= len(DATA.clean)
    assert all(math.isfinite(fact) for fact in done.facts.values())


@pytest.mark.filterwarnings("ignore:round 1")
@pytest.mark.parametrize("name", NEEDS_NO_CLEAN)
def test_every_other_method_learns_where_nothing_is_verified(name):
    done, _, _ = usual(name, verified=False)
    assert done.clean_labels == 0
    assert done.best.test_accuracy > 0.5
    assert done.config.clean_threshold == (None if METHODS[name].teach else 0.5)
    if METHODS[name].teach:
        assert done.config.finetune.steps == 0


def test_a_threshold_that_the_configuration_states_is_genkl_s_alone():
    config = replace(CONFIG, clean_threshold=0.7)
    assert run("GenKL", UNVERIFIED, config).config.clean_threshold == 0.7
    # Here there is a clean split, and nothing else counts as clean for the others.
    tuned = run("given labels + fine-tuning", config=config)
    assert tuned.config.clean_threshold is None
    assert torch.equal(weights(tuned), weights(usual("given labels + fine-tuning")[0]))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("verified", [True, False], ids=["verified", "not"])
@pytest.mark.filterwarnings("ignore:round 1")
def test_all_take_as_many_steps(name, verified):
    if METHODS[name].needs_clean and not verified:
        return
    done, taken, total = usual(name, verified)
    tuned = verified and METHODS[name].finetunes
    main = CONFIG.ensemble * (CONFIG.train.steps + tuned * CONFIG.finetune.steps)
    if METHODS[name].teach is None and not verified:
        main += CONFIG.ensemble * CONFIG.finetune.steps  # on whom the network agrees with
    before = {
        "gold loss correction": (2, 0),
        "forward correction": (5, 5),
        "confident learning": (5, 5),
        "Jo-SRC selection": (2, 10),
        "DSOS selection": (2, 5),
        "SSR": (2, 5),
        "CUFIT": (2, 2),
        "DivideMix core": (2, 2),
        "GenKL": (2, 2),
        "GenKL, no NC stage": (2, 2),
        "GenKL, entropy": (2, 2),
        "GenKL calibrated": (7, 5),
    }.get(name, (0, 0))[not verified]
    assert taken == total == main + before * CONFIG.pretrain.steps
    assert done.best.history[-1]["step"] == CONFIG.train.steps


@pytest.mark.parametrize("name", METHODS)
def test_test_labels_change_nothing_but_the_report(name):
    other = replace(DATA.test, labels=(DATA.test.labels + 1) % CLASSES)
    first, second = usual(name)[0], run(name, replace(DATA, test=other))
    assert torch.equal(weights(first), weights(second))
    assert first.best.val_accuracy == second.best.val_accuracy
    assert first.best.test_accuracy > 0.5 > second.best.test_accuracy


@pytest.mark.parametrize("name", METHODS)
def test_the_seed_decides_everything(name):
    first = weights(usual(name)[0])
    assert torch.equal(first, weights(run(name, seed=0)))
    assert not torch.equal(first, weights(run(name, seed=4)))


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("mixup", {"mixup_alpha": 0.0}),
        ("label smoothing", {"smoothing": 0.0}),
        ("bootstrapping", {"beta": 1.0}),
        ("bootstrapping", {"beta": 1.0, "variant": "soft"}),
    ],
)
def test_switched_off_a_method_is_training_on_given_labels(name, off):
    plain = weights(usual("given labels + fine-tuning")[0])
    assert torch.equal(weights(run(name, settings=off)), plain)
    assert not torch.equal(weights(usual(name)[0]), plain)


def test_gce_comes_close_to_cross_entropy_for_a_small_q():
    plain = weights(usual("given labels + fine-tuning")[0])
    near = weights(run("GCE", settings={"q": 1e-4}))
    far = weights(usual("GCE")[0])
    assert (near - plain).abs().max() < 0.02 * (far - plain).abs().max()


@pytest.mark.parametrize("name", ["given labels", "given labels + fine-tuning", "clean set alone"])
def test_run_baseline_is_the_same_run(name):
    baseline = run_method(name, DATA, CONFIG, engine="cpu", progress=False)
    assert torch.equal(weights(usual(name)[0]), weights(baseline))


def test_voices_are_those_of_models_that_did_not_learn_the_label():
    work = Groundwork.prepare(DATA, CONFIG, engine="cpu")
    noisy, asked = work.voices()
    held_out = work.held_out_probs()
    assert np.array_equal(noisy, [held_out, work.noisy_probs()])
    known = len(DATA.validation)
    assert asked.shape == (2, 5 * known, CLASSES)  # each of five models is asked about each
    own = predict_probs(work.predictor(), DATA.validation.inputs, engine="cpu")
    assert np.allclose(asked[1], np.tile(own, (5, 1)), atol=1e-6)
    told = Groundwork.prepare(UNVERIFIED, CONFIG, engine="cpu").voices()
    assert [len(part) for part in told] == [1, 1]


def test_calibrated_targets_are_the_posterior_and_right_more_often_than_labels():
    work = Groundwork.prepare(DATA, CONFIG, engine="cpu")
    probs, nones = known_before(work)
    lesson = METHODS["GenKL calibrated"].teach(work, {})
    given = DATA.noisy.labels.numpy()
    transition = estimate_transition(probs, given, nones)
    expected = posterior_targets(probs, given, transition, nones)
    targets = lesson.examples.targets[len(DATA.clean) :].numpy()
    assert np.allclose(targets, expected, atol=1e-6)
    assert lesson.facts["taken for none"] == pytest.approx(nones.mean())
    assert (targets.argmax(axis=1) == TRUE).mean() > (given == TRUE).mean()


def test_only_the_rate_of_training_is_scaled():
    one = run("given labels + fine-tuning", settings={FACTOR: 0.5})
    assert one.config.train.learning_rate == CONFIG.train.learning_rate / 2
    assert one.config.finetune == CONFIG.finetune
    assert one.config.pretrain == CONFIG.pretrain


def test_genkl_s_settings_are_the_configuration_s_unless_stated():
    assert usual("GenKL")[0].config == CONFIG
    one = run("GenKL", settings={"max_flag_rate": 0.4, "mixup_alpha": 0.0})
    assert (one.config.max_flag_rate, one.config.mixup_alpha) == (0.4, 0.0)
    assert one.best.flagged > usual("GenKL")[0].best.flagged
    assert usual("GenKL, no NC stage")[0].best.role_counts["NC"] == 0
    assert 0 < usual("GenKL, entropy")[0].best.scores.max() <= 1 + 1e-12


def test_batches_are_as_large_as_genkl_s_where_clean_rows_are_added():
    added = replace(CONFIG, train=replace(CONFIG.train, batch_size=20, clean_batch_size=12))
    assert torch.equal(
        weights(run("given labels", config=added)), weights(usual("given labels")[0])
    )


# -- what is refused ----------------------------------------------------------------------------


def test_a_method_that_needs_verified_labels_says_so():
    with pytest.raises(ValueError, match=r"clean split of clusters is empty; verify some"):
        run("clean set alone", UNVERIFIED)


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("magic", {}, r"unknown method 'magic'; choose one of: clean set alone, given labels"),
        ("GCE", {"beta": 0.5}, r"unknown setting of GCE 'beta'; choose one of: q, learning_rate"),
        ("GCE", {"q": 0}, r"q is 0; state a number in \(0, 1\]"),
        ("GCE", {"q": None}, "q is None; state"),
        ("mixup", {"mixup_alpha": -1.0}, "0 is off"),
        ("label smoothing", {"smoothing": 1.0}, "below 1"),
        ("bootstrapping", {"variant": "mild"}, "unknown variant 'mild'; choose one of: hard, soft"),
        ("bootstrapping", {"beta": 1.2}, "1 is cross-entropy"),
        ("confident learning", {"filter_by": "x"}, "prune_by_noise_rate"),
        ("Jo-SRC selection", {"tau_clean": 2}, "between 0 and 1"),
        ("DSOS selection", {"threshold": 2.0}, "log 4"),
        ("DSOS selection", {"target": "x"}, "choose one of: label, prediction"),
        ("kNN relabelling", {"neighbors": 0}, "at least 1"),
        ("kNN relabelling", {"neighbors": 2.5}, "at least 1"),
        ("ELR", {"momentum": 1}, "below 1"),
        ("SOP", {"start": 0}, "a positive number"),
        ("WANN", {"largest": 12}, "an odd number"),
        ("SSR", {"neighbors": 1}, "2 on"),
        ("given labels", {FACTOR: 0.0}, "a positive factor"),
        ("GenKL", {"max_flag_rate": True}, "a share between 0 and 1"),
    ],
)
def test_wrong_names_and_settings_are_refused_before_anything_is_trained(name, chosen, message):
    with pytest.raises(ValueError, match=message):
        run_method(name, DATA, CONFIG, settings=chosen, make_model=None)


def test_a_method_with_another_number_of_candidates_is_refused():
    with pytest.raises(ValueError, match="has 3 candidates; all methods are tuned with 4"):
        Method("x", "loss", "y", card=Card("", ""), grid={FACTOR: (1.0, 2.0, 3.0)})
    with pytest.raises(ValueError, match="leaves out its default"):
        Method("x", "loss", "y", card=Card("", ""), grid={FACTOR: (0.1, 2.0, 3.0, 4.0)})
    with pytest.raises(ValueError, match="unknown family 'z'"):
        Method("x", "z", "y", card=Card("", ""), grid=RATES)


def test_jo_src_needs_two_predictors():
    with pytest.raises(ValueError, match="two predictions are compared; use 2 or more"):
        run("Jo-SRC selection", config=replace(CONFIG, first_ensemble=1))


# -- forward correction -------------------------------------------------------------------------

PAIR = np.array([[0.6, 0.4, 0, 0], [0, 0.6, 0.4, 0], [0, 0, 0.6, 0.4], [0.4, 0, 0, 0.6]])


@given(st.integers(0, 300))
@settings(deadline=None, max_examples=50)
def test_forward_targets_give_the_loss_of_the_paper(seed):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(4), size=4)
    labels, logits = rng.integers(4, size=6), rng.normal(scale=3, size=(6, 4))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log((probs @ transition)[np.arange(6), labels])
    targets = torch.from_numpy(forward_targets(labels, transition))
    found = double_hot_loss(torch.from_numpy(logits), targets)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    as_given = torch.from_numpy(forward_targets(labels, np.eye(4)))
    np.testing.assert_allclose(
        double_hot_loss(torch.from_numpy(logits), as_given).numpy(),
        soft_cross_entropy(torch.from_numpy(logits), torch.eye(4).double()[labels]).numpy(),
    )


def test_a_label_that_no_class_is_given_is_refused():
    with pytest.raises(ValueError, match="gives the label 1 to no class"):
        forward_targets(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]))


def test_transition_matrices_of_predictions_written_by_hand():
    probs = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.5, 0.5]])
    average = average_transition(probs, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(average, [[0.7, 0.3], [0.3, 0.7]])
    # A class that is not among the verified ones keeps its label.
    np.testing.assert_allclose(average_transition(probs[:2], np.array([0, 0]))[1], [0, 1])
    np.testing.assert_allclose(anchor_transition(probs, 1.0), [[0.8, 0.2], [0.1, 0.9]])
    np.testing.assert_allclose(anchor_transition(probs, 0.5), [[0.6, 0.4], [0.5, 0.5]])
    # By default the published quantile.
    hundred = np.stack([np.arange(100) / 100, 1 - np.arange(100) / 100], axis=1)
    assert anchor_transition(hundred)[0, 0] == 0.97


def test_forward_correction_undoes_pair_noise_when_it_knows_it():
    # Heads that fit a known confusion: the corrected loss finds the truth, cross-entropy a mixture.
    dataset, _ = clusters(noise=0.4, kind="pair", noisy=2000, clean=0, spread=0.7)
    config = replace(CONFIG, train=replace(CONFIG.train, steps=200))
    work = Groundwork.prepare(dataset, config, engine="cpu")
    work._made["held out 0"] = PAIR[:, :]  # what a perfect predictor of given labels says
    corrected = run("forward correction", dataset, config, groundwork=work,
                    settings={"quantile": 1.0})  # fmt: skip
    plain = run("given labels + fine-tuning", dataset, config)
    assert corrected.facts["label kept"] == pytest.approx(0.6)
    sure = [predict_probs(one.models, dataset.test.inputs) for one in (corrected, plain)]
    of_truth = [probs[np.arange(60), dataset.test.labels.numpy()].mean() for probs in sure]
    assert of_truth[0] > 0.85
    assert of_truth[1] < 0.75


def test_the_estimated_transition_is_near_the_planted_one():
    dataset, _ = clusters(noise=0.4, kind="pair", noisy=2000, clean=25, spread=0.5)
    config = replace(CONFIG, pretrain=replace(CONFIG.pretrain, steps=200, batch_size=64))
    work = Groundwork.prepare(dataset, config, engine="cpu")
    found = average_transition(work.given_label_probs(), dataset.clean.labels.numpy())
    assert np.abs(found - PAIR).max() < 0.12
    # Anchors are rougher, but nearer than no noise at all.
    anchors = anchor_transition(work.held_out_probs())
    error = [np.abs(one - PAIR).mean() for one in (anchors, found)]
    assert error[1] < error[0] < 0.8 * np.abs(np.eye(CLASSES) - PAIR).mean()


# -- confident learning -------------------------------------------------------------------------


def test_confident_learning_leaves_out_planted_wrong_labels():
    dataset, true = clusters(noise=0.25, noisy=600, spread=0.6)
    work = Groundwork.prepare(dataset, CONFIG, engine="cpu")
    labels = dataset.noisy.labels.numpy()
    left_out = ~select_by_confident_learning(work.held_out_probs(), labels).is_kept
    wrong = labels != true
    assert wrong[left_out].mean() > 0.9
    assert left_out[wrong].mean() > 0.8
    one = run("confident learning", dataset, groundwork=work)
    assert one.best.role_counts["CLEAN"] == len(dataset.clean) + (~left_out).sum()
    assert one.facts["left out"] == pytest.approx(left_out.mean())


def test_who_is_predicted_was_not_learned_from():
    # Labels drawn by lot can be memorised, but not predicted.
    rng = np.random.default_rng(0)
    verified = np.arange(20)
    dataset, _ = dataset_from_arrays(
        "lots", rng.normal(size=(140, 100)), rng.integers(0, 2, 140),
        validation=(verified, rng.integers(0, 2, 20)), test=([139], [0]),
    )  # fmt: skip
    config = replace(CONFIG, pretrain=replace(CONFIG.pretrain, steps=100, eval_every=100))
    work = Groundwork.prepare(dataset, config, engine="cpu")
    labels = dataset.noisy.labels.numpy()
    assert (work.held_out_probs().argmax(1) == labels).mean() < 0.65
    (model,) = work._train(1, work.setup.as_given, "all")
    assert (predict_probs([model], dataset.noisy.inputs).argmax(1) == labels).mean() > 0.85
    assert not np.array_equal(work.held_out_probs(0), work.held_out_probs(1))


@given(st.integers(0, 200), st.integers(2, 7), st.integers(10, 60))
@settings(deadline=None)
def test_parts_hold_a_share_of_every_label(seed, parts, count):
    labels = np.random.default_rng(seed).integers(0, 3, count)
    part = divide(labels, parts, seed=seed)
    sizes = np.bincount(part, minlength=parts)
    assert sizes.max() - sizes.min() <= 1
    for label in range(3):
        of_label = np.bincount(part[labels == label], minlength=parts)
        assert of_label.max() - of_label.min() <= 1


# -- selections ---------------------------------------------------------------------------------


def test_jo_src_believes_replaces_or_gives_up():
    views = np.array(
        [
            [[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.6, 0.4, 0.0]],
            [[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.2, 0.8, 0.0]],
        ]
    )
    chosen = select_by_jo_src(views, np.array([0, 0, 2]), tau_clean=0.75)
    assert chosen.is_believed.tolist() == [True, False, False]
    np.testing.assert_allclose(chosen.targets, [[1, 0, 0], [0.2, 0.8, 0], [1 / 3] * 3])
    assert chosen.facts() == pytest.approx({"believed": 1 / 3, "left out": 0, "changed": 2 / 3})
    assert not select_by_jo_src(views, np.array([0, 0, 2]), tau_clean=1.0).is_believed.any()
    assert select_by_jo_src(views, np.array([0, 0, 2]), tau_clean=0.0).is_believed.all()


def test_dsos_softens_whom_no_class_fits_and_replaces_wrong_labels():
    rng = np.random.default_rng(0)
    peak = rng.uniform(0.85, 0.99, 300)
    sure = np.full((300, 5), (1 - peak)[:, None] / 4)
    sure[:, 1] = peak
    torn = rng.dirichlet(np.full(5, 30.0), 100)
    labels = np.concatenate([np.full(150, 1), np.full(150, 3), rng.integers(0, 5, 100)])
    probs = np.concatenate([sure, torn])
    chosen = select_by_dsos(probs, labels)
    right, wrong, outside = slice(0, 150), slice(150, 300), slice(300, 400)
    # A label is replaced only where the mixture is nearly sure that the image is inside.
    assert chosen.is_believed[right].all()
    assert (chosen.targets[right, 1] > 1 - 1e-7).all()  # exp(20) : 4
    replaced = ~chosen.is_believed
    assert replaced[wrong].mean() > 0.9
    assert replaced[outside].mean() < 0.1
    assert (chosen.targets.argmax(1) == np.where(replaced, probs.argmax(1), labels)).all()
    assert np.median(np.abs(chosen.targets[outside] - 0.2).max(axis=1)) < 0.02
    np.testing.assert_allclose(chosen.targets.sum(1), 1)
    # Softened by the posterior v alone: softmax((1 - v) e_y / .05).
    peak = chosen.targets.max(1)
    inside = 0.05 * np.log(4 * peak / (1 - peak))
    assert (inside[replaced] > 0.9 - 1e-9).all()
    unsure = ~replaced & (np.arange(400) >= 150)
    assert (inside[unsure] <= 0.9 + 1e-9).all()


def test_dsos_with_predictions_as_targets_is_what_it_was():
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.full(5, 0.4), 200), rng.integers(0, 5, 200)
    chosen = select_by_dsos(probs, labels, target="prediction")
    entropy = DETECTORS["DSOS"].score(Evidence(probs, given_labels=labels))
    assert np.array_equal(chosen.is_believed, entropy < math.log(2))
    assert (chosen.targets[chosen.is_believed] == np.eye(5)[labels[chosen.is_believed]]).all()
    v = upper_component(entropy[~chosen.is_believed])[:, None]
    np.testing.assert_allclose(
        chosen.targets[~chosen.is_believed], (1 - v) * probs[~chosen.is_believed] + v / 5
    )


def test_the_mixture_tells_two_heaps_apart_and_rises():
    rng = np.random.default_rng(0)
    low, high = rng.beta(2, 12, 400), rng.beta(12, 3, 200)
    posterior = upper_component(np.concatenate([low, high]))
    truth = np.repeat([False, True], [400, 200])
    assert ((posterior > 0.5) == truth).mean() > 0.95
    order = np.argsort(np.concatenate([low, high]))
    assert (np.diff(posterior[order]) >= -1e-9).all()
    assert upper_component(np.full(4, 0.7)).tolist() == [0, 0, 0, 0]
    assert upper_component(np.array([])).tolist() == []
    assert np.isfinite(upper_component(np.array([0.1, 0.2]))).all()


# -- neighbours ---------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [1 << 26, 64])
def test_neighbors_are_those_of_scikit_learn_without_oneself(entries, monkeypatch):
    monkeypatch.setattr("genkl.rule.neighbors.BLOCK_ENTRIES", entries)
    features = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    judge = NearestNeighbors(n_neighbors=6, metric="cosine").fit(features)
    _, theirs = judge.kneighbors(features[20:])
    everything = torch.from_numpy(features)
    ours = nearest_neighbors(everything[20:], everything, 5, start=20)
    np.testing.assert_array_equal(theirs[:, 0], np.arange(20, 60))
    np.testing.assert_array_equal(ours, theirs[:, 1:])


def test_neighbors_of_wide_features_are_nearly_the_same():
    rng = np.random.default_rng(0)
    plan = rng.normal(size=(40, 600)) * np.linspace(1, 0.1, 40)[:, None]
    features = torch.from_numpy(rng.normal(size=(300, 40)) @ plan + 0.05 * rng.normal(size=600))
    judge = NearestNeighbors(n_neighbors=11, metric="cosine").fit(features)
    _, theirs = judge.kneighbors(features)
    ours = nearest_neighbors(features, features, 10)
    same = [len(set(a) & set(b)) for a, b in zip(ours, theirs[:, 1:], strict=True)]
    assert np.mean(same) > 9.5


def test_neighbors_there_are_not_are_refused():
    with pytest.raises(ValueError, match="ask for 3 neighbours at most"):
        nearest_neighbors(torch.eye(4), torch.eye(4), 4)


def test_votes_weigh_and_ties_keep_the_given_label():
    near = np.array([[0, 1, 2], [0, 1, 2], [0, 3, 3]])
    labels, weights = np.array([2, 0, 0, 1]), np.array([3.0, 1.0, 1.0, 1.5])
    voted = neighbor_labels(near, labels, weights, np.array([0, 1, 1]), 3)
    assert voted.tolist() == [2, 2, 1]


def test_relabelling_by_neighbors_repairs_clusters():
    dataset, true = clusters(noise=0.4, noisy=400, spread=0.3)
    one = run("kNN relabelling", dataset)
    wrong = dataset.noisy.labels.numpy() != true
    assert one.facts["changed"] == pytest.approx(wrong.mean(), abs=0.01)
    plain = run("given labels", dataset)
    assert one.best.history[-1]["clean_loss"] < plain.best.history[-1]["clean_loss"] / 2


# -- groundwork ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:round 1")
@pytest.mark.parametrize("verified", [True, False], ids=["verified", "not"])
def test_shared_groundwork_changes_nothing(verified):
    dataset = DATA if verified else UNVERIFIED
    work = Groundwork.prepare(dataset, CONFIG, seed=0, engine="cpu")
    for name in NEEDS_NO_CLEAN:
        shared = run(name, dataset, groundwork=work)
        assert torch.equal(weights(usual(name, verified)[0]), weights(shared)), name


def test_groundwork_is_laid_once(monkeypatch):
    work = Groundwork.prepare(DATA, CONFIG, engine="cpu")
    first = [work.held_out_probs(), work.views(), work.noisy_probs(), work.neighbors(9)]
    monkeypatch.setattr(Groundwork, "_train", None)
    monkeypatch.setattr(Groundwork, "_neighbors", None)
    again = [work.held_out_probs(), work.views(), work.noisy_probs(), work.neighbors(4)]
    assert all(a is b for a, b in zip(first[:3], again[:3], strict=True))
    assert np.array_equal(again[3], first[3][:, :4])
    np.testing.assert_allclose(work.views().mean(axis=0), work.noisy_probs())


def test_groundwork_for_something_else_is_refused():
    work = Groundwork.prepare(DATA, CONFIG, seed=1, engine="cpu")
    with pytest.raises(ValueError, match="prepared with seed = 1, and now it is 0"):
        run("given labels", groundwork=work)
    other, _ = clusters(seed=5)
    with pytest.raises(ValueError, match=r"another clean split; pass groundwork\.dataset"):
        run("given labels", other, seed=1, groundwork=work)
    longer = replace(CONFIG, pretrain=replace(CONFIG.pretrain, steps=31))
    for name in ("GenKL", "given labels"):
        with pytest.raises(ValueError, match=r"prepared with config\.pretrain"):
            run(name, config=longer, seed=1, groundwork=work)


# -- folders and records ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["forward correction", "confident learning", "GenKL"])
def test_a_run_is_kept_and_gone_on_with(name, tmp_path):
    whole = run(name, run_dir=tmp_path / "run")
    for finished in (tmp_path / "run" / "models").glob("*-finetune.safetensors"):
        finished.unlink()
    again = run(name, run_dir=tmp_path / "run", resume=True)
    assert torch.equal(weights(whole), weights(again))
    assert torch.equal(weights(whole), weights(usual(name)[0]))
    changed = {FACTOR: 2.0}
    with pytest.raises(ValueError, match="learning_rate"):
        run(name, run_dir=tmp_path / "run", resume=True, settings=changed)


def test_other_settings_are_another_run(tmp_path):
    run("GCE", run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match=r"settings\.q = 0\.7, and now it is 0\.3"):
        run("GCE", run_dir=tmp_path / "run", resume=True, settings={"q": 0.3})


def test_a_record_says_with_which_settings(tmp_path):
    one = run("confident learning", settings={"filter_by": "both"})
    path = save_record(tmp_path / "record.json", title="one", runs=[one])
    (saved,) = load_record(path)["runs"]
    assert saved["settings"] == {"filter_by": "both", FACTOR: 1.0}
    assert saved["facts"] == one.facts


# -- the search ---------------------------------------------------------------------------------


def test_the_search_takes_what_validation_likes_best_and_records_everything():
    def dataset(seed):
        return clusters(seed)[0]

    grid = {FACTOR: (1e-6, 1.0, 0.3)}
    found = search_settings("given labels", dataset, CONFIG, seeds=(3, 4), grid=grid, engine="cpu")
    assert len(found.table) == 6
    mean = found.table.groupby(FACTOR)["val_accuracy"].mean()
    assert found.settings[FACTOR] == mean.idxmax() != 1e-6
    assert found.table["candidate"].tolist() == [0, 1, 2, 0, 1, 2]
    assert found.table[FACTOR].tolist()[:3] == [1.0, 1e-6, 0.3]  # the default first
    assert set(found.table.loc[found.table["chosen"], FACTOR]) == {found.settings[FACTOR]}
    row = found.table.iloc[5]
    again = run("given labels", dataset(4), seed=4, settings={FACTOR: row[FACTOR]})
    assert again.best.val_accuracy == row["val_accuracy"]


def test_the_search_never_looks_at_test_labels():
    def garbage(seed):
        dataset, _ = clusters(seed)
        wrong = replace(dataset.test, labels=torch.zeros_like(dataset.test.labels))
        return replace(dataset, test=wrong)

    for name in ("GCE", "kNN relabelling", "GenKL"):
        first, second = (
            search_settings(name, one, CONFIG, seeds=(1,), engine="cpu")
            for one in (lambda seed: clusters(seed)[0], garbage)
        )
        assert first.settings == second.settings
        pd.testing.assert_frame_equal(
            first.table.drop(columns="seconds"), second.table.drop(columns="seconds")
        )


def test_ties_go_to_the_default():
    still = replace(CONFIG, train=replace(CONFIG.train, steps=0))
    found = search_settings(
        "given labels", lambda seed: DATA, still, seeds=(0,), grid={FACTOR: (0.3, 1.0)},
        engine="cpu",
    )  # fmt: skip
    assert found.table["val_accuracy"].nunique() == 1
    assert found.settings == {FACTOR: 1.0}


def test_a_candidate_that_diverges_is_recorded_and_not_chosen():
    options = {"seeds": (0,), "engine": "cpu"}
    found = search_settings(
        "given labels", lambda seed: DATA, CONFIG, grid={FACTOR: (1e30, 0.3)}, **options
    )
    assert found.settings == {FACTOR: 0.3}
    assert found.table["val_accuracy"].isna().tolist() == [True, False]
    with pytest.raises(FloatingPointError, match="with every candidate of given labels"):
        search_settings("given labels", lambda seed: DATA, CONFIG, grid={FACTOR: (1e30,)},
                        **options)  # fmt: skip


def test_the_search_shares_groundwork_that_it_is_given(monkeypatch):
    work = Groundwork.prepare(DATA, CONFIG, seed=0, engine="cpu")
    work.held_out_probs()
    alone = search_settings(
        "confident learning", lambda seed: DATA, CONFIG, seeds=(0,), engine="cpu"
    )
    monkeypatch.setattr(Groundwork, "_train", None)
    shared = search_settings(
        "confident learning", lambda seed: None, CONFIG, seeds=(0,), engine="cpu",
        groundwork={0: work}.__getitem__,
    )  # fmt: skip
    pd.testing.assert_frame_equal(
        alone.table.drop(columns="seconds"), shared.table.drop(columns="seconds")
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": ()}, "0 seeds and 4 candidates"),
        ({"seeds": (0,), "grid": {"q": ()}}, "1 seeds and 0 candidates"),
        ({"seeds": (0,), "grid": {"q": (2.0,)}}, "q is 2.0"),
        ({"seeds": (0,), "grid": {"k": (2,)}}, "unknown setting of GCE 'k'"),
    ],
)
def test_a_search_for_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        search_settings("GCE", lambda seed: None, CONFIG, **options)


def test_roles_are_all_clean_so_that_rows_weigh_alike():
    for name in METHODS:
        if not name.startswith("GenKL"):
            counts = usual(name)[0].best.role_counts
            assert counts[Role.NON_NC.name] == counts[Role.NC.name] == 0
