"""The confirmation: images that nothing has drawn, claims judged once, one tiny run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import genkl
from benchmarks import confirmation, learning, studies
from benchmarks.confirmation import CLAIMS, FROM, NEW_SEEDS, UNSEEN, Claim
from benchmarks.studies import SEARCH_SEEDS, SEEDS
from genkl.baselines.method import FACTOR
from genkl.data import Kind, NoisyDataset, Split, Truth

COUNT = 1500
IMAGES = torch.randint(0, 256, (COUNT, 3, 4, 4), generator=torch.manual_seed(0)).to(torch.uint8)
LABELS = np.arange(COUNT) % 4
NAME = "cifar10n-worst-unseen"


def draw(name, *, seed, **_):
    """Of 1,500 images 40 clean, 40 for validation and 200 noisy ones, by the seed."""
    order = np.random.default_rng(seed).permutation(COUNT)
    parts = dict(
        zip(("clean", "validation", "noisy"), np.split(order[:280], [40, 80]), strict=True)
    )
    splits = {
        part: Split(IMAGES[rows], torch.from_numpy(LABELS[rows]), torch.from_numpy(rows))
        for part, rows in parts.items()
    }
    noisy = parts["noisy"]
    truth = Truth(np.full(len(noisy), Kind.CORRECT), LABELS[noisy], "planted", noisy)
    official = Split(IMAGES[:4], torch.from_numpy(LABELS[:4]), COUNT + torch.arange(4))
    return NoisyDataset(name, ("a", "b", "c", "d"), test=official, **splits), truth


def flat(dataset, **_):
    def one_row(split):
        return replace(split, inputs=split.inputs.flatten(1).float() / 255)

    return dataset.map_splits(one_row)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(genkl, "load_dataset", draw)
    monkeypatch.setattr(genkl, "featurize", flat)
    monkeypatch.setattr(confirmation, "find_data", lambda source: None)
    monkeypatch.setattr(confirmation, "read_cifar10_labels", lambda part, folder: LABELS)
    read = lambda part, rows, data_root: (IMAGES[rows], LABELS[rows])  # noqa: E731
    monkeypatch.setattr(confirmation, "read_cifar10", read)
    short = replace(genkl.PHOTOGRAPHS, max_rounds=1, first_ensemble=2, ensemble=1)
    phases = {name: replace(getattr(short, name), steps=5) for name in ("pretrain", "train")}
    monkeypatch.setattr(studies, "config_of", lambda data, settings=None: replace(short, **phases))
    confirmation.unseen_images.cache_clear()
    confirmation.prepared.cache_clear()
    yield
    confirmation.unseen_images.cache_clear()
    confirmation.prepared.cache_clear()


def test_nothing_has_drawn_a_test_image(small):
    work, truth = confirmation.prepared(NAME, NEW_SEEDS[0])
    dataset = work.dataset
    tested = set(dataset.test.ids.tolist())
    assert 100 < len(tested) < 400
    for seed in (*SEEDS, *SEARCH_SEEDS):
        for split in draw("cifar10n", seed=seed)[0].splits().values():
            assert not tested & set(split.ids.tolist())
    for part in ("clean", "noisy", "validation"):
        assert not tested & set(getattr(dataset, part).ids.tolist())
    assert np.array_equal(truth.ids, dataset.noisy.ids)
    assert np.array_equal(dataset.test.labels, LABELS[dataset.test.ids])
    again, _ = confirmation.prepared(NAME, NEW_SEEDS[1])
    assert again.dataset.test.ids.tolist() == dataset.test.ids.tolist()


def test_new_seeds_and_frozen_settings():
    assert not set(NEW_SEEDS) & {*SEEDS, *SEARCH_SEEDS}
    frozen = {FACTOR: 0.3}
    chosen = {(base, m): frozen for base in FROM.values() for m in genkl.METHODS}
    cells = confirmation.confirmation_cells([*UNSEEN], chosen)
    assert len(set(cells)) == len(cells)
    assert {cell["seed"] for cell in cells} == set(NEW_SEEDS)
    (default, tuned) = {repr(c["settings"]) for c in cells if c["method"] == "given labels"} | {
        repr(frozen)
    }
    assert {default, tuned} == {repr({FACTOR: 1.0}), repr(frozen)}


def test_a_run_is_of_the_frozen_method(small):
    found = confirmation.run_cell("confirmation", NAME, 200, "given labels", {FACTOR: 0.3})
    assert found["clean_labels"] <= 40
    assert 0 <= found["test_accuracy"] <= 1


@pytest.mark.parametrize(
    ("ahead", "difference", "low", "high", "holds"),
    [
        (True, 2.0, 0.5, 3.0, True),
        (True, 2.0, -0.5, 3.0, False),
        (True, -2.0, -3.0, -1.0, False),
        (False, 0.4, -0.5, 1.0, True),
        (False, 1.4, -0.5, 3.0, False),
        (False, 0.4, 0.1, 0.7, False),
    ],
)
def test_a_claim_holds_or_not(ahead, difference, low, high, holds):
    row = {"difference": difference, "difference_low": low, "difference_high": high}
    assert Claim("GCE", ahead).holds(row) is holds


def test_the_record_judges_every_claim_by_tuned_runs(tmp_path):
    runs = []
    right = {claim.method: 0.9 if claim.ahead else 0.5 for claim in CLAIMS} | {"GenKL": 0.5}
    for method, share in right.items():
        for seed in NEW_SEEDS:
            for tuning, mean in (("default", 0.5), ("tuned", share)):
                hits = np.random.default_rng([seed, 1]).random((1, 400)) < mean
                runs.append(
                    {
                        "study": "confirmation", "data": NAME, "method": method, "seed": seed,
                        "tuning": tuning, "key": f"{method}{seed}{tuning}", "cell": "",
                        "correct": learning.studies.pack(hits), "rounds": [], "flagged": None,
                        "val_accuracy": 0.5, "test_accuracy": hits.mean(), "seconds": 1.0,
                    }
                )  # fmt: skip
    learning.save_part("confirmation", {"runs": pd.DataFrame(runs)}, tmp_path)
    record = genkl.load_record(tmp_path / "confirmation" / f"{NAME}.json")
    claims = pd.DataFrame(record["tables"]["claims"])
    assert len(claims) == len(CLAIMS)
    assert claims["holds"].all()
    assert record["settings"]["seeds"] == list(NEW_SEEDS)
