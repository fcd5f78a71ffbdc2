"""How does a model learn? One loop for pre-training, three-term training and fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkl.checks import check_choice, check_positive
from genkl.data import Split
from genkl.losses import PAPER_LOSSES, RowLoss, mixup, three_term_loss
from genkl.models import pick_device
from genkl.predict import predict_logits
from genkl.published import Published, check_published
from genkl.relabel import Relabelled, Role, verified

PUBLISHED_TRAINING = Published.FROZEN_FINETUNING | Published.EVAL_MODE_PRETRAINING
"""The switches that `fit` implements, for the phase that it is called for."""

OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "cosine", "plateau")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Settings of one training phase. Training is counted in steps, whatever the data's size.

    Attributes:
        steps: optimiser steps; 0 skips the phase.
        learning_rate: of the optimiser.
        optimizer: "sgd" (momentum 0.9, Nesterov) or "adam".
        weight_decay: L2 penalty.
        schedule: "constant", "cosine" to 0 over the steps, or "plateau" (a tenth of the rate
            after 3 evaluations without a lower validation loss).
        batch_size: rows per step.
        eval_every: steps between evaluations on the validation split.

    Raises:
        ValueError: a number out of range or an unknown optimiser or schedule.
    """

    steps: int
    learning_rate: float
    optimizer: str = "sgd"
    weight_decay: float = 1e-3
    schedule: str = "cosine"
    batch_size: int = 64
    eval_every: int = 25

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}; use 0 to skip a phase")
        for name in ("learning_rate", "batch_size", "eval_every"):
            check_positive(name, getattr(self, name))
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be 0 or greater")
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)


@dataclass(frozen=True)
class Examples:
    """N inputs (N, ...), their targets (N, k) and roles (N,).

    The part of each target that mixup leaves with its row, (N, k), is None where it leaves none;
    see `Relabelled`.
    """

    inputs: Tensor
    targets: Tensor
    roles: Tensor
    kept_part: Tensor | None = None

    @staticmethod
    def of(inputs: Tensor, relabelled: Relabelled) -> Examples:
        """Inputs with the targets and roles that relabelling gave them."""
        kept_part = relabelled.kept_part
        return Examples(
            inputs,
            torch.as_tensor(relabelled.targets).float(),
            torch.as_tensor(relabelled.roles).long(),
            None if kept_part is None else torch.as_tensor(kept_part).float(),
        )

    @staticmethod
    def clean(split: Split, num_classes: int) -> Examples:
        """A split whose labels are trusted: one-hot targets, role CLEAN."""
        return Examples.of(split.inputs, verified(split.labels, num_classes))

    def __add__(self, other: Examples) -> Examples:
        parts = None
        if self.kept_part is not None or other.kept_part is not None:
            parts = torch.cat(
                [
                    torch.zeros_like(one.targets) if one.kept_part is None else one.kept_part
                    for one in (self, other)
                ]
            )
        return Examples(
            torch.cat([self.inputs, other.inputs]),
            torch.cat([self.targets, other.targets]),
            torch.cat([self.roles, other.roles]),
            parts,
        )

    def __len__(self) -> int:
        return len(self.roles)


@dataclass(frozen=True)
class FitResult:
    """What happened in `fit`.

    Attributes:
        best_step: the step whose weights the model holds now; 0 is the state it came with.
        val_accuracy: validation accuracy at that step.
        val_loss: validation cross-entropy at that step, in nats.
        history: one entry per evaluation: step, val_accuracy, val_loss, and the mean training
            loss of each role since the last evaluation (NaN for a role with no rows).
    """

    best_step: int
    val_accuracy: float
    val_loss: float
    history: list[dict[str, float]] = field(repr=False)


def fit(
    model: nn.Module,
    examples: Examples,
    phase: Phase,
    validation: Split,
    *,
    seed: int,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    losses: Mapping[Role, RowLoss] = PAPER_LOSSES,
    mixup_alpha: float = 0.0,
    keep_initial: bool = False,
    published_behaviour: Published = Published.NONE,
    device: str | torch.device = "auto",
) -> FitResult:
    """Train a model in place and leave it at its best validated step.

    Batches mix all roles; one forward pass serves the three losses. Every ``eval_every`` steps
    (and at the end) the model is evaluated on the validation split, and the weights with the
    highest validation accuracy (ties: lowest validation loss) are kept.

    Args:
        model: trained in place; moved to the device.
        examples: what to learn from.
        phase: steps, optimiser, schedule, batch size.
        validation: verified labels; chooses the step, never trained on.
        seed: decides the order of the batches and the mixing.
        weights: multipliers of the three mean losses, see `three_term_loss`.
        losses: row loss of each role.
        mixup_alpha: see `mixup`.
        keep_initial: let the state the model came with compete, so that the phase cannot lower
            the validation accuracy (used for fine-tuning).
        published_behaviour: of `PUBLISHED_TRAINING`, what this phase does as the published
            scripts do: run at the learning rate 0, or stay in evaluation mode from the first
            evaluation on.
        device: "auto", "cpu", "cuda", ...

    Returns:
        Best step, validation figures, history.

    Raises:
        ValueError: no examples, or published behaviour that has nothing to do with training.
        FloatingPointError: the loss is not finite; names the step and the remedy.
    """
    check_published("fit", published_behaviour, PUBLISHED_TRAINING)
    if len(examples) == 0:
        raise ValueError("examples is empty; there is nothing to train on")
    device = pick_device(device)
    model.to(device)
    best = _Best(model, validation)
    if keep_initial or phase.steps == 0:
        best.consider(0)
    if phase.steps == 0:
        return FitResult(0, best.accuracy, best.loss, [])

    inputs, targets = examples.inputs.to(device), examples.targets.to(device)
    roles = examples.roles.to(device)
    kept_part = None if examples.kept_part is None else examples.kept_part.to(device)
    roles_on_host = examples.roles.cpu().numpy()
    optimizer = _optimizer(model, phase)
    if Published.FROZEN_FINETUNING in published_behaviour:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    scheduler = _scheduler(optimizer, phase)
    rng = np.random.default_rng(seed)
    history: list[dict[str, float]] = []
    meter = _RoleMeter(device)
    model.train()
    batches = _endless_batches(len(examples), phase.batch_size, rng)
    for step in range(1, phase.steps + 1):
        rows = next(batches)
        mixing = mixup(roles_on_host[rows], mixup_alpha, rng)
        index = torch.from_numpy(rows).to(device)
        batch = inputs[index]
        if mixing is not None:
            mixing = mixing.to(device)
            batch = mixing.blend(batch)
        loss, role_losses = three_term_loss(
            model(batch),
            targets[index],
            roles[index],
            weights,
            losses=losses,
            mixing=mixing,
            kept_part=None if kept_part is None else kept_part[index],
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        meter.add(role_losses, roles[index])
        if phase.schedule == "cosine":
            scheduler.step()
        if step % phase.eval_every == 0 or step == phase.steps:
            means = meter.read_and_reset()
            if not all(np.isfinite(value) or role_is_empty for value, role_is_empty in means):
                raise FloatingPointError(
                    f"the training loss is not finite at step {step}; lower learning_rate "
                    f"(now {phase.learning_rate:g}) or check the inputs for NaN"
                )
            val_accuracy, val_loss = best.consider(step)
            if Published.EVAL_MODE_PRETRAINING in published_behaviour:
                model.eval()
            if phase.schedule == "plateau":
                scheduler.step(val_loss)
            history.append(
                {
                    "step": step,
                    "val_accuracy": val_accuracy,
                    "val_loss": val_loss,
                    **{
                        f"{role.name.lower()}_loss": float("nan") if empty else value
                        for role, (value, empty) in zip(Role, means, strict=True)
                    },
                }
            )
    best.restore()
    return FitResult(best.step, best.accuracy, best.loss, history)


class _Best:
    """The best weights seen so far, by validation accuracy, then loss."""

    def __init__(self, model: nn.Module, validation: Split) -> None:
        self.model, self.validation = model, validation
        self.step, self.accuracy, self.loss = 0, -1.0, float("inf")
        self.weights: dict[str, Tensor] | None = None

    def consider(self, step: int) -> tuple[float, float]:
        logits = predict_logits(self.model, self.validation.inputs)
        accuracy = float((logits.argmax(dim=1) == self.validation.labels).double().mean())
        loss = float(F.cross_entropy(logits.double(), self.validation.labels))
        if (accuracy, -loss) > (self.accuracy, -self.loss):
            self.step, self.accuracy, self.loss = step, accuracy, loss
            self.weights = copy.deepcopy(self.model.state_dict())
        return accuracy, loss

    def restore(self) -> None:
        if self.weights is not None:
            self.model.load_state_dict(self.weights)


class _RoleMeter:
    """Running means of the role losses, kept on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, device=device, dtype=torch.float64)
        self.rows = torch.zeros(3, device=device, dtype=torch.float64)

    def add(self, means: Tensor, roles: Tensor) -> None:
        counts = torch.bincount(roles, minlength=3)
        self.sums += means.double() * counts
        self.rows += counts

    def read_and_reset(self) -> list[tuple[float, bool]]:
        """(mean loss, whether the role had no row) of each role."""
        rows = self.rows.cpu()
        means = (self.sums.cpu() / rows.clamp(min=1)).tolist()
        self.sums, self.rows = torch.zeros_like(self.sums), torch.zeros_like(self.rows)
        return [(mean, count == 0) for mean, count in zip(means, rows.tolist(), strict=True)]


def _endless_batches(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Shuffled batches of one size, epoch after epoch; an epoch's incomplete rest is skipped."""
    size = min(batch_size, count)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _optimizer(model: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if phase.optimizer == "adam":
        return torch.optim.Adam(parameters, phase.learning_rate, weight_decay=phase.weight_decay)
    return torch.optim.SGD(
        parameters,
        phase.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=phase.weight_decay,
    )


def _scheduler(optimizer: torch.optim.Optimizer, phase: Phase):
    if phase.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, phase.steps)
    if phase.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3, factor=0.1)
    return None
