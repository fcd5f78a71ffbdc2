"""A confirmation: frozen methods and settings, on images and seeds that nothing has seen.

Registered on 27 November 2026, before the first of its runs. The settings are those that the search
chose for CIFAR-10N with 500 verified labels. The test images are the training images of CIFAR-10
that no seed of that data set has drawn, neither to search nor to report; the seeds, which draw all
other splits, are new. Each claim of `CLAIMS` is judged once, whatever comes out.

A set with other people's labels joined later, for what is registered in `benchmarks.calibrated`;
no claim of `CLAIMS` is about it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

import genkl
from benchmarks import studies
from benchmarks.studies import CASES, SEARCH_SEEDS, SEEDS, VOTES, Case, Chosen
from benchmarks.sweep import Cell
from genkl.baselines import Groundwork
from genkl.data import Split, Truth
from genkl.data.cifar10 import read_cifar10, read_cifar10_labels
from genkl.data.registry import CIFAR10
from genkl.data.sources import find_data

NEW_SEEDS = (200, 201, 202, 203, 204)
FROM = {
    "cifar10n-worst-unseen": "cifar10n-worst-500",
    "cifar10n-aggregate-unseen": "cifar10n-aggregate-500",
    "cifar10n-random1-unseen": "cifar10n-aggregate-500",
}
"""Data set -> that whose settings are frozen."""
CLAIMED = ("cifar10n-worst-unseen", "cifar10n-aggregate-unseen")
"""The data sets of `CLAIMS`."""
UNSEEN: dict[str, Case] = {
    name: replace(
        CASES[base],
        title=f"CIFAR-10N {name.split('-')[1]}, 500 clean, unseen images",
        options={**CASES[base].options, "labels": name.split("-")[1]},
    )
    for name, base in FROM.items()
}


@dataclass(frozen=True)
class Claim:
    """What is said of tuned methods, before the run.

    Attributes:
        method: compared with GenKL.
        ahead: True: its whole interval lies above GenKL; False: the difference is within a point,
            and its interval holds zero.
    """

    method: str
    ahead: bool

    def words(self) -> str:
        """The claim as a sentence."""
        if self.ahead:
            return f"{self.method} is ahead of GenKL, with its whole interval"
        return f"{self.method} is level with GenKL: within a point, its interval holds zero"

    def holds(self, row: Mapping[str, float]) -> bool:
        """Whether it does, of a row with ``difference`` and its ends."""
        low, high = row["difference_low"], row["difference_high"]
        return low > 0 if self.ahead else abs(row["difference"]) < 1 and low <= 0 <= high


CLAIMS = (
    Claim("gold loss correction", ahead=True),
    Claim("confident learning", ahead=True),
    Claim("CUFIT", ahead=True),
    Claim("GCE", ahead=True),
    Claim("given labels + fine-tuning", ahead=True),
    Claim("GenKL, no NC stage", ahead=False),
    Claim("GenKL, entropy", ahead=False),
)


@functools.cache
def unseen_images() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Training images that no seed of the frozen data sets has drawn; their labels and numbers."""
    folder = find_data(CIFAR10)
    unseen = np.ones(len(read_cifar10_labels("train", folder)), dtype=bool)
    for base in FROM.values():
        for seed in (*SEARCH_SEEDS, *SEEDS):
            drawn, _ = genkl.load_dataset("cifar10n", seed=seed, **CASES[base].options)
            for split in (drawn.clean, drawn.noisy, drawn.validation):
                unseen[split.ids.numpy()] = False
    rows = np.flatnonzero(unseen)
    images, labels = read_cifar10("train", rows, data_root=folder)
    return images, torch.from_numpy(labels), rows


@functools.lru_cache(maxsize=1)
def prepared(data: str, seed: int) -> tuple[Groundwork, Truth]:
    """The data set of a new seed without the unseen images, which become its test split."""
    base = FROM[data]
    images, labels, rows = unseen_images()
    dataset, truth = genkl.load_dataset("cifar10n", seed=seed, **UNSEEN[data].options)
    kept = {}
    for name in ("clean", "noisy", "validation"):
        split = getattr(dataset, name)
        kept[name] = split.take(np.flatnonzero(~np.isin(split.ids.numpy(), rows)))
    truth = truth.match(kept["noisy"])
    dataset = replace(dataset, **kept, test=Split(images, labels, torch.from_numpy(rows)))
    features = genkl.featurize(dataset, size=CASES[base].pixels, progress=False)
    config = studies.config_of(base)
    work = Groundwork.prepare(features, config, seed=seed, backbone=None, engine="cpu")
    return work, truth


def run_cell(
    study: str, data: str, seed: int, method: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """One run, on a data set of `UNSEEN`; see `benchmarks.studies.run_compared`."""
    work, truth = prepared(data, seed)
    own = {"settings": settings, "groundwork": work}
    return studies.summarised(work.dataset, truth, FROM[data], seed, method, **own)


def confirmation_cells(data: Sequence[str], chosen: Chosen) -> list[Cell]:
    """Every method, as it is and with its frozen settings, on the new seeds."""
    return [
        Cell({"study": "confirmation", "data": n, "method": m, "settings": own, "seed": s})
        for n in data
        for s in NEW_SEEDS
        for m in studies.methods_for(FROM[n])
        if m != VOTES
        for own in studies.settings_to_run(FROM[n], m, chosen)
    ]


def judged_claims(intervals: pd.DataFrame) -> pd.DataFrame:
    """Every claim with its figures and whether it holds.

    Args:
        intervals: of a record, with ``tuning``, ``method``, ``difference`` and its ends.
    """
    tuned = intervals[intervals["tuning"] == "tuned"].set_index("method")
    rows = []
    for claim in CLAIMS:
        row = tuned.loc[claim.method]
        figures = {name: row[name] for name in row.index if name.startswith("difference")}
        rows.append({"claim": claim.words(), **figures, "holds": bool(claim.holds(row))})
    return pd.DataFrame(rows)
