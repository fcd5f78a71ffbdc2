"""Phases: steps, batch size, optimiser and learning rate of one phase of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from genkl.checks import check_choice, check_positive, check_whole

OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "cosine", "plateau")
PLATEAU_FACTOR = 0.1


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Settings of one training phase. Training is counted in steps, whatever the data's size.

    Attributes:
        steps: optimiser steps; 0 skips the phase.
        learning_rate: of the optimiser.
        optimizer: "sgd" or "adam".
        weight_decay: L2 penalty.
        schedule: "constant", "cosine" to 0 over the steps, or "plateau" (a tenth of the rate
            after ``patience`` evaluations without a lower validation loss).
        batch_size: rows per step; over all processes, where there are several.
        eval_every: steps between evaluations on the validation split.
        momentum: of SGD.
        nesterov: whether SGD's momentum is Nesterov's.
        patience: of "plateau", in evaluations.
        clean_batch_size: None draws batches from all examples alike. A number adds so many clean
            rows to each batch of ``batch_size`` others, however few there are in the data, as the
            paper's scripts do.

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
    momentum: float = 0.9
    nesterov: bool = True
    patience: int = 3
    clean_batch_size: int | None = None

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, 0, "; use 0 to skip a phase")
        check_positive("learning_rate", self.learning_rate)
        for name, least in (("batch_size", 1), ("eval_every", 1), ("patience", 0)):
            check_whole(name, getattr(self, name), least)
        for name in ("weight_decay", "momentum"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or greater")
        if self.clean_batch_size is not None:
            remedy = "; use None for mixed batches"
            check_whole("clean_batch_size", self.clean_batch_size, 1, remedy)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)


def make_optimizer(model: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimiser over the parameters that learn."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if phase.optimizer == "adam":
        return torch.optim.Adam(parameters, phase.learning_rate, weight_decay=phase.weight_decay)
    return torch.optim.SGD(
        parameters,
        phase.learning_rate,
        momentum=phase.momentum,
        nesterov=phase.nesterov and phase.momentum > 0,
        weight_decay=phase.weight_decay,
    )


class Schedule:
    """The learning rate over a phase: told of every step and every evaluation."""

    def __init__(self, optimizer: torch.optim.Optimizer, phase: Phase) -> None:
        self.name = phase.schedule
        self.scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
        if phase.schedule == "cosine":
            self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, phase.steps)
        elif phase.schedule == "plateau":
            self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, patience=phase.patience, factor=PLATEAU_FACTOR
            )

    def after_step(self) -> None:
        """A step was taken."""
        if self.name == "cosine":
            self.scheduler.step()

    def after_evaluation(self, val_loss: float) -> None:
        """The validation loss is known."""
        if self.name == "plateau":
            self.scheduler.step(val_loss)

    def state(self) -> dict:
        """Plain values to go on from."""
        return {} if self.scheduler is None else self.scheduler.state_dict()

    def restore(self, state: dict) -> None:
        """Go on from `state`."""
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state)
