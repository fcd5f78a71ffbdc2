"""How is a method run? By its name, with the same call and the same budget for all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from genkl.baselines.groundwork import Groundwork
from genkl.baselines.methods import FACTOR, METHODS, Method
from genkl.checks import check_choice
from genkl.data import NoisyDataset
from genkl.engine import Engine
from genkl.features import Backbone
from genkl.learn import GenKLConfig, Lesson, Run, divergence_rule, run_genkl, run_once
from genkl.learn.members import Setting
from genkl.networks import ModelFactory, default_model

CLEAN_THRESHOLD = 0.5
"""The paper's for mini WebVision, where GenKL has no clean split."""


def run_method(
    name: str,
    dataset: NoisyDataset,
    config: GenKLConfig,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    make_model: ModelFactory = default_model,
    backbone: Backbone | str | None = "auto",
    groundwork: Groundwork | None = None,
    engine: Engine | str = "auto",
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int = 500,
    progress: bool = True,
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
        make_model: builds a network.
        backbone: see `run_genkl`.
        groundwork: predictions and neighbours that runs share, prepared for this seed and this
            configuration; the data set must be its own, ``groundwork.dataset``. None prepares what
            the method needs.
        engine, run_dir, resume, checkpoint_every, progress: see `run_genkl`.

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
    if groundwork is not None:
        groundwork.check_fits(dataset, config, seed, make_model)
    rate = config.train.learning_rate * chosen[FACTOR]
    config = replace(config, train=replace(config.train, learning_rate=rate))
    options: dict[str, Any] = {
        "seed": seed,
        "settings": chosen,
        "make_model": make_model,
        "backbone": backbone,
        "engine": engine,
        "run_dir": run_dir,
        "resume": resume,
        "checkpoint_every": checkpoint_every,
        "progress": progress,
    }
    if method.teach is None:
        return _run_rounds(method, dataset, config, chosen, groundwork, options)

    def teach(setting: Setting) -> Lesson:
        return method.teach(groundwork or Groundwork(setting), chosen)

    return run_once(dataset, config, name, teach, finetune=method.finetunes, **options)


def _run_rounds(
    method: Method,
    dataset: NoisyDataset,
    config: GenKLConfig,
    chosen: Mapping[str, Any],
    groundwork: Groundwork | None,
    options: Mapping[str, Any],
) -> Run:
    """GenKL and its ablations."""
    named = {k: v for k, v in chosen.items() if k != FACTOR and v is not None}
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
