"""The end-to-end benchmark: its splits, cells, studies on tiny networks, intervals, records."""

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import recall_score

import genkl
from benchmarks import ablations, learning, splits, studies
from benchmarks.ablations import FOUND, NOISES, STUDIES
from benchmarks.resampling import pack, unpack
from benchmarks.studies import CASES, METHODS, SEARCH_SEEDS, SEEDS, VOTES
from benchmarks.sweep import Cell, gather, run_sweep, status
from genkl.baselines.method import FACTOR, RATES
from genkl.data import Kind
from genkl.records import load_record, save_record
from genkl.relabel import relabel_instances
from genkl.storage import write_json

TINY = replace(
    genkl.DIGITS,
    pretrain=replace(genkl.DIGITS.pretrain, steps=40),
    train=replace(genkl.DIGITS.train, steps=20),
    finetune=replace(genkl.DIGITS.finetune, steps=5),
    first_ensemble=2,
    ensemble=1,
    max_rounds=2,
)
TUNED = {FACTOR: 0.3}


@pytest.fixture(scope="module")
def tiny():
    """Digits and a few steps, whatever is asked for; the predictor is trained once."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (studies, ablations):
            patch.setattr(module, "config_of", lambda data, settings=None: TINY)
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
    own = {} if ablations.method_of(study, change) is None else {"settings": TUNED}
    found = ablations.run_cell(study, "digits", 0, **change, **own)
    assert 0 <= found["worst_recall"] <= found["balanced_accuracy"] <= 1
    assert unpack(found["correct"]).mean() == pytest.approx(found["test_accuracy"])
    assert 1 <= len(found["rounds"]) <= 5
    assert found["val_accuracy"] == max(r["val_accuracy"] for r in found["rounds"])
    Cell(found)  # plain values, no NaN


def test_a_method_is_run_as_the_package_runs_it(tiny):
    cell = ablations.run_cell("main", "digits", 0, method="GCE", settings={"q": 0.3})
    searched = ablations.run_cell("search", "digits", 0, method="GCE", settings={"q": 0.3})
    dataset, _ = studies.load("digits", 0)
    run = genkl.run_method("GCE", dataset, TINY, seed=0, settings={"q": 0.3}, progress=False)
    assert cell["test_accuracy"] == run.best.test_accuracy
    assert searched == {"val_accuracy": cell["val_accuracy"]}  # nothing of the test split
    beyond = {"q": 0.3, FACTOR: 1e30}
    diverged = ablations.run_cell("search", "digits", 0, method="GCE", settings=beyond)
    assert diverged == {"val_accuracy": None}


def test_neighbours_that_vote_were_not_asked(tiny):
    found = ablations.run_cell("main", "digits", 0, method=VOTES, settings={"largest": 51})
    searched = ablations.run_cell("search", "digits", 0, method=VOTES, settings={"largest": 51})
    assert searched == {"val_accuracy": found["val_accuracy"]}
    # The digits are easily told by their neighbours, and their labels are 40 % wrong.
    assert found["test_accuracy"] > 0.9
    assert found["clean_labels"] == 64


# -- splits -------------------------------------------------------------------------------------

OWN = [name for name in CASES if CASES[name].dataset in splits.EVERYTHING]


@pytest.mark.parametrize("data", OWN)
def test_no_seed_sees_a_test_image_or_its_sender(data):
    if not CASES[data].is_present():
        pytest.skip("not on this machine")
    tests, options = [], CASES[data].options
    senders = CASES[data].senders()
    for seed in (*SEEDS[:2], *SEARCH_SEEDS[:2]):
        dataset, truth = splits.draw(CASES[data].dataset, seed, **options)
        tests.append(dataset.test.ids.tolist())
        pool = splits.whole(CASES[data].dataset, options["test_per_class"])
        known = set(pool.dataset.noisy.ids.tolist())
        for part in ("clean", "validation"):
            assert set(getattr(dataset, part).ids.tolist()) < known
        assert np.array_equal(truth.ids, dataset.noisy.ids)
        counts = np.bincount(dataset.clean.labels, minlength=dataset.num_classes)
        assert (counts == options["clean_per_class"]).all()
        assert (np.bincount(dataset.validation.labels) >= options["validation_per_class"]).all()
        by_kind = Counter(truth.kinds.tolist())
        wrong, correct = by_kind[Kind.MISLABELLED], by_kind[Kind.CORRECT]
        assert wrong / (wrong + correct) == pytest.approx(options["label_noise"], abs=1e-3)
        if senders is not None:
            assert not set(senders) & set(pool.groups[0])
    assert tests[0] == tests[1] == tests[2] == tests[3]


def test_seeds_draw_other_splits_and_the_digits_have_every_kind():
    first, second = (splits.draw("digits", seed, **CASES["digits"].options) for seed in (0, 1))
    assert set(first[0].clean.ids.tolist()) != set(second[0].clean.ids.tolist())
    counts = Counter(first[1].kinds.tolist())
    assert (counts[Kind.OOD], counts[Kind.AMBIGUOUS]) == (160, 80)
    again = splits.draw("digits", 0, **CASES["digits"].options)
    assert np.array_equal(again[0].noisy.labels, first[0].noisy.labels)


@pytest.mark.parametrize("noise", NOISES)
def test_one_kind_of_noise_at_a_time(noise):
    kinds, loading = NOISES[noise]
    _, truth = splits.draw("digits", 0, **{**CASES["digits"].options, **loading})
    shares = pd.Series(truth.kinds).value_counts(normalize=True)
    assert set(shares.index) <= {Kind.CORRECT, *kinds}
    assert 1 - shares[Kind.CORRECT] == pytest.approx(0.2, abs=0.002)


# -- cells --------------------------------------------------------------------------------------


def test_cells_are_named_once_and_search_seeds_are_never_reported():
    chosen = {(d, m): {**studies.default_settings(m), **TUNED} for d in CASES for m in METHODS}
    cells = [
        *studies.search_cells(CASES),
        *studies.main_cells(CASES, chosen),
        *ablations.ablation_cells(CASES, chosen),
    ]
    assert len(set(cells)) == len(cells)
    assert not set(SEARCH_SEEDS) & set(SEEDS)
    assert len(SEARCH_SEEDS) >= 5
    main = Counter((c["data"], c["method"], c["seed"]) for c in cells if c["study"] == "main")
    assert set(main.values()) == {1, 2}  # as it is and tuned; votes are not
    assert {method for (_, method, _), count in main.items() if count == 1} == {VOTES}
    without = {c["method"] for c in cells if c["data"] == "cifar10n-worst-0"}
    assert "clean set alone" not in without
    assert VOTES in without
    assert len(without) == 1 + sum(not method.needs_clean for method in METHODS.values())  # votes


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tries_the_same_rates_its_default_first(method):
    tried = list(studies.candidates(method))
    assert tried[0] == dict(METHODS[method].settings)
    rates = Counter(one[FACTOR] for one in tried)
    assert {0.3, 1.0, 3.0} <= set(rates) == set(RATES[FACTOR])
    assert len(set(rates.values())) == 1


def search_table(rows):
    table = pd.DataFrame(rows, columns=["method", "settings", "val_accuracy", "seed"])
    return table.assign(data="digits")


def test_the_highest_mean_validation_accuracy_chooses_and_the_default_wins_ties():
    low, high = {"q": 0.7, FACTOR: 1.0}, {"q": 0.3, FACTOR: 3.0}
    rows = [
        ("GCE", low, 0.80, 100),
        ("GCE", low, 0.90, 101),
        ("GCE", high, 0.88, 100),
        ("GCE", high, 0.84, 101),
        ("GCE", {"q": 0.5, FACTOR: 3.0}, 0.99, 100),
        ("GCE", {"q": 0.5, FACTOR: 3.0}, None, 101),  # diverged
        ("mixup", {"mixup_alpha": 1}, 0.7, 100),
        ("mixup", {"mixup_alpha": 8}, 0.7, 100),
    ]
    table = studies.chosen_settings(search_table(rows)).set_index("method")
    assert table["settings"].to_dict() == {"GCE": high, "mixup": {"mixup_alpha": 1}}
    gce = table.loc["GCE"]
    assert gce["over_default"] == pytest.approx(1.0) == gce["over_next"]
    assert gce["standard_error"] == pytest.approx(7.0)  # points: 8 and -6
    assert gce["at_edge"]
    assert not table.loc["mixup", "at_edge"]


def test_runs_stand_for_the_default_for_the_tuned_or_for_both():
    tuned = {"q": 0.3, FACTOR: 0.3}
    default = studies.default_settings("GCE")
    chosen = {("digits", "GCE"): tuned}
    assert studies.settings_to_run("digits", "GCE", chosen) == [default, tuned]
    assert studies.settings_to_run("digits", "GCE", {("digits", "GCE"): default}) == [default]
    assert studies.tunings("digits", "GCE", tuned, chosen) == ["tuned"]
    assert studies.tunings("digits", "GCE", default, chosen) == ["default"]
    assert studies.tunings("digits", "GCE", default, {("digits", "GCE"): default}) == [
        "default",
        "tuned",
    ]


def test_mechanisms_take_away_what_they_say():
    rng = np.random.default_rng(0)
    probs, given = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    is_nc, ratio = rng.random(50) < 0.3, np.array([0.1, 0.2, 0.3, 0.4])
    whole = relabel_instances(probs, given, is_nc, ratio)
    one_hot = np.eye(4)
    changed = {
        ablations.given_only: one_hot[given],
        ablations.predicted_only: one_hot[probs.argmax(axis=1)],
        ablations.equal_ratio: relabel_instances(probs, given, is_nc, np.full(4, 0.25)).targets,
        ablations.full_weight: relabel_instances(probs, given, is_nc, np.ones(4)).targets,
    }
    for rule, expected in changed.items():
        made = rule(probs, given, is_nc, ratio)
        assert np.allclose(made.targets[~is_nc], expected[~is_nc]), rule
        assert np.allclose(made.targets[is_nc], 0.25)
        assert np.array_equal(made.roles, whole.roles)
        assert not np.allclose(made.targets, whole.targets)
    base = genkl.DIGITS
    config, options = ablations.MECHANISMS["no clean term"](base)
    assert config.omega == (0, 32, 1)
    assert options == {}
    assert ablations.MECHANISMS["one round"](base)[0].max_rounds == 1
    assert ablations.MECHANISMS["no fine-tuning"](base)[0].finetune.steps == 0
    equal = ablations.MECHANISMS["equal weights of the terms"](base)[0]
    assert equal.weights == (1, 1, 1)


def test_rules_flag_within_the_budget_and_the_oracle_knows(tiny):
    _, truth = studies.load("digits", 0)
    work = studies.groundwork("digits", 0)
    noisy, held_out = (
        genkl.predict_probs(work.predictor(), getattr(work.dataset, part).inputs)
        for part in ("noisy", "validation")
    )
    flagged = {
        name: ablations.rule_named(name, TINY, work, truth, 0)(noisy, held_out).is_nc
        for name in ablations.IDENTIFIED
    }
    assert np.array_equal(flagged["oracle"], truth.is_nc)
    assert flagged["random"].sum() == truth.is_nc.sum()
    assert flagged["random"][truth.is_nc].mean() < 0.5
    assert not flagged["nothing"].any()
    # Detectors of wrong labels flag those, too; the others flag few that conform.
    for name in ("GenKL", "GenKL invariant", "entropy", "max softmax", "KNN"):
        assert flagged[name][~truth.is_nc].mean() < 0.12, name


@pytest.mark.parametrize("noise", NOISES)
def test_the_oracle_finds_all_and_chance_its_share(tiny, noise):
    work = studies.groundwork("digits", 0, **NOISES[noise][1])
    found = {
        find: ablations.run_cell(
            "finding", "digits", 0, noise=noise, find=find, learner="left out", settings=TUNED
        )
        for find in ("oracle", "random", "nothing", "given label")
    }
    assert (found["oracle"]["auroc"], found["oracle"]["found"]) == (1, 1)
    assert (found["nothing"]["auroc"], found["nothing"]["found"]) == (0.5, 0)
    assert found["random"]["found"] == pytest.approx(0.2, abs=0.08)
    assert found["given label"]["auroc"] > 0.6 if noise != "AID" else True
    assert len(work.dataset.test) == unpack(found["oracle"]["correct"]).shape[1]
    assert set(found) <= set(FOUND)


# -- intervals ----------------------------------------------------------------------------------


@given(st.integers(0, 100), st.integers(1, 4), st.integers(1, 40))
@settings(deadline=None)
def test_what_is_packed_is_unpacked(seed, models, images):
    hits = np.random.default_rng(seed).random((models, images)) < 0.5
    assert np.array_equal(unpack(pack(hits)), hits)


@given(st.integers(0, 100))
@settings(deadline=None, max_examples=20)
def test_recalls_are_scikit_learn_s(seed):
    rng = np.random.default_rng(seed)
    labels, predicted = np.arange(60) % 4, rng.integers(0, 4, (2, 60))
    made = studies.judged(predicted, labels)
    theirs = [recall_score(labels, one, average=None) for one in predicted]
    assert made["balanced_accuracy"] == pytest.approx(np.mean(theirs))
    assert made["worst_recall"] == pytest.approx(np.mean([one.min() for one in theirs]))


# -- records ------------------------------------------------------------------------------------

CELLS = [
    Cell({"study": study, "data": "digits", "identify": rule, "seed": seed, **own})
    for study, own in (("identify", {"settings": TUNED}), ("rounds", {}))
    for rule in ("GenKL", "nothing")
    for seed in (0, 1)
]


def finished(folder, cells):
    """Cells with results that a toy made."""
    return run_sweep(cells, toy, folder, jobs=1, progress=None)


def toy(**settings):
    value = (settings["seed"] + 1) / 10
    one = {"round": 1, "test_accuracy": value, "flagged": None}
    # "nothing" is right on the images 0 to 9 of 20, GenKL on 10 to 14 as well.
    hits = np.arange(20) < (10 if settings.get("identify") == "nothing" else 15)
    figures = {"val_accuracy": value, "test_accuracy": value, "flagged": None}
    return {**figures, "rounds": [one, one], "correct": pack(hits[None])}


def record_of(sweep, folder):
    chosen = {("digits", "GenKL"): TUNED}
    learning.save_part("ablations", {"runs": learning._tuned(sweep.table(), chosen)}, folder)
    return load_record(folder / "ablations/digits.json")


def test_a_record_has_a_row_per_run_and_any_run_can_be_made_again(tmp_path, monkeypatch, capsys):
    record = record_of(finished(tmp_path / "cells", CELLS), tmp_path)
    runs = pd.DataFrame(record["tables"]["runs"])
    assert len(runs) == 8
    assert runs.groupby("study")["tuning"].unique().map(list).to_dict() == {
        "identify": ["tuned"],
        "rounds": ["default"],
    }
    assert len(record["tables"]["rounds"]) == 8  # of the study of rounds only
    assert record["settings"]["options"]["label_noise"] == 0.4
    again = []
    monkeypatch.setattr(learning, "run_cell", lambda **c: again.append(c) or toy(**c))
    for cell in CELLS:
        assert learning.run_again(cell.key, tmp_path) == 0
    assert [Cell(c) for c in again] == CELLS
    assert "difference" in capsys.readouterr().out
    assert learning.run_again("no such key", tmp_path) == 2


def test_a_searched_candidate_can_be_made_again(tmp_path, monkeypatch):
    cells = [
        Cell({"study": "search", "data": "digits", "method": "GCE", "settings": own, "seed": seed})
        for own in ({"q": 0.7}, {"q": 0.3})
        for seed in SEARCH_SEEDS[::-1]
    ]
    table = studies.by_candidate(finished(tmp_path / "cells", cells).table())
    assert len(table) == 2
    assert table["val_accuracy"][0] == [(seed + 1) / 10 for seed in SEARCH_SEEDS]
    runs = pd.DataFrame([{"key": "x", "cell": "{}"}])
    save_record(tmp_path / "main/digits.json", title="", tables={"runs": runs, "search": table})
    again = []
    monkeypatch.setattr(learning, "run_cell", lambda **c: again.append(c) or toy(**c))
    assert learning.run_again(cells[3].key, tmp_path) == 0
    assert [Cell(c) for c in again] == [cells[3]]


def test_a_record_compares_with_the_base_and_keeps_what_was_right(tmp_path):
    record = record_of(finished(tmp_path / "cells", CELLS), tmp_path)
    found = pd.DataFrame(record["tables"]["intervals"]).set_index(["study", "identify"])
    assert found.loc[("identify", "GenKL"), "accuracy"] == 75
    assert pd.isna(found.loc[("identify", "GenKL"), "difference"])
    other = found.loc[("identify", "nothing")]
    assert (other["accuracy"], other["difference"]) == (50, -25)
    assert -60 < other["difference_low"] < -25 < other["difference_high"] < 0
    with np.load(tmp_path / "ablations/digits-correct.npz", allow_pickle=False) as arrays:
        keys, right = arrays["keys"].tolist(), arrays["right"]
    assert keys == [cell.key for cell in CELLS]
    assert right.sum(axis=0).tolist() == [15, 15, 10, 10] * 2


def test_a_sweep_runs_only_what_a_current_record_lacks(tmp_path, monkeypatch, capsys):
    cells = [
        Cell(
            {"study": "search", "data": "digits", "method": "GCE", "settings": {"q": q}, "seed": s}
        )
        for q in (0.7, 0.3)
        for s in SEARCH_SEEDS
    ]
    done = finished(tmp_path / "cells", CELLS)
    searched = studies.by_candidate(finished(tmp_path / "searched", cells).table())
    runs = learning._tuned(done.table(), {("digits", "GenKL"): TUNED})
    runs["test_accuracy"] = runs["correct"].map(lambda text: unpack(text).mean())
    tables = {"runs": runs, "search": searched}
    learning.save_part("main", tables, tmp_path)
    monkeypatch.setattr(learning, "kept", lambda: tmp_path / "known")
    assert learning.refilled(["main", "ablations"], ["digits"], tmp_path) == len([*CELLS, *cells])
    assert learning.refilled(["main"], ["digits"], tmp_path) == 0  # they are there
    run_sweep(CELLS[:3], toy, tmp_path / "known", jobs=1, rerun="all", progress=None)  # of no code
    assert learning.refilled(["main"], ["digits"], tmp_path) == 3
    states = status(tmp_path / "known", [*CELLS, *cells], learning.CODE["main"])
    assert set(states.values()) == {"current"}
    known, was = gather(tmp_path / "known", CELLS), done.table()
    names = ["key", "study", "seed", "val_accuracy", "flagged"]
    pd.testing.assert_frame_equal(known[names], was[names])
    for now, then in zip(known["correct"], was["correct"], strict=True):
        assert np.allclose(unpack(now).mean(axis=0), unpack(then).mean(axis=0))
    path = tmp_path / "main/digits.json"
    runs = learning._tuned(known, {("digits", "GenKL"): TUNED})
    learning.save_part("main", {"runs": runs}, tmp_path / "again")
    again, first = (load_record(p / "main/digits.json") for p in (tmp_path / "again", tmp_path))
    assert again["tables"]["rounds"] == first["tables"]["rounds"] != []
    write_json(path, load_record(path) | {"code": {"genkl.losses": "0" * 16}})
    assert learning.refilled(["main"], ["digits"], tmp_path) == 0
    assert "its code has changed since: genkl.losses" in capsys.readouterr().out


def test_chosen_settings_come_from_finished_cells_else_from_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "kept", lambda: tmp_path / "cells")
    assert learning.known_settings(["digits"], tmp_path) == {}
    recorded = pd.DataFrame(
        {"data": "digits", "method": ["GCE", "ELR"], "settings": [{"q": 0.1}, {"strength": 5.0}]}
    )
    save_record(tmp_path / "main/digits.json", title="", tables={"chosen": recorded})
    cells = [c for c in studies.search_cells(["digits"]) if c["method"] == "GCE"]

    def likes_slow(settings, **cell):
        return {"val_accuracy": 1 / (1 + settings[FACTOR] + abs(settings["q"] - 0.3))}

    for some, q in ((cells[:-1], 0.1), (cells, 0.3)):  # unfinished, finished
        run_sweep(some, likes_slow, tmp_path / "cells", jobs=1, progress=None)
        chosen = learning.known_settings(["digits"], tmp_path)
        assert chosen[("digits", "GCE")]["q"] == q
        assert chosen[("digits", "ELR")] == {"strength": 5.0}
    assert chosen[("digits", "GCE")][FACTOR] == min(RATES[FACTOR])
    tuned = Cell({"study": "mechanism", "data": "digits", "mechanism": "no mixup", "seed": 0})
    with pytest.raises(
        ValueError, match="no settings are chosen for GenKL on digits yet; run main"
    ):
        learning._refuse_untuned([tuned], chosen)


def test_nothing_is_recorded_while_a_run_has_failed(tmp_path, monkeypatch):
    def fails(**settings):
        raise RuntimeError("no")

    options = learning.argparse.Namespace(only={}, folder=tmp_path)
    known = {("digits", "GenKL"): TUNED}
    monkeypatch.setattr(learning, "known_settings", lambda data, folder: known)
    monkeypatch.setattr(ablations, "ablation_cells", lambda data, chosen: CELLS[:1])
    monkeypatch.setattr(
        learning,
        "sweep",
        lambda cells, *_: run_sweep(cells, fails, tmp_path / "cells", jobs=1, progress=None),
    )
    (done,) = learning.run_ablations(["digits"], options)
    assert done.failed
    assert not (tmp_path / "ablations").exists()


def test_the_committed_records_are_whole():
    found = learning.recorded(learning.FOLDER, "main")
    assert found
    for record in found:
        assert record["provenance"]["uncommitted_changes"] is False
        tables = {name: pd.DataFrame(table) for name, table in record["tables"].items()}
        (data,) = set(tables["runs"]["data"])
        named = set(studies.methods_for(data))
        for tuning in studies.TUNINGS:
            runs = tables["runs"][tables["runs"]["tuning"] == tuning]
            assert {*zip(runs["method"], runs["seed"], strict=True)} == {*product(named, SEEDS)}
        assert set(tables["chosen"]["method"]) == named
        tried = tables["search"]
        assert len(tried) == sum(len(list(studies.candidates(name))) for name in named)
        assert tried["val_accuracy"].map(len).eq(len(SEARCH_SEEDS)).all()
        with np.load(learning.FOLDER / f"main/{data}-correct.npz", allow_pickle=False) as arrays:
            keys, right = arrays["keys"].tolist(), arrays["right"]
        reached = tables["runs"].drop_duplicates("key").set_index("key")["test_accuracy"]
        shares = right.mean(axis=0) / right.max(axis=0)  # of models; all are right somewhere
        assert dict(zip(keys, shares, strict=True)) == pytest.approx(dict(reached), abs=1e-4)


def test_the_committed_ablations_are_whole():
    chosen = learning.known_settings([], learning.FOLDER)
    found = learning.recorded(learning.FOLDER, "ablations")
    assert found
    for record in found:
        assert record["provenance"]["uncommitted_changes"] is False
        runs = pd.DataFrame(record["tables"]["runs"])
        (data,) = set(runs["data"])
        expected = ablations.ablation_cells([data], chosen)
        assert set(runs["key"]) == {cell.key for cell in expected}
        assert set(runs["study"]) == {n for n, study in STUDIES.items() if data in study.data}
        assert (learning.FOLDER / f"ablations/{data}-correct.npz").exists()


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
