"""How does it all fit together? The GenKL iteration, and the baselines it is held against."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from genkl.backbones import EFFICIENTNET_LITE0, Backbone, featurize
from genkl.checks import check_beta, check_choice, check_positive
from genkl.conformal import threshold_for_budget
from genkl.data import Images, NoisyDataset, Split
from genkl.divergence import uniform_like_vectors
from genkl.evaluate import accuracy
from genkl.identify import entropy_score, flag_above, nc_score
from genkl.losses import PAPER_LOSSES, RowLoss
from genkl.models import ModelFactory, default_model, seeded_model
from genkl.predict import predict_probs
from genkl.published import Published, check_published
from genkl.relabel import (
    PUBLISHED_RELABELLING,
    Relabelled,
    Role,
    relabel_instances,
    reverse_class_ratio,
)
from genkl.train import PUBLISHED_TRAINING, Examples, Phase, fit

PUBLISHED_RUN = PUBLISHED_RELABELLING | PUBLISHED_TRAINING | Published.SELECTION_ON_TEST
"""The switches that `run_genkl` implements: all of them."""

BASELINES = ("given labels", "given labels + fine-tuning", "clean set alone")


@dataclass(frozen=True, kw_only=True)
class GenKLConfig:
    """Every setting of the method. Make variations with `dataclasses.replace`.

    Attributes:
        alpha: threshold on the critical alpha; None chooses it in every round from validation
            scores, see max_flag_rate.
        max_flag_rate: where alpha is None, the share of conforming instances that may be
            flagged (`threshold_for_budget`).
        beta: in [0, 1/k).
        sigma: spread of the uniform-like vectors.
        num_vectors: n, how many of them.
        vector_seed: their seed.
        omega: weights of the clean, non-NC and NC losses, before division by the batch size.
        mixup_alpha: of the three-term training; 0 is off.
        first_ensemble: models pre-trained on the clean set, averaged in round 1 (paper: 5).
        ensemble: models trained per round and averaged for the next (paper: 3).
        max_rounds: at most this many rounds; fewer when validation stops improving.
        pretrain: phase on the clean set.
        train: phase with the three-term loss.
        finetune: phase on the clean set afterwards.

    Raises:
        ValueError: a setting out of range; the message names it and the remedy.
    """

    alpha: float | None = None
    max_flag_rate: float = 0.05
    beta: float = 0.03
    sigma: float = 0.05
    num_vectors: int = 20
    vector_seed: int = 0
    omega: tuple[float, float, float] = (1.0, 32.0, 1.0)
    mixup_alpha: float = 0.5
    first_ensemble: int = 5
    ensemble: int = 3
    max_rounds: int = 3
    pretrain: Phase = Phase(steps=300, learning_rate=0.05)
    train: Phase = Phase(steps=600, learning_rate=0.05)
    finetune: Phase = Phase(steps=100, learning_rate=1e-4, optimizer="adam", schedule="constant")

    def __post_init__(self) -> None:
        if self.alpha is not None:
            check_positive("alpha", self.alpha, "; use None to choose it on validation data")
        if not 0 < self.max_flag_rate < 1:
            raise ValueError(
                f"max_flag_rate is {self.max_flag_rate}; state a share between 0 and 1"
            )
        if not self.beta >= 0:
            raise ValueError(f"beta is {self.beta}; it must be 0 or greater")
        if not self.sigma >= 0:
            raise ValueError(f"sigma is {self.sigma}; it must be 0 or greater")
        if len(self.omega) != 3 or any(w < 0 for w in self.omega) or not any(self.omega):
            raise ValueError(
                f"omega is {self.omega}; pass three weights (clean, non-NC, NC), 0 or greater, "
                "not all 0"
            )
        if self.mixup_alpha < 0:
            raise ValueError(f"mixup_alpha is {self.mixup_alpha}; use 0 to switch mixup off")
        for name in ("num_vectors", "first_ensemble", "ensemble", "max_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def weights(self) -> tuple[float, float, float]:
        r"""Multipliers of the three mean losses, :math:`\omega_i / \text{batch size}`."""
        clean, non_nc, nc = (w / self.train.batch_size for w in self.omega)
        return clean, non_nc, nc


@dataclass(frozen=True)
class Decision:
    """Scores of the noisy instances, shape (N,), and the threshold they are flagged at."""

    scores: np.ndarray
    threshold: float

    @property
    def is_nc(self) -> np.ndarray:
        """Boolean mask, shape (N,)."""
        return flag_above(self.scores, self.threshold)


IdentifyRule = Callable[[np.ndarray, np.ndarray], Decision]
"""``(pred_probs of the noisy split, pred_probs of the validation split) -> Decision``."""


def divergence_rule(config: GenKLConfig) -> IdentifyRule:
    """NC identification by the generalized KL divergence, as the configuration says.

    The score is the critical alpha; the threshold is ``config.alpha`` or, where that is None, the
    lowest one within the flag budget on validation predictions.
    """

    def rule(pred_probs: np.ndarray, validation_probs: np.ndarray) -> Decision:
        vectors = uniform_like_vectors(
            pred_probs.shape[1], config.num_vectors, config.sigma, config.vector_seed
        )
        threshold = config.alpha
        if threshold is None:
            conforming = nc_score(validation_probs, config.beta, vectors)
            threshold = threshold_for_budget(conforming, config.max_flag_rate)
        return Decision(nc_score(pred_probs, config.beta, vectors), threshold)

    return rule


def entropy_rule(max_flag_rate: float, threshold: float | None = None) -> IdentifyRule:
    """NC identification by normalised entropy, the paper's foil.

    Args:
        max_flag_rate: flag budget on validation predictions.
        threshold: a fixed threshold on the normalised entropy instead.
    """

    def rule(pred_probs: np.ndarray, validation_probs: np.ndarray) -> Decision:
        chosen = threshold
        if chosen is None:
            chosen = threshold_for_budget(entropy_score(validation_probs), max_flag_rate)
        return Decision(entropy_score(pred_probs), chosen)

    return rule


def flag_nothing(pred_probs: np.ndarray, validation_probs: np.ndarray) -> Decision:
    """The ablation without an NC stage: every noisy instance gets its double-hot target."""
    return Decision(np.zeros(len(pred_probs)), math.inf)


@dataclass(frozen=True)
class Round:
    """What one round did. Accuracies are means over the round's models.

    Attributes:
        index: 1 for the first round.
        predictor_val_accuracy: of the averaged prediction that this round relabelled with.
        threshold: score at or above which instances were flagged.
        flagged: share of the noisy split that was.
        role_counts: instances per role, clean set included.
        val_accuracy: chooses the round.
        test_accuracy: reported only.
        ensemble_val_accuracy: of the models' averaged prediction.
        ensemble_test_accuracy: the same on the test split.
        best_steps: the step each model was kept at.
        role_losses: last recorded mean training loss of each role, over models.
        seconds: wall-clock time of the round.
        pred_probs: the averaged prediction on the noisy split, shape (N, k); not saved.
        scores: the rule's scores, shape (N,); not saved.
        is_nc: the mask, shape (N,); not saved.
        history: of the first model's training phase, see `FitResult`; not saved.
    """

    index: int
    predictor_val_accuracy: float
    threshold: float
    flagged: float
    role_counts: dict[str, int]
    val_accuracy: float
    test_accuracy: float
    ensemble_val_accuracy: float
    ensemble_test_accuracy: float
    best_steps: tuple[int, ...]
    role_losses: dict[str, float]
    seconds: float
    pred_probs: np.ndarray | None = field(default=None, repr=False)
    scores: np.ndarray | None = field(default=None, repr=False)
    is_nc: np.ndarray | None = field(default=None, repr=False)
    history: list[dict[str, float]] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Run:
    """One method, one data set, one seed.

    Attributes:
        method: its name in tables and figures.
        dataset: name of the data set.
        seed: of everything random in training (the data's own seed is its loader's).
        config: the settings.
        clean_labels: how many verified training labels it used.
        rounds: every round, in order; a baseline has one.
        models: the models of the chosen round; not saved.
        published_behaviour: what it did as the published scripts do.
        features: name of the frozen backbone whose features it learned from; None for inputs as
            the data set has them.
    """

    method: str
    dataset: str
    seed: int
    config: GenKLConfig
    clean_labels: int
    rounds: tuple[Round, ...]
    models: tuple[nn.Module, ...] = field(default=(), repr=False)
    published_behaviour: Published = Published.NONE
    features: str | None = None

    @property
    def best(self) -> Round:
        """The round with the highest validation accuracy (the earlier one on a tie)."""
        return max(
            self.rounds, key=lambda r: (_choosing_accuracy(r, self.published_behaviour), -r.index)
        )


@dataclass(frozen=True)
class _Setting:
    """What stays the same within a run."""

    dataset: NoisyDataset
    config: GenKLConfig
    seed: int
    make_model: ModelFactory
    losses: Mapping[Role, RowLoss]
    device: str | torch.device
    published: Published = Published.NONE

    def seed_of(self, round_index: int, member: int, phase: int) -> int:
        """An own seed for every model and phase, the same on every machine."""
        sequence = np.random.SeedSequence([self.seed, round_index, member, phase])
        return int(sequence.generate_state(1)[0])

    def new_model(self, round_index: int, member: int) -> nn.Module:
        return seeded_model(
            self.make_model,
            self.dataset.input_shape,
            self.dataset.num_classes,
            self.seed_of(round_index, member, 0),
        )

    @property
    def clean(self) -> Examples:
        return Examples.clean(self.dataset.clean, self.dataset.num_classes)

    @property
    def choosing_split(self) -> Split:
        """The split whose accuracy chooses the step: validation, unless a switch says test."""
        on_test = Published.SELECTION_ON_TEST in self.published
        return self.dataset.test if on_test else self.dataset.validation


def pretrain_models(
    dataset: NoisyDataset,
    config: GenKLConfig,
    *,
    seed: int = 0,
    make_model: ModelFactory = default_model,
    backbone: Backbone | str | None = "auto",
    published_behaviour: Published = Published.NONE,
    device: str | torch.device = "auto",
) -> list[nn.Module]:
    """The first predictor: ``config.first_ensemble`` models trained on the clean set alone.

    Args:
        dataset: its clean split is learned from, its validation split chooses the step.
        config: ``first_ensemble`` and ``pretrain`` are used.
        seed: decides weights and batch order of every model.
        make_model: builds a network.
        backbone: see `run_genkl`.
        published_behaviour: may hold `Published.EVAL_MODE_PRETRAINING`.
        device: "auto", "cpu", "cuda", ...

    Returns:
        The models, each at its best validated step.

    Raises:
        ValueError: published behaviour that has nothing to do with pre-training.
    """
    check_published("pretrain_models", published_behaviour, Published.EVAL_MODE_PRETRAINING)
    dataset = _ready_to_learn(dataset, make_model, backbone, device)
    setting = _Setting(dataset, config, seed, make_model, PAPER_LOSSES, device, published_behaviour)
    return [_pretrain(setting, member) for member in range(config.first_ensemble)]


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
    device: str | torch.device = "auto",
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
        device: "auto", "cpu", "cuda", ...
        progress: show a bar over the models to be trained.

    Returns:
        A record of every round; the best one by validation is ``run.best``.

    Raises:
        ValueError: beta outside [0, 1/k), an empty split, an empty class in the clean set.
        FloatingPointError: training diverged.

    Source: the framework of arXiv 2307.09810, section :doc:`/book/equations` of the book.
    """
    check_beta(config.beta, dataset.num_classes)
    check_published("run_genkl", published_behaviour, PUBLISHED_RUN)
    if asked := published_behaviour & PUBLISHED_RELABELLING:
        relabel = partial(relabel, published_behaviour=asked)
    rule = identify or divergence_rule(config)
    dataset.require("clean", "validation", "test")
    class_ratio = _clean_class_ratio(dataset)
    dataset = _ready_to_learn(dataset, make_model, backbone, device, progress)
    setting = _Setting(dataset, config, seed, make_model, losses, device, published_behaviour)
    to_pretrain = 0 if predictor else config.first_ensemble
    total = to_pretrain + config.max_rounds * config.ensemble
    rounds: list[Round] = []
    with tqdm(
        total=total, desc=f"{method}, seed {seed}", unit="model", disable=not progress
    ) as bar:
        models = list(predictor)
        for member in range(to_pretrain):
            models.append(_pretrain(setting, member))
            bar.update()
        best_models: tuple[nn.Module, ...] = ()
        for index in range(1, config.max_rounds + 1):
            start = time.perf_counter()
            pred_probs = predict_probs(models, dataset.noisy.inputs)
            validation_probs = predict_probs(models, dataset.validation.inputs)
            decision = rule(pred_probs, validation_probs)
            if rule is not flag_nothing:
                _warn_if_one_sided(decision, index)
            examples = setting.clean + Examples.of(
                dataset.noisy.inputs,
                relabel(pred_probs, dataset.noisy.labels.numpy(), decision.is_nc, class_ratio),
            )
            models, fits = [], []
            for member in range(config.ensemble):
                model, fitted = _train_and_finetune(setting, examples, index, member)
                models.append(model)
                fits.append(fitted)
                bar.update()
            this = _round(
                index,
                dataset,
                models,
                fits,
                examples,
                predictor_val_accuracy=accuracy(validation_probs, dataset.validation.labels),
                decision=decision,
                pred_probs=pred_probs,
                seconds=time.perf_counter() - start,
            )
            rounds.append(this)
            bar.set_postfix(round=index, flagged=f"{this.flagged:.1%}", val=this.val_accuracy)
            reached = [_choosing_accuracy(one, published_behaviour) for one in rounds]
            if all(reached[-1] > earlier for earlier in reached[:-1]):
                best_models = tuple(models)
            elif stop_early:
                break
    return Run(
        method,
        dataset.name,
        seed,
        config,
        len(dataset.clean),
        tuple(rounds),
        best_models,
        published_behaviour,
        dataset.features,
    )


def run_baseline(
    dataset: NoisyDataset,
    config: GenKLConfig,
    method: str = "given labels",
    *,
    seed: int = 0,
    make_model: ModelFactory = default_model,
    backbone: Backbone | str | None = "auto",
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Run:
    """Train with plain cross-entropy, for comparison, in as many steps as a GenKL round.

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
        device: "auto", "cpu", "cuda", ...
        progress: show a bar over the models.

    Returns:
        A record with a single round.

    Raises:
        ValueError: unknown method; the message lists the known ones.
    """
    check_choice("baseline", method, BASELINES)
    dataset = _ready_to_learn(dataset, make_model, backbone, device, progress)
    start = time.perf_counter()
    if not method.endswith("fine-tuning"):
        config = replace(config, finetune=replace(config.finetune, steps=0))
    setting = _Setting(dataset, config, seed, make_model, PAPER_LOSSES, device)
    examples = setting.clean
    if method != "clean set alone":
        examples = examples + Examples.clean(dataset.noisy, dataset.num_classes)
    models, fits = [], []
    for member in tqdm(
        range(config.ensemble), desc=f"{method}, seed {seed}", unit="model", disable=not progress
    ):
        model, fitted = _train_and_finetune(
            setting, examples, 0, member, weights=(1.0, 1.0, 1.0), mixup_alpha=0.0
        )
        models.append(model)
        fits.append(fitted)
    only = _round(1, dataset, models, fits, examples, seconds=time.perf_counter() - start)
    return Run(
        method,
        dataset.name,
        seed,
        config,
        len(dataset.clean),
        (only,),
        tuple(models),
        features=dataset.features,
    )


def _ready_to_learn(
    dataset: NoisyDataset,
    make_model: ModelFactory,
    backbone: Backbone | str | None,
    device: str | torch.device,
    progress: bool = True,
) -> NoisyDataset:
    """The data set with inputs that a network takes: frozen features of photographs."""
    dataset.require("clean", "validation", "test")
    if backbone == "auto":
        inputs = dataset.noisy.inputs
        photographs = isinstance(inputs, Images) or inputs.dtype == torch.uint8
        backbone = EFFICIENTNET_LITE0 if photographs and make_model is default_model else None
    if isinstance(backbone, str):
        raise ValueError(
            f"backbone is {backbone!r}; pass 'auto', None, or get_backbone({backbone!r})"
        )
    if backbone is None:
        return dataset
    return featurize(dataset, backbone, device=device, progress=progress)


def _pretrain(setting: _Setting, member: int) -> nn.Module:
    model = setting.new_model(0, member)
    fit(
        model,
        setting.clean,
        setting.config.pretrain,
        setting.dataset.validation,
        seed=setting.seed_of(0, member, 1),
        published_behaviour=setting.published & Published.EVAL_MODE_PRETRAINING,
        device=setting.device,
    )
    return model


def _train_and_finetune(
    setting: _Setting,
    examples: Examples,
    round_index: int,
    member: int,
    *,
    weights: tuple[float, float, float] | None = None,
    mixup_alpha: float | None = None,
):
    config, choosing = setting.config, setting.choosing_split
    model = setting.new_model(round_index, member)
    fitted = fit(
        model,
        examples,
        config.train,
        choosing,
        seed=setting.seed_of(round_index, member, 1),
        weights=config.weights if weights is None else weights,
        losses=setting.losses,
        mixup_alpha=config.mixup_alpha if mixup_alpha is None else mixup_alpha,
        device=setting.device,
    )
    fit(
        model,
        setting.clean,
        config.finetune,
        choosing,
        seed=setting.seed_of(round_index, member, 2),
        keep_initial=True,
        published_behaviour=setting.published & Published.FROZEN_FINETUNING,
        device=setting.device,
    )
    return model, fitted


def _round(
    index: int,
    dataset: NoisyDataset,
    models: list[nn.Module],
    fits: list,
    examples: Examples,
    *,
    seconds: float,
    predictor_val_accuracy: float = math.nan,
    decision: Decision | None = None,
    pred_probs: np.ndarray | None = None,
) -> Round:
    val, ensemble_val = _accuracies(models, dataset.validation)
    test, ensemble_test = _accuracies(models, dataset.test)
    counts = np.bincount(examples.roles.numpy(), minlength=len(Role))
    return Round(
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


def _choosing_accuracy(one: Round, published: Published) -> float:
    """The accuracy that chooses among rounds: validation, unless a switch says test."""
    return one.test_accuracy if Published.SELECTION_ON_TEST in published else one.val_accuracy


def _accuracies(models: list[nn.Module], split: Split) -> tuple[float, float]:
    """Mean accuracy of the models, and accuracy of their averaged prediction."""
    labels = split.labels.numpy()
    each = [predict_probs([model], split.inputs) for model in models]
    return (
        float(np.mean([accuracy(probs, labels) for probs in each])),
        accuracy(np.mean(each, axis=0), labels),
    )


def _clean_class_ratio(dataset: NoisyDataset) -> np.ndarray:
    labels = dataset.clean.labels.numpy()
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
