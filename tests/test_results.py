"""Committed results: each is a record that says where it came from."""

from pathlib import Path

import pytest

from genkl import load_record

RECORDS = sorted((Path(__file__).parents[1] / "results").rglob("*.json"))


def test_there_are_results():
    assert {path.stem for path in RECORDS} >= {
        "2_identification",
        "4_training",
        "5_iteration",
        "6_solar_cells",
    }


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_result_carries_its_provenance(path):
    record = load_record(path)
    source = record["provenance"]
    assert len(source["commit"]) == 40
    assert source["uncommitted_changes"] is False
    assert source["machine"]["processor"]
    assert all(source["packages"][name] for name in ("torch", "numpy", "genkl"))
    assert record["tables"]
    for run in record["runs"]:
        assert run["clean_labels"] > 0
        assert run["best_round"] in [one["index"] for one in run["rounds"]]
