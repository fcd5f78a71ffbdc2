"""The registered variant: what records say of it, and that each claim can fail."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import calibrated
from benchmarks.calibrated import DEVELOPED, LEVEL_WITH, METHOD
from genkl.records import save_record

REACHED = {METHOD: 0.8, "GenKL": 0.7, "gold loss correction": 0.85, "confident learning": 0.6}


@pytest.fixture
def folder(tmp_path):
    """A record of digits with three models a run, whose accuracies are those of `REACHED`."""
    rows, right = [], {}
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        for method, reached in REACHED.items():
            hits = rng.permutation(300) < 300 * reached
            key = f"{method[:6]}-{seed}".replace(" ", "_")[:12]
            right[key] = hits.reshape(100, 3).sum(axis=1)
            row = {"key": key, "method": method, "seed": seed, "tuning": "tuned"}
            rows += [{**row, "test_accuracy": reached}, {**row, "tuning": "default", "key": "x"}]
    path = tmp_path / "main/digits.json"
    save_record(path, title="", tables={"runs": pd.DataFrame(rows)})
    arrays = {"keys": np.array([*right]), "right": np.stack([*right.values()], axis=1)}
    np.savez(path.with_name("digits-correct.npz"), **arrays)
    return tmp_path


def test_the_variant_is_held_against_every_tuned_method(folder):
    table = calibrated.compared(folder / "main/digits.json").set_index("method")
    assert table["accuracy"].to_dict() == pytest.approx({m: 100 * r for m, r in REACHED.items()})
    gaps = {method: 100 * (REACHED[METHOD] - reached) for method, reached in REACHED.items()}
    assert table["difference"].to_dict() == pytest.approx(gaps)
    others = table.drop(METHOD)
    assert (others["low"] < others["difference"]).all()
    assert (others["difference"] < others["high"]).all()


def test_a_record_that_lacks_the_variant_says_nothing(folder):
    (row,) = calibrated.judged(folder).to_dict("records")  # of those confirmed, digits are there
    assert (row["data"], row["best"]) == ("digits", "gold loss correction")
    assert row["lost"] == pytest.approx(5)
    assert row["GenKL"] == pytest.approx(10)
    assert len(calibrated.judged(folder, confirmed=False)) == 0
    assert not set(DEVELOPED) & {name for names in calibrated.CONFIRMED.values() for name in names}


@pytest.mark.parametrize("broken", [None, "lost", "GenKL", *(f"{o} high" for o in LEVEL_WITH)])
def test_every_claim_holds_or_fails_by_its_own_figure(broken):
    good = {"lost": 0.1, "GenKL": 0.0, **{f"{other} high": 0.2 for other in LEVEL_WITH}}
    bad = {"lost": 5.0, "GenKL": -1.5}.get(broken, -0.1)
    found = pd.DataFrame([good, good | ({broken: bad} if broken else {})])
    holds = calibrated.claims(found)["holds"]
    assert len(holds) == 4
    assert holds.sum() == (4 if broken is None else 3)
