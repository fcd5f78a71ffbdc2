"""Decisions applied: the table says what was decided, by whom, and keeps what it had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genkl.cli import main
from genkl.data.folder import load_folder
from genkl.report.decisions import apply_decisions, merge_decisions, read_decisions

LABELS = """image,label,sender,verified
a.png,cat,anna,
b.png,dog,anna,
c.png,cat,ben,
d.png,dog,ben,
e.png,cat,carl,
f.png,dog,carl,dog
"""
HEAD = "image,label,verified,suggestion\n"
ANNA = HEAD + "a.png,cat,dog,dog\nb.png,dog,dog,dog\nc.png,cat,none,none\nd.png,dog,,cat\n"
BEN = HEAD + "a.png,cat,dog,dog\nb.png,dog,cat,dog\n./e.png,cat,cat,dog\nf.png,dog,,\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (("labels", LABELS), ("anna", ANNA), ("ben", BEN)):
        Path(f"{name}.csv").write_text(text)
    return tmp_path


def applied(*options: str) -> pd.DataFrame:
    asked = ["apply", "anna.csv", "ben.csv", "--labels", "labels.csv", "--out", "out.csv"]
    assert main([*asked, "--overwrite", *options]) == 0
    return pd.read_csv("out.csv", dtype=str, keep_default_na=False).set_index("image")


def test_decisions_are_in_the_label_column_and_the_rest_stays(capsys):
    table = applied()
    assert table["label"].to_dict() == {
        "a.png": "dog", "b.png": "dog", "c.png": "-1", "d.png": "dog", "e.png": "cat",
        "f.png": "dog",
    }  # fmt: skip
    before = pd.read_csv("labels.csv", dtype=str, keep_default_na=False).set_index("image")
    assert (table["given"] == before["label"]).all()
    assert (table[["sender", "verified"]] == before[["sender", "verified"]]).all(axis=None)
    decided = ["decided", "disputed", "decided", "given", "decided", "given"]
    assert table["source"].tolist() == decided
    assert table["by"].tolist() == ["anna;ben", "anna;ben", "anna", "", "ben", ""]
    shown = capsys.readouterr().out
    assert "anna, ben: 2 images in common agree on 50% (kappa 0.00)" in shown
    assert Path("labels.csv").read_text() == LABELS


def test_suggestions_are_taken_where_nobody_decided():
    table = applied("--suggestions")
    assert table.loc["d.png", ["label", "source"]].tolist() == ["cat", "suggested"]
    assert table.loc["b.png", ["label", "source"]].tolist() == ["dog", "disputed"]
    assert table.loc["f.png", ["label", "source"]].tolist() == ["dog", "given"]  # nothing to take


def test_decisions_of_another_day_add_to_the_first():
    applied()
    Path("later.csv").write_text(HEAD + "b.png,dog,cat,\nd.png,dog,cat,\n")
    asked = ["apply", "later.csv", "--labels", "out.csv", "--out", "again.csv"]
    assert main(asked) == 0
    table = pd.read_csv("again.csv", dtype=str, keep_default_na=False).set_index("image")
    assert table["given"].tolist() == ["cat", "dog", "cat", "dog", "cat", "dog"]
    assert table["label"].tolist() == ["dog", "cat", "-1", "cat", "cat", "dog"]
    assert table["by"].tolist() == ["anna;ben", "later", "anna", "later", "ben", ""]
    assert [*table].count("given") == 1


def test_a_cleaned_table_is_one_to_learn_from(here: Path):
    for name in "abcdef":
        (here / f"{name}.png").write_bytes(b"")
    applied()
    dataset, _ = load_folder(folder=here, labels="out.csv", clean_share=0.5, validation_share=0)
    names = [Path(dataset.noisy.inputs.name(row)).name for row in range(len(dataset.noisy))]
    learned = dict(zip(names, dataset.noisy.labels.tolist(), strict=True))
    assert "c.png" not in learned  # of no class
    assert learned["a.png"] == dataset.class_names.index("dog")


@pytest.mark.parametrize("seed", range(3))
def test_merging_is_what_a_loop_finds(seed: int):
    rng = np.random.default_rng(seed)
    images = pd.Index([f"{row}" for row in range(40)], name="image")
    people = {
        name: pd.DataFrame(
            {"verified": rng.choice(["", "cat", "dog"], 40), "suggestion": "cat"}, images
        ).sample(30, random_state=seed)
        for name in ("anna", "ben", "carl")
    }
    merged, agreement = merge_decisions(people)
    for image, row in merged.iterrows():
        said = {n: f["verified"].get(image, "") for n, f in people.items()}
        said = {name: label for name, label in said.items() if label}
        assert row["by"] == ";".join(said)
        assert row["disputed"] == (len({*said.values()}) > 1)
        assert row["decided"] == (next(iter(said.values())) if len({*said.values()}) == 1 else "")
    assert len(agreement) == 3
    assert agreement["agree"].between(0, 1).all()


def test_what_is_refused(capsys):
    Path("other.csv").write_text(HEAD + "x.png,cat,dog,\n")
    Path("typed.csv").write_text(HEAD + "a.png,cat,dgo,\n")
    Path("twice.csv").write_text(HEAD + "a.png,cat,dog,\na.png,cat,cat,\n")
    Path("sub").mkdir()
    Path("sub/anna.csv").write_text(ANNA)
    for decisions, message in (
        (["other.csv"], "labels.csv has no 'x.png', which somebody decided about (1 such"),
        (
            ["typed.csv"],
            "'a.png' is decided or suggested to be 'dgo', which is no label of",
        ),
        (["twice.csv"], "'a.png' is already in line 2"),
        (["anna.csv", "sub/anna.csv"], "two files of one name"),
        (["labels.csv", "--out", "labels.csv", "--overwrite"], "is a file to read from"),
        (["absent.csv"], "absent.csv"),
    ):
        assert main(["apply", "--labels", "labels.csv", "--out", "o.csv", *decisions]) == 1
        assert message in capsys.readouterr().err
    assert not Path("o.csv").exists()
    people = {"anna": read_decisions("anna.csv")}
    with pytest.raises(ValueError, match="no column 'class'"):
        apply_decisions("labels.csv", people, label_column="class")


def test_no_suggestion_takes_the_place_of_a_decision():
    applied()
    Path("later.csv").write_text(HEAD + "a.png,cat,,cat\nb.png,dog,,cat\nf.png,dog,,cat\n")
    asked = ["apply", "later.csv", "--labels", "out.csv", "--suggestions", "--out", "again.csv"]
    assert main(asked) == 0
    table = pd.read_csv("again.csv", dtype=str, keep_default_na=False).set_index("image")
    assert table.loc["a.png", ["label", "source", "by"]].tolist() == ["dog", "decided", "anna;ben"]
    assert table.loc["b.png", ["label", "source"]].tolist() == ["dog", "disputed"]
    assert table.loc["f.png", ["label", "source", "by"]].tolist() == ["cat", "suggested", ""]


def test_what_was_verified_before_is_nobodys_decision(capsys):
    Path("labels.csv").write_text(
        "image,label,verified\na.png,cat,dog\nb.png,dog,dog\nc.png,cat,\n"
    )
    for name, said in (("anna", "cat"), ("ben", "dog")):
        rows = f"a.png,cat,dog,\nb.png,dog,dog,\nc.png,cat,{said},\n"
        Path(f"{name}.csv").write_text(HEAD + rows)
    table = applied()
    assert "1 images in common agree on 0%" in capsys.readouterr().out
    assert table["source"].tolist() == ["given", "given", "disputed"]
    assert table["label"].tolist() == ["cat", "dog", "cat"]


def test_a_verified_label_is_corrected_and_no_other_becomes_verified():
    Path("anna.csv").write_text(HEAD + "a.png,cat,dog,\nf.png,dog,none,\n")
    Path("ben.csv").write_text(HEAD + "f.png,dog,,\n")
    table = applied()
    assert table["verified"].tolist() == ["", "", "", "", "", "none"]
    assert table["label"].tolist() == ["dog", "dog", "cat", "dog", "cat", "-1"]


def test_labels_that_are_numbers_stay_numbers(capsys):
    Path("labels.csv").write_text("image,label\na.png,0\nb.png,1\nc.png,-1\nd.png,0\n")
    rows = "a.png,cat,dog,dog\nb.png,dog,,dog\nc.png,,bird,bird\nd.png,cat,,dog\n"
    Path("anna.csv").write_text(HEAD + rows)
    Path("ben.csv").write_text(HEAD + "d.png,cat,,dog\n")
    asked = ["apply", "anna.csv", "--labels", "labels.csv", "--out", "out.csv"]
    assert main(asked) == 1
    assert "pass --classes with every class" in capsys.readouterr().err
    table = applied("--classes", "cat,dog,bird", "--suggestions")
    assert table["label"].tolist() == ["1", "1", "2", "1"]
    assert table["source"].tolist() == ["decided", "given", "decided", "suggested"]
    Path("anna.csv").write_text(HEAD + "a.png,0,1.0,1.0\nb.png,1,,1.0\nd.png,0,,1.0\n")
    assert applied("--suggestions")["label"].tolist() == ["1", "1", "-1", "1"]


def test_columns_of_ones_own_are_not_taken_for_those_of_a_cleaned_table(capsys):
    for column in ("given", "source", "by"):
        Path("labels.csv").write_text(f"image,label,{column}\na.png,cat,x\nb.png,dog,y\n")
        asked = ["apply", "anna.csv", "--labels", "labels.csv", "--out", "out.csv"]
        assert main(asked) == 1
        assert f"has a column '{column}'" in capsys.readouterr().err


def test_an_unnamed_column_stays_and_names_are_compared_as_paths(capsys):
    Path("labels.csv").write_text(",image,label\n0,./a.png,cat\n1,b.png,dog\n")
    Path("anna.csv").write_text(HEAD + "a.png,cat,dog,\n")
    Path("ben.csv").write_text(HEAD + "b.png,dog,dog,\n")
    table = applied().reset_index()
    assert table.iloc[:, 0].tolist() == ["./a.png", "b.png"]
    assert table["Unnamed: 0"].tolist() == ["0", "1"]
    assert table["label"].tolist() == ["dog", "dog"]
    Path("labels.csv").write_text("image,label\n./a.png,cat\na.png,dog\n")
    assert main(["apply", "anna.csv", "--out", "two.csv"]) == 1
    assert "'a.png' is already in line 2" in capsys.readouterr().err
    assert main(["apply", "anna.csv", "--out", "two.tsv"]) == 1
    assert "must end in .csv" in capsys.readouterr().err
