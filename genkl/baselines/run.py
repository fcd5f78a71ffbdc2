"""Running methods by name, all with the same call and budget, and the search of their settings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from genkl.baselines import agreement, memory, plain, rounds, selection, transitions
from genkl.baselines.groundwork import Groundwork
from genkl.baselines.method import FACTOR, Method
from genkl.checks import check_choice
from genkl.data import NoisyDataset
from genkl.engine import Engine
from genkl.features import Backbone
from genkl.learn import GenKLConfig, Lesson, Run, RunOptions, divergence_rule, run_genkl
from genkl.learn.iteration import Setup
from genkl.learn.run import launch, lesson_course
from genkl.networks import ModelFactory, default_model

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for family in (plain, transitions, selection, memory, agreement, rounds)
        for method in family.METHODS
    }
)
"""The methods that are compared, by name."""

CLEAN_THRESHOLD = 0.5
"""The paper's for mini WebVision, where GenKL has no clean split."""


def run_method(
    name: str,
    dataset: NoisyDataset,
    config: GenKLConfig,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    groundwork: Groundwork | None = None,
    **options: Any,
) -> Run:
    """Run any of the methods that are compared, GenKL included.

    All train ``config.ensemble`` models for ``config.train.steps`` steps (GenKL as many in each
    round). All but "given labels" and "clean set alone" are then fine-tuned on the clean split,
    ``config.finetune``. Models that only prepare, for predictions, are trained by
    ``config.pretrain``. The validation split chooses each model's step; test labels are reported
    on and decide nothing.

    Args:
        name: of one of `METHODS`.
        dataset: see `load_dataset`. Its clean split may be empty (but not for "clean set alone"):
            then nothing is fine-tuned, predictions come from models that learned the given labels
            of other instances, and GenKL counts as clean whom the network agrees with, as the
            paper does for mini WebVision (``config.clean_threshold``, 0.5 where it is None).
        config: settings that are the same for all.
        seed: of weights, batches, mixing and divisions.
        settings: of the method, replacing those of ``METHODS[name].settings``.
        groundwork: predictions and neighbours that runs share, prepared for this seed and this
            configuration; the data set must be its own, ``groundwork.dataset``. None prepares what
            the method needs.
        options: see `RunOptions`.

    Returns:
        A record; ``settings`` are all of the method's, ``facts`` say what became of the labels.

    Raises:
        ValueError: an unknown method or setting, a value that it can't have, a split that is
            missing, groundwork for something else, or a run_dir with another run.
        FileExistsError: a run_dir that is in use, without resume.
        FloatingPointError: training diverged.
        ModuleNotFoundError: "confident learning" without the extra ``benchmark``.
    """
    check_choice("method", name, METHODS)
    method = METHODS[name]
    chosen = method.with_settings(settings)
    if method.needs_clean and len(dataset.clean) == 0:
        raise ValueError(
            f"{name} learns from verified labels, and the clean split of {dataset.name} is empty; "
            "verify some instances, load with a larger share, or choose another method"
        )
    shared = RunOptions(**options)
    if groundwork is not None:
        groundwork.check_fits(dataset, config, seed, shared.make_model)
    rate = config.train.learning_rate * chosen[FACTOR]
    config = replace(config, train=replace(config.train, learning_rate=rate))
    if method.teach is None:
        own = {"seed": seed, "settings": chosen, **options}
        return _run_rounds(method, dataset, config, groundwork, own)

    def teach(setup: Setup) -> Lesson:
        return method.teach(groundwork or Groundwork(setup), chosen)

    course = lesson_course(name, config, dataset, teach, finetune=method.finetunes, settings=chosen)
    return launch(course, dataset, seed, shared)


def _run_rounds(
    method: Method,
    dataset: NoisyDataset,
    config: GenKLConfig,
    groundwork: Groundwork | None,
    options: Mapping[str, Any],
) -> Run:
    """GenKL and its ablations."""
    chosen = options["settings"].items()
    named = {name: value for name, value in chosen if name != FACTOR and value is not None}
    config = replace(config, **named)
    if len(dataset.clean) == 0 and config.clean_threshold is None:
        config = replace(config, clean_threshold=CLEAN_THRESHOLD)
    predictor = ()
    if groundwork is not None and config.clean_threshold is None:
        predictor = tuple(groundwork.predictor())
    identify = None if method.identify is divergence_rule else method.identify(config)
    return run_genkl(
        dataset, config, method=method.name, identify=identify, predictor=predictor, **options
    )


# -- the search ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """What was tried for a method, and what was chosen.

    Attributes:
        method: its name.
        settings: the chosen ones, all of them.
        table: one row per candidate and seed: method, candidate (its number), seed, the settings,
            val_accuracy (NaN where training diverged), seconds (a seed's first candidate may also
            do the groundwork), chosen.
    """

    method: str
    settings: dict[str, Any]
    table: pd.DataFrame


def search_settings(
    name: str,
    dataset: Callable[[int], NoisyDataset],
    config: GenKLConfig,
    *,
    seeds: Sequence[int],
    grid: Mapping[str, tuple[Any, ...]] | None = None,
    make_model: ModelFactory = default_model,
    backbone: Backbone | str | None = "auto",
    groundwork: Callable[[int], Groundwork] | None = None,
    engine: Engine | str = "auto",
) -> Search:
    """Try every candidate on every seed's data, and choose by the mean validation accuracy.

    The default settings come first and win ties. Test splits are cut to one instance before
    anything is run: what a search chooses can't depend on them.

    Args:
        name: of one of `METHODS`.
        dataset: from a seed to a data set; pass features (`genkl.featurize`) to save time.
        config: settings that are the same for all methods.
        seeds: of data sets and runs; use others than those that are reported.
        grid: candidates by setting; None takes the method's own.
        make_model, backbone, engine: see `run_method`.
        groundwork: from a seed to what was prepared for its data set, to be shared by methods.
            None prepares anew, once for each seed.

    Returns:
        The chosen settings and the whole table.

    Raises:
        ValueError: an unknown method or setting, no seeds, no candidates.
        FloatingPointError: training diverged with every candidate.
    """
    check_choice("method", name, METHODS)
    method = METHODS[name]
    candidates = list(method.candidates(grid))
    if not len(seeds) or not candidates:
        raise ValueError(f"{len(seeds)} seeds and {len(candidates)} candidates; pass some of each")
    candidates.sort(key=lambda settings: settings != dict(method.settings))
    networks = {"make_model": make_model, "backbone": backbone, "engine": engine}
    rows = []
    for seed in seeds:
        if groundwork is None:
            work = Groundwork.prepare(dataset(seed), config, seed=seed, **networks)
        else:
            work = groundwork(seed)
        for number, settings in enumerate(candidates):
            start = time.perf_counter()
            reached = _validated(name, config, seed, settings, work, networks)
            seconds = time.perf_counter() - start
            tried = {"method": name, "candidate": number, "seed": seed, **settings}
            rows.append({**tried, "val_accuracy": reached, "seconds": seconds})
    table = pd.DataFrame(rows)
    accuracy = table.groupby("candidate")["val_accuracy"].agg(lambda x: x.mean(skipna=False))
    if accuracy.isna().all():
        raise FloatingPointError(
            f"training diverged with every candidate of {name}; lower config.train.learning_rate"
        )
    best = int(accuracy.fillna(-math.inf).argmax())
    table["chosen"] = table["candidate"] == best
    return Search(name, candidates[best], table)


def _validated(
    name: str,
    config: GenKLConfig,
    seed: int,
    settings: Mapping[str, Any],
    work: Groundwork,
    networks: Mapping[str, Any],
) -> float:
    """The validation accuracy that a candidate reaches, without its test split; NaN if none."""
    data = replace(work.dataset, test=work.dataset.test.take(np.arange(1)), more_tests={})
    options = {"seed": seed, "settings": settings, "groundwork": work, "progress": False}
    try:
        return run_method(name, data, config, **options, **networks).best.val_accuracy
    except FloatingPointError:
        return math.nan
