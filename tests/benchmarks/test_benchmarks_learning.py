"""The end-to-end benchmark: its cells, its studies on tiny networks, its records."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import genkl
from benchmarks import learning, studies
from benchmarks.studies import CASES, METHODS, SEARCH_SEEDS, SEEDS, STUDIES
from benchmarks.sweep import Cell, run_sweep
from genkl.records import load_record
from genkl.relabel import relabel_instances

TINY = replace(
    genkl.DIGITS,
    pretrain=replace(genkl.DIGITS.pretrain, steps=40),
    train=replace(genkl.DIGITS.train, steps=20),
    finetune=replace(genkl.DIGITS.finetune, steps=5),
    first_ensemble=2,
    ensemble=1,
    max_rounds=2,
)


@pytest.fixture(scope="module")
def tiny():
    """Digits and a few steps, whatever is asked for; the predictor is trained once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "config_of", lambda data: TINY)
        yield
    studies.load.cache_clear()
    studies.groundwork.cache_clear()


def of_studies():
    """Every mechanism and every rule, and the first and last change of the other studies."""
    for name, study in STUDIES.items():
        whole = name in ("mechanism", "identify")
        for change in study.changes if whole else (study.changes[0], study.changes[-1]):
            yield pytest.param(name, change, id=f"{name}-{'-'.join(map(str, change.values()))}")


@pytest.mark.parametrize(("study", "change"), list(of_studies()))
def test_every_study_runs_and_reports(tiny, study, change):
    change = {k: (min(v, 8) if k == "clean_per_class" else v) for k, v in change.items()}
    if study == "pixels":
        pytest.skip("digits have no pixels to choose")
    found = studies.run_cell(study, "digits", 0, **change)
    assert 0 <= found["test_accuracy"] <= 1
    assert 1 <= len(found["rounds"]) <= 5
    assert found["val_accuracy"] == max(r["val_accuracy"] for r in found["rounds"])
    Cell(found)  # plain values, no NaN


def test_a_method_is_run_as_the_package_runs_it(tiny):
    cell = studies.run_cell("main", "digits", 0, method="GCE", settings={"q": 0.3})
    dataset, _ = genkl.load_dataset("digits", seed=0, label_noise=0.4)
    run = genkl.run_method("GCE", dataset, TINY, seed=0, settings={"q": 0.3}, progress=False)
    assert cell["test_accuracy"] == run.best.test_accuracy


def test_cells_are_named_once_and_search_seeds_are_never_reported():
    cells = [*studies.search_cells(CASES), *studies.ablation_cells(CASES)]
    assert len(set(cells)) == len(cells)
    assert not set(SEARCH_SEEDS) & set(SEEDS)
    searched = Counter((c["data"], c["seed"], c["method"]) for c in cells if c["study"] == "search")
    assert set(searched.values()) == {4}  # the same number of candidates for all
    without = {c["method"] for c in cells if c["data"] == "cifar10n-worst-0"}
    assert "clean set alone" not in without
    later = set(studies.LATER)
    assert later < set(METHODS)
    assert without == {name for name, m in METHODS.items() if not m.needs_clean} - later


def test_the_highest_mean_validation_accuracy_chooses_and_the_default_wins_ties():
    rows = [
        ("GCE", {"q": 0.7}, 0.80, 0.1),
        ("GCE", {"q": 0.7}, 0.90, 0.1),
        ("GCE", {"q": 0.3}, 0.88, 0.9),
        ("GCE", {"q": 0.3}, 0.84, 0.9),
        ("mixup", {"mixup_alpha": 1}, 0.7, 0.1),
        ("mixup", {"mixup_alpha": 8}, 0.7, 0.9),
    ]
    table = pd.DataFrame(rows, columns=["method", "settings", "val_accuracy", "test_accuracy"])
    chosen = studies.chosen_settings(table.assign(data="digits"))
    assert chosen == {("digits", "GCE"): {"q": 0.3}, ("digits", "mixup"): {"mixup_alpha": 1}}


def test_mechanisms_take_away_what_they_say():
    rng = np.random.default_rng(0)
    probs, given = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    is_nc, ratio = rng.random(50) < 0.3, np.array([0.1, 0.2, 0.3, 0.4])
    whole = relabel_instances(probs, given, is_nc, ratio)
    one_hot = np.eye(4)
    changed = {
        studies.given_only: one_hot[given],
        studies.predicted_only: one_hot[probs.argmax(axis=1)],
        studies.equal_ratio: relabel_instances(probs, given, is_nc, np.full(4, 0.25)).targets,
        studies.full_weight: relabel_instances(probs, given, is_nc, np.ones(4)).targets,
    }
    for rule, expected in changed.items():
        made = rule(probs, given, is_nc, ratio)
        assert np.allclose(made.targets[~is_nc], expected[~is_nc]), rule
        assert np.allclose(made.targets[is_nc], 0.25)
        assert np.array_equal(made.roles, whole.roles)
        assert not np.allclose(made.targets, whole.targets)
    base = genkl.DIGITS
    config, options = studies.MECHANISMS["no clean term"](base)
    assert config.omega == (0, 32, 1)
    assert options == {}
    assert studies.MECHANISMS["one round"](base)[0].max_rounds == 1
    assert studies.MECHANISMS["no fine-tuning"](base)[0].finetune.steps == 0
    equal = studies.MECHANISMS["equal weights of the terms"](base)[0]
    assert equal.weights == (1, 1, 1)


def test_rules_flag_within_the_budget_and_the_oracle_knows(tiny):
    _, truth = studies.load("digits", 0)
    work = studies.groundwork("digits", 0)
    noisy, held_out = (
        genkl.predict_probs(work.predictor(), getattr(work.dataset, part).inputs)
        for part in ("noisy", "validation")
    )
    flagged = {
        name: studies.rule_named(name, TINY, work, truth, 0)(noisy, held_out).is_nc
        for name in studies.IDENTIFIED
    }
    assert np.array_equal(flagged["oracle"], truth.is_nc)
    assert flagged["random"].sum() == truth.is_nc.sum()
    assert flagged["random"][truth.is_nc].mean() < 0.5
    assert not flagged["nothing"].any()
    # Detectors of wrong labels flag those, too; the others flag few that conform.
    for name in ("GenKL", "GenKL invariant", "entropy", "max softmax", "KNN"):
        assert flagged[name][~truth.is_nc].mean() < 0.12, name


def finished(folder, cells):
    """Cells with results that a toy made."""
    return run_sweep(cells, toy, folder, jobs=1, progress=None)


def toy(**settings):
    value = (settings["seed"] + 1) / 10
    one = {"round": 1, "test_accuracy": value, "flagged": None}
    return {"val_accuracy": value, "test_accuracy": value, "flagged": None, "rounds": [one, one]}


def test_a_record_has_a_row_per_run_and_any_run_can_be_made_again(tmp_path, monkeypatch, capsys):
    cells = [
        Cell({"study": study, "data": "digits", "identify": "GenKL", "seed": seed})
        for study in ("identify", "rounds")
        for seed in (0, 1)
    ]
    cells.append(
        Cell({"study": "alpha-beta", "data": "digits", "alpha": None, "beta_share": 0.5, "seed": 0})
    )
    sweep = finished(tmp_path / "cells", cells)
    learning._record("ablations", {"runs": sweep}, tmp_path, ["digits"])
    record = load_record(tmp_path / "ablations.json")
    assert len(record["tables"]["runs"]) == 5
    assert len(record["tables"]["rounds"]) == 4  # of the study of rounds only
    assert record["settings"]["data"]["digits"]["options"] == {"label_noise": 0.4}
    again = []
    monkeypatch.setattr(learning, "run_cell", lambda **c: again.append(c) or toy(**c))
    for cell in cells:
        assert learning.run_again(cell.key, tmp_path) == 0
    assert [Cell(c) for c in again] == cells
    assert "difference" in capsys.readouterr().out
    assert learning.run_again("no such key", tmp_path) == 2


def test_nothing_is_recorded_while_a_run_has_failed(tmp_path):
    def breaks(**settings):
        raise RuntimeError("no")

    cells = [Cell({"study": "main", "data": "digits", "seed": 0})]
    sweep = run_sweep(cells, breaks, tmp_path / "cells", jobs=1, progress=None)
    learning._record("main", {"runs": sweep}, tmp_path, ["digits"])
    assert not (tmp_path / "main.json").exists()


def test_the_committed_records_are_whole():
    main = load_record(learning.FOLDER / "main.json")
    assert main["provenance"]["uncommitted_changes"] is False
    found = {(r["data"], r["method"], r["seed"]) for r in main["tables"]["runs"]}
    assert found == {(d, m, s) for d in CASES for m in studies.methods_for(d) for s in SEEDS}
    searched = {(r["data"], r["method"]) for r in main["tables"]["search"]}
    assert searched == {(d, m) for d in CASES for m in studies.methods_for(d)}
    ablations = load_record(learning.FOLDER / "ablations.json")
    assert {r["study"] for r in ablations["tables"]["runs"]} == set(STUDIES)
    expected = {cell.key for cell in studies.ablation_cells(CASES)}
    assert {r["key"] for r in ablations["tables"]["runs"]} == expected


def test_unknown_names_are_refused(capsys, monkeypatch):
    for arguments, message in (
        (["mian"], "unknown part 'mian'; choose from: main, ablations"),
        (["--data", "digit"], "unknown data set 'digit'; choose from: digits"),
        (["ablations", "--data", "digits", "--only", "study=los"], "study is one of"),
    ):
        monkeypatch.setattr("sys.argv", ["learning", *arguments])
        with pytest.raises(SystemExit):
            learning.main()
        assert message in capsys.readouterr().err
