"""Networks that memorise: their parts, their data, one tiny run of each method."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import genkl
from benchmarks import learning, networks, studies
from benchmarks.networks import BY_HEART, COMPARED, NETWORK_SEEDS, NETWORKS, RATES, Network
from benchmarks.resampling import unpack
from benchmarks.sweep import Cell
from genkl.baselines.method import FACTOR
from genkl.data import Kind
from genkl.features import EFFICIENTNET_LITE0
from genkl.learn import Phase
from genkl.records import stale_because
from genkl.storage import write_json


def tiny_digits(seed):
    return studies.load("digits", seed)


@pytest.fixture
def tiny(monkeypatch):
    """Digits, and enough steps to learn a few by heart."""
    train = Phase(steps=60, learning_rate=0.05, batch_size=32, eval_every=60)
    network = Network(
        "digits", "digits", "DIGITS", draw=tiny_digits, make_model=genkl.small_cnn, train=train
    )
    monkeypatch.setitem(NETWORKS, "tiny", network)
    monkeypatch.setitem(learning.KNOWN, "tiny", network)
    yield network
    networks.prepared.cache_clear()
    studies.load.cache_clear()


def test_lower_and_upper_blocks_are_the_whole_network():
    images = torch.rand(2, 3, 128, 128, generator=torch.manual_seed(0))
    whole, lower = EFFICIENTNET_LITE0.build(), networks.lower_blocks()
    with torch.inference_mode():
        maps = lower(images)
        upper = networks.upper_blocks(maps.shape[1:], 7).eval()
        assert upper(maps).shape == (2, 7)
        torch.testing.assert_close(upper[:-1](maps), whole(images))


def test_two_by_two_pixels_become_channels():
    model = networks.unshuffled_resnet((3, 32, 32), 8).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    moved = images.clone()
    moved[0, 0, 31, 31] = 255 - moved[0, 0, 31, 31]  # no pixel is dropped
    with torch.inference_mode():
        assert model(images).shape == (2, 8)
        assert not torch.equal(model(images)[0], model(moved)[0])


def test_strangers_of_a_group_get_the_label_that_most_of_them_have():
    dataset, truth = studies.load("digits", 0)
    strange = truth.labels < 0
    groups = np.where(np.arange(len(strange)) % 2, 3, 8)
    changed, told = networks.one_label_each(dataset, truth, groups)
    before, after = dataset.noisy.labels.numpy(), changed.noisy.labels.numpy()
    assert np.array_equal(before[~strange], after[~strange])
    for group in (3, 8):
        mine = strange & (groups == group)
        commonest = pd.Series(before[mine]).mode()
        assert set(after[mine]) == {commonest[0]}
    assert np.array_equal(told.kinds, truth.kinds)
    studies.load.cache_clear()


@pytest.mark.parametrize("method", COMPARED)
def test_every_method_trains_the_network(tiny, method):
    found = networks.run_cell("networks", "tiny", 0, method, {FACTOR: 1.0})
    assert unpack(found["correct"]).mean() == pytest.approx(found["test_accuracy"])
    assert 0 <= found["memorised"] <= 1
    Cell(found)  # plain values, no NaN
    if method == "GenKL, told the NC":
        assert found["rounds"][0]["recall"] == found["rounds"][0]["precision"] == 1
    if method == "GenKL, no NC stage":
        assert found["flagged"] == 0


def test_what_is_learned_by_heart_is_seen(tiny, monkeypatch):
    """More steps, more wrong labels repeated; no validation chooses the step, nothing corrects."""
    short = networks.run_cell("networks", "tiny", 0, BY_HEART, {FACTOR: 1.0})["memorised"]
    long = replace(tiny, train=replace(tiny.train, steps=1500, eval_every=10))
    monkeypatch.setitem(NETWORKS, "tiny", long)
    networks.prepared.cache_clear()
    by_heart = networks.run_cell("networks", "tiny", 0, BY_HEART, {FACTOR: 1.0})["memorised"]
    chosen = networks.run_cell("networks", "tiny", 0, "given labels", {FACTOR: 1.0})["memorised"]
    assert short < 0.5 < by_heart
    assert chosen < by_heart


def test_cells_and_their_tuning():
    cells = networks.network_cells(NETWORKS)
    count = len(NETWORKS) * len(NETWORK_SEEDS) * len(COMPARED) * len(RATES)
    assert len(set(cells)) == len(cells) == count
    table = pd.DataFrame(
        {"data": "d", "method": m, "settings": {FACTOR: r}, "seed": s, "val_accuracy": reached}
        for m, best in (("GCE", 3.0), ("GenKL", 1.0))
        for s in NETWORK_SEEDS
        for r in RATES
        for reached in [0.9 if r == best else 0.8]
    )
    runs = networks.tuned(table, studies.chosen_settings(table))
    of = dict([*runs.groupby("tuning")])
    assert {settings[FACTOR] for settings in of["default"]["settings"]} == {1.0}
    tuned = of["tuned"].groupby("method")["settings"].first()
    assert (tuned["GCE"], tuned["GenKL"]) == ({FACTOR: 3.0}, {FACTOR: 1.0})
    assert len(of["tuned"]) == len(of["default"]) == 2 * len(NETWORK_SEEDS)


@pytest.fixture
def recorded(tiny, tmp_path):
    """The path of a record of two methods, and their runs."""
    runs = []
    for cell in networks.network_cells(["tiny"]):
        if cell["method"] in ("GenKL", "given labels") and cell["settings"] == {FACTOR: 1.0}:
            made = networks.run_cell(**cell)
            runs.append({**cell, **made, "key": cell.key, "cell": cell.text, "seconds": 1.0})
    table = pd.DataFrame(runs)
    chosen = studies.chosen_settings(table)
    tables = {"search": studies.by_candidate(table), "chosen": chosen}
    learning.save_part("networks", {**tables, "runs": networks.tuned(table, chosen)}, tmp_path)
    return tmp_path / "networks" / "tiny.json", table


def test_a_record_of_a_tiny_network(recorded):
    path, table = recorded
    record = genkl.load_record(path)
    (difference,) = (
        row["difference"]
        for row in record["tables"]["intervals"]
        if row["tuning"] == "tuned" and row["method"] == "given labels"
    )
    means = table.groupby("method")["test_accuracy"].mean() * 100
    assert difference == pytest.approx(means["given labels"] - means["GenKL"], abs=1e-3)
    assert {"memorised", "memorised_nc"} <= set(record["tables"]["runs"][0])
    assert record["settings"]["seeds"] == list(NETWORK_SEEDS)


def test_a_stale_record_is_current_where_its_runs_come_out_the_same(recorded, capsys):
    path, _ = recorded
    record = genkl.load_record(path)
    assert learning.verify(path.parents[1], 2) == 0
    assert capsys.readouterr().out == ""  # current: nothing to do
    stale = record | {"code": record["code"] | {"genkl.losses": "0" * 16}}
    write_json(path, stale)
    assert learning.verify(path.parents[1], 2) == 0
    assert "2 runs made again, 0 differ" in capsys.readouterr().out
    verified = genkl.load_record(path)
    assert stale_because(verified) == ()
    assert verified["provenance"]["made_again"]["runs"] == 2
    assert verified["tables"] == record["tables"]


def test_a_run_that_comes_out_differently_leaves_its_record_stale(recorded, capsys):
    path, _ = recorded
    record = genkl.load_record(path)
    for row in record["tables"]["runs"]:
        row["test_accuracy"] += 0.01
    stale = record | {"code": record["code"] | {"genkl.losses": "0" * 16}}
    write_json(path, stale)
    assert learning.verify(path.parents[1], 1) == 1
    assert "1 runs made again, 1 differ" in capsys.readouterr().out
    assert genkl.load_record(path) == stale


@pytest.mark.skipif(
    not all(network.is_present() for network in NETWORKS.values()), reason="not on this machine"
)
def test_held_out_classes_carry_one_label_each():
    dataset, truth = networks.load_cifar(0)
    strange = truth.kinds == Kind.OOD
    names = np.array(dataset.class_names)[dataset.noisy.labels.numpy()[strange]]
    assert set(names) == {"horse", "automobile"}  # of deer and trucks
