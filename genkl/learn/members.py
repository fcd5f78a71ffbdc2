"""How are the models of a run trained? One after the other, or heads on features all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from genkl.data import Images, NoisyDataset, Split
from genkl.data.images import as_images
from genkl.data.loading import Transform
from genkl.data.transforms import build_transform
from genkl.engine import Engine
from genkl.features import EFFICIENTNET_LITE0, Backbone, featurize
from genkl.learn.config import GenKLConfig
from genkl.learn.examples import Examples
from genkl.learn.folder import RunFolder
from genkl.learn.log import RunBar, RunLog
from genkl.learn.loop import FitResult, Watch, fit
from genkl.learn.phase import Phase
from genkl.learn.together import can_fit_together, fit_together
from genkl.losses import RowLoss
from genkl.networks import ModelFactory, default_model, seeded_model
from genkl.predict import predict_probs
from genkl.published import Published
from genkl.relabel import Role

PROBE_SIDE = 512
"""Height and width of the image that tells which shape the test transforms give."""


@dataclass
class Setting:
    """What stays the same within a run, and who is told of its progress."""

    dataset: NoisyDataset
    config: GenKLConfig
    seed: int
    make_model: ModelFactory
    losses: Mapping[Role, RowLoss]
    engine: Engine
    published: Published = Published.NONE
    folder: RunFolder | None = None
    log: RunLog | None = None
    bar: RunBar | None = None
    flagged: float = float("nan")
    transforms: tuple[Transform | None, Transform | None] = field(init=False)

    def __post_init__(self) -> None:
        steps = (self.config.train_transforms, self.config.test_transforms)
        train, test = (build_transform(s, normalize=False) if s else None for s in steps)
        self.transforms = (train, test)

    def seed_of(self, round_index: int, member: int, phase: int) -> int:
        """An own seed for every model and phase, the same on every machine."""
        sequence = np.random.SeedSequence([self.seed, round_index, member, phase])
        return int(sequence.generate_state(1)[0])

    def new_model(self, round_index: int, member: int) -> nn.Module:
        """A model whose first weights depend on the seed, the round and the member alone."""
        return seeded_model(
            self.make_model,
            self.input_shape,
            self.dataset.num_classes,
            self.seed_of(round_index, member, 0),
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, as the test transforms leave it."""
        if self.transforms[1] is None:
            return self.dataset.input_shape
        probe = torch.zeros(3, PROBE_SIDE, PROBE_SIDE, dtype=torch.uint8)
        return tuple(self.transforms[1](probe).shape)

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
        """The models' averaged prediction, (N, k)."""
        for model in models:
            self.engine.place(model)
        shown = what if self.bar is not None and isinstance(split.inputs, Images) else None
        return predict_probs(
            models,
            split.inputs,
            transform=self.transforms[1],
            engine=self.engine,
            progress=shown,
        )

    def fit(
        self,
        unit: str,
        model: nn.Module,
        examples: Examples,
        phase: Phase,
        validation: Split,
        **options: Any,
    ) -> FitResult:
        """One phase of one model, with its checkpoint, and news for the log and the bar."""
        return fit(
            model,
            examples,
            phase,
            validation,
            train_transform=self.transforms[0],
            test_transform=self.transforms[1],
            engine=self.engine,
            checkpoint=None if self.folder is None else self.folder.checkpoint(unit),
            watch=self._watch([unit]),
            **options,
        )

    def fit_members(
        self,
        units: Sequence[str],
        models: Sequence[nn.Module],
        examples: Examples,
        phase: Phase,
        validation: Split,
        *,
        seeds: Sequence[int],
        clean_threshold: float | None = None,
        **options: Any,
    ) -> Iterator[FitResult]:
        """One phase of several models: together where `can_fit_together`, else in turn.

        Together means that all results come at once, when the last is done, and that there are no
        checkpoints in between: it takes seconds. In turn each comes when it is done.

        Args:
            units: one name for each model.
            models: trained in place.
            examples, phase, validation, clean_threshold, options: see `fit`.
            seeds: one for each model.

        Returns:
            The results, in the order of the models.
        """
        data = (examples, phase, validation)
        if (
            len(models) > 1
            and self.engine.batch_heads
            and can_fit_together(models, *data, clean_threshold=clean_threshold, engine=self.engine)
        ):
            yield from fit_together(
                models,
                *data,
                seeds=seeds,
                engine=self.engine,
                watch=self._watch(units),
                **options,
            )
            return
        for unit, model, seed in zip(units, models, seeds, strict=True):
            yield self.fit(
                unit, model, *data, seed=seed, clean_threshold=clean_threshold, **options
            )

    def _watch(self, units: Sequence[str]) -> Watch | None:
        """Tells the bar of every step, and the bar and the log of every evaluation of a unit."""
        if self.bar is None:
            return None

        def watch(event: str, facts: Mapping[str, float]) -> None:
            if event == "step":
                self.bar.steps(int(facts["steps"]))
                return
            if self.log is not None:
                self.log.add(units[int(facts.get("member", 0))], facts, self.flagged)
            self.bar.show(
                clean=facts["clean_loss"],
                non_nc=facts["non_nc_loss"],
                nc=facts["nc_loss"],
                flagged=self.flagged,
                val=facts["val_accuracy"],
            )

        return watch

    def kept(self, unit: str, model: nn.Module, steps: int) -> list[FitResult] | None:
        """Histories of a unit that finished before; the model is brought to where it was."""
        found = None if self.folder is None else self.folder.load_model(unit, model)
        if found is not None and self.bar is not None:
            self.bar.steps(steps)
        return found

    def keep(self, unit: str, model: nn.Module, fits: list[FitResult]) -> None:
        """Keep a finished unit, if the run has a folder."""
        if self.folder is not None:
            self.folder.save_model(unit, model, fits)


def pretrain_members(
    setting: Setting, count: int, *, examples: Examples | None = None, name: str = "pretrain"
) -> list[nn.Module]:
    """The first predictor: models trained on the clean set, or on all given labels.

    Those that have finished are read; the others are trained, see `Setting.fit_members`.

    Args:
        setting: of the run.
        count: how many.
        examples: what to train on instead.
        name: what the models are kept as, with their number.

    Returns:
        The models, each at its best validated step.
    """
    phase = setting.config.pretrain
    units = [f"{name}-model-{member}" for member in range(count)]
    models = [setting.new_model(0, member) for member in range(count)]
    rest = [m for m in range(count) if setting.kept(units[m], models[m], phase.steps) is None]
    if not rest:
        return models
    if examples is None:
        examples = setting.clean + setting.as_given if setting.selects_clean else setting.clean
    fits = setting.fit_members(
        [units[member] for member in rest],
        [models[member] for member in rest],
        examples,
        phase,
        setting.dataset.validation,
        seeds=[setting.seed_of(0, member, 1) for member in rest],
        published_behaviour=setting.published & Published.EVAL_MODE_PRETRAINING,
    )
    for member, fitted in zip(rest, fits, strict=True):
        setting.keep(units[member], models[member], [fitted])
    return models


def train_members(
    setting: Setting,
    examples: Examples,
    round_index: int,
    *,
    weights: tuple[float, float, float] | None = None,
    mixup_alpha: float | None = None,
) -> list[tuple[nn.Module, FitResult]]:
    """The models of a round: all trained on everything, then each fine-tuned on the clean set.

    Those that have finished a phase are read; the others are trained, see `Setting.fit_members`.

    Args:
        setting: of the run; its configuration says how many models, and how they learn.
        examples: what to train on before fine-tuning.
        round_index: decides the seeds, with the number of the model.
        weights: of the three losses; None takes the configuration's.
        mixup_alpha: None takes the configuration's.

    Returns:
        Every model at its best validated step, and what happened before fine-tuning.
    """
    config = setting.config
    count = range(config.ensemble)
    trained, tuned = (
        [f"round-{round_index}-model-{member}-{phase}" for member in count]
        for phase in ("train", "finetune")
    )
    models = [setting.new_model(round_index, member) for member in count]
    both = config.train.steps + config.finetune.steps
    fits = [setting.kept(tuned[member], models[member], both) for member in count]
    to_tune = [member for member in count if fits[member] is None]
    for member in to_tune:
        fits[member] = setting.kept(trained[member], models[member], config.train.steps)
    to_train = [member for member in count if fits[member] is None]
    done = setting.fit_members(
        [trained[member] for member in to_train],
        [models[member] for member in to_train],
        examples,
        config.train,
        setting.choosing_split,
        seeds=[setting.seed_of(round_index, member, 1) for member in to_train],
        weights=config.weights if weights is None else weights,
        losses=setting.losses,
        mixup_alpha=config.mixup_alpha if mixup_alpha is None else mixup_alpha,
        clean_threshold=config.clean_threshold if examples.given is not None else None,
    )
    for member, fitted in zip(to_train, done, strict=True):
        fits[member] = [fitted]
        setting.keep(trained[member], models[member], fits[member])
    finetuned = _finetune(setting, round_index, to_tune, [tuned[m] for m in to_tune], models)
    for member, fitted in zip(to_tune, finetuned, strict=True):
        if fitted is not None:
            fits[member] = [*fits[member], fitted]
        setting.keep(tuned[member], models[member], fits[member])
        if setting.folder is not None:
            setting.folder.drop_model(trained[member])
    return [(model, of_model[0]) for model, of_model in zip(models, fits, strict=True)]


def _finetune(
    setting: Setting,
    round_index: int,
    members: list[int],
    units: list[str],
    models: list[nn.Module],
) -> Iterator[FitResult | None]:
    """Fine-tune some of the models; None for one that has nothing to learn from."""
    phase = setting.config.finetune
    # Where nothing is verified, each model learns from what it agrees with itself.
    apart = setting.selects_clean and phase.steps > 0
    named = list(zip(members, units, strict=True))
    for group in [[one] for one in named] if apart else [named]:
        chosen = [models[member] for member, _ in group]
        verified = clean_for(setting, chosen[0]) if apart else setting.clean
        if len(verified) == 0:
            yield from [None] * len(group)
            continue
        yield from setting.fit_members(
            [unit for _, unit in group],
            chosen,
            verified,
            phase,
            setting.choosing_split,
            seeds=[setting.seed_of(round_index, member, 2) for member, _ in group],
            keep_initial=True,
            published_behaviour=setting.published & Published.FROZEN_FINETUNING,
        )


def clean_for(setting: Setting, model: nn.Module) -> Examples:
    """What a model is fine-tuned on where nothing is verified: the instances it agrees with."""
    noisy = setting.dataset.noisy
    probs = setting.predict([model], noisy)
    belief = probs[np.arange(len(noisy)), noisy.labels.numpy()]
    rows = np.flatnonzero(belief >= setting.config.clean_threshold)
    return setting.clean + Examples.clean(noisy.take(rows), setting.dataset.num_classes)


def ready_to_learn(
    dataset: NoisyDataset,
    config: GenKLConfig,
    make_model: ModelFactory,
    backbone: Backbone | str | None,
    engine: Engine,
    progress: bool = True,
    needs: Sequence[str] | None = None,
) -> NoisyDataset:
    """The data set with inputs that a network takes: images, or frozen features of them.

    Args:
        dataset, config, make_model, backbone, engine, progress: see `genkl.run_genkl`.
        needs: splits that must not be empty; None for those that a run of GenKL needs.

    Raises:
        ValueError: a split is missing, a backbone's name without a backbone, or images on disk
            without transforms.
    """
    if needs is None:
        needs = (
            ("validation", "test") if config.clean_threshold else ("clean", "validation", "test")
        )
    dataset.require(*needs)
    inputs = dataset.noisy.inputs
    if backbone == "auto":
        photographs = isinstance(inputs, Images) or inputs.dtype == torch.uint8
        frozen = photographs and make_model is default_model and not config.train_transforms
        backbone = EFFICIENTNET_LITE0 if frozen else None
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
        if not engine.is_first:  # what the first process computes, the others find on the disk
            engine.wait()
        changed = featurize(
            dataset, backbone, device=engine.device, progress=progress and engine.is_first
        )
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
