"""Studies of learning: the data sets, methods and ablations of the end-to-end benchmark, as cells.

A *cell* is one run: a study, a data set, a seed, and what is changed. `benchmarks.learning` runs
them. Methods choose their own settings on validation splits of seeds that no table uses, four
candidates each; the ablations change one piece of GenKL at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

import genkl
from benchmarks.sweep import Cell
from genkl.baselines import METHODS, Groundwork, run_method
from genkl.data import NoisyDataset, Truth
from genkl.data.base import NON_CONFORMING
from genkl.data.registry import DATASETS
from genkl.data.sources import is_present
from genkl.detectors import DETECTORS, Detector, Evidence
from genkl.learn import Decision, GenKLConfig, Run, divergence_rule, entropy_rule, flag_nothing
from genkl.published import Published
from genkl.relabel import Relabelled, Role, relabel_instances

SEEDS = (0, 1, 2, 3, 4)
SEARCH_SEEDS = (100, 101)
"""Their validation splits choose settings; no table uses them. Where a network is trained in full
or validation is large, the first one does."""
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
    "genkl.learn",
    "genkl.predict",
    "genkl.presets",
    "genkl.relabel",
    "benchmarks.studies",
)


# -- data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A data set to learn from.

    Attributes:
        dataset: as `load_dataset` knows it.
        title: in tables.
        config: name of the preset.
        options: of the loader.
        pixels: of frozen features; None trains a network on the inputs.
        keep_clean: False takes the clean split away: a budget of no clean label.
        searched: how many of `SEARCH_SEEDS` choose the settings.
    """

    dataset: str
    title: str
    config: str = "PHOTOGRAPHS"
    options: Mapping[str, Any] = field(default_factory=dict)
    pixels: int | None = None
    keep_clean: bool = True
    searched: int = 2

    def is_present(self) -> bool:
        """Whether its files are on this machine."""
        entry = DATASETS[self.dataset]
        return all(map(is_present, (entry.source, *entry.also_needs)))


def _cifar10n(labels: str, budget: int) -> Case:
    options = {"labels": labels, "noisy_limit": 10_000, "clean_per_class": max(1, budget // 10)}
    title = f"CIFAR-10N {labels}, {budget} clean"
    return Case("cifar10n", title, options=options, pixels=96, keep_clean=budget > 0, searched=1)


NOISY = {"label_noise": 0.3}
CASES = {
    "digits": Case("digits", "digits, 64 clean", "DIGITS", {"label_noise": 0.4}, searched=1),
    "solar-cells": Case(
        "solar-cells", "solar cells, 200 clean", "SOLAR_CELLS", {"label_noise": 0.2}, pixels=160
    ),
    "clothing": Case("clothing-dataset", "clothes, 250 clean", options=NOISY, pixels=160),
}
for _labels in ("aggregate", "random1", "worst"):
    for _budget in (0, 500, 5000):
        CASES[f"cifar10n-{_labels}-{_budget}"] = _cifar10n(_labels, _budget)
ABLATED = ("clothing", "cifar10n-worst-500")
"""Data sets that one piece at a time is changed on: heads, seconds each."""


@functools.lru_cache(maxsize=2)
def load(data: str, seed: int, pixels: int | None = None, **options: Any):
    """The data set with what models see, and the truth."""
    case = CASES[data]
    dataset, truth = genkl.load_dataset(case.dataset, seed=seed, **{**case.options, **options})
    pixels = pixels or case.pixels
    if pixels is not None:
        dataset = genkl.featurize(dataset, size=pixels, progress=False)
    if not case.keep_clean:
        dataset = replace(dataset, clean=dataset.clean.take(np.arange(0)))
    return dataset, truth


def config_of(data: str) -> GenKLConfig:
    """The data set's preset; without clean labels, the network's own belief stands in for them."""
    case = CASES[data]
    config = getattr(genkl, case.config)
    return config if case.keep_clean else replace(config, clean_threshold=0.5)


@functools.lru_cache(maxsize=2)
def groundwork(data: str, seed: int, pixels: int | None = None) -> Groundwork:
    """Predictions and neighbours that methods on the same data and seed share."""
    dataset, _ = load(data, seed, pixels)
    return Groundwork.prepare(dataset, config_of(data), seed=seed, backbone=None, engine="cpu")


# -- one run --------------------------------------------------------------------------------------


def summary(run: Run, truth: Truth | None = None) -> dict[str, Any]:
    """What is kept of a run: the chosen round's figures, and every round's."""
    names = ("predictor_val_accuracy", "threshold", "flagged", "val_accuracy", "test_accuracy")
    rounds = []
    for found in run.rounds:
        row = {"round": found.index} | {name: getattr(found, name) for name in names}
        if truth is not None and found.is_nc is not None:
            is_nc = np.isin(truth.kinds, NON_CONFORMING)
            row |= genkl.precision_recall_f1(found.is_nc, is_nc)
        rounds.append({key: _finite(value) for key, value in row.items()})
    names = ("val_accuracy", "test_accuracy", "ensemble_test_accuracy")
    return {
        **{name: getattr(run.best, name) for name in names},
        "flagged": _finite(run.best.flagged),
        "best_round": run.best.index,
        "clean_labels": run.clean_labels,
        "rounds": rounds,
    }


def _finite(value: float) -> float | None:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def run_cell(study: str, data: str, seed: int, **changed: Any) -> dict[str, Any]:
    """One cell of the sweep; the settings decide the result.

    Args:
        study: of `STUDIES`, or "search" and "main".
        data: of `CASES`.
        seed: of splits, planted noise, weights and batches.
        changed: what the study changes.
    """
    if study in ("search", "main"):
        return run_compared(data, seed, **changed)
    return STUDIES[study].run(data, seed, **changed)


def run_compared(
    data: str, seed: int, method: str, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A method with settings of its own."""
    work = groundwork(data, seed)
    _, truth = load(data, seed)
    return _run_method(work.dataset, truth, data, seed, method, settings=settings, groundwork=work)


def _run_method(
    dataset: NoisyDataset, truth: Truth, data: str, seed: int, method: str, **more: Any
) -> dict[str, Any]:
    options = {"seed": seed, "backbone": None, "engine": "cpu", "progress": False, **more}
    run = run_method(method, dataset, config_of(data), **options)
    return summary(run, truth if method.startswith("GenKL") else None)


def run_varied(
    data: str, seed: int, config: GenKLConfig | None = None, **more: Any
) -> dict[str, Any]:
    """GenKL with one piece changed: a configuration, or what `run_genkl` takes."""
    dataset, truth = load(data, seed)
    options = {"seed": seed, "backbone": None, "engine": "cpu", "progress": False, **more}
    return summary(genkl.run_genkl(dataset, config or config_of(data), **options), truth)


# -- ablations ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """One question: what is changed, on which data, over which seeds.

    Attributes:
        question: in words.
        run: called with data, seed and the changed settings.
        changes: the settings to go through.
        data: names of `CASES`.
        seeds: how many of `SEEDS`.
    """

    question: str
    run: Callable[..., dict[str, Any]]
    changes: Sequence[Mapping[str, Any]]
    data: Sequence[str] = ABLATED
    seeds: int = len(SEEDS)


def _with_config(data: str, seed: int, **fields: Any) -> dict[str, Any]:
    return run_varied(data, seed, replace(config_of(data), **fields))


def _on_data(data: str, seed: int, method: str, **loading: Any) -> dict[str, Any]:
    """A method on data that are loaded in another way: `load`'s pixels, or the loader's options."""
    return _run_method(*load(data, seed, **loading), data, seed, method)


def _alpha_beta(data: str, seed: int, alpha: float | None, beta_share: float) -> dict[str, Any]:
    dataset, _ = load(data, seed)
    return _with_config(data, seed, alpha=alpha, beta=beta_share / dataset.num_classes)


def _loss(data: str, seed: int, loss: str) -> dict[str, Any]:
    return run_varied(data, seed, losses=losses_named(loss))


def losses_named(name: str) -> Mapping[Role, Any]:
    """A row loss for all roles, or "A for clean, B for noisy"."""
    if " + " not in name:
        return genkl.losses_of(name)
    clean, noisy = map(genkl.losses_of, name.split(" + "))
    return {role: (clean if role is Role.CLEAN else noisy)[role] for role in Role}


def _models(data: str, seed: int, first: int, each_round: int) -> dict[str, Any]:
    return _with_config(data, seed, first_ensemble=first, ensemble=each_round)


def given_only(pred_probs, given, is_nc, class_ratio) -> Relabelled:
    """One-hot given labels in place of double-hot vectors."""
    made = relabel_instances(pred_probs, given, is_nc, class_ratio)
    targets = np.where(is_nc[:, None], made.targets, np.eye(pred_probs.shape[1])[given])
    return replace(made, targets=targets, kept_part=None)


def predicted_only(pred_probs, given, is_nc, class_ratio) -> Relabelled:
    """One-hot predicted classes in place of double-hot vectors."""
    return given_only(pred_probs, pred_probs.argmax(axis=1), is_nc, class_ratio)


def equal_ratio(pred_probs, given, is_nc, class_ratio) -> Relabelled:
    """Double-hot vectors whose weight of the given label is 1/k for every class."""
    equal = np.full_like(class_ratio, class_ratio.mean())
    return relabel_instances(pred_probs, given, is_nc, equal)


def full_weight(pred_probs, given, is_nc, class_ratio) -> Relabelled:
    """Double-hot vectors whose weight of the given label is 1."""
    return relabel_instances(pred_probs, given, is_nc, np.ones_like(class_ratio))


MECHANISMS: dict[str, Callable[[GenKLConfig], tuple[GenKLConfig, dict[str, Any]]]] = {
    "all of it": lambda c: (c, {}),
    "no NC stage": lambda c: (c, {"identify": flag_nothing}),
    "NC ignored": lambda c: (replace(c, omega=(*c.omega[:2], 0.0)), {}),
    "given label in place of double-hot": lambda c: (c, {"relabel": given_only}),
    "prediction in place of double-hot": lambda c: (c, {"relabel": predicted_only}),
    "equal class ratio": lambda c: (c, {"relabel": equal_ratio}),
    "given label at full weight": lambda c: (c, {"relabel": full_weight}),
    "no mixup": lambda c: (replace(c, mixup_alpha=0.0), {}),
    "no clean term": lambda c: (replace(c, omega=(0.0, *c.omega[1:])), {}),
    "equal weights of the terms": lambda c: (replace(c, omega=(c.train.batch_size,) * 3), {}),
    "one round": lambda c: (replace(c, max_rounds=1), {}),
    "no fine-tuning": lambda c: (replace(c, finetune=replace(c.finetune, steps=0)), {}),
}
"""Name -> the configuration and options that lack one piece."""


def _mechanism(data: str, seed: int, mechanism: str) -> dict[str, Any]:
    config, options = MECHANISMS[mechanism](config_of(data))
    return run_varied(data, seed, config, **options)


IDENTIFIED = ("GenKL", "GenKL invariant", "entropy", "max softmax", "KNN", "given label")
IDENTIFIED += ("Jo-SRC", "DSOS", "random", "nothing", "oracle")
"""What flags in place of D, all within the same budget on validation instances."""


def _identified(data: str, seed: int, identify: str) -> dict[str, Any]:
    """One round, after the same first predictor."""
    _, truth = load(data, seed)
    config = replace(config_of(data), max_rounds=1)
    work = groundwork(data, seed)
    rule = rule_named(identify, config, work, truth, seed)
    return run_varied(data, seed, config, identify=rule, predictor=work.predictor())


def rule_named(
    name: str, config: GenKLConfig, work: Groundwork, truth: Truth, seed: int
) -> Callable[[np.ndarray, np.ndarray], Decision]:
    """An identification rule; the oracle and chance flag as many as there are."""
    is_nc = np.isin(truth.kinds, NON_CONFORMING)
    if name == "nothing":
        return flag_nothing
    if name == "GenKL":
        return divergence_rule(config)
    if name == "entropy":
        return entropy_rule(config.max_flag_rate)
    if name == "oracle":
        return lambda *_: Decision(is_nc.astype(float), 0.5)
    if name == "random":
        drawn = np.random.default_rng([seed, 7]).permutation(is_nc)
        return lambda *_: Decision(drawn.astype(float), 0.5)
    views = {}
    if name == "Jo-SRC":
        models, sides = work.predictor(), (0, 1)
        for part in ("noisy", "validation"):
            inputs = getattr(work.dataset, part).inputs
            views[part] = [genkl.predict_probs(models[side::2], inputs) for side in sides]
    return functools.partial(_detect, DETECTORS[name], work.dataset, views, config.max_flag_rate)


def _detect(
    detector: Detector,
    dataset: NoisyDataset,
    views: Mapping[str, Sequence[np.ndarray]],
    budget: float,
    pred_probs: np.ndarray,
    validation_probs: np.ndarray,
) -> Decision:
    """A detector as a rule: it flags a budget of the validation instances."""
    evidence = None
    for part, probs in (("validation", validation_probs), ("noisy", pred_probs)):
        split = getattr(dataset, part)
        first, second = views.get(part, (probs, None))
        evidence = Evidence(
            pred_probs=first,
            view_probs=second,
            features=split.inputs.flatten(1).numpy(),
            given_labels=split.labels.numpy(),
            reference=evidence,
        )
    threshold = genkl.threshold_for_budget(detector.conforming_scores(evidence), budget)
    return Decision(detector.score(evidence), threshold)


LATER = ("gold loss correction", "ELR", "SOP", "WANN", "SSR", "CUFIT", "DivideMix core")
"""Methods that came after the record was made; the next one compares with them, too."""
METHODS_FEW = ("clean set alone", "given labels + fine-tuning", "kNN relabelling", "GenKL")


def _network(data: str, seed: int, network: str, method: str) -> dict[str, Any]:
    make_model = getattr(genkl, network)
    return _run_method(*load(data, seed), data, seed, method, make_model=make_model)


def _rounds(data: str, seed: int, identify: str) -> dict[str, Any]:
    config = replace(config_of(data), max_rounds=5)
    rule = {"GenKL": None, "entropy": entropy_rule(config.max_flag_rate), "nothing": flag_nothing}
    return run_varied(data, seed, config, identify=rule[identify], stop_early=False)


def _published(data: str, seed: int, switch: str) -> dict[str, Any]:
    return run_varied(data, seed, published_behaviour=Published[switch])


def _each(**settings: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the settings' values; the last setting changes fastest."""
    return [dict(zip(settings, row, strict=True)) for row in product(*settings.values())]


ALPHAS = (None, 0.2, 0.35, 0.5, 0.7, 0.9)
LOSSES = ("paper", "ce", "mse", "mae", "kl", "gce", "sce", "ce + gce", "ce + mae", "ce + sce")
COUNTS = ((1, 1), (3, 1), (5, 1), (5, 3), (5, 5), (10, 3))
SWITCHES = [switch.name for switch in (Published.NONE, *Published)]
STUDIES = {
    "alpha-beta": Study(
        "Does it matter which alpha and beta?",
        _alpha_beta,
        _each(alpha=ALPHAS, beta_share=(0.25, 0.75)),
        seeds=3,
    ),
    "sigma": Study(
        "Does the spread of the vectors matter?",
        _with_config,
        _each(sigma=(0.0, 0.05, 0.1)),
        seeds=3,
    ),
    "vectors": Study("Does their number?", _with_config, _each(num_vectors=(1, 20, 100)), seeds=3),
    "loss": Study("Would other losses do?", _loss, _each(loss=LOSSES), seeds=3),
    "models": Study(
        "How many models are averaged?",
        _models,
        [{"first": first, "each_round": each} for first, each in COUNTS],
        seeds=3,
    ),
    "mechanism": Study("What does each piece do?", _mechanism, _each(mechanism=MECHANISMS)),
    "identify": Study("Would other detectors do?", _identified, _each(identify=IDENTIFIED)),
    "rounds": Study(
        "Do more rounds help?", _rounds, _each(identify=("GenKL", "entropy", "nothing"))
    ),
    "clean-size": Study(
        "How many clean labels?",
        _on_data,
        _each(clean_per_class=(5, 10, 25), method=METHODS_FEW),
        seeds=3,
    ),
    "noise-rate": Study(
        "How much label noise?",
        _on_data,
        [
            {"label_noise": rate, "noise_kind": kind, "method": method}
            for kind, rate, method in product(("symmetric", "pair"), (0.0, 0.2, 0.4), METHODS_FEW)
        ],
        data=("clothing",),
        seeds=3,
    ),
    "pixels": Study(
        "Does the backbone's resolution matter?",
        _on_data,
        _each(pixels=(64, 96, 160, 224), method=METHODS_FEW),
        data=("clothing",),
        seeds=3,
    ),
    "network": Study(
        "Does the network matter?",
        _network,
        _each(network=("small_cnn", "small_resnet"), method=METHODS_FEW),
        data=("digits",),
        seeds=3,
    ),
    "published": Study(
        "What do the published bugs do?", _published, _each(switch=SWITCHES), seeds=3
    ),
}
"""The ablations by name."""


# -- the sweep ------------------------------------------------------------------------------------


def search_cells(data: Sequence[str]) -> list[Cell]:
    """Every candidate of every method, on the seeds that choose."""
    return [
        Cell({"study": "search", "data": name, "method": method, "settings": candidate, "seed": s})
        for name in data
        for s in SEARCH_SEEDS[: CASES[name].searched]
        for method in methods_for(name)
        for candidate in METHODS[method].candidates()
    ]


def methods_for(data: str) -> list[str]:
    """Methods that can do with the clean labels that there are."""
    return [
        name
        for name, method in METHODS.items()
        if name not in LATER and (CASES[data].keep_clean or not method.needs_clean)
    ]


def chosen_settings(table: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """(data, method) -> the candidate with the highest mean validation accuracy."""
    table = table.assign(candidate=table["settings"].map(repr))
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key, part in table.groupby(["data", "method"], sort=False):
        reached = part.groupby("candidate", sort=False)["val_accuracy"].mean()
        found[key] = part.loc[part["candidate"] == reached.idxmax(), "settings"].iloc[0]
    return found


def main_cells(data: Sequence[str], chosen: Mapping[tuple[str, str], Any]) -> list[Cell]:
    """Every method with the settings that were chosen for it."""
    return [
        Cell({"study": "main", "data": name, "method": method, "settings": settings, "seed": seed})
        for name in data
        for seed in SEEDS
        for method in methods_for(name)
        if (settings := chosen.get((name, method))) is not None
    ]


def ablation_cells(data: Sequence[str], studies: Sequence[str] = tuple(STUDIES)) -> list[Cell]:
    """Every change of every study."""
    return [
        Cell({"study": study, "data": name, **change, "seed": seed})
        for study in studies
        for name in STUDIES[study].data
        if name in data
        for seed in SEEDS[: STUDIES[study].seeds]
        for change in STUDIES[study].changes
    ]
