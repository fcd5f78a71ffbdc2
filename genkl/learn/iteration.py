"""The GenKL iteration: models pre-trained, then in rounds identified, relabelled, trained, tuned.

Beside the rounds stand their parts, which the methods of `genkl.baselines` use, too: `Setup`, what
stays the same within a run; `Lesson`, what models learn from; `pretrain_members` and
`train_members`, who train several models, together where they can.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genkl.data import Images, NoisyDataset, Split
from genkl.data.loading import Transform
from genkl.data.transforms import build_transform
from genkl.engine import Engine
from genkl.evaluate import accuracy
from genkl.features.weights import first_line
from genkl.learn.config import GenKLConfig
from genkl.learn.examples import Examples
from genkl.learn.folder import Recorder
from genkl.learn.phase import Phase
from genkl.learn.result import FitResult, Round, choosing_accuracy
from genkl.learn.rules import Decision, IdentifyRule, decide, flag_nothing
from genkl.learn.trainer import FitOptions, fit_together, why_not_together
from genkl.losses import PAPER_LOSSES, RowLoss
from genkl.networks import ModelFactory, seeded_model
from genkl.predict import predict_probs
from genkl.published import Published
from genkl.relabel import Relabelled, Role

PROBE_SIDE = 512
"""Height and width of the image that tells which shape the test transforms give."""

Member = tuple[nn.Module, FitResult]
"""A trained model, and what happened before it was fine-tuned."""


@dataclass(frozen=True)
class Setup:
    """What stays the same within a run.

    Attributes:
        dataset: with inputs that a network takes.
        config: of the method.
        seed: of weights, batches and mixing.
        make_model: builds a network.
        engine: device, processes, precision.
        published: what is done as the published scripts do.
        recorder: who keeps and shows what happens.
    """

    dataset: NoisyDataset
    config: GenKLConfig
    seed: int
    make_model: ModelFactory
    engine: Engine
    published: Published = Published.NONE
    recorder: Recorder = field(default_factory=Recorder)

    @cached_property
    def transforms(self) -> tuple[Transform | None, Transform | None]:
        """Of images on disk, for training and for prediction."""
        steps = (self.config.train_transforms, self.config.test_transforms)
        train, test = (build_transform(s, normalize=False) if s else None for s in steps)
        return train, test

    def seed_of(self, round_index: int, member: int, phase: int) -> int:
        """An own seed for every model and phase, the same on every machine."""
        sequence = np.random.SeedSequence([self.seed, round_index, member, phase])
        return int(sequence.generate_state(1)[0])

    @cached_property
    def example(self) -> Tensor | None:
        """An input of zeros; None where images on disk have no transforms."""
        if self.transforms[1] is not None:
            probe = torch.zeros(3, PROBE_SIDE, PROBE_SIDE, dtype=torch.uint8)
            return torch.zeros_like(self.transforms[1](probe))
        inputs = self.dataset.noisy.inputs
        return inputs.new_zeros(inputs.shape[1:]) if isinstance(inputs, Tensor) else None

    def new_model(self, round_index: int, member: int) -> nn.Module:
        """A model whose first weights depend on the seed, the round and the member alone."""
        shape, seed = tuple(self.example.shape), self.seed_of(round_index, member, 0)
        return seeded_model(self.make_model, shape, self.dataset.num_classes, seed)

    def check_model(self) -> None:
        """Refuse, before work, a network that can't learn from the smallest batch of the run.

        Raises:
            ValueError: says what it can't take, such as inputs of this size, or a single image
                where it has batch normalisation.
        """
        phases, clean = (self.config.pretrain, self.config.train), self.config.finetune
        sizes = [phase.batch_size for phase in (*phases, clean) if phase.steps]
        sizes += [len(self.dataset.clean)] * (clean.steps > 0 and not self.selects_clean)
        alone = 1 in [size // self.engine.world_size for size in sizes]
        remedy = "verify more than one image, in batches of 2" if alone else "pass another network"
        model = self.new_model(0, 0).train(alone)  # where batch normalisation needs two
        try:
            with self.engine.randomness(0), torch.no_grad():
                model(self.example[None])
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ValueError(
                f"the network can't learn from inputs of shape {tuple(self.example.shape)}"
                f"{', one at a time' * alone} ({first_line(error)}); {remedy}"
            ) from error

    @property
    def clean(self) -> Examples:
        """The clean set, with one-hot targets."""
        return Examples.clean(self.dataset.clean, self.dataset.num_classes)

    @property
    def as_given(self) -> Examples:
        """The noisy split, its given labels taken at their word."""
        return Examples.clean(self.dataset.noisy, self.dataset.num_classes)

    @property
    def selects_clean(self) -> bool:
        """Whether the network's own belief stands in for a clean set."""
        return self.config.clean_threshold is not None

    @property
    def choosing_split(self) -> Split:
        """The split whose accuracy chooses the step: validation, unless a switch says test."""
        on_test = Published.SELECTION_ON_TEST in self.published
        return self.dataset.test if on_test else self.dataset.validation

    def predict(self, models: list[nn.Module], split: Split, what: str | None = None) -> np.ndarray:
        """The models' averaged prediction, (N, k); a bar over images on disk says what it is."""
        for model in models:
            self.engine.place(model)
        shown = self.recorder.bar.shown and isinstance(split.inputs, Images)
        return predict_probs(
            models,
            split.inputs,
            transform=self.transforms[1],
            engine=self.engine,
            progress=what if shown else None,
        )

    def fit(
        self,
        units: Sequence[str],
        models: Sequence[nn.Module],
        examples: Examples,
        phase: Phase,
        validation: Split,
        *,
        seeds: Sequence[int],
        **options: Any,
    ) -> Iterator[FitResult]:
        """One phase of several models: together where they can, see `fit_together`, else in turn.

        Together means that all results come at once, when the last is done. In turn each comes
        when it is done.

        Args:
            units: one name for each model, that its state is kept and its log is written under.
            models: trained in place.
            examples, phase, validation: see `fit_together`.
            seeds: one for each model.
            options: see `FitOptions`.

        Returns:
            The results, in the order of the models.
        """
        train, test = self.transforms
        options |= {"train_transform": train, "test_transform": test, "engine": self.engine}
        data, every = (examples, phase, validation), range(len(models))
        together = (
            len(models) > 1
            and self.engine.batch_heads
            and why_not_together(models, *data, FitOptions(**options)) is None
        )
        for group in [every] if together else [[member] for member in every]:
            names = [units[member] for member in group]
            yield from fit_together(
                [models[member] for member in group],
                *data,
                seeds=[seeds[member] for member in group],
                checkpoint=self.recorder.checkpoint(names),
                watch=self.recorder.watch(names),
                **options,
            )
            self.recorder.drop_checkpoint(names)  # whoever asks for more has kept the results


@dataclass(frozen=True)
class Lesson:
    """What models learn from, and how.

    Attributes:
        examples: inputs, targets and roles; the rows of all roles weigh alike if they share one.
        losses: row loss of each role.
        mixup_alpha: see `mixup`; 0 is off.
        facts: what was done to the given labels, as figures for the record.
        weights: multipliers of the three mean losses.
    """

    examples: Examples
    losses: Mapping[Role, RowLoss] = field(default_factory=lambda: PAPER_LOSSES)
    mixup_alpha: float = 0.0
    facts: Mapping[str, float] = field(default_factory=dict)
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)


def pretrain_members(
    setup: Setup, count: int, *, examples: Examples | None = None, name: str = "pretrain"
) -> list[nn.Module]:
    """The first predictor: models trained on the clean set, or on all given labels.

    Those that have finished are read; the others are trained, see `Setup.fit`.

    Args:
        setup: of the run.
        count: how many.
        examples: what to train on instead.
        name: what the models are kept as, with their number.

    Returns:
        The models, each at its best validated step.
    """
    phase, recorder = setup.config.pretrain, setup.recorder
    units = [f"{name}-model-{member}" for member in range(count)]
    models = [setup.new_model(0, member) for member in range(count)]
    rest = [m for m in range(count) if recorder.kept(units[m], models[m], phase.steps) is None]
    if not rest:
        return models
    if examples is None:
        examples = setup.clean + setup.as_given if setup.selects_clean else setup.clean
    fits = setup.fit(
        [units[member] for member in rest],
        [models[member] for member in rest],
        examples,
        phase,
        setup.dataset.validation,
        seeds=[setup.seed_of(0, member, 1) for member in rest],
        published_behaviour=setup.published & Published.EVAL_MODE_PRETRAINING,
    )
    for member, fitted in zip(rest, fits, strict=True):
        recorder.keep(units[member], models[member], [fitted])
    return models


def train_members(setup: Setup, lesson: Lesson, round_index: int) -> list[Member]:
    """The models of a round: all trained on the lesson, then each fine-tuned on the clean set.

    Those that have finished a phase are read; the others are trained, see `Setup.fit`.

    Args:
        setup: of the run; its configuration says how many models, and for how long.
        lesson: what to train on before fine-tuning.
        round_index: decides the seeds, with the number of the model.

    Returns:
        Every model at its best validated step.
    """
    config, recorder = setup.config, setup.recorder
    count = range(config.ensemble)
    trained, tuned = (
        [f"round-{round_index}-model-{member}-{phase}" for member in count]
        for phase in ("train", "finetune")
    )
    models = [setup.new_model(round_index, member) for member in count]
    both = config.train.steps + config.finetune.steps
    fits = [recorder.kept(tuned[member], models[member], both) for member in count]
    to_tune = [member for member in count if fits[member] is None]
    for member in to_tune:
        fits[member] = recorder.kept(trained[member], models[member], config.train.steps)
    to_train = [member for member in count if fits[member] is None]
    done = setup.fit(
        [trained[member] for member in to_train],
        [models[member] for member in to_train],
        lesson.examples,
        config.train,
        setup.choosing_split,
        seeds=[setup.seed_of(round_index, member, 1) for member in to_train],
        weights=lesson.weights,
        losses=lesson.losses,
        mixup_alpha=lesson.mixup_alpha,
        clean_threshold=config.clean_threshold if lesson.examples.given is not None else None,
    )
    for member, fitted in zip(to_train, done, strict=True):
        fits[member] = [fitted]
        recorder.keep(trained[member], models[member], fits[member])
    tuning = _finetune(setup, round_index, to_tune, [tuned[m] for m in to_tune], models)
    for member, fitted in zip(to_tune, tuning, strict=True):
        if fitted is not None:
            fits[member] = [*fits[member], fitted]
        recorder.keep(tuned[member], models[member], fits[member])
        recorder.drop(trained[member])
    return [(model, of_model[0]) for model, of_model in zip(models, fits, strict=True)]


def _finetune(
    setup: Setup,
    round_index: int,
    members: list[int],
    units: list[str],
    models: list[nn.Module],
) -> Iterator[FitResult | None]:
    """Fine-tune some of the models; None for one that has nothing to learn from."""
    phase = setup.config.finetune
    # Where nothing is verified, each model learns from what it agrees with itself.
    apart = setup.selects_clean and phase.steps > 0
    named = list(zip(members, units, strict=True))
    for group in [[member] for member in named] if apart else [named]:
        chosen = [models[member] for member, _ in group]
        verified = _believed(setup, chosen[0]) if apart else setup.clean
        if len(verified) < 1 + apart:  # a single image is too few for batch normalisation
            yield from [None] * len(group)
            continue
        yield from setup.fit(
            [unit for _, unit in group],
            chosen,
            verified,
            phase,
            setup.choosing_split,
            seeds=[setup.seed_of(round_index, member, 2) for member, _ in group],
            keep_initial=True,
            published_behaviour=setup.published & Published.FROZEN_FINETUNING,
        )


def _believed(setup: Setup, model: nn.Module) -> Examples:
    """What a model is fine-tuned on where nothing is verified: the instances it agrees with."""
    noisy = setup.dataset.noisy
    probs = setup.predict([model], noisy)
    belief = probs[np.arange(len(noisy)), noisy.labels.numpy()]
    rows = np.flatnonzero(belief >= setup.config.clean_threshold)
    return setup.clean + Examples.clean(noisy.take(rows), setup.dataset.num_classes)


# -- rounds ----------------------------------------------------------------------------------------

Learned = tuple[list[Round], tuple[nn.Module, ...], Mapping[str, float]]
"""Rounds, the models of the chosen one, and facts for the record."""


@dataclass(frozen=True)
class Iteration:
    """GenKL's rounds, with the functions that an ablation replaces.

    Attributes:
        rule: flags.
        relabel: from averaged predictions, given labels, mask and class ratio to targets and roles.
        class_ratio: w, shape (k,).
        losses: row loss of each role.
        predictor: models for the first prediction; empty pre-trains them.
        stop_early: whether to end when validation stops improving.
    """

    rule: IdentifyRule
    relabel: Callable[..., Relabelled]
    class_ratio: np.ndarray
    losses: Mapping[Role, RowLoss]
    predictor: Sequence[nn.Module] = ()
    stop_early: bool = True

    def learn(self, setup: Setup) -> Learned:
        """Identify, relabel, train, fine-tune, and again."""
        config = setup.config
        rounds: list[Round] = []
        best_models: tuple[nn.Module, ...] = ()
        models = list(self.predictor) or pretrain_members(setup, config.first_ensemble)
        for index in range(1, config.max_rounds + 1):
            start = time.perf_counter()
            pred_probs, validation_probs = _predictions(setup, models, index)
            decision = decide(self.rule, pred_probs, validation_probs)
            if self.rule is not flag_nothing:
                _warn_if_one_sided(decision, index)
            setup.recorder.flagged = float(decision.is_nc.mean())
            lesson = self._lesson(setup, pred_probs, decision.is_nc)
            members = train_members(setup, lesson, index)
            models = [model for model, _ in members]
            reached = accuracy(validation_probs, setup.dataset.validation.labels)
            rounds.append(
                record_round(
                    setup,
                    index,
                    members,
                    lesson,
                    start,
                    predictor_val_accuracy=reached,
                    decision=decision,
                    pred_probs=pred_probs,
                )
            )
            chosen = [choosing_accuracy(earlier, setup.published) for earlier in rounds]
            if all(chosen[-1] > earlier for earlier in chosen[:-1]):
                best_models = tuple(models)
            elif self.stop_early:
                break
        return rounds, best_models, {}

    def _lesson(self, setup: Setup, pred_probs: np.ndarray, is_nc: np.ndarray) -> Lesson:
        """The clean set, and every noisy instance with its target and role."""
        noisy, clean = setup.dataset.noisy, setup.clean
        relabelled = self.relabel(pred_probs, noisy.labels.numpy(), is_nc, self.class_ratio)
        examples = Examples.of(noisy.inputs, relabelled)
        if setup.selects_clean:
            examples = examples.with_given(noisy.labels)
            clean = clean.with_given(setup.dataset.clean.labels)
        mixup_alpha, weights = setup.config.mixup_alpha, setup.config.weights
        return Lesson(clean + examples, self.losses, mixup_alpha, weights=weights)


def _predictions(
    setup: Setup, models: list[nn.Module], index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Averaged predictions on the noisy and the validation split, kept by the recorder."""
    dataset = setup.dataset
    found = setup.recorder.once(
        f"round-{index}",
        lambda: {
            "noisy": setup.predict(models, dataset.noisy, f"predictions, round {index}"),
            "validation": setup.predict(models, dataset.validation),
        },
    )
    return found["noisy"], found["validation"]


def record_round(
    setup: Setup,
    index: int,
    members: list[Member],
    lesson: Lesson,
    start: float,
    *,
    predictor_val_accuracy: float = math.nan,
    decision: Decision | None = None,
    pred_probs: np.ndarray | None = None,
) -> Round:
    """What a round came to, evaluated, shown and kept; `start` is when it began."""
    models, fits = zip(*members, strict=True)
    val, ensemble_val = _accuracies(setup, models, setup.dataset.validation)
    test, ensemble_test = _accuracies(setup, models, setup.dataset.test)
    counts = np.bincount(lesson.examples.roles.numpy(), minlength=len(Role))
    return setup.recorder.keep_round(
        Round(
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
                role.name: float(
                    np.mean([f.history[-1][f"{role.name.lower()}_loss"] for f in fits])
                )
                for role in Role
                if fits[0].history
            },
            seconds=time.perf_counter() - start,
            pred_probs=pred_probs,
            scores=None if decision is None else decision.scores,
            is_nc=None if decision is None else decision.is_nc,
            history=fits[0].history,
        )
    )


def _accuracies(setup: Setup, models: Sequence[nn.Module], split: Split) -> tuple[float, float]:
    """Mean accuracy of the models, and accuracy of their averaged prediction."""
    labels = split.labels.numpy()
    each = [setup.predict([model], split) for model in models]
    return (
        float(np.mean([accuracy(probs, labels) for probs in each])),
        accuracy(np.mean(each, axis=0), labels),
    )


def _warn_if_one_sided(decision: Decision, index: int) -> None:
    share = float(decision.is_nc.mean())
    if share in (0.0, 1.0):
        what, meaning = (
            ("no instance is", "the NC loss is 0 in this round")
            if share == 0
            else ("every instance is", "nothing but the clean set teaches classes in this round")
        )
        warnings.warn(
            f"round {index}: {what} flagged at threshold {decision.threshold:.4g}; {meaning}. "
            "Look at alpha and beta.",
            stacklevel=5,  # whoever called run_genkl
        )
