"""``genkl identify``: the numbers of the functions, and one line where something is wrong."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.csv import read_csv
from scipy.special import softmax

import genkl
import genkl.cli
import genkl.cli.identification
import genkl.rule.stream
from genkl.cli import build_parser, main

K, ALPHA, BETA = 5, 0.9, 0.1
NAMES = ["coat", "dress", "hat", "shirt", "shoe"]
P = genkl.uniform_like_vectors(K)
RULE = ["--alpha", str(ALPHA), "--beta", str(BETA)]
TABLES = (".csv", ".parquet")


def predictions(seed=0, count=300, k=K, concentration=0.3):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(k, concentration), count).astype(np.float32)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder, and several chunks in a small file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENKL_DEBUG", raising=False)
    monkeypatch.setattr("genkl.data.tables.BATCH_ENTRIES", 64 * K)
    monkeypatch.setattr("genkl.rule.evaluation.BLOCK_ENTRIES", 80)
    monkeypatch.setattr("genkl.rule.stream.STRIPS_PER_BATCH", 1)
    return tmp_path


def write_probs():
    q = predictions()
    np.save("p.npy", q)
    as_table(q).to_csv("p.csv", index=False)
    as_table(q).to_parquet("p.parquet", index=False, row_group_size=77)
    lists = pa.table({"image": [f"{i}.jpg" for i in range(len(q))], "q": list(q)})
    pq.write_table(lists, "lists.parquet", row_group_size=77)
    np.save("conforming.npy", predictions(1, 200, concentration=0.1))
    return q


@pytest.fixture
def probs():
    return write_probs()


def as_table(q, names=NAMES):
    table = pd.DataFrame(q, columns=names)
    table.insert(0, "image", [f"{i:03}.jpg" for i in range(len(q))])
    return table


def run(*arguments):
    return main(["identify", *map(str, arguments)])


def read(path):
    path = Path(path)
    if path.suffix == ".csv":
        return read_csv(path).to_pandas()
    return pd.read_parquet(path)


def listing(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())


def check_table(table, q, alpha=ALPHA, beta=BETA, vectors=P, mask=None, **options):
    """Every column as the functions of the package give it, to the last bit."""
    if mask is None:
        mask = genkl.identify_nc(q, alpha, beta, vectors, **options)
    assert 0 < mask.sum() < len(mask)
    assert np.array_equal(table["is_nc"], mask)
    assert np.array_equal(table["score"], genkl.nc_score(q, beta, vectors, **options))
    assert np.array_equal(table["entropy"], genkl.entropy(q))
    assert np.array_equal(table["predicted_prob"].to_numpy(q.dtype), q.max(axis=1))
    evidence = genkl.nc_evidence(q, beta)
    assert np.array_equal(table["dominant_entries"], evidence["dominant_entries"])


# --- The numbers of the functions ------------------------------------------------------------


@pytest.mark.parametrize("suffix", TABLES)
def test_an_array_gives_what_the_functions_give(probs, suffix):
    assert run("p.npy", *RULE, "--out", f"new/out{suffix}") == 0
    table = read(f"new/out{suffix}")
    check_table(table, probs)
    assert table["row"].tolist() == list(range(300))
    assert table["predicted"].tolist() == probs.argmax(axis=1).tolist()


@pytest.mark.parametrize("source", ["p.csv", "p.parquet"])
@pytest.mark.parametrize("suffix", TABLES)
def test_a_table_gives_what_the_functions_give_with_ids_and_names(probs, source, suffix):
    assert run(source, "--id", "image", *RULE, "--out", f"out{suffix}") == 0
    table, given = read(f"out{suffix}"), read(source)
    check_table(table, given[NAMES].to_numpy())
    assert table["image"].tolist() == given["image"].tolist()
    assert table["predicted"].tolist() == [NAMES[i] for i in probs.argmax(axis=1)]
    assert "row" not in table


def test_a_column_of_lists_gives_what_the_functions_give(probs):
    assert run("lists.parquet", "--id", "image", *RULE, "--out", "out.parquet") == 0
    check_table(read("out.parquet"), probs)
    assert run("lists.parquet", "--classes", "q", *RULE, "--out", "row.parquet") == 0
    assert read("row.parquet")["row"].tolist() == list(range(300))


def test_classes_select_columns_in_their_order_whatever_else_there_is(probs):
    order = [3, 1, 4, 0, 2]
    as_table(probs).assign(note="x", size=17).to_parquet("more.parquet")
    names = [NAMES[i] for i in order]
    assert run("more.parquet", "--classes", ",".join(names), *RULE, "--out", "out.parquet") == 0
    table = read("out.parquet")
    check_table(table, probs[:, order])
    assert table["predicted"].tolist() == [NAMES[i] for i in probs.argmax(axis=1)]
    assert (table["is_nc"] != genkl.identify_nc(probs, ALPHA, BETA, P)).any()  # the order matters


def test_names_for_the_columns_of_an_array_and_odd_names_of_a_table(probs):
    assert run("p.npy", "--classes", ",".join(NAMES), *RULE, "--out", "out.csv") == 0
    assert read("out.csv")["predicted"].tolist() == [NAMES[i] for i in probs.argmax(axis=1)]
    odd = ["a.b", "a,c", "0", "ä", "is_nc"]
    as_table(probs, odd).to_parquet("odd.parquet", index=False)
    assert run("odd.parquet", "--id", "image", *RULE, "--out", "odd.csv") == 0
    check_table(read("odd.csv"), probs)
    chosen = 'a.b,"a,c",0,ä,is_nc'
    assert run("odd.parquet", "--classes", chosen, *RULE, "--out", "mask.npy") == 0
    assert np.array_equal(np.load("mask.npy"), genkl.identify_nc(probs, ALPHA, BETA, P))


PRESETS = {
    "clothing1m": genkl.CLOTHING1M,
    "food101n": genkl.FOOD101N,
    "mini-webvision": genkl.MINI_WEBVISION,
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_flags_what_the_preset_flags(name):
    preset = PRESETS[name]
    peaks = np.linspace(0, 0.98, 300)[:, None]  # over a level that sinks below tau
    level = predictions(k=preset.num_classes, concentration=200) * (1 - peaks)
    q = (level + peaks * np.eye(preset.num_classes)[0]).astype(np.float32)
    np.save("q.npy", q)
    assert run("q.npy", "--preset", name, "--out", "out.parquet") == 0
    table = read("out.parquet")
    check_table(table, q, preset.alpha, preset.beta, preset.uniform_like())
    assert np.array_equal(table["is_nc"], preset.identify(q))
    drawn = preset.uniform_like(7)
    alpha = float(np.quantile(genkl.nc_score(q, preset.beta, drawn), 0.9))
    assert run("q.npy", "--preset", name, "--seed", "7", "--alpha", alpha, "--out", "m.npy") == 0
    expected = genkl.identify_nc(q, alpha, preset.beta, drawn)
    assert np.array_equal(np.load("m.npy"), expected)
    assert (expected != table["is_nc"]).any()


def test_every_setting_reaches_the_rule(probs):
    options = ["--sigma", "0.1", "--num-vectors", "3", "--seed", "11", "--permutation-invariant"]
    assert run("p.npy", *RULE, *options, "--out", "out.parquet") == 0
    drawn = genkl.uniform_like_vectors(K, 3, 0.1, 11)
    check_table(read("out.parquet"), probs, vectors=drawn, permutation_invariant=True)


def test_beta_is_half_of_one_over_k_where_nothing_is_said(probs, capsys):
    assert run("p.npy", "--alpha", ALPHA, "--json", "--out", "out.parquet") == 0
    check_table(read("out.parquet"), probs, beta=0.5 / K)
    assert json.loads(capsys.readouterr().out)["configuration"]["beta"] == 0.5 / K


@pytest.mark.parametrize("budget", [{}, {"max_flag_rate": 0.1}, {"confidence": 0.9}])
def test_alpha_is_chosen_as_the_function_chooses_it(probs, budget):
    conforming = np.load("conforming.npy")
    expected = genkl.identify_nc(probs, "auto", BETA, P, conforming_probs=conforming, **budget)
    options = [f"--{key.replace('_', '-')}={value}" for key, value in budget.items()]
    asked = ["p.npy", "--alpha", "auto", "--beta", BETA, "--conforming", "conforming.npy", *options]
    assert run(*asked, "--out", "out.parquet") == 0
    check_table(read("out.parquet"), probs, mask=expected)
    assert run(*asked, "--out", "mask.npy") == 0
    assert np.array_equal(np.load("mask.npy"), expected)


def test_conforming_predictions_are_taken_by_the_names_of_the_classes(probs):
    conforming = predictions(1, 200, concentration=0.1)
    as_table(conforming)[["hat", "shoe", "image", "coat", "dress", "shirt"]].to_csv("c.csv")
    read_back = read("c.csv")[NAMES].to_numpy()
    expected = genkl.identify_nc(probs, "auto", BETA, P, conforming_probs=read_back)
    asked = ["p.parquet", "--id", "image", "--conforming", "c.csv", "--beta", BETA]
    assert run(*asked, "--out", "out.parquet") == 0
    check_table(read("out.parquet"), probs, mask=expected)


def test_too_few_conforming_predictions_flag_nothing_and_say_so(probs, capsys):
    np.save("few.npy", np.load("conforming.npy")[:10])
    for out in ([], ["--out", "mask.npy"]):
        assert run("p.npy", "--conforming", "few.npy", "--json", *out) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["configuration"]["alpha"] is None  # infinite
        assert found["summary"]["flagged"] == 0
        assert "10 conforming predictions are too few" in found["summary"]["warnings"][0]
    assert not np.load("mask.npy").any()


@pytest.mark.parametrize("source", ["l.npy", "l.csv", "l.parquet"])
def test_logits_get_a_softmax_in_double_precision(source):
    logits = np.random.default_rng(0).normal(0, 3, (300, K)).astype(np.float32)
    np.save("l.npy", logits)
    as_table(logits).to_csv("l.csv", index=False)
    as_table(logits).to_parquet("l.parquet", index=False)
    if source == "l.csv":
        logits = read(source)[NAMES].to_numpy()
    q = softmax(logits.astype(np.float64), axis=1)
    asked = [source, "--from-logits", *RULE, *([] if source == "l.npy" else ["--id", "image"])]
    assert run(*asked, "--out", "out.parquet") == 0
    check_table(read("out.parquet"), q)
    assert run(*asked, "--out", "mask.npy") == 0
    assert np.array_equal(np.load("mask.npy"), genkl.identify_nc(q, ALPHA, BETA, P))
    assert listing() == ["l.csv", "l.npy", "l.parquet", "mask.npy", "out.parquet"]


@pytest.mark.parametrize("source", ["p.npy", "p.csv", "p.parquet", "lists.parquet", "f.npy"])
def test_one_value_per_row_is_what_the_functions_give(probs, source, capsys):
    np.save("f.npy", np.asfortranarray(probs))
    q = read(source)[NAMES].to_numpy() if source == "p.csv" else probs
    before = listing()
    asked = [source, *([] if source.endswith(".npy") else ["--id", "image"])]
    assert run(*asked, *RULE, "--out", "mask.npy", "--json") == 0
    mask = genkl.identify_nc(q, ALPHA, BETA, P)
    written = np.load("mask.npy")
    assert written.dtype == bool
    assert np.array_equal(written, mask)
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["flagged"] == mask.sum()
    assert [one["flagged"] for one in summary["by_class"]] == [
        mask[q.argmax(axis=1) == c].sum() for c in range(K)
    ]
    asked += ["--beta", BETA, "--values", "scores", "--out", "scores.npy"]
    assert run(*asked) == 0
    assert np.array_equal(np.load("scores.npy"), genkl.nc_score(q, BETA, P))
    assert listing() == sorted([*before, "mask.npy", "scores.npy"])


# --- Labels ----------------------------------------------------------------------------------


@pytest.fixture
def labels(probs):
    return write_labels(probs)


def write_labels(probs):
    made = np.random.default_rng(5).integers(0, K, len(probs))
    np.save("y.npy", made)
    np.save("names.npy", np.array(NAMES)[made])
    table = as_table(probs).assign(label=[NAMES[i] for i in made])
    table.to_csv("with.csv", index=False)
    table.astype({"label": "category"}).to_parquet("with.parquet", index=False)
    table[["image", "label"]].sample(frac=1, random_state=0).to_csv("y.csv", index=False)
    dotted = table.assign(image=".\\" + table["image"].astype(str))  # as another program has it
    dotted[["image", "label"]].sample(frac=1, random_state=1).to_csv("dotted.csv", index=False)
    pd.DataFrame({"y": made}).to_parquet("y.parquet")
    return made


@pytest.mark.parametrize(
    "asked",
    [
        ["p.npy", "--labels", "y.npy"],
        ["p.npy", "--labels", "y.parquet"],
        ["p.parquet", "--id", "image", "--labels", "y.npy"],
        ["p.parquet", "--id", "image", "--labels", "names.npy"],
        ["p.parquet", "--id", "image", "--labels", "y.csv"],  # shuffled, matched by id
        ["p.parquet", "--id", "image", "--labels", "dotted.csv"],
        ["p.csv", "--id", "image", "--labels", "y.csv", "--label-column", "label"],
        ["with.csv", "--id", "image", "--label-column", "label"],
        ["with.parquet", "--id", "image", "--label-column", "label"],
        ["with.parquet", "--id", "image", "--labels", "with.parquet", "--label-column", "label"],
    ],
)
def test_given_labels_and_their_probabilities_stand_in_the_table(probs, labels, asked):
    assert run(*asked, *RULE, "--out", "out.parquet") == 0
    table = read("out.parquet")
    q = read(asked[0])[NAMES].to_numpy() if asked[0].endswith(".csv") else probs
    check_table(table, q)
    named = labels if asked[0] == "p.npy" else np.array(NAMES)[labels]
    assert table["given_label"].tolist() == named.tolist()
    assert np.array_equal(table["given_prob"].to_numpy(q.dtype), q[np.arange(300), labels])


def test_classes_called_by_numbers_are_meant_by_name(probs, labels):
    numbers = ["30", "7", "11", "0", "2"]
    as_table(probs, numbers).to_csv("numbers.csv", index=False)
    np.save("y.npy", np.array([int(numbers[i]) for i in labels]))
    assert (
        run("numbers.csv", "--id", "image", "--labels", "y.npy", *RULE, "--out", "o.parquet") == 0
    )
    assert read("o.parquet")["given_label"].tolist() == [numbers[i] for i in labels]
    np.save("y.npy", np.full(300, 1))
    assert run("numbers.csv", "--id", "image", "--labels", "y.npy", *RULE) == 1


def test_ids_and_labels_of_a_csv_are_taken_as_they_are_written(probs, labels):
    table = as_table(probs).assign(image=[f"{i:05}" for i in range(300)])
    table.to_csv("zeros.csv", index=False)
    assert run("zeros.csv", "--id", "image", *RULE, "--out", "out.parquet") == 0
    assert read("out.parquet")["image"].tolist()[:2] == ["00000", "00001"]


@pytest.mark.parametrize("asked", [[], ["--label-column", "label"]])
def test_labels_with_leading_zeros_keep_them(probs, labels, asked):
    codes = [f"{i:02}" for i in range(K)]
    as_table(probs, codes).to_csv("coded.csv", index=False)
    pd.DataFrame({"label": [codes[i] for i in labels]}).to_csv("codes.csv", index=False)
    told = ["coded.csv", "--id", "image", "--labels", "codes.csv", *asked]
    assert run(*told, *RULE, "--out", "out.parquet") == 0
    assert read("out.parquet")["given_label"].tolist() == [codes[i] for i in labels]


@pytest.mark.parametrize("source", ["p.npy", "p.csv"])
def test_minus_one_is_no_label(probs, labels, source):
    given = np.where(np.arange(300) % 3 == 0, -1, labels)
    np.save("given.npy", given)
    pd.DataFrame({"label": given}).to_csv("given.csv", index=False)
    words = ["-1" if label < 0 else NAMES[label] for label in given]
    pd.DataFrame({"label": words}).to_csv("words.csv", index=False)
    named = given if source == "p.npy" else np.array([*NAMES, ""])[given]
    found = ["--id", "image"] if source == "p.csv" else []
    for file in ("given.npy", "given.csv", *(["words.csv"] if found else [])):
        out = ["--out", "out.parquet", "--overwrite"]
        assert run(source, *found, "--labels", file, *RULE, *out) == 0
        table = read("out.parquet")
        assert table["given_label"].tolist() == named.tolist()
        assert table["given_prob"].isna().tolist() == (given < 0).tolist()


def test_rounded_probabilities_are_read_where_the_command_is_told(probs, capsys):
    rounded = np.round(predictions(k=20, concentration=1.0), 2)
    np.save("rounded.npy", rounded)
    assert run("rounded.npy", "--alpha", "0.9", "--beta", "0.01") == 1
    assert "--normalize if they were rounded" in capsys.readouterr().err
    told = ["rounded.npy", "--alpha", "0.9", "--beta", "0.01", "--normalize", "--out"]
    assert run(*told, "out.npy") == 0
    whole = rounded.astype(float) / rounded.astype(float).sum(axis=1, keepdims=True)
    vectors = genkl.uniform_like_vectors(20)
    assert np.load("out.npy").tolist() == genkl.identify_nc(whole, 0.9, 0.01, vectors).tolist()
    assert run(*told, "other.npy", "--from-logits") == 1
    assert "--from-logits and --normalize exclude one another" in capsys.readouterr().err
    np.save("negative.npy", np.array([[-1.0, 1, 1], [1, 1, 1]]))
    assert run("negative.npy", *told[1:], "other.npy") == 1
    assert "negative entry (-1) in row 0" in capsys.readouterr().err


# --- What is printed -------------------------------------------------------------------------


def test_without_out_a_summary_and_the_first_flagged_rows_are_printed(probs, capsys):
    mask = genkl.identify_nc(probs, ALPHA, BETA, P)
    before = listing()
    assert run("p.csv", "--id", "image", *RULE, "--show", "3") == 0
    shown, said = capsys.readouterr()
    assert said == ""
    for text in ("300 predictions, 5 classes", "alpha 0.9, beta 0.1, tau 0.1; 20 vectors",
                 f"flagged: {mask.sum()} ({mask.mean():.2%})", *NAMES,
                 f"first 3 of {mask.sum()} flagged rows"):  # fmt: skip
        assert text in shown
    rows = [line.split()[0] for line in shown.splitlines()[-3:]]
    assert rows == [f"{i:03}.jpg" for i in np.flatnonzero(mask)[:3]]
    assert run("p.csv", "--id", "image", *RULE, "--show", "0") == 0
    assert "first" not in capsys.readouterr().out
    assert listing() == before


def test_warnings_of_the_diagnosis_name_options_and_not_arguments(probs, capsys):
    found = genkl.diagnose(probs, ALPHA, BETA, P)
    assert any("permutation_invariant=True" in text for text in found.warnings)
    assert run("p.npy", *RULE) == 0
    shown = capsys.readouterr().out
    assert "; use --permutation-invariant\n" in shown
    assert "permutation_invariant" not in shown
    assert run("p.npy", "--alpha", "99") == 0
    shown = capsys.readouterr().out
    assert "! nothing is flagged" in shown
    assert "alpha='auto'" not in shown
    assert "--alpha auto" in shown


def test_the_summary_for_programs_is_that_of_the_functions(probs, capsys):
    assert run("p.npy", *RULE, "--json", "--out", "out.csv") == 0
    found = json.loads(capsys.readouterr().out)
    mask, diagnosis = (
        genkl.identify_nc(probs, ALPHA, BETA, P),
        genkl.diagnose(probs, ALPHA, BETA, P),
    )
    summary = found["summary"]
    assert (summary["flagged"], summary["flagged_share"]) == (mask.sum(), mask.mean())
    assert summary["renaming_agreement"] == diagnosis.renaming_agreement
    assert summary["uniform_is_flagged"] == diagnosis.uniform_is_flagged
    assert len(summary["warnings"]) == len(diagnosis.warnings)
    for one, (name, row) in zip(summary["by_class"], diagnosis.by_class.iterrows(), strict=True):
        assert (one["class"], one["instances"]) == (name, row["instances"])
        assert one["flagged"] == pytest.approx(row["flagged"] * row["instances"])
    expected = {"pred_probs": "p.npy", "rows": 300, "num_classes": K, "alpha": ALPHA, "beta": BETA,
                "tau": 1 / K - BETA, "seed": 0, "out": "out.csv", "dtype": "float32"}  # fmt: skip
    assert expected.items() <= found["configuration"].items()


def test_many_classes_are_shown_by_share(capsys):
    np.save("q.npy", predictions(k=30, concentration=0.1))
    assert run("q.npy", "--alpha", "0.5") == 0
    assert "(20 of 30 classes, by share; --json has all)" in capsys.readouterr().out


def test_a_dash_writes_the_table_to_stdout_and_the_summary_beside_it(probs, capsys):
    assert run("p.npy", *RULE, "--out", "-") == 0
    shown, said = capsys.readouterr()
    check_table(read_csv(io.BytesIO(shown.encode())).to_pandas(), probs)
    assert "flagged:" in said


def test_without_alpha_it_says_what_each_would_flag(probs, capsys):
    assert run("p.npy", "--beta", BETA, "--json") == 0
    survey = pd.DataFrame(json.loads(capsys.readouterr().out)["survey"])
    assert survey["alpha"].is_monotonic_increasing
    assert {0.9, 1.0, 1.1} <= set(survey["alpha"])
    vectors = genkl.uniform_like_vectors(K)
    for row in survey.to_dict("records"):
        mask = genkl.identify_nc(probs, row["alpha"], float(BETA), vectors)
        assert row["flagged"] == mask.mean()
        if mask.any():
            assert row["peak of flagged"] == np.median(probs[mask].max(axis=1))
        shares = [mask[probs.argmax(axis=1) == c].mean() for c in range(K)]
        if mask.any():
            assert row["of it"] == np.nanmax(shares) == shares[row["most flagged class"]]
    assert run("p.npy", "--beta", BETA) == 0
    shown = capsys.readouterr().out
    at_five = float(re.search(r"--alpha (\S+) +\(flags 5 % or less\)", shown)[1])
    assert genkl.identify_nc(probs, at_five, float(BETA), vectors).mean() <= 0.05
    for way in ("--conforming", "--preset", "Add one of"):
        assert way in shown
    assert run("p.npy", "--dry-run") == 0
    assert "show what each alpha would flag" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(6))
def test_the_alpha_that_the_survey_shows_flags_what_it_says(seed, capsys):
    probs = np.random.default_rng(seed).dirichlet(np.full(10, 0.3), 200)  # alphas above 1
    np.save("p.npy", probs)
    assert run("p.npy") == 0
    alpha = float(re.search(r"--alpha (\S+) +\(flags 5 % or less\)", capsys.readouterr().out)[1])
    assert genkl.identify_nc(probs, alpha, 0.05, genkl.uniform_like_vectors(10)).mean() <= 0.05


def test_labels_that_are_names_of_classes_are_taken_as_names(capsys):
    table = as_table(predictions(k=3), ["1", "2", "other"])
    table.assign(label=["1", "2", "-1"] * 100).to_csv("named.csv", index=False)
    asked = ["named.csv", "--id", "image", "--label-column", "label", *RULE, "--out", "o.csv"]
    assert run(*asked) == 0
    given = pd.read_csv("o.csv", dtype=str, keep_default_na=False)["given_label"]
    assert given[:3].tolist() == ["1", "2", ""]


def test_a_bar_is_shown_in_a_terminal_alone(probs, capsys, monkeypatch):
    assert run("p.npy", *RULE, "--out", "mask.npy") == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run("p.npy", *RULE, "--out", "mask.npy", "--overwrite") == 0
    assert "300/300" in capsys.readouterr().err


# --- The plan, and files that are there ------------------------------------------------------


@pytest.mark.parametrize("out", [[], ["--out", "new/out.csv"], ["--out", "new/mask.npy"]])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(probs, out, capsys, monkeypatch):
    probs[5] = 7  # would be refused
    np.save("p.npy", probs)
    before = listing()

    def never(*_, **__):
        raise AssertionError("this is a dry run")

    for name in ("evaluate", "evaluate_batches", "diagnose"):
        monkeypatch.setattr(genkl.cli.identification, name, never)
    asked = ["p.npy", "--conforming", "conforming.npy", "--beta", BETA, *out, "--dry-run"]
    assert run(*asked) == 0
    shown = capsys.readouterr().out
    for text in ("p.npy", "300", "float32", "auto", "conforming.npy", "estimated_memory_mb"):
        assert text in shown
    assert run(*asked, "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    settings = {"alpha": "auto", "beta": BETA, "sigma": 0.05, "num_vectors": 20, "seed": 0,
                "max_flag_rate": 0.05, "conforming_rows": 200}  # fmt: skip
    assert settings.items() <= planned["configuration"].items()
    assert planned["plan"]["writes"] == (out[1] if out else "stdout")
    assert listing() == before


def test_the_estimated_memory_is_more_than_the_predictions_take(probs, capsys):
    def estimate(*arguments):
        assert run("p.npy", *RULE, "--dry-run", "--json", *arguments) == 0
        return json.loads(capsys.readouterr().out)["plan"]["estimated_memory_mb"]

    with open("p.npy", "wb") as file:  # 4 GB that nothing reads and no disk holds
        shape = (200_000_000, K)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * math.prod(shape))
    assert estimate("--out", "mask.npy") < 1000
    assert estimate("--out", "out.csv") > 4000


@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.npy"])
def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(probs, name, capsys, monkeypatch):
    Path(name).write_text("precious")
    with monkeypatch.context() as patch:
        patch.setattr(genkl.cli.identification, "open_inputs", None)  # before any work
        assert run("p.npy", *RULE, "--out", name) == 1
    assert f"--out {name} exists; pass --overwrite" in capsys.readouterr().err
    assert Path(name).read_text() == "precious"
    assert run("p.npy", *RULE, "--out", name, "--overwrite") == 0
    assert Path(name).read_bytes() != b"precious"


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.npy"])
def test_what_fails_half_way_leaves_the_old_file(probs, name, problem, capsys, monkeypatch):
    Path(name).write_text("precious")
    before = listing()
    calls = []

    def broken(*arguments, **_):
        calls.append(arguments)
        if name == "out.npy":
            if len(calls) < 3:
                return evaluate(*arguments, **_)
        else:
            Path(arguments[1]).write_text("half a tab")
        raise problem

    evaluate = genkl.rule.stream.evaluate
    monkeypatch.setattr(genkl.rule.stream, "evaluate", broken)
    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", broken)
    status = run("p.npy", *RULE, "--out", name, "--overwrite")
    assert calls
    assert Path(name).read_text() == "precious"
    assert listing() == before
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    if isinstance(problem, OSError):
        assert status == 1
        assert f"--out {name} can't be written (No space left on device)" in error
    else:
        assert status == 130
        assert "interrupted" in error


# --- What is wrong ---------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    """A folder of files with one fault each, made once."""
    folder = tmp_path_factory.mktemp("bad")
    with contextlib.chdir(folder):
        probs = write_probs()
        write_labels(probs)
        write_bad(probs)
    return folder


@pytest.fixture
def bad(bad_files):
    shutil.copytree(bad_files, ".", dirs_exist_ok=True)


def write_bad(probs):
    table = as_table(probs)
    columns = {name: probs[:, c] for c, name in enumerate(NAMES)}

    def changed(name, row, column, value):
        q = probs.copy()
        q[row, column] = value
        np.save(f"{name}.npy", q)
        as_table(q).to_parquet(f"{name}.parquet", index=False)
        as_table(q).to_csv(f"{name}.csv", index=False)

    changed("nan", 123, 2, np.nan)
    changed("sum", 123, 2, 0.999)
    changed("negative", 123, 2, -0.5)
    np.save("infinite.npy", np.where(np.arange(300)[:, None] == 123, np.inf, 3 * probs))
    table.assign(size=range(100, 400)).to_csv("size.csv", index=False)
    table.assign(size=range(100, 400)).to_parquet("size.parquet", index=False)
    table.assign(note="good").to_csv("note.csv", index=False)
    table.assign(shoe=["n/a?", *table["shoe"].astype(str)[1:]]).to_csv("cell.csv", index=False)
    table[["image", "coat"]].to_csv("one.csv", index=False)
    table.head(0).to_parquet("empty.parquet")
    Path("empty.csv").touch()
    Path("ragged.csv").write_text("a,b\n0.5,0.5\n0.5\n")
    Path("twice.csv").write_text("a,b,a\n0.2,0.5,0.3\n")
    Path("text.npy").write_text("0.2 0.8\n")
    Path("text.parquet").write_text("0.2 0.8\n")
    Path("pickle.npy").write_bytes(pickle.dumps(Bomb()))
    np.save("objects.npy", np.array([[Bomb(), 1]], dtype=object), allow_pickle=True)
    np.save("cut.npy", probs)
    Path("cut.npy").write_bytes(Path("cut.npy").read_bytes()[:-100])
    with open("archive.npy", "wb") as file:
        np.savez(file, probs=probs)
    np.save("flat.npy", probs[0])
    np.save("rows0.npy", probs[:0])
    np.save("words.npy", np.array([["a", "b"]]))
    np.save("few.npy", np.zeros(7, int))
    np.save("high.npy", np.full(300, K))
    np.save("k4.npy", predictions(k=4))
    pd.DataFrame({"image": table["image"][:-1], "label": "hat"}).to_csv("lacks.csv", index=False)
    pd.DataFrame({"image": "001.jpg", "label": ["hat"] * 3}).to_csv("double.csv", index=False)
    pd.DataFrame({"label": ["hat", None, *["hat"] * 298]}).to_parquet("missing.parquet")
    pd.DataFrame({"label": ["hat", "sock", *["hat"] * 298]}).to_csv("sock.csv", index=False)
    pd.DataFrame({"q": [[0.5, 0.5], [0.2, 0.3, 0.5]]}).to_parquet("uneven.parquet")
    pd.DataFrame({**columns, "score": range(300)}).to_parquet("score.parquet", index=False)
    Path("folder").mkdir()
    Path("sub").mkdir()


A = RULE
ID = ["--id", "image"]
WRONG = [
    # predictions that are no such thing
    ([*A, "absent.npy"], "PRED_PROBS absent.npy is not there; check the path"),
    ([*A, "folder"], "PRED_PROBS is folder; its name must end in one of .npy, .csv, .parquet"),
    ([*A, "p.txt"], "PRED_PROBS is p.txt; its name must end in"),
    ([*A, "text.npy"], "PRED_PROBS text.npy can't be read as .npy"),
    ([*A, "text.parquet"], "PRED_PROBS text.parquet can't be read as .parquet"),
    ([*A, "pickle.npy"], "PRED_PROBS pickle.npy can't be read as .npy"),
    ([*A, "objects.npy"], "PRED_PROBS objects.npy can't be read as .npy"),
    ([*A, "archive.npy"], "write it with numpy.save(path, array)"),
    ([*A, "cut.npy"], "PRED_PROBS cut.npy can't be read as .npy"),
    ([*A, "empty.csv"], "PRED_PROBS empty.csv is empty; it needs a header"),
    ([*A, "ragged.csv"], "PRED_PROBS ragged.csv:3: 1 columns instead of 2; put"),
    ([*A, "twice.csv"], "PRED_PROBS twice.csv has the name 'a' twice"),
    ([*A, "flat.npy"], "PRED_PROBS flat.npy has shape (5,); expected 2 axes"),
    ([*A, "words.npy"], "PRED_PROBS words.npy has dtype <U1"),
    ([*A, "rows0.npy"], "PRED_PROBS rows0.npy has no rows"),
    ([*A, "empty.parquet", *ID], "PRED_PROBS empty.parquet has no rows"),
    ([*A, "one.csv", *ID], "has the column 'coat' left for probabilities"),
    ([*A, "uneven.parquet"], "has a list of 3 and not one of 2 as in row 0, in column 'q', row 1"),
    # rows that are no probabilities
    ([*A, "nan.npy"], "PRED_PROBS nan.npy contains NaN in row 123"),
    ([*A, "sum.npy"], "divide each row by its sum, or apply softmax to logits; if these"),
    ([*A, "negative.npy"], "apply softmax first; if these are logits, pass --from-logits"),
    ([*A, "nan.csv", *ID], "has no number in column 'hat', row 123"),
    ([*A, "negative.parquet", *ID], "has -0.5, which is no probability, in column 'hat', row 123"),
    ([*A, "sum.parquet", *ID], "not to 1, in row 123"),
    ([*A, "infinite.npy", "--from-logits"], "no finite number, in row 123"),
    ([*A, "p.npy", "--from-logits"], "are probabilities already; leave --from-logits out"),
    ([*A, "nan.npy", "--out", "o.npy"], "PRED_PROBS nan.npy contains NaN in row 123"),
    ([*A, "sum.parquet", *ID, "--out", "o.npy"], "PRED_PROBS sum.parquet sums to"),
    ([*A, "sum.csv", *ID, "--out", "o.npy"], "PRED_PROBS sum.csv sums to"),
    ([*A, "infinite.npy", "--from-logits", "--out", "o.npy"], "infinite.npy has a logit"),
    # columns
    ([*A, "p.csv"], "has '000.jpg', which is no probability, in column 'image', row 0"),
    ([*A, "note.csv", *ID], "in column 'note', row 0; if a column is no class, pass --id"),
    ([*A, "cell.csv", *ID], "has 'n/a?', which is no probability, in column 'shoe', row 0"),
    ([*A, "size.csv", *ID], "in column 'size', row 0; if these are logits, pass --from-logits"),
    ([*A, "size.parquet", *ID, "--out", "o.npy"], "has 100, which is no probability, in"),
    ([*A, "p.csv", "--id", "name"], "p.csv has no column 'name', which --id names; it has the"),
    ([*A, "p.csv", "--classes", "hat,sock"], "has no column 'sock', which --classes names"),
    ([*A, "p.csv", "--classes", "hat,hat"], "--classes has the name 'hat' twice"),
    ([*A, "p.npy", "--classes", "hat,shoe"], "--classes has 2 names and PRED_PROBS p.npy has 5"),
    ([*A, "p.npy", *ID], "--id is 'image' and PRED_PROBS p.npy is an array"),
    ([*A, "score.parquet", "--id", "score"], "--id is 'score', which is a column of the table"),
    # labels
    ([*A, "p.npy", "--labels", "absent.csv"], "--labels absent.csv is not there"),
    ([*A, "p.npy", "--labels", "few.npy"], "--labels few.npy has labels of shape (7,)"),
    ([*A, "p.npy", "--labels", "high.npy"], "--labels high.npy[0] is 5, outside 0..4"),
    ([*A, "p.npy", "--labels", "names.npy"], "pass numbers from 0 to 4, or --classes"),
    ([*A, "p.npy", "--labels", "pickle.npy"], "--labels pickle.npy can't be read as .npy"),
    ([*A, "p.npy", "--labels", "y.npy", "--label-column", "y"], "--label-column is 'y' and"),
    ([*A, "p.npy", "--labels", "y.csv"], "say with --label-column which holds the labels"),
    ([*A, "p.npy", "--labels", "y.csv", "--label-column", "z"], "which --label-column names"),
    ([*A, "p.csv", *ID, "--label-column", "z"], "no column 'z', which --label-column names"),
    ([*A, "p.npy", "--label-column", "z"], "PRED_PROBS p.npy is an array"),
    ([*A, "p.csv", *ID, "--labels", "sock.csv"], "has 'sock', which is no class, in row 1; its"),
    ([*A, "p.csv", *ID, "--labels", "missing.parquet"], "has no label in row 1"),
    ([*A, "p.csv", *ID, "--labels", "lacks.csv"], "lacks.csv has no '299.jpg' in column 'image'"),
    ([*A, "p.csv", *ID, "--labels", "double.csv"], "double.csv has '001.jpg' twice"),
    ([*A, "p.npy", "--labels", "y.npy", "--out", "o.npy"], "labels are given and --out is o.npy"),
    # the rule
    (["p.npy", "--out", "o.csv"], "--alpha is missing; pass a number"),
    (["p.npy", "--alpha", "0"], "--alpha is 0.0; it must be a finite number greater than 0"),
    (["p.npy", "--alpha", "inf"], "--alpha is inf"),
    (["p.npy", "--alpha", "1", "--beta", "0.2"], "--beta is 0.2; identification needs 0 <= beta"),
    (["p.npy", "--alpha", "1", "--beta", "nan"], "--beta is nan"),
    ([*A, "p.npy", "--sigma", "-1"], "--sigma is -1.0; it must be"),
    ([*A, "p.npy", "--num-vectors", "0"], "--num-vectors is 0; it must be a finite number of at"),
    ([*A, "p.npy", "--seed", "-1"], "--seed is -1; it must be a finite number of at least 0"),
    ([*A, "p.npy", "--seed", str(1 << 32)], "--seed is 4294967296; it must be less than"),
    ([*A, "p.npy", "--threads", "0"], "--threads is 0; it must be a finite number of at least 1"),
    (["p.npy", "--preset", "clothing1m"], "--preset is clothing1m, for 14 classes, and PRED_PROBS"),
    # alpha from conforming predictions
    (["p.npy", "--alpha", "auto"], "--alpha is auto and --conforming is missing"),
    (["p.npy", "--auto-beta"], "--auto-beta is withdrawn: "),
    ([*A, "p.npy", "--conforming", "conforming.npy"], "where alpha is 0.9; add --alpha auto"),
    ([*A, "p.npy", "--confidence", "0.9"], "--confidence is 0.9, which has no use"),
    (["p.npy", "--conforming", "absent.npy"], "--conforming absent.npy is not there"),
    (["p.npy", "--conforming", "k4.npy"], "--conforming k4.npy has 4 classes and PRED_PROBS p.npy"),
    (["p.npy", "--conforming", "sum.npy"], "--conforming sum.npy sums to"),
    (["p.npy", "--conforming", "sum.npy", "--out", "o.npy"], "--conforming sum.npy sums to"),
    (["p.csv", *ID, "--conforming", "one.csv"], "no column 'dress', which PRED_PROBS names"),
    (["p.npy", "--conforming", "conforming.npy", "--max-flag-rate", "5"], "--max-flag-rate is 5.0"),
    (["p.npy", "--conforming", "conforming.npy", "--confidence", "1"], "--confidence is 1.0"),
    # the output
    ([*A, "p.npy", "--out", "o.txt"], "--out is o.txt; its name must end in .csv, .parquet"),
    ([*A, "p.npy", "--out", "p.npy", "--overwrite"], "--out p.npy is a file to read from"),
    ([*A, "p.npy", "--out", "sub/../p.csv"], "--out sub/../p.csv"),
    ([*A, "p.npy", "--out", "text.npy/o.csv"], "no folder you may write to"),
    ([*A, "p.npy", "--out", "-", "--json"], "--out is - and --json is given"),
    ([*A, "p.npy", "--overwrite"], "--overwrite is given without a file to write"),
    ([*A, "p.npy", "--show", "-1"], "--show is -1; it must be a finite number of at least 0"),
    (["p.npy", "--values", "scores"], "--values is scores, which a table has anyway; name an .npy"),
    ([*A, "p.npy", "--values", "scores", "--out", "o.npy"], "--values is scores, which need"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_what_is_wrong_is_said_in_one_line(bad, arguments, message, capsys):
    before = listing()
    assert run(*arguments) == 1
    shown, said = capsys.readouterr()
    assert shown == ""
    assert said.startswith("error: ")
    assert said.endswith("\n")
    assert said.count("\n") == 1
    assert message in said
    assert listing() == before  # nothing written, and nothing unpickled


def test_a_folder_named_like_a_table_is_not_written_to(probs, capsys):
    Path("folder.csv").mkdir()
    assert run("p.npy", *RULE, "--out", "folder.csv") == 1
    assert "--out folder.csv is a folder; name a file in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["p.npy", "--alpha", "high"],
        ["p.npy", "--preset", "cifar"],
        ["p.npy", "--values", "votes"],
        ["p.npy", "--classes", "hat,,shoe"],
        ["p.npy", "--colour", "blue"],
    ],
)
def test_wrong_usage_is_status_2(probs, arguments, capsys):
    with pytest.raises(SystemExit) as done:
        run(*arguments)
    assert done.value.code == 2
    assert "usage: genkl" in capsys.readouterr().err


# --- The command line as a whole -------------------------------------------------------------


def commands(parser: argparse.ArgumentParser):
    """Every parser below this one, with itself."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from commands(below)


COMMANDS = {parser.prog: parser for parser in commands(build_parser())}


def test_the_areas_and_commands_are_these():
    assert {"genkl", "genkl identify", "genkl data list", "genkl data get", "genkl data show",
            "genkl data check", "genkl run", "genkl report"} <= set(COMMANDS)  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option_and_its_default(name, capsys):
    parser = COMMANDS[name]
    with pytest.raises(SystemExit) as done:
        main([*name.split()[1:], "--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    for action in parser._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action
        for option in action.option_strings:
            assert option in shown
        closed = (argparse._HelpAction, argparse._VersionAction)
        if name == "genkl identify" and action.option_strings and not isinstance(action, closed):
            assert "(default: " in action.help, action


def test_the_program_is_installed_and_tells_its_version():
    program = Path(sys.executable).with_name("genkl")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"genkl {genkl.__version__}\n"


def test_program_and_module_are_the_same():
    for start in ([Path(sys.executable).with_name("genkl")], [sys.executable, "-m", "genkl"]):
        done = subprocess.run(
            [*start, "identify", "absent.npy", "--show", "-1"], capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: --show is -1;")


def imported(*arguments):
    """The large libraries that a command imports."""
    code = (
        "import sys\nfrom genkl.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "large = {'torch', 'numpy', 'pandas', 'pyarrow', 'scipy', 'sklearn', 'matplotlib'}\n"
        "print(*sorted(large & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return done.stderr.split()


def test_help_needs_no_large_library(probs):
    assert imported("--help") == []
    assert imported("identify", "--help") == []
    assert imported("--version") == []


def test_identification_needs_no_torch(probs):
    needed = imported("identify", "p.npy", *RULE)
    assert "pandas" in needed
    assert "torch" not in needed


@pytest.mark.parametrize("arguments", [["identify", "p.npy", *RULE, "--out", "-"], ["--help"]])
def test_a_reader_that_has_gone_is_no_error(arguments):
    np.save("p.npy", predictions(count=20_000))
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-m", "genkl", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered,
    )  # fmt: skip
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 141
    assert said == ""


def test_an_interruption_is_one_line_and_status_130(probs, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(genkl.cli.identification, "evaluate", interrupted)
    assert run("p.npy", *RULE) == 130
    shown, said = capsys.readouterr()
    assert shown == ""
    assert said.startswith("interrupted")
    assert said.count("\n") == 1


def test_debugging_shows_where_an_error_comes_from(capsys, monkeypatch):
    for off in ("", "0"):
        monkeypatch.setenv("GENKL_DEBUG", off)
        assert run("absent.npy", *RULE) == 1
    monkeypatch.setenv("GENKL_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match="PRED_PROBS absent"):
        run("absent.npy", *RULE)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "GENKL_DEBUG=1" in capsys.readouterr().out


def test_a_defect_is_not_taken_for_an_error_of_the_user(probs, monkeypatch):
    def defect(*_, **__):
        raise KeyError("a defect")

    monkeypatch.setattr(genkl.cli.identification, "evaluate", defect)
    with pytest.raises(KeyError, match="a defect"):
        run("p.npy", *RULE)
