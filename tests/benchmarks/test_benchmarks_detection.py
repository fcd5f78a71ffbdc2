"""The identification benchmark: who is judged, thresholds, conditions, records, the paper's."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from official_trees import clothing_key, write_clothing1m, write_food101, write_food101n

import genkl
from benchmarks import detection, evidence, judging
from genkl.data import Kind
from genkl.records import load_record, stale_because
from genkl.storage import write_json


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
        groups = 1000 * (size == held_out) + np.arange(size)
        return evidence.Seen(both[0], both[1], np.float32(features), groups), labels

    noisy, labels = seen(count, kinds == Kind.OOD)
    reference, verified = seen(held_out, np.zeros(held_out, bool))
    # Strangers that have flat logits and still look like a class: their plausible label.
    drawn = np.where(kinds == Kind.OOD, rng.integers(0, k, count), labels)
    ways = {"nearest class": labels, "random": drawn}
    given = {way: np.concatenate([mine, verified]) for way, mine in ways.items()}
    plain = np.concatenate([noisy.logits, reference.logits], axis=1)[:1]
    learning = {way: plain * np.ones((3, 1, 1), np.float32) for way in ways}
    heads = np.float32(np.stack([np.column_stack([np.eye(k), np.zeros(k)])] * models))
    return evidence.Gathered(noisy, reference, kinds, 1.0, given, learning, heads)


def test_planted_non_conformity_is_found_and_the_budget_is_kept():
    one = judging.judged(0, planted())
    scored = judging.score_all(detection.METHODS, one)
    assert list(scored) == list(detection.METHODS)
    rows = {row["method"]: row for row in detection.measure(one, scored) if row["kind"] == "NC"}
    flags = {row["method"]: row for row in detection.measure_thresholds(one, scored)}
    for name in ("GenKL", "GenKL invariant", "entropy", "max logit"):
        assert rows[name]["auroc"] > 0.97, name
        assert rows[name]["missed"] < 0.15, name
        assert flags[name]["budget_recall"] > 0.8, name
        assert flags[name]["budget_false_flags"] < 0.12, name  # 0.05 on average over held-out sets
    assert rows["KNN"]["auroc"] < 0.6  # nothing is planted in the features
    assert rows["entropy"]["recall_at_share"] == pytest.approx(0.2, abs=0.01)  # 5 % of all, of 25 %


def looking_like_a_class(found):
    """Strangers are predicted as what their plausible label says, nearly as surely as others."""
    strange = np.flatnonzero(found.kinds == Kind.OOD)
    logits = found.noisy.logits.copy()
    logits[:, strange] += 3 * np.eye(5, dtype=np.float32)[found.labels["nearest class"][strange]]
    return dataclasses.replace(found, noisy=dataclasses.replace(found.noisy, logits=logits))


def test_intervals_are_of_means_and_compare_detectors_and_ways_on_the_same_draws():
    every = [looking_like_a_class(planted(seed=seed)) for seed in range(5)]
    by_way = {
        way: [
            {n: s.scores for n, s in judging.score_all(["entropy", "DSOS"], one).items()}
            for seed, found in enumerate(every)
            for one in [judging.judged(seed, found, way)]
        ]
        for way in ("nearest class", "random")
    }
    seen = [judging.judged(seed, found) for seed, found in enumerate(every)]
    chosen = [(*one.of_kind("NC"), one.groups[one.of_kind("NC")[0]]) for one in seen]
    rows = {
        (row["labels"], row["method"]): row
        for row in detection.measure_intervals("NC", chosen, by_way, detection._base, 200)
    }
    for (way, name), row in rows.items():
        areas = [
            genkl.auroc(scores[name][counts], truth)
            for scores, (counts, truth, _) in zip(by_way[way], chosen, strict=True)
        ]
        assert row["auroc"] == pytest.approx(np.mean(areas))
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
        assert row["missed_low"] <= row["missed"] <= row["missed_high"]
    dsos, entropy = (rows["nearest class", name] for name in ("DSOS", "entropy"))
    assert dsos["over"] == pytest.approx(dsos["auroc"] - entropy["auroc"])
    assert dsos["over_random"] == pytest.approx(dsos["auroc"] - rows["random", "DSOS"]["auroc"])
    assert dsos["over_random_high"] < 0  # a label that is believed hides a stranger
    assert (entropy["over_random_low"], entropy["over_random_high"]) == (0, 0)
    assert "over" not in entropy
    assert "over_random" not in rows["random", "DSOS"]


def test_a_published_threshold_is_the_methods_own():
    one = judging.judged(0, planted())
    scored = judging.score_all(["GenKL", "Jo-SRC", "entropy"], one)
    rows = detection.measure_thresholds(one, scored)
    flagged = {row["method"]: row.get("published_flagged") for row in rows}
    vectors = genkl.uniform_like_vectors(5)
    mask = genkl.identify_nc(one.evidence.pred_probs, 1.05, 0.1, vectors)
    assert flagged["GenKL"] == pytest.approx(mask.mean())
    assert flagged["Jo-SRC"] is not None
    assert flagged["entropy"] is None


def test_recall_stands_beside_the_share_flagged():
    one = judging.judged(0, planted())
    rows = detection.measure_recall(one, judging.score_all(["GenKL", "entropy"], one))
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
    one = judging.judged(0, planted())
    rows = detection.measure_by_dominant(one, judging.score_all(["GenKL", "entropy"], one))
    assert sum(row["instances"] for row in rows) == 400
    assert sum(row["positives"] for row in rows) == 100
    by_count = {row["dominant_entries"]: row["positives"] for row in rows}
    assert by_count["3 or more"] > 90  # flat predictions have many
    assert -1 <= rows[0]["rank_correlation"] <= 1


def test_kinds_are_judged_apart_and_the_unknown_is_left_out():
    kinds = np.array([Kind.CORRECT, Kind.MISLABELLED, Kind.AMBIGUOUS, Kind.OOD, Kind.UNKNOWN] * 80)
    one = judging.judged(0, dataclasses.replace(planted(), kinds=kinds))
    counts = {"NC": 160, "ambiguous": 80, "OOD": 80, "wrong label": 80, "any": 240}
    for kind, positives in counts.items():
        rows, truth = one.of_kind(kind)
        assert len(rows) == positives + (80 if kind in ("wrong label", "any") else 160)
        assert truth.sum() == positives
        assert not np.isin(kinds[rows], [Kind.UNKNOWN]).any()
    wrong, is_wrong = one.of_kind("wrong label")
    assert (kinds[wrong] == Kind.MISLABELLED).tolist() == is_wrong.tolist()


def test_where_only_positives_are_known_the_held_out_are_the_negatives():
    kinds = np.where(np.arange(400) % 4 == 0, Kind.NC, Kind.UNKNOWN)
    one = judging.judged(0, dataclasses.replace(planted(), kinds=kinds))
    rows, truth = one.of_kind("NC")
    assert truth.sum() == 100
    assert (~truth).sum() == 200
    assert (rows[~truth] >= 400).all()
    assert one.of_kind("ambiguous") is None
    row, any_kind = detection.measure(one, judging.score_all(["entropy"], one))
    assert any_kind | {"kind": "NC"} == row
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
    one = judging.judged(0, dataclasses.replace(found, noisy=noisy))
    scored = judging.score_all(["GenKL", "entropy", "KNN"], one)
    chosen = [(*one.of_kind("NC"), one.groups[one.of_kind("NC")[0]])]
    mixed = {"own": [detection.combine(one, scored)]}
    rows = {
        r["method"]: r
        for r in detection.measure_intervals("NC", chosen, mixed, detection.ADDED.get, 100)
    }
    assert rows["KNN + entropy"]["over_low"] > 0.03
    assert abs(rows["entropy + GenKL"]["over"]) < 0.05
    assert "entropy + GenKL invariant" not in rows  # it wasn't asked for


def test_the_fitted_temperature_undoes_a_planted_one():
    def fitted(temperature):
        found = planted(temperature=temperature)
        labels = found.labels["random"]
        labels = np.where(np.arange(len(labels)) % 5 == 0, 0, labels)  # not all right
        return judging.fitted_temperature(dataclasses.replace(found, labels={"random": labels}))

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


def test_beta_changes_the_divergence_alone():
    found = planted(temperature=0.2)  # many dominant entries
    rows = judging.measure_conditions("digits", 99, found, detection.METHODS)
    table = pd.DataFrame(rows).set_index(["condition", "method", "value"])["auroc"].sort_index()
    assert table["beta", "entropy"].nunique() == 1
    assert table["beta", "GenKL"].nunique() > 1
    for method in ("entropy", "GenKL"):  # half of 1/k is what the detector has
        assert table["beta", method, 0.5] == table["temperature", method, 1.0]


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
    assert {row["kind"] for row in scores} == {"NC", "OOD", "any"}
    assert {row["method"] for row in scores} == {"GenKL", "entropy", "KNN"}
    whole, path = load_record(tmp_path / "digits.json"), tmp_path / "digits.json"
    write_json(path, whole | {"code": {"genkl.detectors": "0" * 16}})
    assert detection.verify("digits", tmp_path, seed=1)
    assert stale_because(load_record(path)) == ()
    assert load_record(path)["tables"] == whole["tables"]
    scores[-1]["auroc"] += 0.001
    write_json(path, record)
    assert not detection.verify("digits", tmp_path, seed=1)
    assert load_record(path) == record  # stale it was, stale it stays
    intervals = record["tables"]["intervals"]
    assert {row["labels"] for row in intervals} == {"nearest class", "random"}


def test_a_current_record_is_not_made_again(tmp_path, monkeypatch, capsys):
    words = ("digits", "--seeds", "0", "--methods", "entropy", "--resamples", "0", "--main-only")
    words += ("--jobs", "1", "--folder", str(tmp_path))
    monkeypatch.setattr(detection, "gather", lambda name, seed: planted(120, 60, seed=seed))
    command(monkeypatch, *words)
    monkeypatch.setattr(detection, "gather", lambda name, seed: pytest.fail("again"))
    command(monkeypatch, *words)
    monkeypatch.setattr(detection, "gather", lambda name, seed: planted(120, 60, seed=5))
    command(monkeypatch, *words, "--methods", "entropy", "KNN")
    rows = load_record(tmp_path / "digits.json")["tables"]["scores"]
    assert {row["method"] for row in rows} == {"entropy", "KNN"}


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
        assert len(first.features) == len(first.groups) == first.logits.shape[1]
    for way in evidence.CASES["digits"].labels:
        assert np.array_equal(found.labels[way], again.labels[way])
        assert np.array_equal(found.learning[way], again.learning[way])
        total = len(found.noisy.groups) + len(found.reference.groups)
        assert found.learning[way].shape == (evidence.EPOCHS, total, 8)
        plain = found.kinds != Kind.OOD  # strangers' labels alone depend on the way
        assert np.array_equal(
            found.labels[way][: len(plain)][plain], found.labels["random"][: len(plain)][plain]
        )
    assert not np.array_equal(found.labels["random"], found.labels["nearest class"])
    assert found.heads is again.heads is None  # the small network's are none on pixels
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
        found = {row["method"] for row in record["tables"]["scores"]}
        assert found == set(detection.METHODS) - ({"ViM"} if name == "digits" else set())
        ways = {row["labels"] for row in record["tables"]["intervals"]}
        assert ways == set(evidence.CASES[name].labels)
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
    kinds = {"clothing1m": {"NC", "any", "wrong label"}, "food101n": {"NC", "any"}}
    assert {row["kind"] for row in rows} == kinds[name]
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
