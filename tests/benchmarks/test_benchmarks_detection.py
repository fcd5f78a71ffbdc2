"""The identification benchmark: who is judged, thresholds, conditions, records, the paper's."""

import dataclasses

import numpy as np
import pytest
from official_trees import clothing_key, write_clothing1m, write_food101, write_food101n

import genkl
from benchmarks import detection, evidence
from genkl.data import Kind
from genkl.records import load_record, stale_because


def command(monkeypatch, *words):
    """``python -m benchmarks.detection`` in this process."""
    monkeypatch.setattr("sys.argv", ["detection", *words])
    detection.main()


def planted(count=400, held_out=200, k=5, models=5, seed=0, temperature=1.0):
    """A quarter of the noisy instances get flat logits; the others know their class."""
    rng = np.random.default_rng(seed)
    kinds = np.where(np.arange(count) % 4 == 0, Kind.OOD, Kind.CORRECT)

    def seen(size, flat):
        labels = rng.integers(0, k, size)
        scale = np.where(flat, 0.0, rng.uniform(3, 6, size))[:, None]
        clear = scale * np.eye(k)[labels] + 0.3 * rng.normal(size=(models, size, k))
        features = np.eye(k)[labels] + 0.1 * rng.normal(size=(size, k))
        both = np.float32(temperature * np.stack([clear, clear + 0.05]))
        return evidence.Seen(both[0], both[1], np.float32(features), labels)

    noisy = seen(count, kinds == Kind.OOD)
    return evidence.Gathered(noisy, seen(held_out, np.zeros(held_out, bool)), kinds, 1.0)


def test_planted_non_conformity_is_found_and_the_budget_is_kept():
    one = detection.judged(0, planted())
    scored = detection.score_all(detection.METHODS, one)
    assert list(scored) == list(detection.METHODS)
    rows = {row["method"]: row for row in detection.measure(one, scored, 50) if row["kind"] == "NC"}
    for name in ("GenKL", "GenKL invariant", "GenKL auto", "entropy", "max logit"):
        assert rows[name]["auroc"] > 0.97, name
        assert rows[name]["budget_recall"] > 0.8, name
        assert rows[name]["budget_false_flags"] < 0.12, name  # 0.05 on average over held-out sets
    assert rows["KNN"]["auroc"] < 0.6  # nothing is planted in the features
    assert rows["entropy"]["recall_at_share"] == pytest.approx(0.2, abs=0.01)  # 5 % of all, of 25 %
    low, high = rows["GenKL"]["over_entropy_low"], rows["GenKL"]["over_entropy_high"]
    assert low <= rows["GenKL"]["over_entropy"] <= high
    assert "over_entropy" not in rows["entropy"]


def test_a_published_threshold_is_the_methods_own():
    one = detection.judged(0, planted())
    rows = detection.measure(one, detection.score_all(["GenKL", "Jo-SRC", "entropy"], one), 0)
    flagged = {row["method"]: row.get("published_flagged") for row in rows if row["kind"] == "NC"}
    vectors = genkl.uniform_like_vectors(5)
    mask = genkl.identify_nc(one.evidence.pred_probs, 1.05, 0.1, vectors)
    assert flagged["GenKL"] == pytest.approx(mask.mean())
    assert flagged["Jo-SRC"] is not None
    assert flagged["entropy"] is None


def test_recall_stands_beside_the_share_flagged():
    one = detection.judged(0, planted())
    rows = detection.measure_recall(one, detection.score_all(["GenKL", "entropy"], one))
    budgeted = [row for row in rows if "threshold" not in row]
    assert {(row["method"], row["flagged"]) for row in budgeted} == {
        (name, share) for name in ("GenKL", "entropy") for share in detection.FLAGGED
    }
    assert all(row["recall"] <= row["flagged"] / 0.25 + 1e-9 for row in budgeted)
    assert max(row["recall"] for row in budgeted) > 0.97
    fixed = {
        row["threshold"]: row["flagged"]
        for row in rows
        if row["method"] == "GenKL" and "threshold" in row
    }
    vectors = genkl.uniform_like_vectors(5)
    for alpha, flagged in fixed.items():
        mask = genkl.identify_nc(one.evidence.pred_probs, alpha, 0.1, vectors)
        assert flagged == pytest.approx(mask.mean()), alpha


def test_every_instance_has_one_number_of_dominant_entries():
    one = detection.judged(0, planted())
    rows = detection.measure_by_dominant(one, detection.score_all(["GenKL", "entropy"], one))
    assert sum(row["instances"] for row in rows) == 400
    assert sum(row["positives"] for row in rows) == 100
    by_count = {row["dominant_entries"]: row["positives"] for row in rows}
    assert by_count["3 or more"] > 90  # flat predictions have many
    assert -1 <= rows[0]["rank_correlation"] <= 1


def test_kinds_are_judged_apart_and_the_unknown_is_left_out():
    kinds = np.array([Kind.CORRECT, Kind.MISLABELLED, Kind.AMBIGUOUS, Kind.OOD, Kind.UNKNOWN] * 80)
    one = detection.judged(0, dataclasses.replace(planted(), kinds=kinds))
    for kind, positives in {"NC": 160, "ambiguous": 80, "OOD": 80}.items():
        rows, truth = one.of_kind(kind)
        assert len(rows) == 160 + positives
        assert truth.sum() == positives
        assert not np.isin(kinds[rows], [Kind.UNKNOWN]).any()


def test_where_only_positives_are_known_the_held_out_are_the_negatives():
    kinds = np.where(np.arange(400) % 4 == 0, Kind.NC, Kind.UNKNOWN)
    one = detection.judged(0, dataclasses.replace(planted(), kinds=kinds))
    rows, truth = one.of_kind("NC")
    assert truth.sum() == 100
    assert (~truth).sum() == 200
    assert (rows[~truth] >= 400).all()
    assert one.of_kind("ambiguous") is None
    (row,) = detection.measure(one, detection.score_all(["entropy"], one), 0)
    assert row["auroc"] > 0.97
    assert row["recall_at_share"] == pytest.approx(0.2, abs=0.01)  # of all noisy ones


def test_combinations_are_held_against_what_they_add_to():
    found = planted()
    rng = np.random.default_rng(1)
    # Half of the non-conforming look sure, but lie elsewhere: features know what entropy doesn't.
    strange = np.flatnonzero(found.kinds == Kind.OOD)[::2]
    features, logits = found.noisy.features.copy(), found.noisy.logits.copy()
    features[strange] = -np.abs(rng.normal(size=(len(strange), features.shape[1])))
    logits[:, strange] = logits[:, strange + 1]  # those of conforming ones
    noisy = dataclasses.replace(found.noisy, features=features, logits=logits)
    one = detection.judged(0, dataclasses.replace(found, noisy=noisy))
    scored = detection.score_all(["GenKL", "entropy", "KNN"], one)
    rows = {
        r["method"]: r
        for r in detection.measure_combinations(one, scored, 100)
        if r["kind"] == "NC"
    }
    assert rows["KNN + entropy"]["added_low"] > 0.03
    assert rows["KNN + entropy"]["over"] == "entropy"
    assert abs(rows["entropy + GenKL"]["added"]) < 0.05
    assert "entropy + GenKL invariant" not in rows  # it wasn't asked for


def test_the_fitted_temperature_undoes_a_planted_one():
    def fitted(temperature):
        seen = planted(temperature=temperature).reference
        labels = np.where(np.arange(len(seen.labels)) % 5 == 0, 0, seen.labels)  # not all right
        return detection.fitted_temperature(dataclasses.replace(seen, labels=labels))

    plain, hot = fitted(1.0), fitted(3.0)
    assert 0.1 < plain < 10
    assert hot / plain == pytest.approx(3, rel=0.02)


def test_imbalance_thins_out_classes_in_geometric_steps():
    case = dataclasses.replace(evidence.CASES["digits"], imbalance=8.0)
    dataset, truth = evidence._load(case, 0)
    whole, _ = evidence._load(evidence.CASES["digits"], 0)
    for name in ("clean", "noisy"):
        kept, before = (np.bincount(getattr(d, name).labels, minlength=8) for d in (dataset, whole))
        shares = np.sort(kept / before)
        assert shares[-1] == 1
        assert shares[0] == pytest.approx(1 / 8, abs=0.02)
        assert np.all(np.diff(shares) >= 0)
    assert len(truth.kinds) == len(truth.labels) == len(dataset.noisy)
    assert len(dataset.validation) == len(whole.validation)


def test_a_record_is_current_until_its_code_or_settings_change(tmp_path, monkeypatch):
    monkeypatch.setattr(detection, "gather", lambda name, seed: planted(120, 60, seed=seed))
    command(
        monkeypatch,
        "digits",
        "--seeds",
        "0",
        "1",
        "--methods",
        "GenKL",
        "GenKL auto",
        "entropy",
        "KNN",
        "--resamples",
        "20",
        "--main-only",
        "--jobs",
        "1",
        "--folder",
        str(tmp_path),
    )
    record = load_record(tmp_path / "digits.json")
    assert stale_because(record, seeds=[0, 1], models=detection.MODELS) == ()
    (reason,) = stale_because(record, seeds=[0, 1, 2])
    assert reason == "seeds is [0, 1] there and [0, 1, 2] here"
    record["code"]["genkl.detectors"] = "0" * 16
    record["code"]["genkl.no_longer_there"] = "0" * 16
    (reason,) = stale_because(record, seeds=[0, 1])
    assert "genkl.detectors, genkl.no_longer_there" in reason
    scores = record["tables"]["scores"]
    assert {row["seed"] for row in scores} == {0, 1}
    assert {row["kind"] for row in scores} == {"NC", "OOD"}
    assert {row["method"] for row in scores} == {"GenKL", "GenKL auto", "entropy", "KNN"}


def test_digits_are_gathered_once(tmp_path, monkeypatch):
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path))
    monkeypatch.setattr(evidence, "NUM_MODELS", 2)
    found = evidence.gather("digits", 0)
    monkeypatch.setattr(evidence, "_gather", lambda *_: pytest.fail("gathered again"))
    again = evidence.gather("digits", 0)
    for part in ("noisy", "reference"):
        first, second = getattr(found, part), getattr(again, part)
        assert np.array_equal(first.logits, second.logits)
        assert first.logits.shape[0] == 2
        assert not np.array_equal(first.logits, first.view_logits)
        assert len(first.features) == len(first.labels) == first.logits.shape[1]
    assert set(found.kinds) == {Kind.CORRECT, Kind.MISLABELLED, Kind.AMBIGUOUS, Kind.OOD}
    assert found.val_accuracy == again.val_accuracy > 0.5


def test_the_committed_records_hold_every_method_on_five_seeds():
    """Whether they are current is shown in the book; that they are whole is tested here."""
    for name in (
        "digits",
        "solar-cells",
        "clothing-doubt",
        "clothing-garments",
        "cifar10h",
        "cifar10h-strict",
        "cifar10n",
    ):
        record = load_record(detection.FOLDER / f"{name}.json")
        assert record["settings"]["seeds"] == list(detection.SEEDS)
        assert record["provenance"]["uncommitted_changes"] is False
        found = {(row["method"], row["seed"]) for row in record["tables"]["scores"]}
        assert {method for method, _ in found} == set(detection.METHODS)
        assert set(record["code"]) >= {"benchmarks.detection", "benchmarks.evidence"}


@pytest.mark.parametrize("name", ["clothing1m", "food101n"])
def test_the_papers_data_sets_run_from_their_official_layouts(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GENKL_DATA", str(tmp_path))
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path / "cache"))
    assert not evidence.CASES[name].is_present()
    write_clothing1m(tmp_path / "clothing1m")
    (tmp_path / "clothing1m" / "NC_instances.txt").write_text(
        "\r\n".join(map(clothing_key, range(10, 20)))
    )
    write_food101n(tmp_path / "Food-101N_release")
    write_food101(tmp_path / "food-101")
    case = dataclasses.replace(evidence.CASES[name], pixels=32, options={})
    monkeypatch.setitem(evidence.CASES, name, case)
    monkeypatch.setattr(evidence, "NUM_MODELS", 2)
    assert case.is_present()
    path = detection.record(
        name,
        tmp_path / "out",
        seeds=[0],
        methods=["GenKL", "entropy"],
        resamples=0,
        with_conditions=False,
    )
    rows = load_record(path)["tables"]["scores"]
    assert {row["kind"] for row in rows} == {"NC"}
    assert {row["method"] for row in rows} == {"GenKL", "entropy"}
    assert all(0 <= row["auroc"] <= 1 for row in rows)


def test_what_is_not_known_is_refused_and_what_is_not_here_is_left_out(
    tmp_path, monkeypatch, capsys
):
    for words, message in (
        (["digit"], "unknown case 'digit'; choose from: digits"),
        (["digits", "--methods", "KL"], "unknown method 'KL'; choose from: GenKL"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command(monkeypatch, *words, "--folder", str(tmp_path))
        assert message in capsys.readouterr().err
    monkeypatch.setenv("GENKL_DATA", str(tmp_path))
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path))
    command(monkeypatch, "cifar10h", "--folder", str(tmp_path))
    assert "cifar10h: not on this machine, left out" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
