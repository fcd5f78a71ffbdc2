"""Which settings? The same search for every method, on validation, all of it recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from genkl.baselines.groundwork import Groundwork
from genkl.baselines.methods import METHODS
from genkl.baselines.run import run_method
from genkl.checks import check_choice
from genkl.data import NoisyDataset
from genkl.engine import Engine
from genkl.features import Backbone
from genkl.learn import GenKLConfig
from genkl.networks import ModelFactory, default_model


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
    candidates.sort(key=lambda one: one != dict(method.settings))
    networks = {"make_model": make_model, "backbone": backbone, "engine": engine}
    rows = []
    for seed in seeds:
        if groundwork is None:
            work = Groundwork.prepare(dataset(seed), config, seed=seed, **networks)
        else:
            work = groundwork(seed)
        data = replace(work.dataset, test=work.dataset.test.take(np.arange(1)), more_tests={})
        for number, settings in enumerate(candidates):
            tried = {"method": name, "candidate": number, "seed": seed, **settings}
            start = time.perf_counter()
            try:
                run = run_method(
                    name, data, config, seed=seed, settings=settings, groundwork=work,
                    progress=False, **networks,
                )  # fmt: skip
                reached = run.best.val_accuracy
            except FloatingPointError:
                reached = math.nan
            seconds = time.perf_counter() - start
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
