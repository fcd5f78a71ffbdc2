"""Committed results: each is a record that says where it came from."""

from pathlib import Path

import pytest

from genkl import load_record, stale_because
from genkl.provenance import code_fingerprint

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
        assert run["best_round"] in [done["index"] for done in run["rounds"]]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_record_says_of_every_module_it_names_whether_it_is_there(path):
    record = load_record(path)
    said = " ".join(stale_because(record))
    for module in record.get("code", {}):
        if not is_there(module):
            assert f"{module} (gone)" in said


def is_there(module: str) -> bool:
    try:
        return bool(code_fingerprint(module))
    except ValueError:
        return False


def test_a_module_that_is_gone_is_named():
    code = {"genkl.never_was": "0" * 16, "genkl.losses": "0" * 16}
    (reason,) = stale_because({"settings": {}, "code": code})
    assert reason == "its code has changed since: genkl.never_was (gone), genkl.losses"
