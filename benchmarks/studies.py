"""Cells of the benchmark of learning: data sets, methods, one run, the search of settings.

A *cell* is one run: a study, a data set, a seed, and what is changed. `benchmarks.learning` runs
them; `benchmarks.ablations` has the studies of single questions. Every method tries the same
learning rates, with each value of its own setting, on seeds that no table reports; no seed sees a
test image (`benchmarks.splits`). Both the default and the chosen settings are run and recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

import genkl
from benchmarks import splits
from benchmarks.resampling import pack, unpack
from benchmarks.sweep import Cell
from genkl.baselines import METHODS, Groundwork, nearest_neighbors, run_method
from genkl.baselines.agreement import LARGEST, reliable_sizes, reliable_votes
from genkl.baselines.method import FACTOR, RATES, everything
from genkl.data import NoisyDataset, Split, Truth
from genkl.data.base import NON_CONFORMING
from genkl.data.planting import label_strangers
from genkl.data.registry import DATASETS
from genkl.data.sources import is_present
from genkl.learn import GenKLConfig, Run

SEEDS = (0, 1, 2, 3, 4)
SEARCH_SEEDS = (100, 101, 102, 103, 104)
"""Their validation splits choose settings; no table reports them."""
VOTES = "WANN votes"
"""WANN as its source has it: neighbours vote, and nothing is trained."""
OOD_LABELS = "nearest class"
"""Of strangers, see `genkl.data.planting.label_strangers`."""
TUNINGS = ("default", "tuned")
MODULES = (
    "genkl.features",
    "genkl.baselines",
    "genkl.rule.evaluation",
    "genkl.rule.conformal",
    "genkl.data",
    "genkl.rule.divergence",
    "genkl.rule.identify",
    "genkl.rule.neighbors",
    "genkl.losses",
    "genkl.networks",
    "genkl.posterior",
    "genkl.learn",
    "genkl.predict",
    "genkl.presets",
    "genkl.relabel",
    "benchmarks.studies",
    "benchmarks.splits",
)


# -- data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A data set to learn from.

    Attributes:
        dataset: as `load_dataset` knows it.
        title: in tables.
        config: name of the preset.
        options: of `splits.draw`; of the loader where the test set is the data set's own.
        pixels: of frozen features; None trains a network on the inputs.
        keep_clean: False takes the clean split away: a budget of no clean label.
    """

    dataset: str
    title: str
    config: str = "PHOTOGRAPHS"
    options: Mapping[str, Any] = field(default_factory=dict)
    pixels: int | None = None
    keep_clean: bool = True

    def is_present(self) -> bool:
        """Whether its files are on this machine."""
        entry = DATASETS[self.dataset]
        return all(map(is_present, (entry.source, *entry.also_needs)))

    def senders(self) -> np.ndarray | None:
        """Who sent each test image, see `splits.groups_of_test`."""
        return splits.groups_of_test(self.dataset, self.options.get("test_per_class", 0))


def _sizes(clean: int, validation: int, test: int, **noise: Any) -> dict[str, Any]:
    names = ("clean_per_class", "validation_per_class", "test_per_class")
    return dict(zip(names, (clean, validation, test), strict=True)) | noise


def _cifar10n(labels: str, budget: int) -> Case:
    options = {"labels": labels, "noisy_limit": 10_000, "clean_per_class": max(1, budget // 10)}
    title = f"CIFAR-10N {labels}, {budget} clean"
    return Case("cifar10n", title, options=options, pixels=96, keep_clean=budget > 0)


DIGITS = _sizes(8, 25, 50, label_noise=0.4, stranger_share=0.17, ambiguous_share=0.093)
CASES = {
    "digits": Case("digits", "digits, 64 clean", "DIGITS", DIGITS),
    "solar-cells": Case(
        "solar-cells",
        "solar cells, 200 clean",
        "SOLAR_CELLS",
        _sizes(50, 50, 100, label_noise=0.2),
        pixels=160,
    ),
    "clothing": Case(
        "clothing-dataset",
        "clothes, 250 clean",
        options=_sizes(25, 15, 25, label_noise=0.3),
        pixels=160,
    ),
}
for _labels in ("aggregate", "worst"):
    for _budget in (0, 500, 5000):
        CASES[f"cifar10n-{_labels}-{_budget}"] = _cifar10n(_labels, _budget)


@functools.lru_cache(maxsize=2)
def load(data: str, seed: int, pixels: int | None = None, **options: Any):
    """The data set with what models see, and the truth."""
    case = CASES[data]
    pixels, options = pixels or case.pixels, {**case.options, **options}
    if case.dataset in splits.EVERYTHING:
        dataset, truth = splits.draw(case.dataset, seed, pixels=pixels, **options)
        rows = splits.are_strangers(case.dataset, options["test_per_class"], truth)
        if rows.any():
            dataset, truth = label_strangers(dataset, truth, OOD_LABELS, rows, seed)
    else:
        dataset, truth = genkl.load_dataset(case.dataset, seed=seed, **options)
        dataset = genkl.featurize(dataset, size=pixels, progress=False)
    if not case.keep_clean:
        dataset = replace(dataset, clean=dataset.clean.take(np.arange(0)))
    return dataset, truth


def config_of(data: str, settings: Mapping[str, Any] | None = None) -> GenKLConfig:
    """The data set's preset; without clean labels, the network's own belief stands in for them.

    Args:
        data: of `CASES`.
        settings: of the method "GenKL", to be built in.
    """
    case = CASES[data]
    config = getattr(genkl, case.config)
    if not case.keep_clean:
        config = replace(config, clean_threshold=0.5)
    named = {name: value for name, value in (settings or {}).items() if value is not None}
    rate = config.train.learning_rate * named.pop(FACTOR, 1.0)
    return replace(config, train=replace(config.train, learning_rate=rate), **named)


@functools.lru_cache(maxsize=2)
def groundwork(data: str, seed: int, pixels: int | None = None, **options: Any) -> Groundwork:
    """Predictions and neighbours that methods on the same data and seed share."""
    dataset, _ = load(data, seed, pixels, **options)
    return Groundwork.prepare(dataset, config_of(data), seed=seed, backbone=None, engine="cpu")


# -- one run --------------------------------------------------------------------------------------


def summary(run: Run, test: Split, truth: Truth | None = None) -> dict[str, Any]:
    """What is kept of a run: the chosen round's figures, every round's, and what was right."""
    names = ("predictor_val_accuracy", "threshold", "flagged", "val_accuracy", "test_accuracy")
    rounds = []
    for found in run.rounds:
        row = {"round": found.index} | {name: getattr(found, name) for name in names}
        if truth is not None and found.is_nc is not None:
            is_nc = np.isin(truth.kinds, NON_CONFORMING)
            row |= genkl.precision_recall_f1(found.is_nc, is_nc)
        rounds.append({key: _finite(value) for key, value in row.items()})
    names = ("val_accuracy", "test_accuracy", "ensemble_test_accuracy")
    predicted = [genkl.predict_probs([m], test.inputs, engine="cpu").argmax(1) for m in run.models]
    return {
        **{name: getattr(run.best, name) for name in names},
        **judged(np.stack(predicted), test.labels.numpy()),
        "flagged": _finite(run.best.flagged),
        "best_round": run.best.index,
        "clean_labels": run.clean_labels,
        "rounds": rounds,
    }


def judged(predicted: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Recall of the classes, on average and the lowest, means over models; and what was right.

    Args:
        predicted: classes, shape (models, images).
        labels: shape (images,).
    """
    hits = predicted == labels
    recalls = np.stack([hits[:, labels == label].mean(axis=1) for label in np.unique(labels)])
    return {
        "balanced_accuracy": float(recalls.mean()),
        "worst_recall": float(recalls.min(axis=0).mean()),
        "correct": pack(hits),
    }


def _finite(value: float) -> float | None:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def run_searched(
    data: str, seed: int, method: str, settings: Mapping[str, Any]
) -> dict[str, float | None]:
    """The validation accuracy of a candidate, without its test split; None if it diverged."""
    work = groundwork(data, seed)
    if method == VOTES:
        return _voted(work, settings, ("validation",))
    dataset = replace(work.dataset, test=work.dataset.test.take(np.arange(1)))
    try:
        run = _run(dataset, data, seed, method, settings=settings, groundwork=work)
    except FloatingPointError:
        return {"val_accuracy": None}
    return {"val_accuracy": run.best.val_accuracy}


def run_compared(data: str, seed: int, method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A method with settings of its own."""
    work = groundwork(data, seed)
    if method == VOTES:
        return _voted(work, settings)
    _, truth = load(data, seed)
    return summarised(work.dataset, truth, data, seed, method, settings=settings, groundwork=work)


def summarised(
    dataset: NoisyDataset, truth: Truth, data: str, seed: int, method: str, **more: Any
) -> dict[str, Any]:
    """The `summary` of a run of any method."""
    run = _run(dataset, data, seed, method, **more)
    return summary(run, dataset.test, truth if method.startswith("GenKL") else None)


def _run(dataset: NoisyDataset, data: str, seed: int, method: str, **more: Any) -> Run:
    options = {"seed": seed, "backbone": None, "engine": "cpu", "progress": False, **more}
    return run_method(method, dataset, config_of(data), **options)


def _voted(work: Groundwork, settings: Mapping[str, Any], parts=("validation", "test")) -> dict:
    """What reliable neighbours, verified and noisy, say of the validation and the test split."""
    dataset, bank = work.dataset, everything(work)
    labels, count = bank.targets.argmax(dim=1).numpy(), settings["largest"]
    near = nearest_neighbors(bank.inputs, bank.inputs, count)
    sizes, found = reliable_sizes(near, labels, largest=count), {}
    for part in parts:
        asked, known = (
            normalize(x.flatten(1)) for x in (getattr(dataset, part).inputs, bank.inputs)
        )
        near = [(some @ known.T).topk(count, dim=1).indices for some in asked.split(1024)]
        votes = reliable_votes(torch.cat(near).numpy(), labels, sizes, dataset.num_classes)
        found[part] = judged(votes.argmax(axis=1)[None], getattr(dataset, part).labels.numpy())
    (val, *rest) = (float(unpack(judgement["correct"]).mean()) for judgement in found.values())
    if not rest:
        return {"val_accuracy": val}
    shown = {"val_accuracy": val, "test_accuracy": rest[0], "ensemble_test_accuracy": rest[0]}
    about = {"flagged": None, "best_round": 1, "clean_labels": len(dataset.clean), "rounds": []}
    return {**shown, **found["test"], **about}


# -- cells ----------------------------------------------------------------------------------------


def methods_for(data: str) -> list[str]:
    """Methods that can do with the clean labels that there are."""
    keep_clean = CASES[data].keep_clean
    return [*(m for m, method in METHODS.items() if keep_clean or not method.needs_clean), VOTES]


def candidates(method: str) -> Iterator[dict[str, Any]]:
    """Settings that the search tries, the default first: all rates, with each value of its own."""
    if method == VOTES:
        return ({"largest": count} for count in (LARGEST, 101))
    own = {name: values for name, values in METHODS[method].grid.items() if name != FACTOR}
    return METHODS[method].candidates({**own, **RATES})


def default_settings(method: str) -> dict[str, Any]:
    """What a method has where nobody tunes it."""
    return next(iter(candidates(method)))


def search_cells(data: Sequence[str]) -> list[Cell]:
    """Every candidate of every method, on the seeds that choose."""
    return [
        Cell({"study": "search", "data": name, "method": method, "settings": candidate, "seed": s})
        for name in data
        for s in SEARCH_SEEDS
        for method in methods_for(name)
        for candidate in candidates(method)
    ]


def chosen_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Of each data set and method the candidate with the highest mean validation accuracy.

    Args:
        table: of the search; a candidate that diverged is not chosen.

    Returns:
        A row for each: data, method, settings, val_accuracy, the points over the default and over
        the next best (``over_default``, ``over_next``), the standard error over seeds of the
        latter, and whether the learning rate is the lowest or the highest tried.
    """
    rows = []
    factors = RATES[FACTOR]
    for (data, method), part in table.groupby(["data", "method"], sort=False):
        part = part.assign(candidate=part["settings"].map(repr))
        wide = part.pivot(index="seed", columns="candidate", values="val_accuracy").astype(float)
        wide = wide[part["candidate"].unique()]
        means = wide.mean(skipna=False).fillna(-1.0)
        best = means.idxmax()
        settings = part.loc[part["candidate"] == best, "settings"].iloc[0]
        others = means.drop(best)
        gaps = 100 * (wide[best] - wide[others.idxmax()]) if len(others) else wide[best] * np.nan
        rate = settings.get(FACTOR, 1.0)
        rows.append(
            {
                "data": data,
                "method": method,
                "settings": settings,
                "val_accuracy": means[best],
                "over_default": 100 * (means[best] - means.iloc[0]),
                "over_next": gaps.mean(),
                "standard_error": gaps.sem(),
                "at_edge": rate in (min(factors), max(factors)),
            }
        )
    return pd.DataFrame(rows)


def by_candidate(searched: pd.DataFrame) -> pd.DataFrame:
    """One row for each candidate, with its validation accuracies in the order of the seeds."""
    rows = []
    searched = searched.assign(candidate=searched["settings"].map(repr)).sort_values("seed")
    for (data, method, _), mine in searched.groupby(["data", "method", "candidate"], sort=False):
        reached = [None if pd.isna(x) else round(x, 5) for x in mine["val_accuracy"]]
        row = {"data": data, "method": method, "settings": mine["settings"].iloc[0]}
        rows.append({**row, "val_accuracy": reached, "seconds": mine["seconds"].sum()})
    return pd.DataFrame(rows)


Chosen = Mapping[tuple[str, str], Mapping[str, Any]]
"""(data, method) -> its tuned settings."""


def as_chosen(table: pd.DataFrame) -> Chosen:
    """The same by data set and method."""
    return {(row.data, row.method): row.settings for row in table.itertuples()}


def settings_to_run(data: str, method: str, chosen: Chosen) -> list[dict[str, Any]]:
    """The default settings, and the tuned ones where they differ."""
    every = [default_settings(method), dict(chosen.get((data, method)) or {})]
    return [
        settings for at, settings in enumerate(every) if settings and settings not in every[:at]
    ]


def tunings(
    data: str, method: str, settings: Mapping[str, Any] | None, chosen: Chosen
) -> list[str]:
    """What these settings are: "default", "tuned", or both."""
    known = (default_settings(method), chosen.get((data, method)))
    return [
        name
        for name, those in zip(TUNINGS, known, strict=True)
        if those == (default_settings(method) if settings is None else settings)
    ]


def main_cells(data: Sequence[str], chosen: Chosen) -> list[Cell]:
    """Every method, as it is and with the settings that were chosen for it."""
    return [
        Cell({"study": "main", "data": name, "method": method, "settings": settings, "seed": seed})
        for name in data
        for seed in SEEDS
        for method in methods_for(name)
        for settings in settings_to_run(name, method, chosen)
    ]
