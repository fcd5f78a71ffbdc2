"""Verdict words of chapter 13: each follows its record, also where that is doctored to say no."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from figures import verdicts

ROOT = Path(__file__).parents[2]
CASES = ("digits", "clothes", "cells")


def rows(areas, over=None, half=0.01):
    """One row for each data set and method: AUROC, and the difference to a base."""
    found = []
    for method, values in areas.items():
        for at, (case, auroc) in enumerate(zip(CASES, values, strict=True)):
            row = {"case": case, "method": method, "auroc": auroc, "labels": "random"}
            row |= {"missed": 1 - auroc, "kind": "NC"}
            if over and method in over:
                gap = over[method][at]
                row |= {"over": gap, "over_low": gap - half, "over_high": gap + half}
            found.append(row)
    return pd.DataFrame(found)


@pytest.mark.parametrize(
    ("count", "total", "words"),
    [(7, 7, "all 7"), (0, 7, "none of 7"), (5, 7, "5 of 7"), (0, 0, "none of 0"), (1, 1, "all 1")],
)
def test_counts_in_words(count, total, words):
    assert verdicts.of_total(count, total) == words


def test_names_as_one_says_them():
    assert verdicts.listed([]) == "none"
    assert verdicts.listed(["a"]) == "a"
    assert verdicts.listed(iter(["a", "b", "c"])) == "a, b and c"


def test_better_and_worse_are_what_the_intervals_say():
    areas = {"entropy": (0.8, 0.7, 0.6), "DSOS": (0.9, 0.7, 0.5)}
    found = verdicts.against(rows(areas, {"DSOS": (0.1, 0.0, -0.1)}), "DSOS")
    assert (found["better"], found["worse"], found["cases"]) == (1, 1, 3)
    assert (found["better_of"], found["worse_of"]) == ("1 of 3 (digits)", "1 of 3 (cells)")
    assert found["better_names"] == "digits"
    assert (found["least"], found["most"]) == (-0.1, 0.1)
    wide = verdicts.against(rows(areas, {"DSOS": (0.1, 0.0, -0.1)}, half=0.2), "DSOS")
    assert (wide["better_of"], wide["worse_of"]) == ("none of 3", "none of 3")
    doctored = verdicts.against(rows(areas, {"DSOS": (-0.1, -0.2, -0.3)}), "DSOS")
    assert (doctored["better_of"], doctored["worse_of"]) == ("none of 3", "all 3")
    assert doctored["better_names"] == "none"


@pytest.mark.parametrize(
    ("gaps", "word"),
    [
        ((0.1, 0.1, -0.1), "helps (2 to 1)"),
        ((-0.1, 0.1, -0.1), "misleads (1 to 2)"),
        ((0.1, 0.0, -0.1), "decides nothing (1 to 1)"),
        ((0.0, 0.0, 0.0), "decides nothing (0 to 0)"),
    ],
)
def test_what_reading_the_label_does(gaps, word):
    areas = {"entropy": (0.8, 0.7, 0.6), "DSOS": (0.8, 0.7, 0.6)}
    assert verdicts.effect(verdicts.against(rows(areas, {"DSOS": gaps}), "DSOS")) == word


def test_the_first_is_who_wins_most_and_ties_to_no_favourite():
    areas = {"entropy": (0.9, 0.8, 0.5), "DSOS": (0.8, 0.7, 0.95)}
    found = verdicts.leaders(rows(areas))
    assert found["first"] == "entropy"
    assert found["first_of"] == "2 of 3"
    assert found["mean"] == "DSOS"
    assert found["by_case"] == {"digits": "entropy", "clothes": "entropy", "cells": "DSOS"}
    assert verdicts.leaders(rows(areas), "missed", lowest=True) == found
    doctored = verdicts.leaders(rows({**areas, "DSOS": (0.95, 0.95, 0.95)}))
    assert (doctored["first"], doctored["first_of"]) == ("DSOS", "all 3")
    assert verdicts.reading_labels(rows(areas), ["DSOS"]) == "1 of 3 (cells)"
    assert verdicts.reading_labels(rows(areas), []) == "none of 3"
    tied = rows({"given label": (0.9, 0.8, 0.7), "GMM on loss": (0.9, 0.8, 0.7)})
    assert verdicts.leaders(tied)["first"] == "given label"  # in the order of tables


def test_one_that_lacks_a_data_set_leads_no_mean():
    some = rows({"entropy": (0.6, 0.6, 0.6), "ViM": (0.9, 0.9, 0.9)}).iloc[:5]
    assert verdicts.leaders(some)["mean"] == "entropy"
    assert verdicts.leaders(some)["first"] == "ViM"


def test_data_or_method_whichever_differs_more():
    data = rows({"entropy": (0.9, 0.7, 0.5), "DSOS": (0.91, 0.71, 0.51)})
    assert verdicts.what_decides(data) == "the data decide more than the method does"
    method = rows({"entropy": (0.9, 0.9, 0.91), "DSOS": (0.6, 0.6, 0.61)})
    assert verdicts.what_decides(method) == "the method decides most"


def test_main_rows_are_of_each_sets_own_way():
    both = pd.concat([rows({"entropy": (0.8, 0.7, 0.6)}).assign(labels=way) for way in "ab"])
    chosen = verdicts.main_rows(both, {"digits": "a", "clothes": "b", "cells": "a"})
    assert dict(zip(chosen["case"], chosen["labels"], strict=True)) == {
        "digits": "a", "clothes": "b", "cells": "a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flagged", "kept", "verdict"),
    [
        ((0.04, 0.05, 0.01), "all 3", "keep it"),
        ((0.04, 0.07, 0.01), "2 of 3", "mostly keep it"),
        ((0.2, 0.07, 0.01), "1 of 3", "break it"),
        ((0.2, 0.07, 0.06), "none of 3", "break it"),
    ],
)
def test_a_promise_is_kept_or_not(flagged, kept, verdict):
    frame = pd.DataFrame(
        {"case": CASES, "method": "entropy", "budget_false_flags": flagged, "seed": 0}
    )
    found = verdicts.promise(frame, 0.05, ["entropy"])
    assert (found["kept"], found["verdict"], found["most"]) == (kept, verdict, max(flagged))
    assert found["where"] == CASES[flagged.index(max(flagged))]


def conditions(values):
    found = []
    for method, areas in values.items():
        for value, (auroc, accuracy) in enumerate(areas):
            row = {"condition": "models", "value": value, "method": method, "case": "digits"}
            found.append(row | {"auroc": auroc, "val_accuracy": accuracy, "seed": 0})
    return pd.DataFrame(found)


def test_changes_and_whether_all_change_alike():
    frame = conditions({"entropy": [(0.7, 0.6), (0.8, 0.7)], "GenKL": [(0.6, 0.6), (0.71, 0.7)]})
    gains = verdicts.change(frame, "models")
    assert gains == pytest.approx({"entropy": 0.1, "GenKL": 0.11})
    assert verdicts.alike(gains, within=0.02) == "alike"
    assert verdicts.alike({"entropy": 0.1, "GenKL": -0.1}) == "different"


def test_how_often_a_better_predictor_ranks_better():
    frame = conditions({"entropy": [(0.7, 0.6), (0.8, 0.7)], "GenKL": [(0.6, 0.6), (0.71, 0.7)]})
    assert verdicts.with_accuracy(frame) == "all 2"
    doctored = frame.assign(auroc=frame["auroc"].where(frame["method"] != "GenKL", 0.5))
    assert verdicts.with_accuracy(doctored) == "1 of 2"


def test_the_gap_over_each_axis_and_where_it_is_largest():
    frame = conditions({"entropy": [(0.7, 0.6), (0.8, 0.7)], "GenKL": [(0.6, 0.6), (0.83, 0.7)]})
    frame = pd.concat([frame.assign(condition=name) for name in ("beta", "pixels", "models")])
    found = verdicts.gaps(frame)
    assert found[found["axis"] == "beta"]["x"].tolist() == [0, 1]
    assert found[found["axis"] == "the predictor"]["x"].tolist() == [0.6, 0.7]
    table = verdicts.gap_table(found)
    assert table.loc["beta"].tolist() == ["1 of 2", "+0.030", "digits", "-0.100"]
    behind = verdicts.gap_table(found.assign(gap=-0.01))
    assert set(behind["divergence ahead"]) == {"none of 2"}


def test_verdicts_that_were_typed_are_gone_and_every_glued_one_is_computed():
    cells = json.loads((ROOT / "notebooks/13_detection.ipynb").read_text("utf-8"))["cells"]
    prose = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    for typed in (
        "truth that *people* gave", "twenty-one", "ten other kinds", "on all photographs",
        "about the same", "keep the promise", "costs all alike", "every score better",
        "came far from a coin",
    ):  # fmt: skip
        assert typed not in prose
    glued = set(re.findall(r"\{glue:text\}`(det_\w+)", prose))
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    made = [re.escape(name) for name in re.findall(r'glue\(f?"(det_[^"]*)"', code)]
    patterns = [re.sub(r"\\\{[^}]*\\\}", r"\\w+", name) for name in made]
    missing = {name for name in glued if not any(re.fullmatch(p, name) for p in patterns)}
    assert not missing
