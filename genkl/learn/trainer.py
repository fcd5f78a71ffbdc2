"""The training loop: one step for a network or an ensemble, validation, and what `fit` returns.

Pre-training, three-term training and fine-tuning are this loop with other examples and weights. An
ordinary network is an ensemble of one. What a step looks at is in three more files: its batch
(`genkl.learn.batches`), the loss (`genkl.losses`), and, where several models learn together, their
forward pass (`genkl.learn.ensemble`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
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
from genkl.learn.batches import Batch, Batches
from genkl.learn.checkpoint import Checkpoint, pack_optimizer, unpack_optimizer
from genkl.learn.ensemble import (
    Ensemble,
    as_one,
    batch_loss,
    ensemble_logits,
    load_state,
    obstacle,
    state_of,
)
from genkl.learn.examples import Examples, has_large_images, layout_of
from genkl.learn.phase import Phase, Schedule, make_optimizer
from genkl.learn.result import FitResult
from genkl.losses import PAPER_LOSSES, RowLoss
from genkl.predict import predict_logits
from genkl.published import Published, check_published
from genkl.relabel import Role

PUBLISHED_TRAINING = Published.FROZEN_FINETUNING | Published.EVAL_MODE_PRETRAINING
"""The switches that `fit` implements, for the phase that it is called for."""

Watch = Callable[[str, Mapping[str, float]], None]
"""Told ("step", {"steps": number of them, over all members}) and ("evaluation", an entry of the
history, with the number of the "member")."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How `fit` and `fit_together` train, beyond the phase; their keyword arguments.

    Attributes:
        weights: multipliers of the three mean losses, see `three_term_loss`.
        losses: row loss of each role; the paper's where one is left out.
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
    """

    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    losses: Mapping[Role, RowLoss] = field(default_factory=lambda: PAPER_LOSSES)
    mixup_alpha: float = 0.0
    keep_initial: bool = False
    clean_threshold: float | None = None
    train_transform: Transform | None = None
    test_transform: Transform | None = None
    published_behaviour: Published = Published.NONE
    engine: Engine | str = "auto"
    checkpoint: Checkpoint | None = None
    watch: Watch | None = None


def fit(
    model: nn.Module,
    examples: Examples,
    phase: Phase,
    validation: Split,
    *,
    seed: int,
    **options: Any,
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
        options: weights, losses, mixup_alpha, engine, checkpoint and more, see `FitOptions`.

    Returns:
        Best step, validation figures, history.

    Raises:
        ValueError: no examples, a batch smaller than the number of processes, a checkpoint of
            other settings, or published behaviour that has nothing to do with training.
        FloatingPointError: the loss is not finite; names the step and the remedy.
        OSError: the checkpoint can't be written; the last good one stays.
    """
    data = (examples, phase, validation, [seed])
    return _Training([model], *data, FitOptions(**options)).run()[0]


def fit_together(
    models: Sequence[nn.Module],
    examples: Examples,
    phase: Phase,
    validation: Split,
    *,
    seeds: Sequence[int],
    **options: Any,
) -> list[FitResult]:
    """Train M models in place in one computation, and leave each at its best validated step.

    The same as ``[fit(model, ..., seed=seed) for model, seed in zip(models, seeds)]`` up to
    rounding, several times faster. A member's numbers don't depend on who is trained with it.

    Args:
        models: M of one architecture, see `why_not_together`.
        examples: what all of them learn from, each in its own order.
        phase, validation: see `fit`.
        seeds: one for each model.
        options: see `FitOptions`.

    Returns:
        M results, in the order of the models.

    Raises:
        ValueError: no model, as many seeds as models are not given, the models can't be trained
            together (the message says why), or what `fit` refuses.
        FloatingPointError: a loss is not finite; names the step, the member and the remedy.
    """
    how = FitOptions(**options)
    if len(seeds) != len(models):
        raise ValueError(f"{len(seeds)} seeds for {len(models)} models; pass one for each")
    if len(models) == 1:
        return [fit(models[0], examples, phase, validation, seed=seeds[0], **options)]
    reason = why_not_together(models, examples, phase, validation, how)
    if reason is not None:
        raise ValueError(f"can't train these models together: {reason}; use fit for each")
    return _Training(models, examples, phase, validation, seeds, how).run()


def why_not_together(
    models: Sequence[nn.Module],
    examples: Examples,
    phase: Phase,
    validation: Split,
    how: FitOptions,
) -> str | None:
    """What is in the way of `fit_together`, in words; None if nothing is.

    That is what differs by member beyond weights and batches, the schedule "plateau" or a
    clean_threshold, and what can't be an ensemble, see `genkl.learn.ensemble.obstacle`. The
    optimisers of a `Phase` treat each weight by itself, so one stacked tensor is as good as many.
    """
    if phase.schedule == "plateau":
        return "with the schedule 'plateau' each member has its own learning rate"
    if how.clean_threshold is not None:
        return "with a clean_threshold each member has its own roles"
    if examples.targets.dtype != torch.float32:
        return "targets have to be float32"
    return obstacle(models, (examples.inputs, validation.inputs), as_engine(how.engine))


class _Training:
    """Everything that changes in a phase of training: it can be written down and brought back."""

    def __init__(
        self,
        models: Sequence[nn.Module],
        examples: Examples,
        phase: Phase,
        validation: Split,
        seeds: Sequence[int],
        how: FitOptions,
    ) -> None:
        check_published("fit", how.published_behaviour, PUBLISHED_TRAINING)
        self.models, self.examples, self.phase, self.seeds = models, examples, phase, seeds
        self.how, self.engine = how, as_engine(how.engine)
        self.processes = self.engine.world_size
        _check(examples, phase, validation, how.clean_threshold, self.engine)
        for model in models:
            self.engine.place(model, large_images=has_large_images(examples.inputs))
        self.model = self.wrapped = as_one(models)
        self.best = _Best(self.model, len(models), validation, how, self.engine)
        self.history: list[list[dict[str, float]]] = [[] for _ in models]
        self.meter = _Meter(len(models), self.engine)
        self.step = 0

    def run(self) -> list[FitResult]:
        """Train to the end of the phase, from where the checkpoint says; the models' results."""
        if self.phase.steps == 0:
            self.best.consider(0)
            return self.best.results(self.history)
        with self.engine.randomness(self.seeds[0]):
            self.optimizer = make_optimizer(self.model, self.phase)
            if Published.FROZEN_FINETUNING in self.how.published_behaviour:
                for group in self.optimizer.param_groups:
                    group["lr"] = 0.0
            self.schedule = Schedule(self.optimizer, self.phase)
            self._restore()
            if self.how.keep_initial and self.step == 0:
                self.best.consider(0)
            self._learn()
        self.best.restore(self.models)
        for model in self.models:
            model.train(self.model.training)
        return self.best.results(self.history)

    def _learn(self) -> None:
        batches = Batches(
            self.examples,
            self.phase,
            self.seeds,
            self.engine,
            mixup_alpha=self.how.mixup_alpha,
            transform=self.how.train_transform,
            agrees=None if self.how.clean_threshold is None else self._agrees,
            start=self.step,
        )
        self.layout = layout_of(self.model)
        believes = self.how.clean_threshold is not None
        occurring = {*self.examples.roles.unique().tolist(), *[int(Role.CLEAN)] * believes}
        losses = PAPER_LOSSES | self.how.losses
        self.losses = {role: loss for role, loss in losses.items() if int(role) in occurring}
        self.wrapped, optimizer = self.engine.prepare(self.model, self.optimizer)
        self.learned = [*self.model.parameters()]
        checkpoint, last = self.how.checkpoint, self.phase.steps
        self._set_mode()
        for batch in batches:
            self._take_step(batch, optimizer)
            self.step += 1
            self.schedule.after_step()
            self._tell("step", {"steps": len(self.models)})
            if self.step % self.phase.eval_every == 0 or self.step == last:
                self._evaluate()
            if checkpoint is not None and self.step % checkpoint.every == 0:
                self._save()

    def _take_step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        """Learn from one batch: a forward pass for all roles, the loss, gradient and update."""
        inputs = batch.inputs
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self.layout)
        loss, means, counts = batch_loss(
            self.wrapped(inputs).float(),
            batch,
            self.how.weights,
            self.losses,
            members=len(self.models),
            engine=self.engine,
        )
        for weight in self.learned:  # optimizer.zero_grad does more, and takes its time
            weight.grad = None
        # Gradients are averaged over processes, and each has only its part of every mean. A
        # member's weights have no part in another's loss: gradients don't meet in the sum.
        self.engine.backward(loss * self.processes)
        optimizer.step()
        self.meter.add(means, counts)

    def _agrees(self, inputs: Tensor, given: Tensor) -> Tensor:
        """Whose given label the network, as it is now, believes; over all processes."""
        was_training = self.model.training
        self.wrapped.eval()
        with torch.no_grad():
            probs = self.wrapped(inputs).float().softmax(dim=1)
        self.wrapped.train(was_training)
        belief = self.engine.gather(probs, len(given)).gather(1, given[:, None])[:, 0]
        return belief >= self.how.clean_threshold

    def _set_mode(self) -> None:
        """Training mode, unless the published scripts never came back to it."""
        stuck = Published.EVAL_MODE_PRETRAINING in self.how.published_behaviour
        self.model.train(not (stuck and bool(self.history[0])))

    def _evaluate(self) -> None:
        """Read the meter, validate, and write one line of every member's history."""
        sums, rows = self.meter.read_and_reset()
        self._check_finite(sums)
        rate = float(self.optimizer.param_groups[0]["lr"])
        figures = self.best.consider(self.step)
        losses = torch.where(rows > 0, sums / rows.clamp(min=1), math.nan).tolist()
        names = [f"{role.name.lower()}_loss" for role in Role]
        for member, (accuracy, loss) in enumerate(figures):
            entry = {
                "step": self.step,
                "val_accuracy": accuracy,
                "val_loss": loss,
                "learning_rate": rate,
                **dict(zip(names, losses[member], strict=True)),
            }
            self.history[member].append(entry)
            self._tell("evaluation", {**entry, "member": member})
        self.schedule.after_evaluation(figures[0][1])
        self._set_mode()

    def _tell(self, event: str, facts: Mapping[str, float]) -> None:
        if self.how.watch is not None:
            self.how.watch(event, facts)

    def _save(self) -> None:
        """Write the checkpoint, unless what would be written is broken."""
        self.meter.share()
        self._check_finite(self.meter.sums)
        moments, rest = pack_optimizer(self.optimizer)
        generators = self.engine.generator_states()
        if not self.engine.is_first:
            return
        self.how.checkpoint.save(
            {
                "model": state_of(self.model),
                "best": self.best.weights,
                "optimizer": moments,
                "generator": generators,
                "meter": {"sums": self.meter.sums, "rows": self.meter.rows},
            },
            {
                "step": self.step,
                "phase": dataclasses.asdict(self.phase),
                "best": self.best.figures,
                "optimizer": rest,
                "schedule": self.schedule.state(),
                "history": self.history,
            },
        )

    def _restore(self) -> None:
        """Go on from the checkpoint if there is one, and tell of what was done before."""
        found = None if self.how.checkpoint is None else self.how.checkpoint.load()
        if found is None:
            return
        tensors, values = found
        if values["phase"] != dataclasses.asdict(self.phase):
            raise ValueError(
                f"{self.how.checkpoint.path} belongs to another phase of training; use the same "
                "settings, or another folder"
            )
        load_state(self.model, tensors["model"])
        self.best.weights = tensors["best"]
        self.best.figures = [tuple(figures) for figures in values["best"]]
        unpack_optimizer(self.optimizer, tensors["optimizer"], values["optimizer"])
        self.schedule.restore(values["schedule"])
        self.engine.restore_generators(tensors["generator"])
        self.meter.load(**tensors["meter"])
        self.history, self.step = values["history"], values["step"]
        # Whoever keeps a log has forgotten what did not finish.
        self._tell("step", {"steps": self.step * len(self.models)})
        for entries in zip(*self.history, strict=True):
            for member, entry in enumerate(entries):
                self._tell("evaluation", {**entry, "member": member})

    def _check_finite(self, sums: Tensor) -> None:
        broken = np.flatnonzero(~torch.isfinite(sums).all(dim=1).cpu().numpy())
        if len(broken) == 0:
            return
        whose = f" of member {broken[0]}" if len(self.models) > 1 else ""
        kept, checkpoint = "", self.how.checkpoint
        if checkpoint is not None and checkpoint.path.exists():
            kept = f"; the last good state is in {checkpoint.path}"
        raise FloatingPointError(
            f"the training loss{whose} is not finite at step {self.step}; lower learning_rate "
            f"(now {self.phase.learning_rate:g}) or check the inputs for NaN{kept}"
        )


class _Best:
    """The best weights of each member seen so far, by validation accuracy, then loss.

    Attributes:
        figures: step, accuracy and loss of each member.
        weights: by name, the members along the first axis.
    """

    def __init__(
        self, model: nn.Module, count: int, validation: Split, how: FitOptions, engine: Engine
    ) -> None:
        self.model, self.validation = model, validation
        self.transform, self.engine = how.test_transform, engine
        self.figures = [(0, -1.0, math.inf)] * count
        self.weights = {name: value.clone() for name, value in state_of(model).items()}

    def consider(self, step: int) -> list[tuple[float, float]]:
        """Validate all members; accuracy and loss in nats of each."""
        found = []
        for member, logits in enumerate(self._logits()):
            accuracy = float((logits.argmax(dim=1) == self.validation.labels).double().mean())
            loss = float(F.cross_entropy(logits.double(), self.validation.labels))
            found.append((accuracy, loss))
            _, highest, lowest = self.figures[member]
            if (accuracy, -loss) > (highest, -lowest):
                self.figures[member] = (step, accuracy, loss)
                for name, value in state_of(self.model).items():
                    self.weights[name][member] = value[member]
        return found

    def _logits(self) -> Tensor:
        """Of the validation split, shape (M, V, k)."""
        inputs = self.validation.inputs
        if isinstance(self.model, Ensemble):
            return ensemble_logits(self.model, inputs, self.engine)
        return predict_logits(self.model, inputs, transform=self.transform, engine=self.engine)[
            None
        ]

    def restore(self, models: Sequence[nn.Module]) -> None:
        """Give every model the best weights of its member."""
        for member, model in enumerate(models):
            model.load_state_dict({name: value[member] for name, value in self.weights.items()})

    def results(self, history: list[list[dict[str, float]]]) -> list[FitResult]:
        return [
            FitResult(*figures, entries)
            for figures, entries in zip(self.figures, history, strict=True)
        ]


class _Meter:
    """Sums of each member's role losses, (M, 3), kept on the device until they are read."""

    def __init__(self, members: int, engine: Engine) -> None:
        self.engine = engine
        self.sums = torch.zeros(members, len(Role), device=engine.device, dtype=torch.float64)
        self.rows = torch.zeros_like(self.sums)

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

    def read_and_reset(self) -> tuple[Tensor, Tensor]:
        """Sums and rows since the last time, over all processes, on the CPU."""
        sums, rows = self.sums, self.rows
        if self.engine.world_size > 1:
            sums = self.engine.fabric.all_reduce(sums, reduce_op="sum")
        self.sums, self.rows = torch.zeros_like(self.sums), torch.zeros_like(self.rows)
        return sums.cpu(), rows.cpu()


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
