"""How does it all fit together? The GenKL iteration, and the baselines it is held against."""

from __future__ import annotations

import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from genkl.checks import check_beta, check_choice, check_positive
from genkl.data import NoisyDataset
from genkl.engine import Engine, as_engine
from genkl.evaluate import accuracy
from genkl.features import Backbone
from genkl.learn.config import GenKLConfig
from genkl.learn.examples import Examples
from genkl.learn.folder import RunFolder, describe, identity_of, plain
from genkl.learn.log import RunBar, RunLog
from genkl.learn.loop import PUBLISHED_TRAINING, FitResult
from genkl.learn.members import Setting, pretrain_members, ready_to_learn, train_members
from genkl.learn.phase import Phase
from genkl.learn.result import Round, Run, choosing_accuracy, round_to_dict, run_to_dict
from genkl.learn.rules import Decision, IdentifyRule, divergence_rule, flag_nothing
from genkl.losses import PAPER_LOSSES, RowLoss
from genkl.networks import ModelFactory, default_model
from genkl.published import Published, check_published
from genkl.relabel import (
    PUBLISHED_RELABELLING,
    Relabelled,
    Role,
    relabel_instances,
    reverse_class_ratio,
)

PUBLISHED_RUN = PUBLISHED_RELABELLING | PUBLISHED_TRAINING | Published.SELECTION_ON_TEST
"""The switches that `run_genkl` implements: all of them."""

BASELINES = ("given labels", "given labels + fine-tuning", "clean set alone")


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
        make_model: builds a network.
        backbone: see `run_genkl`.
        published_behaviour: may hold `Published.EVAL_MODE_PRETRAINING`.
        engine: see `run_genkl`.

    Returns:
        The models, each at its best validated step.

    Raises:
        ValueError: published behaviour that has nothing to do with pre-training.
    """
    check_published("pretrain_models", published_behaviour, Published.EVAL_MODE_PRETRAINING)
    engine = as_engine(engine)
    dataset = ready_to_learn(dataset, config, make_model, backbone, engine)
    setting = Setting(dataset, config, seed, make_model, PAPER_LOSSES, engine, published_behaviour)
    return pretrain_members(setting, config.first_ensemble)


def run_genkl(
    dataset: NoisyDataset,
    config: GenKLConfig,
    *,
    seed: int = 0,
    make_model: ModelFactory = default_model,
    backbone: Backbone | str | None = "auto",
    predictor: Sequence[nn.Module] = (),
    identify: IdentifyRule | None = None,
    relabel: Callable[..., Relabelled] = relabel_instances,
    losses: Mapping[Role, RowLoss] = PAPER_LOSSES,
    published_behaviour: Published = Published.NONE,
    stop_early: bool = True,
    method: str = "GenKL",
    settings: Mapping[str, Any] | None = None,
    engine: Engine | str = "auto",
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int = 500,
    progress: bool = True,
) -> Run:
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
        make_model: builds a network from (input_shape, num_classes).
        backbone: turns images into frozen features first, see `featurize`. None learns from the
            inputs as they are. "auto" uses `EFFICIENTNET_LITE0` where the inputs are photographs
            (files, or tensors of bytes) and make_model is the default: heads then train in
            seconds, without a GPU.
        predictor: models for the first prediction, such as those of `pretrain_models`; where
            empty, ``config.first_ensemble`` models are pre-trained on the clean set.
        identify: replaces `divergence_rule` in an ablation.
        relabel: replaces `relabel_instances` in an ablation.
        losses: replaces `PAPER_LOSSES` in an ablation.
        published_behaviour: where to do as the published scripts do instead of as the paper says;
            a relabel of your own has to take those switches of `PUBLISHED_RELABELLING` that are
            on, and a predictor of yours is as pre-trained as it is.
        stop_early: False runs all ``max_rounds``, to look at what stopping prevents.
        method: name in the record.
        settings: what was changed in the configuration, by name, for the record.
        engine: device, processes, precision; a device's name ("auto", "cpu", "cuda") stands for
            one.
        run_dir: folder that keeps everything, finished models, predictions, logs, and the phase in
            progress; None keeps nothing. See `genkl.learn.folder`.
        resume: go on with the run in run_dir; the numbers are those of a run that was never cut
            off.
        checkpoint_every: steps between two checkpoints of the phase in progress.
        progress: show a bar over the steps.

    Returns:
        A record of every round; the best one by validation is ``run.best``.

    Raises:
        ValueError: beta outside [0, 1/k), an empty split, an empty class in the clean set, or a
            run_dir with another run.
        FileExistsError: a run_dir that is in use, without resume.
        FloatingPointError: training diverged.
        OSError: no space to keep the run in; what was kept stays.

    Source: the framework of arXiv 2307.09810, section :doc:`/book/equations` of the book.
    """
    check_beta(config.beta, dataset.num_classes)
    check_published("run_genkl", published_behaviour, PUBLISHED_RUN)
    engine = as_engine(engine)
    bound = relabel
    if asked := published_behaviour & PUBLISHED_RELABELLING:
        bound = partial(relabel, published_behaviour=asked)
    rule = identify or divergence_rule(config)
    class_ratio = _class_ratio(dataset, config)
    dataset = ready_to_learn(dataset, config, make_model, backbone, engine, progress)
    setting = Setting(dataset, config, seed, make_model, losses, engine, published_behaviour)
    identity = {
        "identify": "divergence" if identify is None else describe(identify),
        "relabel": describe(relabel),
        "losses": {role.name: describe(loss) for role, loss in losses.items()},
        "predictor": len(predictor),
        "stop_early": stop_early,
    }
    to_pretrain = 0 if predictor else config.first_ensemble
    a_round = config.ensemble * (config.train.steps + config.finetune.steps)
    total = to_pretrain * config.pretrain.steps + config.max_rounds * a_round
    rounds: list[Round] = []
    best_models: tuple[nn.Module, ...] = ()
    with _kept(setting, method, identity, run_dir, resume, checkpoint_every, total, progress):
        models = [*predictor, *pretrain_members(setting, to_pretrain)]
        for index in range(1, config.max_rounds + 1):
            start = time.perf_counter()
            pred_probs, validation_probs = _predictions(setting, models, index)
            decision = rule(pred_probs, validation_probs)
            if rule is not flag_nothing:
                _warn_if_one_sided(decision, index)
            setting.flagged = float(decision.is_nc.mean())
            given = dataset.noisy.labels
            examples = Examples.of(
                dataset.noisy.inputs,
                bound(pred_probs, given.numpy(), decision.is_nc, class_ratio),
            )
            clean = setting.clean
            if setting.selects_clean:
                examples = examples.with_given(given)
                clean = clean.with_given(dataset.clean.labels)
            examples = clean + examples
            members = train_members(setting, examples, index)
            models = [model for model, _ in members]
            rounds.append(
                _round(
                    setting,
                    index,
                    models,
                    [fitted for _, fitted in members],
                    examples,
                    predictor_val_accuracy=accuracy(validation_probs, dataset.validation.labels),
                    decision=decision,
                    pred_probs=pred_probs,
                    seconds=time.perf_counter() - start,
                )
            )
            reached = [choosing_accuracy(one, published_behaviour) for one in rounds]
            if all(reached[-1] > earlier for earlier in reached[:-1]):
                best_models = tuple(models)
            elif stop_early:
                break
        return _finish(setting, method, rounds, best_models, settings)


def run_baseline(
    dataset: NoisyDataset,
    config: GenKLConfig,
    method: str = "given labels",
    *,
    seed: int = 0,
    make_model: ModelFactory = default_model,
    backbone: Backbone | str | None = "auto",
    engine: Engine | str = "auto",
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int = 500,
    progress: bool = True,
) -> Run:
    """Train with plain cross-entropy, for comparison, in as many steps as a GenKL round.

    Further methods to compare with are `genkl.run_method`'s.

    Args:
        dataset: see `load_dataset`.
        config: its ``train`` and ``finetune`` phases and ``ensemble`` (number of models whose
            accuracies are averaged) are used.
        method: "given labels" (noisy and clean split together, labels as they are),
            "given labels + fine-tuning" (the same, then fine-tuned on the clean set as GenKL is),
            or "clean set alone".
        seed: of weights and batches.
        make_model: builds a network.
        backbone: see `run_genkl`.
        engine, run_dir, resume, checkpoint_every, progress: see `run_genkl`.

    Returns:
        A record with a single round.

    Raises:
        ValueError: unknown method; the message lists the known ones.
    """
    check_choice("baseline", method, BASELINES)
    if method != "given labels":
        dataset.require("clean")

    def teach(setting: Setting) -> Lesson:
        if method == "clean set alone":
            return Lesson(setting.clean)
        return Lesson(setting.clean + setting.as_given)

    return run_once(
        dataset,
        config,
        method,
        teach,
        finetune=method.endswith("fine-tuning"),
        seed=seed,
        make_model=make_model,
        backbone=backbone,
        engine=engine,
        run_dir=run_dir,
        resume=resume,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )


@dataclass(frozen=True)
class Lesson:
    """What the models of a run of one round learn from, and how.

    Attributes:
        examples: inputs, targets and roles; the rows of all roles weigh alike if they share one.
        losses: row loss of each role.
        mixup_alpha: see `mixup`; 0 is off.
        facts: what was done to the given labels, as figures for the record.
    """

    examples: Examples
    losses: Mapping[Role, RowLoss] = field(default_factory=lambda: PAPER_LOSSES)
    mixup_alpha: float = 0.0
    facts: Mapping[str, float] = field(default_factory=dict)


def run_once(
    dataset: NoisyDataset,
    config: GenKLConfig,
    method: str,
    teach: Callable[[Setting], Lesson],
    *,
    finetune: bool = True,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    make_model: ModelFactory = default_model,
    backbone: Backbone | str | None = "auto",
    engine: Engine | str = "auto",
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int = 500,
    progress: bool = True,
) -> Run:
    """Train on what a method makes of a data set, in as many steps as a GenKL round.

    Args:
        dataset: see `load_dataset`; its clean split may be empty if the method can do without.
        config: its ``train`` and ``finetune`` phases and ``ensemble`` are used. Nothing but the
            clean split counts as clean: ``clean_threshold`` is left out. A batch has as many rows
            as GenKL's, drawn from all examples alike (``clean_batch_size`` is added).
        method: name in the record.
        teach: decides what is learned from; may train models of its own before.
        finetune: whether the models are fine-tuned on the clean split (if there is any).
        settings: of the method, for the record.
        seed, make_model, backbone, engine, run_dir, resume, checkpoint_every, progress: see
            `run_genkl`.

    Returns:
        A record with a single round.

    Raises:
        ValueError: an empty validation or test split, or a run_dir with another run.
        FileExistsError: a run_dir that is in use, without resume.
        FloatingPointError: training diverged.
    """
    engine = as_engine(engine)
    dataset = ready_to_learn(
        dataset, config, make_model, backbone, engine, progress, needs=("validation", "test")
    )
    start = time.perf_counter()
    config = replace(config, clean_threshold=None, train=_mixed_batches(config.train))
    if not finetune or len(dataset.clean) == 0:
        config = replace(config, finetune=replace(config.finetune, steps=0))
    setting = Setting(dataset, config, seed, make_model, PAPER_LOSSES, engine)
    identity = {} if settings is None else {"settings": plain(dict(settings))}
    total = config.ensemble * (config.train.steps + config.finetune.steps)
    with _kept(setting, method, identity, run_dir, resume, checkpoint_every, total, progress):
        lesson = teach(setting)
        setting.losses = lesson.losses
        members = train_members(
            setting, lesson.examples, 0, weights=(1.0, 1.0, 1.0), mixup_alpha=lesson.mixup_alpha
        )
        models = [model for model, _ in members]
        fits = [fitted for _, fitted in members]
        seconds = time.perf_counter() - start
        only = _round(setting, 1, models, fits, lesson.examples, seconds=seconds)
        return _finish(setting, method, [only], tuple(models), settings, lesson.facts)


def _mixed_batches(phase: Phase) -> Phase:
    """As many rows in a batch, drawn from all examples alike."""
    size = phase.batch_size + (phase.clean_batch_size or 0)
    return replace(phase, batch_size=size, clean_batch_size=None)


@contextmanager
def _kept(
    setting: Setting,
    method: str,
    identity: Mapping[str, Any],
    run_dir: str | os.PathLike[str] | None,
    resume: bool,
    checkpoint_every: int,
    total: int,
    progress: bool,
) -> Iterator[None]:
    """Give a setting its folder, its log and its bar for as long as the run takes."""
    check_positive("checkpoint_every", checkpoint_every)
    first = setting.engine.is_first
    if run_dir is None:
        if resume:
            raise ValueError("resume needs the run_dir to go on in")
    else:
        whole = {
            "method": method,
            "seed": setting.seed,
            **identity_of(setting.dataset),
            "config": dataclasses.asdict(setting.config),
            "model": describe(setting.make_model),
            "precision": setting.engine.precision,
            "published_behaviour": [one.name for one in setting.published],
            **identity,
        }
        setting.folder = RunFolder(
            Path(run_dir), whole, setting.engine, resume=resume, every=checkpoint_every
        )
        if first:
            setting.log = RunLog(setting.folder.path, setting.folder.finished())
    setting.bar = RunBar(f"{method}, seed {setting.seed}", total, progress and first)
    try:
        yield
    finally:
        setting.bar.close()
        if setting.log is not None:
            setting.log.close()


def _predictions(
    setting: Setting, models: list[nn.Module], index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Averaged predictions on the noisy and the validation split, kept in the folder."""
    name = f"round-{index}"
    if setting.folder is not None and (found := setting.folder.predictions(name)):
        return found["noisy"], found["validation"]
    noisy = setting.predict(models, setting.dataset.noisy, f"predictions, round {index}")
    validation = setting.predict(models, setting.dataset.validation)
    if setting.folder is not None:
        setting.folder.save_predictions(name, noisy=noisy, validation=validation)
    return noisy, validation


def _round(
    setting: Setting,
    index: int,
    models: list[nn.Module],
    fits: list[FitResult],
    examples: Examples,
    *,
    seconds: float,
    predictor_val_accuracy: float = math.nan,
    decision: Decision | None = None,
    pred_probs: np.ndarray | None = None,
) -> Round:
    val, ensemble_val = _accuracies(setting, models, "validation")
    test, ensemble_test = _accuracies(setting, models, "test")
    counts = np.bincount(examples.roles.numpy(), minlength=len(Role))
    this = Round(
        index=index,
        predictor_val_accuracy=predictor_val_accuracy,
        threshold=math.nan if decision is None else decision.threshold,
        flagged=math.nan if decision is None else float(decision.is_nc.mean()),
        role_counts={role.name: int(counts[role]) for role in Role},
        val_accuracy=val,
        test_accuracy=test,
        ensemble_val_accuracy=ensemble_val,
        ensemble_test_accuracy=ensemble_test,
        best_steps=tuple(fitted.best_step for fitted in fits),
        role_losses={
            role.name: float(np.mean([f.history[-1][f"{role.name.lower()}_loss"] for f in fits]))
            for role in Role
            if fits[0].history
        },
        seconds=seconds,
        pred_probs=pred_probs,
        scores=None if decision is None else decision.scores,
        is_nc=None if decision is None else decision.is_nc,
        history=fits[0].history,
    )
    setting.bar.show(round=index, flagged=this.flagged, val=this.val_accuracy)
    if setting.folder is not None:
        kept = setting.folder.keep_values(f"rounds/round-{index}", round_to_dict(this))
        this = replace(this, seconds=kept["seconds"])
    return this


def _finish(
    setting: Setting,
    method: str,
    rounds: list[Round],
    models: tuple[nn.Module, ...],
    settings: Mapping[str, Any] | None = None,
    facts: Mapping[str, float] | None = None,
) -> Run:
    run = Run(
        method,
        setting.dataset.name,
        setting.seed,
        setting.config,
        len(setting.dataset.clean),
        tuple(rounds),
        models,
        setting.published,
        setting.dataset.features,
        dict(settings or {}),
        dict(facts or {}),
    )
    if setting.folder is not None:
        setting.folder.keep_values("record", run_to_dict(run))
    return run


def _accuracies(setting: Setting, models: list[nn.Module], name: str) -> tuple[float, float]:
    """Mean accuracy of the models, and accuracy of their averaged prediction."""
    split = getattr(setting.dataset, name)
    labels = split.labels.numpy()
    each = [setting.predict([model], split) for model in models]
    return (
        float(np.mean([accuracy(probs, labels) for probs in each])),
        accuracy(np.mean(each, axis=0), labels),
    )


def _class_ratio(dataset: NoisyDataset, config: GenKLConfig) -> np.ndarray:
    """The reverse class ratio of the clean set; of all given labels where nothing is verified."""
    labels = dataset.clean.labels
    if config.clean_threshold is None:
        dataset.require("clean")
    else:
        labels = np.concatenate([labels, dataset.noisy.labels])
    return reverse_class_ratio(np.bincount(labels, minlength=dataset.num_classes))


def _warn_if_one_sided(decision: Decision, index: int) -> None:
    share = float(decision.is_nc.mean())
    if share in (0.0, 1.0):
        what = "no instance is" if share == 0 else "every instance is"
        meaning = (
            "the NC loss is 0 in this round"
            if share == 0
            else "nothing but the clean set teaches classes in this round"
        )
        warnings.warn(
            f"round {index}: {what} flagged at threshold {decision.threshold:.4g}; {meaning}. "
            "Look at alpha and beta.",
            stacklevel=3,
        )
