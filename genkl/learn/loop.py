"""How does a model learn? One loop for pre-training, three-term training and fine-tuning."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkl.checks import check_choice
from genkl.data import Split
from genkl.data.loading import Transform
from genkl.engine import Engine, as_engine
from genkl.learn.batches import BatchInputs, Draw, draw_batches, on_device
from genkl.learn.checkpoint import (
    Checkpoint,
    pack_optimizer,
    prefixed,
    unpack_optimizer,
    unprefixed,
)
from genkl.learn.examples import Examples, has_large_images
from genkl.learn.phase import Phase, Schedule, make_optimizer
from genkl.losses import PAPER_LOSSES, Mixing, RowLoss, mixup, three_term_loss
from genkl.predict import predict_logits
from genkl.published import Published, check_published
from genkl.relabel import Role

PUBLISHED_TRAINING = Published.FROZEN_FINETUNING | Published.EVAL_MODE_PRETRAINING
"""The switches that `fit` implements, for the phase that it is called for."""

Watch = Callable[[str, Mapping[str, float]], None]
"""Told ("step", {"steps": number of them}) and ("evaluation", an entry of the history)."""


@dataclass(frozen=True)
class FitResult:
    """What happened in `fit`.

    Attributes:
        best_step: the step whose weights the model holds now; 0 is the state it came with.
        val_accuracy: validation accuracy at that step.
        val_loss: validation cross-entropy at that step, in nats.
        history: one entry per evaluation: step, val_accuracy, val_loss, learning_rate, and the
            mean training loss of each role since the last evaluation (NaN for a role with no
            rows).
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
    clean_threshold: float | None = None,
    train_transform: Transform | None = None,
    test_transform: Transform | None = None,
    published_behaviour: Published = Published.NONE,
    engine: Engine | str = "auto",
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
) -> FitResult:
    """Train a model in place and leave it at its best validated step.

    Batches mix all roles; one forward pass serves the three losses. Every ``eval_every`` steps
    (and at the end) the model is evaluated on the validation split, and the weights with the
    highest validation accuracy (ties: lowest validation loss) are kept.

    Several processes divide each batch: every one computes its rows' part of the means over the
    whole batch, so the loss doesn't depend on how many there are. (Batch normalisation on CPUs
    does: it takes its statistics over the rows of each process.)

    Args:
        model: trained in place; moved to the engine's device.
        examples: what to learn from.
        phase: steps, optimiser, schedule, batch size.
        validation: verified labels; chooses the step, never trained on.
        seed: decides the order of the batches, the mixing and dropout.
        weights: multipliers of the three mean losses, see `three_term_loss`.
        losses: row loss of each role.
        mixup_alpha: see `mixup`.
        keep_initial: let the state the model came with compete, so that the phase cannot lower
            the validation accuracy (used for fine-tuning).
        clean_threshold: where there is no verified set, the probability of its given label from
            which on an instance counts as clean in a step (``examples.given`` are the labels).
        train_transform: of one image on disk; its randomness must come from torch's generator.
        test_transform: the same for evaluation, without randomness.
        published_behaviour: of `PUBLISHED_TRAINING`, what this phase does as the published
            scripts do: run at the learning rate 0, or stay in evaluation mode from the first
            evaluation on.
        engine: device, processes, precision; a device's name stands for one.
        checkpoint: where to keep the state, and go on from if there is one; None keeps nothing.
        watch: told of every step and evaluation.

    Returns:
        Best step, validation figures, history.

    Raises:
        ValueError: no examples, a batch smaller than the number of processes, a checkpoint of
            other settings, or published behaviour that has nothing to do with training.
        FloatingPointError: the loss is not finite; names the step and the remedy.
        OSError: the checkpoint can't be written; the last good one stays.
    """
    check_published("fit", published_behaviour, PUBLISHED_TRAINING)
    engine = as_engine(engine)
    _check(examples, phase, validation, clean_threshold, engine)
    engine.place(model, large_images=has_large_images(examples.inputs))
    best = _Best(model, validation, test_transform, engine)
    if phase.steps == 0:
        best.consider(0)
        return FitResult(0, best.accuracy, best.loss, [])
    with engine.randomness(seed):
        state = _State(model, phase, best, engine, published_behaviour, checkpoint)
        start = state.restore()
        if watch is not None and start:  # whoever keeps a log has forgotten what did not finish
            watch("step", {"steps": start})
            for entry in state.history:
                watch("evaluation", entry)
        if keep_initial and start == 0:
            best.consider(0)
        roles = examples.roles.numpy()
        order = (roles, phase, seed)
        learner = _Learner(
            *engine.prepare(model, state.optimizer),
            examples,
            BatchInputs(
                examples,
                draw_batches(*order, mixup_alpha=mixup_alpha, start=start),
                engine,
                transform=train_transform,
                seed=seed,
                start=start,
            ),
            engine,
            weights=weights,
            losses=losses,
            mixup_alpha=mixup_alpha,
            clean_threshold=clean_threshold,
            seed=seed,
        )
        state.set_mode()
        draws = draw_batches(*order, mixup_alpha=mixup_alpha, start=start)
        for step in range(start + 1, phase.steps + 1):
            means, counts = learner.step(step, next(draws))
            state.after_step(step, means, counts)
            if watch is not None:
                watch("step", {"steps": 1})
            if step % phase.eval_every == 0 or step == phase.steps:
                entry = state.evaluate(step)
                if watch is not None:
                    watch("evaluation", entry)
            if checkpoint is not None and step % checkpoint.every == 0:
                state.save()
    best.restore()
    return FitResult(best.step, best.accuracy, best.loss, state.history)


class _Learner:
    """One step: inputs, a forward pass for all roles, the loss, the gradient, the update."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        examples: Examples,
        inputs: BatchInputs,
        engine: Engine,
        *,
        weights: tuple[float, float, float],
        losses: Mapping[Role, RowLoss],
        mixup_alpha: float,
        clean_threshold: float | None,
        seed: int,
    ) -> None:
        self.model, self.optimizer, self.inputs, self.engine = model, optimizer, inputs, engine
        self.weights, self.losses, self.mixup_alpha = weights, losses, mixup_alpha
        self.clean_threshold, self.seed = clean_threshold, seed
        self.targets = on_device(examples.targets, engine)
        self.roles = on_device(examples.roles, engine)
        self.kept_part = on_device(examples.kept_part, engine)
        self.given = on_device(examples.given, engine)
        self.last_layout = (
            torch.channels_last if _is_channels_last(model) else torch.contiguous_format
        )

    def step(self, step: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Learn from one batch; this process's part of the role losses (3,), and their rows."""
        engine = self.engine
        index = engine.to_device(draw.rows)
        targets, roles = self.targets[index], self.roles[index]
        mixing = None if draw.mixing is None else draw.mixing.to(engine.device)
        own = None
        if self.clean_threshold is not None:
            own = self.inputs.unmixed(draw.rows)
            targets, roles = self._believe(own, targets, roles, self.given[index])
            mixing = self._mix_anew(step, roles)
        batch = self.inputs.mixed(draw.rows, mixing, own)
        if batch.ndim == 4:
            batch = batch.contiguous(memory_format=self.last_layout)
        loss, means = three_term_loss(
            self.model(batch).float(),
            targets,
            roles,
            self.weights,
            losses=self.losses,
            mixing=mixing,
            kept_part=None if self.kept_part is None else self.kept_part[index],
            own=engine.own(len(draw.rows)) if engine.world_size > 1 else None,
        )
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over processes, and each has only its part of every mean.
        engine.fabric.backward(loss * engine.world_size)
        self.optimizer.step()
        return means, F.one_hot(roles, len(Role)).sum(dim=0)

    def _believe(
        self, own: Tensor, targets: Tensor, roles: Tensor, given: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Targets and roles in which whoever the network agrees with counts as clean."""
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad():
            probs = self.model(own).float().softmax(dim=1)
        self.model.train(was_training)
        belief = self.engine.gather(probs, len(given)).gather(1, given[:, None])[:, 0]
        clean = belief >= self.clean_threshold
        hot = F.one_hot(given, targets.shape[1]).to(targets.dtype)
        return (
            torch.where(clean[:, None], hot, targets),
            torch.where(clean, torch.full_like(roles, int(Role.CLEAN)), roles),
        )

    def _mix_anew(self, step: int, roles: Tensor) -> Mixing | None:
        """Partners among the roles that this step gave; the host has to wait for them."""
        rng = np.random.default_rng((self.seed, step))
        mixing = mixup(roles.cpu().numpy(), self.mixup_alpha, rng)
        return None if mixing is None else mixing.to(self.engine.device)


class _State:
    """Everything that changes in training: it can be written down and brought back."""

    def __init__(
        self,
        model: nn.Module,
        phase: Phase,
        best: _Best,
        engine: Engine,
        published: Published,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.model, self.phase, self.best, self.engine = model, phase, best, engine
        self.published, self.checkpoint = published, checkpoint
        self.optimizer = make_optimizer(model, phase)
        if Published.FROZEN_FINETUNING in published:
            for group in self.optimizer.param_groups:
                group["lr"] = 0.0
        self.schedule = Schedule(self.optimizer, phase)
        self.meter = _RoleMeter(engine)
        self.history: list[dict[str, float]] = []
        self.step = 0

    def set_mode(self) -> None:
        """Training mode, unless the published scripts never came back to it."""
        stuck = Published.EVAL_MODE_PRETRAINING in self.published and bool(self.history)
        self.model.train(not stuck)

    def after_step(self, step: int, means: Tensor, counts: Tensor) -> None:
        self.step = step
        self.meter.add(means, counts)
        self.schedule.after_step()

    def evaluate(self, step: int) -> dict[str, float]:
        """Read the meter, validate, and write one line of history."""
        means = self.meter.read_and_reset()
        self._check_finite(step, [mean for mean, empty in means if not empty])
        rate = float(self.optimizer.param_groups[0]["lr"])
        val_accuracy, val_loss = self.best.consider(step)
        entry = {
            "step": step,
            "val_accuracy": val_accuracy,
            "val_loss": val_loss,
            "learning_rate": rate,
            **{
                f"{role.name.lower()}_loss": math.nan if empty else mean
                for role, (mean, empty) in zip(Role, means, strict=True)
            },
        }
        self.history.append(entry)
        self.schedule.after_evaluation(val_loss)
        self.set_mode()
        return entry

    def save(self) -> None:
        """Write the checkpoint, unless what would be written is broken."""
        self.meter.share()
        self._check_finite(self.step, self.meter.sums.tolist())
        moments, rest = pack_optimizer(self.optimizer)
        generators = self.engine.generator_states()
        if not self.engine.is_first:
            return
        self.checkpoint.save(
            {
                **prefixed("model", self.model.state_dict()),
                **prefixed("best", self.best.weights or {}),
                **prefixed("optimizer", moments),
                **prefixed("generator", generators),
                "meter.sums": self.meter.sums,
                "meter.rows": self.meter.rows,
            },
            {
                "step": self.step,
                "phase": dataclasses.asdict(self.phase),
                "best": self.best.figures(),
                "optimizer": rest,
                "schedule": self.schedule.state(),
                "history": self.history,
            },
        )

    def restore(self) -> int:
        """Go on from the checkpoint if there is one; the step to go on from."""
        found = None if self.checkpoint is None else self.checkpoint.load()
        if found is None:
            return 0
        tensors, values = found
        if values["phase"] != dataclasses.asdict(self.phase):
            raise ValueError(
                f"{self.checkpoint.path} belongs to another phase of training; use the same "
                "settings, or another folder"
            )
        self.model.load_state_dict(unprefixed("model", tensors))
        self.best.load(unprefixed("best", tensors), values["best"])
        unpack_optimizer(self.optimizer, unprefixed("optimizer", tensors), values["optimizer"])
        self.schedule.restore(values["schedule"])
        self.engine.restore_generators(unprefixed("generator", tensors))
        self.meter.load(tensors["meter.sums"], tensors["meter.rows"])
        self.history, self.step = values["history"], values["step"]
        return self.step

    def _check_finite(self, step: int, losses: list[float]) -> None:
        if all(math.isfinite(loss) for loss in losses):
            return
        kept = ""
        if self.checkpoint is not None and self.checkpoint.path.exists():
            kept = f"; the last good state is in {self.checkpoint.path}"
        raise FloatingPointError(
            f"the training loss is not finite at step {step}; lower learning_rate "
            f"(now {self.phase.learning_rate:g}) or check the inputs for NaN{kept}"
        )


class _Best:
    """The best weights seen so far, by validation accuracy, then loss."""

    def __init__(
        self, model: nn.Module, validation: Split, transform: Transform | None, engine: Engine
    ) -> None:
        self.model, self.validation = model, validation
        self.transform, self.engine = transform, engine
        self.step, self.accuracy, self.loss = 0, -1.0, math.inf
        self.weights: dict[str, Tensor] | None = None

    def consider(self, step: int) -> tuple[float, float]:
        logits = predict_logits(
            self.model, self.validation.inputs, transform=self.transform, engine=self.engine
        )
        accuracy = float((logits.argmax(dim=1) == self.validation.labels).double().mean())
        loss = float(F.cross_entropy(logits.double(), self.validation.labels))
        if (accuracy, -loss) > (self.accuracy, -self.loss):
            self.step, self.accuracy, self.loss = step, accuracy, loss
            self.weights = copy.deepcopy(self.model.state_dict())
        return accuracy, loss

    def figures(self) -> dict[str, Any]:
        return {"step": self.step, "accuracy": self.accuracy, "loss": self.loss}

    def load(self, weights: dict[str, Tensor], figures: Mapping[str, Any]) -> None:
        self.weights = weights or None
        self.step, self.accuracy, self.loss = (
            figures["step"],
            figures["accuracy"],
            figures["loss"],
        )

    def restore(self) -> None:
        if self.weights is not None:
            self.model.load_state_dict(self.weights)


class _RoleMeter:
    """Running means of the role losses, kept on the device until they are read."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.sums = torch.zeros(3, device=engine.device, dtype=torch.float64)
        self.rows = torch.zeros(3, device=engine.device, dtype=torch.float64)

    def add(self, means: Tensor, counts: Tensor) -> None:
        self.sums += means.double() * counts
        self.rows += counts

    def share(self) -> None:
        """Bring every process's part to the first one."""
        if self.engine.world_size > 1:
            whole = self.engine.fabric.all_reduce(self.sums, reduce_op="sum")
            self.sums = whole if self.engine.is_first else torch.zeros_like(whole)

    def load(self, sums: Tensor, rows: Tensor) -> None:
        if self.engine.is_first:
            self.sums = sums.to(self.sums.device)
        self.rows = rows.to(self.rows.device)

    def read_and_reset(self) -> list[tuple[float, bool]]:
        """(mean loss, whether the role had no row) of each role, over all processes."""
        sums = self.sums
        if self.engine.world_size > 1:
            sums = self.engine.fabric.all_reduce(sums, reduce_op="sum")
        rows = self.rows.cpu()
        means = (sums.cpu() / rows.clamp(min=1)).tolist()
        self.sums, self.rows = torch.zeros_like(self.sums), torch.zeros_like(self.rows)
        return [(mean, count == 0) for mean, count in zip(means, rows.tolist(), strict=True)]


def _is_channels_last(model: nn.Module) -> bool:
    return any(
        p.ndim == 4 and p.shape[1] > 1 and p.is_contiguous(memory_format=torch.channels_last)
        and not p.is_contiguous()
        for p in model.parameters()
    )  # fmt: skip


def _check(
    examples: Examples,
    phase: Phase,
    validation: Split,
    clean_threshold: float | None,
    engine: Engine,
) -> None:
    if len(examples) == 0:
        raise ValueError("examples is empty; there is nothing to train on")
    if len(validation) == 0:
        raise ValueError("validation is empty; it has to choose the step: hold some labels out")
    smallest = min(phase.batch_size, len(examples))
    if smallest < engine.world_size:
        raise ValueError(
            f"batch_size is {smallest} and there are {engine.world_size} processes; give each at "
            "least a row"
        )
    if clean_threshold is not None:
        if not 0 < clean_threshold <= 1:
            raise ValueError(f"clean_threshold is {clean_threshold}; state a probability above 0")
        if examples.given is None:
            raise ValueError(
                "clean_threshold needs given labels to believe in; pass examples.with_given(labels)"
            )
        check_choice("clean_batch_size", phase.clean_batch_size, (None,))
