"""The iteration, end to end and tiny: rounds, roles, ablations, records, repeatability."""

import importlib.metadata
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from genkl import (
    DIGITS,
    SOLAR_CELLS,
    Decision,
    GenKLConfig,
    Kind,
    Phase,
    Role,
    Truth,
    accuracy,
    entropy_rule,
    flag_nothing,
    identification_report,
    load_dataset,
    load_record,
    mean_and_std,
    run_genkl,
    run_method,
    runs_to_frame,
    save_record,
)
from genkl.predict import predict_probs

TINY = replace(
    DIGITS,
    first_ensemble=2,
    ensemble=2,
    max_rounds=2,
    pretrain=replace(DIGITS.pretrain, steps=120),
    train=replace(DIGITS.train, steps=150),
    finetune=replace(DIGITS.finetune, steps=10),
)
DATA, TRUTH = load_dataset("digits", seed=0)


@pytest.fixture(scope="module")
def run():
    return run_genkl(DATA, TINY, seed=0, stop_early=False, progress=False)


def test_every_round_is_recorded_and_consistent(run):
    assert [one.index for one in run.rounds] == [1, 2]
    for one in run.rounds:
        assert one.flagged == pytest.approx(one.is_nc.mean())
        assert one.role_counts["NC"] == one.is_nc.sum() > 0
        assert one.role_counts["CLEAN"] == len(DATA.clean) == run.clean_labels
        assert sum(one.role_counts.values()) == len(DATA.clean) + len(DATA.noisy)
        assert np.array_equal(one.is_nc, one.scores >= one.threshold)
        assert one.predictor_val_accuracy > 0.5
        assert all(math.isfinite(value) for value in one.role_losses.values())


def test_the_chosen_models_give_the_recorded_accuracies(run):
    each = [predict_probs([model], DATA.test.inputs) for model in run.models]
    labels = DATA.test.labels.numpy()
    assert np.mean([accuracy(probs, labels) for probs in each]) == run.best.test_accuracy
    assert accuracy(np.mean(each, axis=0), labels) == run.best.ensemble_test_accuracy


def test_validation_chooses_the_round_and_test_labels_change_nothing(run):
    assert run.best.val_accuracy == max(one.val_accuracy for one in run.rounds)
    shuffled = replace(DATA.test, labels=DATA.test.labels.flip(0))
    other = run_genkl(replace(DATA, test=shuffled), TINY, seed=0, stop_early=False, progress=False)
    assert other.best.index == run.best.index
    for mine, theirs in zip(run.rounds, other.rounds, strict=True):
        assert mine.val_accuracy == theirs.val_accuracy
        assert np.array_equal(mine.scores, theirs.scores)
        assert mine.test_accuracy != theirs.test_accuracy


def test_same_seed_same_numbers(run):
    again = run_genkl(DATA, TINY, seed=0, stop_early=False, progress=False)
    for mine, theirs in zip(run.rounds, again.rounds, strict=True):
        assert np.array_equal(mine.pred_probs, theirs.pred_probs)
        assert mine.test_accuracy == theirs.test_accuracy
    other = run_genkl(DATA, replace(TINY, max_rounds=1), seed=1, progress=False)
    assert not np.array_equal(other.rounds[0].pred_probs, run.rounds[0].pred_probs)


def test_rounds_stop_when_validation_stops_rising():
    # Training that cannot move: round 2 cannot beat round 1, so round 3 never runs.
    frozen = replace(TINY, max_rounds=3, train=Phase(steps=1, learning_rate=1e-12))
    frozen = replace(frozen, finetune=replace(frozen.finetune, steps=0), ensemble=1)

    def constant(input_shape, num_classes):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))

    run = run_genkl(DATA, frozen, make_model=constant, progress=False)
    assert [one.index for one in run.rounds] == [1, 2]
    assert run.best.index == 1


def test_alpha_is_fixed_or_chosen_within_the_budget():
    fixed = run_genkl(DATA, replace(TINY, alpha=0.4, max_rounds=1), progress=False)
    assert fixed.rounds[0].threshold == 0.4
    loose = run_genkl(DATA, replace(TINY, max_flag_rate=0.3, max_rounds=1), progress=False)
    tight = run_genkl(DATA, replace(TINY, max_flag_rate=0.02, max_rounds=1), progress=False)
    assert loose.rounds[0].flagged > tight.rounds[0].flagged
    assert not (tight.rounds[0].is_nc & ~loose.rounds[0].is_nc).any()


@pytest.mark.parametrize(
    ("alpha", "words", "role"),
    [(1e-9, "every instance is flagged", "NON_NC"), (99.0, "no instance is flagged", "NC")],
)
def test_a_round_that_flags_all_or_nothing_runs_and_warns(alpha, words, role):
    config = replace(TINY, alpha=alpha, max_rounds=1)
    with pytest.warns(UserWarning, match=f"round 1: {words}"):
        run = run_genkl(DATA, config, progress=False)
    assert run.rounds[0].role_counts[role] == 0
    assert math.isnan(run.rounds[0].role_losses[role])
    assert 0 < run.best.test_accuracy < 1


def test_an_ablation_replaces_one_function():
    one_round = replace(TINY, max_rounds=1)
    by_entropy = run_genkl(DATA, one_round, identify=entropy_rule(0.05), progress=False)
    assert by_entropy.rounds[0].scores.max() <= 1 + 1e-12
    nothing = run_genkl(DATA, one_round, identify=flag_nothing, progress=False)
    assert nothing.rounds[0].role_counts["NC"] == 0
    oracle = run_genkl(
        DATA,
        one_round,
        identify=lambda probs, _: Decision(TRUTH.is_nc.astype(float), 0.5),
        progress=False,
    )
    assert np.array_equal(oracle.rounds[0].is_nc, TRUTH.is_nc)
    seen = []

    def as_given(pred_probs, given_labels, is_nc, class_ratio):
        seen.append(class_ratio)
        from genkl import relabel_instances

        return relabel_instances(pred_probs, given_labels, np.zeros_like(is_nc), class_ratio)

    run = run_genkl(DATA, one_round, relabel=as_given, progress=False)
    assert run.rounds[0].role_counts["NC"] == 0
    assert np.allclose(seen[0], 1 / 8)  # the clean set is balanced


def test_identification_finds_planted_nc_better_than_chance(run):
    report = identification_report(run.rounds[0].scores, run.rounds[0].is_nc, TRUTH)
    assert report["auroc"] > 0.7
    assert report["precision"] > 2 * TRUTH.is_nc.mean() * 0.8


def test_baselines_learn_from_what_they_say():
    given = run_method("given labels", DATA, TINY, progress=False)
    clean = run_method("clean set alone", DATA, TINY, progress=False)
    tuned = run_method("given labels + fine-tuning", DATA, TINY, progress=False)
    assert given.best.role_counts["CLEAN"] == len(DATA.clean) + len(DATA.noisy)
    assert clean.best.role_counts["CLEAN"] == len(DATA.clean)
    assert tuned.best.val_accuracy >= given.best.val_accuracy
    assert math.isnan(given.best.flagged)
    with pytest.raises(
        ValueError, match="unknown method 'magic'; choose one of: clean set alone, given labels"
    ):
        run_method("magic", DATA, TINY)


def test_an_empty_class_in_the_clean_set_is_named():
    keep = DATA.clean.labels != 3
    clean = replace(
        DATA.clean,
        inputs=DATA.clean.inputs[keep],
        labels=DATA.clean.labels[keep],
        ids=DATA.clean.ids[keep],
    )
    with pytest.raises(ValueError, match="class_counts\\[3\\] is 0"):
        run_genkl(replace(DATA, clean=clean), TINY, progress=False)


def test_beta_is_checked_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"beta is 0\.2; identification needs"):
        run_genkl(DATA, replace(TINY, beta=0.2), make_model=None, progress=False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"max_flag_rate": 1.0}, "max_flag_rate is 1.0"),
        ({"beta": -0.1}, "beta is -0.1"),
        ({"sigma": -1.0}, "sigma is -1.0"),
        ({"omega": (1.0, 1.0)}, "omega is"),
        ({"omega": (0.0, 0.0, 0.0)}, "omega is"),
        ({"omega": (1.0, -1.0, 1.0)}, "omega is"),
        ({"mixup_alpha": -0.5}, "mixup_alpha is -0.5"),
        ({"ensemble": 0}, "ensemble is 0"),
        ({"max_rounds": 0}, "max_rounds is 0"),
        ({"num_vectors": 0}, "num_vectors is 0"),
    ],
)
def test_bad_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        GenKLConfig(**setting)


def test_weights_are_omega_over_the_batch_size():
    config = replace(DIGITS, omega=(1.0, 32.0, 4.0), train=replace(DIGITS.train, batch_size=32))
    assert config.weights == (1 / 32, 1.0, 4 / 32)
    assert isinstance(SOLAR_CELLS, GenKLConfig)
    with pytest.raises(AttributeError):
        config.alpha = 1.0


# -- evaluation ---------------------------------------------------------------------------------


def toy_truth():
    kinds = np.array([Kind.CORRECT, Kind.MISLABELLED, Kind.OOD, Kind.OOD, Kind.AMBIGUOUS])
    return Truth(kinds, np.zeros(5, dtype=int), "by hand")


def test_report_counts_by_hand():
    scores = np.array([0.1, 0.6, 0.9, 0.3, 0.8])
    report = identification_report(scores, scores >= 0.5, toy_truth())
    assert report["flagged"] == 0.6
    assert report["precision"] == report["recall"] == report["f1"] == pytest.approx(2 / 3)
    assert report["false_flags"] == 0.5
    assert report["recall_ood"] == 0.5
    assert report["recall_ambiguous"] == 1.0
    assert report["auroc"] == roc_auc_score([0, 0, 1, 1, 1], scores)
    assert report["auroc_ood"] == roc_auc_score([0, 0, 1, 1], scores[:4])


def test_report_is_nan_where_a_figure_does_not_exist():
    scores = np.array([0.1, np.inf])
    kinds = np.array([Kind.CORRECT, Kind.AMBIGUOUS])
    report = identification_report(scores, np.zeros(2, bool), Truth(kinds, kinds, "by hand"))
    assert math.isnan(report["precision"])
    assert report["f1"] == 0
    assert math.isnan(report["auroc_ood"])
    assert report["auroc_ambiguous"] == 1
    with pytest.raises(ValueError, match="must describe the same instances"):
        identification_report(scores, np.zeros(3, bool), toy_truth())


def test_mean_and_std_over_seeds():
    frame = pd.DataFrame({"method": ["b", "b", "a"], "seed": [0, 1, 0], "x": [1.0, 3.0, 5.0]})
    table = mean_and_std(frame, "method")
    assert list(table.index) == ["b", "a"]
    assert table.loc["b", ("x", "mean")] == 2
    assert table.loc["b", ("x", "std")] == pytest.approx(math.sqrt(2))
    assert table.loc["b", ("seeds", "count")] == 2


def test_accuracy_checks_its_labels():
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert accuracy(probs, np.array([0, 0])) == 0.5
    with pytest.raises(ValueError, match="labels\\[1\\] is 2"):
        accuracy(probs, np.array([0, 2]))


# -- records ------------------------------------------------------------------------------------


def test_a_record_carries_settings_seed_versions_and_every_round(run, tmp_path):
    table = pd.DataFrame({"a": [1, 2], "b": [0.5, float("nan")]})
    path = save_record(
        tmp_path / "deep" / "r.json", title="tiny", runs=[run], tables={"t": table},
        settings={"seeds": [0]},
    )  # fmt: skip
    record = load_record(path)
    assert record["runs"][0]["config"]["beta"] == TINY.beta
    assert record["runs"][0]["seed"] == 0
    assert len(record["runs"][0]["rounds"]) == 2
    assert record["runs"][0]["rounds"][0]["test_accuracy"] == run.rounds[0].test_accuracy
    assert record["provenance"]["packages"]["torch"] == importlib.metadata.version("torch")
    assert record["provenance"]["machine"]["cores"] >= 1
    assert record["tables"]["t"] == [{"a": 1, "b": 0.5}, {"a": 2, "b": None}]
    assert "NaN" not in path.read_text()


def test_a_record_is_not_overwritten_silently_nor_read_in_another_schema(run, tmp_path):
    path = save_record(tmp_path / "r.json", title="one")
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        save_record(path, title="two")
    assert load_record(path)["title"] == "one"
    save_record(path, title="two", overwrite=True)
    assert load_record(path)["title"] == "two"
    path.write_text(json.dumps({"schema": 99}))
    with pytest.raises(ValueError, match="has schema 99, this version reads 1"):
        load_record(path)
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_frame_has_a_row_per_run_or_per_round(run):
    assert len(runs_to_frame([run])) == 1
    frame = runs_to_frame([run], every_round=True)
    assert list(frame["index"]) == [1, 2]
    assert set(frame["method"]) == {"GenKL"}
    assert Role.NC.name not in frame
