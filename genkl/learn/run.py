"""The launcher of runs: a method, a configuration, a data set, a seed, and where and how it runs.

`run_genkl` and `genkl.run_method` are short fronts of `launch`: each makes a `Course` of a method's
own settings, and `RunOptions` of the keyword arguments that all share.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from genkl.checks import check_beta, check_whole
from genkl.data import Images, NoisyDataset
from genkl.data.images import as_images
from genkl.engine import Engine, as_engine
from genkl.features import EFFICIENTNET_LITE0, Backbone, featurize
from genkl.learn.config import GenKLConfig
from genkl.learn.folder import RUN_FILE, Recorder, RunFolder, describe, identity_of, in_use
from genkl.learn.iteration import (
    Iteration,
    Learned,
    Lesson,
    Setup,
    pretrain_members,
    record_round,
    train_members,
)
from genkl.learn.phase import Phase
from genkl.learn.result import Run, run_to_dict
from genkl.learn.rules import IdentifyRule, divergence_rule
from genkl.learn.trainer import PUBLISHED_TRAINING
from genkl.losses import PAPER_LOSSES, RowLoss, complete
from genkl.networks import ModelFactory, default_model
from genkl.published import Published, check_published
from genkl.relabel import (
    PUBLISHED_RELABELLING,
    Relabelled,
    Role,
    relabel_instances,
    reverse_class_ratio,
)
from genkl.storage import plain

PUBLISHED_RUN = PUBLISHED_RELABELLING | PUBLISHED_TRAINING | Published.SELECTION_ON_TEST
"""The switches that `run_genkl` implements: all of them."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how a run is computed and kept: keyword arguments that all methods share.

    Attributes:
        make_model: builds a network from (input_shape, num_classes).
        backbone: turns images into frozen features first, see `featurize`. None learns from the
            inputs as they are. "auto" uses `EFFICIENTNET_LITE0` where the inputs are photographs
            (files, or tensors of bytes) and make_model is the default: heads then train in
            seconds, without a GPU.
        engine: device, processes, precision; a device's name ("auto", "cpu", "cuda") stands for
            one.
        run_dir: folder that keeps everything, finished models, predictions, logs, and the phase in
            progress; None keeps nothing. See `genkl.learn.folder`.
        resume: go on with the run in run_dir; the numbers are those of a run that was never cut
            off.
        checkpoint_every: steps between two checkpoints of the phase in progress.
        progress: show a bar over the steps.
        dry_run: make every check of the run, and stop where work would begin; nothing is written,
            and there is no record (None).

    Raises:
        ValueError: checkpoint_every no whole number from 1 on, or resume without a run_dir.
    """

    make_model: ModelFactory = default_model
    backbone: Backbone | str | None = "auto"
    engine: Engine | str = "auto"
    run_dir: str | os.PathLike[str] | None = None
    resume: bool = False
    checkpoint_every: int = 500
    progress: bool = True
    dry_run: bool = False

    def __post_init__(self) -> None:
        check_whole("checkpoint_every", self.checkpoint_every, 1)
        if self.resume and self.run_dir is None:
            raise ValueError("resume needs the run_dir to go on in")


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a method is to the launcher.

    Attributes:
        method: name in the record.
        config: as the method uses it.
        learn: does it.
        steps: how many training takes, if no round is spared.
        identity: what else decides what the run comes to, for its folder.
        needs: splits that must not be empty.
        settings: of the method, for the record.
        published: what is done as the published scripts do.
    """

    method: str
    config: GenKLConfig
    learn: Callable[[Setup], Learned]
    steps: int
    identity: Mapping[str, Any]
    needs: Sequence[str] = ("validation", "test")
    settings: Mapping[str, Any] | None = None
    published: Published = Published.NONE


def launch(course: Course, dataset: NoisyDataset, seed: int, options: RunOptions) -> Run | None:
    """Run a method, in its folder if it has one, and go on with what the folder holds.

    Args:
        course: the method, with its configuration.
        dataset: see `load_dataset`.
        seed: of weights, batches and mixing.
        options: where and how.

    Returns:
        A record of every round; None after a dry run.

    Raises:
        ValueError: an empty split, a network that can't learn from the first batch, or a run_dir
            with another run.
        FileExistsError: a run_dir that is in use, without resume.
        FloatingPointError: training diverged.
        OSError: no space to keep the run in; what was kept stays.
    """
    engine = as_engine(options.engine)
    dataset.require(*course.needs)
    dataset = ready_to_learn(dataset, course.config, options, engine)
    identity = {
        "method": course.method,
        "seed": seed,
        **identity_of(dataset),
        "config": dataclasses.asdict(course.config),
        "model": describe(options.make_model),
        "precision": engine.precision,
        "published_behaviour": [switch.name for switch in course.published],
        **course.identity,
    }
    setup = Setup(dataset, course.config, seed, options.make_model, engine, course.published)
    if setup.example is not None:
        setup.check_model()
    if options.dry_run:
        if options.resume and (Path(options.run_dir) / RUN_FILE).exists():
            RunFolder(Path(options.run_dir), identity, engine, resume=True)
        return None
    title = f"{course.method}, seed {seed}"
    in_folder = in_use(options.run_dir if engine.is_first else None)
    with in_folder, closing(Recorder.open(options, engine, identity, title, course.steps)) as kept:
        setup = replace(setup, recorder=kept)
        rounds, models, facts = course.learn(setup)
        run = Run(
            course.method,
            dataset.name,
            seed,
            course.config,
            len(dataset.clean),
            tuple(rounds),
            models,
            course.published,
            dataset.features,
            dict(course.settings or {}),
            dict(facts),
        )
        kept.finish(run_to_dict(run))
        return run


def ready_to_learn(
    dataset: NoisyDataset, config: GenKLConfig, options: RunOptions, engine: Engine
) -> NoisyDataset:
    """The data set with inputs that a network takes: images, or frozen features of them.

    Raises:
        ValueError: a backbone's name without a backbone, or images on disk without transforms.
    """
    inputs, backbone = dataset.noisy.inputs, options.backbone
    if backbone == "auto":
        photographs = isinstance(inputs, Images) or inputs.dtype == torch.uint8
        frozen = photographs and options.make_model is default_model
        backbone = EFFICIENTNET_LITE0 if frozen and not config.train_transforms else None
    if isinstance(backbone, str):
        raise ValueError(
            f"backbone is {backbone!r}; pass 'auto', None, or get_backbone({backbone!r})"
        )
    if backbone is not None:
        if config.train_transforms:
            raise ValueError(
                "train_transforms are for a network that learns from images, and the backbone "
                f"{backbone.name} turns them into features; state one of the two"
            )
        if options.dry_run:
            return dataset
        if not engine.is_first:  # what the first process computes, the others find on the disk
            engine.wait()
        shown = options.progress and engine.is_first
        changed = featurize(dataset, backbone, device=engine.device, progress=shown)
        if engine.is_first:
            engine.wait()
        return changed
    if config.train_transforms:
        return dataset.map_splits(lambda split: replace(split, inputs=as_images(split.inputs)))
    if isinstance(inputs, Images):
        raise ValueError(
            f"the inputs of {dataset.name} are images on disk; state train_transforms and "
            "test_transforms in the configuration (a preset of the paper has them), or pass a "
            "backbone to learn from frozen features"
        )
    return dataset


def _needs(config: GenKLConfig) -> tuple[str, ...]:
    """Splits that GenKL can't do without."""
    return ("validation", "test") if config.clean_threshold else ("clean", "validation", "test")


# -- GenKL -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GenKLOptions:
    """What `run_genkl` takes beyond `RunOptions`.

    Attributes:
        predictor: models for the first prediction, such as those of `pretrain_models`; where
            empty, ``config.first_ensemble`` models are pre-trained on the clean set.
        identify: replaces `divergence_rule` in an ablation.
        relabel: replaces `relabel_instances` in an ablation.
        losses: replaces `PAPER_LOSSES` in an ablation; a role that is left out keeps its own.
        published_behaviour: where to do as the published scripts do instead of as the paper says;
            a relabel of your own has to take those switches of `PUBLISHED_RELABELLING` that are
            on, and a predictor of yours is as pre-trained as it is.
        stop_early: False runs all ``max_rounds``, to look at what stopping prevents.
        method: name in the record.
        settings: what was changed in the configuration, by name, for the record.
    """

    predictor: Sequence[nn.Module] = ()
    identify: IdentifyRule | None = None
    relabel: Callable[..., Relabelled] = relabel_instances
    losses: Mapping[Role, RowLoss] = dataclasses.field(default_factory=lambda: PAPER_LOSSES)
    published_behaviour: Published = Published.NONE
    stop_early: bool = True
    method: str = "GenKL"
    settings: Mapping[str, Any] | None = None


def run_genkl(
    dataset: NoisyDataset, config: GenKLConfig, *, seed: int = 0, **options: Any
) -> Run | None:
    """Run the whole method: pre-train, then identify, relabel, train, fine-tune, and again.

    Each round averages the current models' predictions, flags the NC instances, gives every
    noisy instance its target and role, and trains fresh models with the three-term loss, fine-
    tuned on the clean set. They predict for the next round. Rounds end when the validation
    accuracy no longer rises or ``config.max_rounds`` is reached. The test split is evaluated and
    reported in every round and decides nothing.

    Args:
        dataset: see `load_dataset`.
        config: settings.
        seed: of weights, batches and mixing.
        options: predictor, identify, relabel, losses, published_behaviour, stop_early, method and
            settings, see `GenKLOptions`; and make_model, backbone, engine, run_dir, resume,
            checkpoint_every, progress and dry_run, see `RunOptions`.

    Returns:
        A record of every round; the best one by validation is ``run.best``. None after a dry run.

    Raises:
        ValueError: beta outside [0, 1/k), an empty split, an empty class in the clean set, or a
            run_dir with another run.
        FileExistsError: a run_dir that is in use, without resume.
        FloatingPointError: training diverged.
        OSError: no space to keep the run in; what was kept stays.

    Source: the framework of arXiv 2307.09810, section :doc:`/book/equations` of the book.
    """
    names = {field.name for field in dataclasses.fields(GenKLOptions)}
    own = GenKLOptions(**{name: options.pop(name) for name in names & options.keys()})
    shared, published = RunOptions(**options), own.published_behaviour
    check_beta(config.beta, dataset.num_classes)
    check_published("run_genkl", published, PUBLISHED_RUN)
    relabel = own.relabel
    if asked := published & PUBLISHED_RELABELLING:
        relabel = partial(relabel, published_behaviour=asked)
    rule = own.identify or divergence_rule(config)
    losses = complete(own.losses, dataset.num_classes, as_engine(shared.engine).device)
    iteration = Iteration(
        rule, relabel, _class_ratio(dataset, config), losses, own.predictor, own.stop_early
    )
    pretraining = 0 if own.predictor else config.first_ensemble * config.pretrain.steps
    course = Course(
        method=own.method,
        config=config,
        learn=iteration.learn,
        steps=pretraining + config.max_rounds * _steps_of_round(config),
        identity={
            "identify": "divergence" if own.identify is None else describe(own.identify),
            "relabel": describe(own.relabel),
            "losses": {role.name: describe(loss) for role, loss in losses.items()},
            "predictor": len(own.predictor),
            "stop_early": own.stop_early,
        },
        needs=_needs(config),
        settings=own.settings,
        published=published,
    )
    return launch(course, dataset, seed, shared)


def pretrain_models(
    dataset: NoisyDataset,
    config: GenKLConfig,
    *,
    seed: int = 0,
    make_model: ModelFactory = default_model,
    backbone: Backbone | str | None = "auto",
    published_behaviour: Published = Published.NONE,
    engine: Engine | str = "auto",
) -> list[nn.Module]:
    """The first predictor: ``config.first_ensemble`` models trained on the clean set alone.

    Args:
        dataset: its clean split is learned from, its validation split chooses the step.
        config: ``first_ensemble`` and ``pretrain`` are used.
        seed: decides weights and batch order of every model.
        published_behaviour: may hold `Published.EVAL_MODE_PRETRAINING`.
        make_model, backbone, engine: see `RunOptions`.

    Returns:
        The models, each at its best validated step.

    Raises:
        ValueError: published behaviour that has nothing to do with pre-training.
    """
    check_published("pretrain_models", published_behaviour, Published.EVAL_MODE_PRETRAINING)
    options = RunOptions(make_model=make_model, backbone=backbone, engine=engine)
    engine = as_engine(engine)
    dataset.require(*_needs(config))
    dataset = ready_to_learn(dataset, config, options, engine)
    setup = Setup(dataset, config, seed, make_model, engine, published_behaviour)
    return pretrain_members(setup, config.first_ensemble)


def _steps_of_round(config: GenKLConfig) -> int:
    return config.ensemble * (config.train.steps + config.finetune.steps)


def _class_ratio(dataset: NoisyDataset, config: GenKLConfig) -> np.ndarray:
    """The reverse class ratio of the clean set; of all given labels where nothing is verified."""
    labels = dataset.clean.labels
    if config.clean_threshold is None:
        dataset.require("clean")
    else:
        labels = np.concatenate([labels, dataset.noisy.labels])
    return reverse_class_ratio(np.bincount(labels, minlength=dataset.num_classes))


# -- methods of one lesson -------------------------------------------------------------------------


def lesson_course(
    method: str,
    config: GenKLConfig,
    dataset: NoisyDataset,
    teach: Callable[[Setup], Lesson],
    *,
    finetune: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Course:
    """A method that makes one lesson of a data set, and trains on it as long as a GenKL round.

    Args:
        method: name in the record.
        config: its ``train`` and ``finetune`` phases and ``ensemble`` are used. Nothing but the
            clean split counts as clean: ``clean_threshold`` is left out. A batch has as many rows
            as GenKL's, drawn from all examples alike (``clean_batch_size`` is added).
        dataset: its clean split may be empty if the method can do without.
        teach: decides what is learned from; may train models of its own before.
        finetune: whether the models are fine-tuned on the clean split (if there is any).
        settings: of the method, for the record.
    """
    config = replace(config, clean_threshold=None, train=_mixed_batches(config.train))
    if not finetune or len(dataset.clean) == 0:
        config = replace(config, finetune=replace(config.finetune, steps=0))

    def learn(setup: Setup) -> Learned:
        start = time.perf_counter()
        lesson = teach(setup)
        members = train_members(setup, lesson, 0)
        only = record_round(setup, 1, members, lesson, start)
        return [only], tuple(model for model, _ in members), lesson.facts

    return Course(
        method=method,
        config=config,
        learn=learn,
        steps=_steps_of_round(config),
        identity={} if settings is None else {"settings": plain(dict(settings))},
        settings=settings,
    )


def _mixed_batches(phase: Phase) -> Phase:
    """As many rows in a batch, drawn from all examples alike."""
    size = phase.batch_size + (phase.clean_batch_size or 0)
    return replace(phase, batch_size=size, clean_batch_size=None)
