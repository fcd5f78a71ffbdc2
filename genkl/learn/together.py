"""How do the small models of an ensemble learn all at once? In one computation, each as if alone.

A step of a linear head is little arithmetic and much bookkeeping. Here the bookkeeping is done once
for all members: weights are stacked along a first axis of M members, and every step gathers, mixes,
multiplies and updates for all of them. Each member keeps its own batches, mixing and best step, and
its gradient never meets another's: it is the member that `fit` would have made, up to rounding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from genkl.data import Split
from genkl.engine import Engine, as_engine
from genkl.learn.batches import draw_batches
from genkl.learn.examples import Examples
from genkl.learn.loop import PUBLISHED_TRAINING, FitResult, Watch, _check
from genkl.learn.phase import Phase, Schedule, make_optimizer
from genkl.losses import PAPER_LOSSES, RowLoss
from genkl.predict import PREDICT_BATCH
from genkl.published import Published, check_published
from genkl.relabel import Role

ELEMENTWISE = ("sgd", "adam")
"""Optimisers to which one stacked tensor is as good as many: no norm, no other sum over weights."""

PLAIN_MODULES = (
    nn.Sequential, nn.Flatten, nn.Identity, nn.Linear, nn.LayerNorm,
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus,
)  # fmt: skip
"""Modules without randomness or state of their own. Convolutions are left out, though they could be
stacked: on a CPU M of them at once are slower than one after the other."""

MAX_WEIGHTS = 300_000
"""Per member. From about here on the arithmetic takes the time, and there is nothing to gain."""

BLOCK = 16
"""Steps whose batches are drawn, moved and looked up together."""


def can_fit_together(
    models: Sequence[nn.Module],
    examples: Examples,
    phase: Phase,
    validation: Split,
    *,
    clean_threshold: float | None = None,
    engine: Engine | str = "auto",
) -> bool:
    """Whether `fit_together` takes these; otherwise `fit` trains one after the other.

    It takes linear heads (`genkl.linear_head`) and networks of `PLAIN_MODULES`, all alike and of at
    most `MAX_WEIGHTS` weights, with inputs in memory, one process and full precision. It refuses
    what differs by member beyond weights and batches: the schedule "plateau", a clean_threshold.

    Args:
        models, examples, phase, validation, clean_threshold, engine: see `fit`.

    Returns:
        True if there is no obstacle.
    """
    reason = _obstacle(models, examples, phase, validation, clean_threshold, as_engine(engine))
    return reason is None


def fit_together(
    models: Sequence[nn.Module],
    examples: Examples,
    phase: Phase,
    validation: Split,
    *,
    seeds: Sequence[int],
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    losses: Mapping[Role, RowLoss] = PAPER_LOSSES,
    mixup_alpha: float = 0.0,
    keep_initial: bool = False,
    published_behaviour: Published = Published.NONE,
    engine: Engine | str = "auto",
    watch: Watch | None = None,
) -> list[FitResult]:
    """Train M models in place in one computation, and leave each at its best validated step.

    The same as ``[fit(model, ..., seed=seed) for model, seed in zip(models, seeds)]`` up to
    rounding, several times faster. A member's numbers don't depend on who is trained with it.
    There are no checkpoints: a phase of heads takes seconds.

    Args:
        models: M of one architecture, see `can_fit_together`.
        examples: what all of them learn from, each in its own order.
        phase: steps, optimiser, schedule, batch size.
        validation: verified labels; chooses each member's step.
        seeds: one for each model; decides the order of its batches and its mixing.
        weights, losses, mixup_alpha, keep_initial, published_behaviour, engine: see `fit`.
        watch: told ("step", {"steps": M}) after every step, and at every evaluation M times
            ("evaluation", an entry of the history with the number of the "member").

    Returns:
        M results, in the order of the models.

    Raises:
        ValueError: no model, as many seeds as models are not given, the models can't be trained
            together (the message says why), or what `fit` refuses.
        FloatingPointError: a loss is not finite; names the step, the member and the remedy.
    """
    check_published("fit_together", published_behaviour, PUBLISHED_TRAINING)
    engine = as_engine(engine)
    _check(examples, phase, validation, None, engine)
    if len(seeds) != len(models):
        raise ValueError(f"{len(seeds)} seeds for {len(models)} models; pass one for each")
    obstacle = _obstacle(models, examples, phase, validation, None, engine)
    if obstacle is not None:
        raise ValueError(f"can't train these models together: {obstacle}; use fit for each")
    for model in models:
        engine.place(model)
    members = (_Heads if _is_head(models[0]) else _Members)(models)
    best = _BestOfEach(members, validation, engine)
    if phase.steps == 0:
        best.consider(0)
        return best.results([[] for _ in models])
    optimizer = make_optimizer(nn.ParameterList(members.learned.values()), phase)
    if Published.FROZEN_FINETUNING in published_behaviour:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    schedule = Schedule(optimizer, phase)
    history: list[list[dict[str, float]]] = [[] for _ in models]
    meter = _MemberMeter(len(models), phase)
    batches = _Batches(examples, phase, seeds, mixup_alpha, weights, losses, engine)
    if keep_initial:
        best.consider(0)
    for step, batch in enumerate(batches, 1):
        logits = members.logits(batch.inputs).flatten(0, 1)
        costs = [
            terms.loss(logits.index_select(0, terms.at), terms.targets) for terms in batch.terms
        ]
        # A member's weights have no part in another's cost: gradients don't meet in the sum.
        total = sum(cost @ terms.shares for cost, terms in zip(costs, batch.terms, strict=True))
        for weight in members.learned.values():
            weight.grad = None
        total.backward()
        optimizer.step()
        meter.add(costs, batch)
        schedule.after_step()
        if watch is not None:
            watch("step", {"steps": len(models)})
        if step % phase.eval_every and step != phase.steps:
            continue
        # The rate after this step, as `fit` records it.
        rate = float(optimizer.param_groups[0]["lr"])
        role_losses = meter.read_and_reset(step)
        figures = best.consider(step)
        for member, ((val_accuracy, val_loss), by_role) in enumerate(
            zip(figures, role_losses, strict=True)
        ):
            entry = {
                "step": step,
                "val_accuracy": val_accuracy,
                "val_loss": val_loss,
                "learning_rate": rate,
                **by_role,
            }
            history[member].append(entry)
            if watch is not None:
                watch("evaluation", {**entry, "member": member})
        members.training = Published.EVAL_MODE_PRETRAINING not in published_behaviour
    best.restore(models)
    for model in models:
        model.train(members.training)
    return best.results(history)


# -- who can ---------------------------------------------------------------------------------------


def _obstacle(
    models: Sequence[nn.Module],
    examples: Examples,
    phase: Phase,
    validation: Split,
    clean_threshold: float | None,
    engine: Engine,
) -> str | None:
    """Why not, in words; None if nothing is in the way. What costs least is asked first."""
    if phase.optimizer not in ELEMENTWISE:
        return f"the optimiser {phase.optimizer!r} looks at more than one weight at a time"
    if phase.schedule == "plateau":
        return "with the schedule 'plateau' each member has its own learning rate"
    if clean_threshold is not None:
        return "with a clean_threshold each member has its own roles"
    for inputs in (examples.inputs, validation.inputs):
        if not (isinstance(inputs, Tensor) and inputs.dtype == torch.float32):
            return "inputs have to be a float32 tensor in memory"
    if examples.targets.dtype != torch.float32:
        return "targets have to be float32"
    if engine.precision != "32-true" or engine.compile:
        return "it computes in the precision '32-true', and not compiled"
    if engine.world_size > 1:
        return f"there are {engine.world_size} processes"
    return _obstacle_in(models)


def _obstacle_in(models: Sequence[nn.Module]) -> str | None:
    if not models:
        return "models is empty"
    first = models[0]
    for model in models:
        # What a module prints says all that a plain one is made with.
        if repr(model) != repr(first) or _signature(model) != _signature(first):
            return "the models differ in more than the values of their weights"
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks
               or m._backward_pre_hooks for m in model.modules()):  # fmt: skip
            return "a model has hooks"
        if not all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters()):
            return "all weights have to learn, and in float32"
        if len([*model.parameters()]) != len([*model.named_parameters(remove_duplicate=False)]):
            return "a model uses a weight in two places"
    weights = sum(p.numel() for p in first.parameters())
    if not 0 < weights <= MAX_WEIGHTS:
        return f"a model has {weights:,} weights, and 1 to {MAX_WEIGHTS:,} gain from it"
    unknown = {type(m).__name__ for m in first.modules() if type(m) not in PLAIN_MODULES}
    if unknown and not _is_head(first):
        return f"{', '.join(sorted(unknown))} may have randomness or state, or gain nothing"
    return None


def _signature(model: nn.Module) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, value.shape, value.dtype) for name, value in model.state_dict().items()]


def _is_head(model: nn.Module) -> bool:
    """Whether it is what `genkl.linear_head` makes: standardised features and a linear layer."""
    if type(model) is not nn.Sequential or [type(m) for m in model] != [nn.BatchNorm1d, nn.Linear]:
        return False
    norm, linear = model
    return (
        not norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and linear.bias is not None
    )


# -- batches ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Terms:
    """What one row loss has to do in a step: T of its values, of rows of all members.

    A batch's loss is a weighted sum of row losses: against a row's own target, and where it is
    mixed against its partner's, too. So the members' losses are one sum, see `three_term_loss`.

    Attributes:
        loss: the row loss.
        at: which row of the M B logits, shape (T,).
        targets: shape (T, k).
        shares: multiplier in the sum, shape (T,): the role's weight, by the rows of that role in
            the member's batch, times lambda or 1 - lambda.
        keeps: lambda or 1 - lambda, shape (T,), on the host.
        places: member and role as 3 m + r, shape (T,), on the host.
    """

    loss: RowLoss
    at: Tensor
    targets: Tensor
    shares: Tensor
    keeps: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class _Batch:
    """One step of all members.

    Attributes:
        inputs: mixed, shape (M, B, ...), on the device.
        terms: of each row loss that has a row in this step.
        counts: rows of each role, shape (M, 3), on the host.
    """

    inputs: Tensor
    terms: list[_Terms]
    counts: np.ndarray


class _Batches:
    """The batches that `fit` would draw for each seed, side by side, for all steps of a phase.

    Args:
        examples, phase, seeds, mixup_alpha, weights, losses, engine: see `fit_together`.
    """

    def __init__(
        self,
        examples: Examples,
        phase: Phase,
        seeds: Sequence[int],
        mixup_alpha: float,
        weights: tuple[float, float, float],
        losses: Mapping[Role, RowLoss],
        engine: Engine,
    ) -> None:
        self.steps, self.engine, self.losses = phase.steps, engine, losses
        self.known, self.weights = examples.roles.numpy(), np.asarray(weights, dtype=np.float64)
        self.streams = [
            draw_batches(self.known, phase, seed, mixup_alpha=mixup_alpha) for seed in seeds
        ]
        inputs = engine.to_device(examples.inputs)
        self.shape, self.inputs = inputs.shape[1:], inputs.flatten(1)
        self.targets = self.lent = engine.to_device(examples.targets)
        self.kept_part = None
        if examples.kept_part is not None:
            self.kept_part = engine.to_device(examples.kept_part)
            self.lent = self.targets - self.kept_part

    def __iter__(self) -> Iterator[_Batch]:
        members = len(self.streams)
        for start in range(0, self.steps, BLOCK):
            steps = min(BLOCK, self.steps - start)
            draws = [next(stream) for _ in range(steps) for stream in self.streams]
            rows = np.stack([draw.rows for draw in draws]).reshape(steps, members, -1)
            partners, keep = rows, np.ones(rows.shape)
            if draws[0].mixing is not None:
                within = np.stack([draw.mixing.partner.numpy() for draw in draws])
                partners = np.take_along_axis(rows, within.reshape(rows.shape), axis=2)
                keep = np.stack([draw.mixing.keep.numpy() for draw in draws]).reshape(rows.shape)
            # Next to last axis: a row itself, and the partner that it is mixed with.
            pairs = np.stack([rows, partners], axis=1).reshape(steps, 2, -1)
            keeps = np.stack([keep, 1 - keep], axis=1).reshape(steps, 2, -1)
            yield from self._of_block(pairs, keeps, mixed=draws[0].mixing is not None)

    def _of_block(self, pairs: np.ndarray, keeps: np.ndarray, mixed: bool) -> Iterator[_Batch]:
        """Batches of S steps, from rows and their shares, both of shape (S, 2, M B)."""
        members = len(self.streams)
        roles = self.known[pairs[:, 0]].reshape(len(pairs), members, -1)
        counts = np.stack([(roles == role).sum(axis=2) for role in Role], axis=2)
        terms = self._terms(pairs, keeps, roles, counts)
        on_device = self.engine.to_device(pairs)
        shares = self.engine.to_device(keeps.astype(np.float32)).transpose(1, 2).contiguous()
        for step, of_step in enumerate(terms):
            if mixed:  # fetch two rows, weigh them, add them up: nothing in between is written
                inputs = F.embedding_bag(
                    on_device[step].T, self.inputs, mode="sum", per_sample_weights=shares[step]
                )
            else:
                inputs = F.embedding(on_device[step, 0], self.inputs)
            inputs = inputs.view(members, -1, *self.shape)
            yield _Batch(inputs, of_step, counts[step])

    def _terms(
        self, pairs: np.ndarray, keeps: np.ndarray, roles: np.ndarray, counts: np.ndarray
    ) -> list[list[_Terms]]:
        """For each of S steps the terms of its losses; roles are (S, M, B), counts (S, M, 3)."""
        steps, members, _ = roles.shape
        places = 3 * np.arange(members)[None, :, None] + roles
        by_count = self.weights / np.maximum(counts, 1)
        by_count = np.take_along_axis(by_count, roles, axis=2).reshape(steps, 1, -1)
        found: list[list[_Terms]] = [[] for _ in range(steps)]
        for loss in dict.fromkeys(self.losses.values()):
            ours = np.isin(roles, [role for role in Role if self.losses[role] is loss])
            taken = ours.reshape(steps, 1, -1) & (keeps > 0)
            step, which, at = np.nonzero(taken)  # in the order of the steps
            ends = np.searchsorted(step, np.arange(steps + 1))
            values = (
                *map(self.engine.to_device, (at, self._targets(pairs, step, which, at))),
                self.engine.to_device((by_count * keeps)[taken].astype(np.float32)),
                keeps[taken],
                places.reshape(steps, -1)[step, at],
            )
            for one, (begin, end) in enumerate(pairwise(ends)):
                if end > begin:
                    found[one].append(_Terms(loss, *(value[begin:end] for value in values)))
        return found

    def _targets(
        self, pairs: np.ndarray, step: np.ndarray, which: np.ndarray, at: np.ndarray
    ) -> Tensor:
        """The targets that rows are held against, (T, k): their own, or what is lent to them."""
        source = self.engine.to_device(pairs[step, which, at])
        if self.kept_part is None:
            return F.embedding(source, self.targets)  # much faster than an index in brackets
        own = self.engine.to_device(pairs[step, 0, at])
        lent = F.embedding(source, self.lent) + F.embedding(own, self.kept_part)
        is_lent = self.engine.to_device(which > 0)[:, None]
        return torch.where(is_lent, lent, F.embedding(source, self.targets))


# -- members ---------------------------------------------------------------------------------------


class _Members:
    """M models of one architecture, their weights stacked; a pass through all of them at once.

    Attributes:
        learned: weights by name, each of shape (M, ...).
        state: buffers by name, each of shape (M, ...).
        training: whether passes are those of training.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        learned, state = stack_module_state([*models])
        self.learned = {name: nn.Parameter(value.detach()) for name, value in learned.items()}
        self.state = state
        self.training = True
        self.count = len(models)
        self.body = copy.deepcopy(models[0]).to("meta")

    def everything(self) -> dict[str, Tensor]:
        """Weights and buffers, by the names of a state dictionary; not copied."""
        return {**{name: value.detach() for name, value in self.learned.items()}, **self.state}

    def logits(self, inputs: Tensor) -> Tensor:
        """Shape (M, B, k), of a batch of each member, (M, B, ...), which may be overwritten."""
        return self._vmapped(inputs, 0)

    def predict(self, inputs: Tensor) -> Tensor:
        """Shape (M, V, k), in evaluation mode, of inputs (V, ...) that are the same for all."""
        return self._vmapped(inputs, None)

    def _vmapped(self, inputs: Tensor, axis: int | None) -> Tensor:
        def one(learned: dict[str, Tensor], state: dict[str, Tensor], batch: Tensor) -> Tensor:
            return functional_call(self.body, (learned, state), (batch,))

        return torch.vmap(one, (0, 0, axis))(self.learned, self.state, inputs)


class _Heads(_Members):
    """The same for linear heads, where the two modules can be written out."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__(models)
        self.norm: nn.BatchNorm1d = self.body[0]
        self.weight, self.bias = self.learned["1.weight"], self.learned["1.bias"]
        self.mean, self.var = self.state["0.running_mean"], self.state["0.running_var"]

    def logits(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            self._standardise(inputs)
        # Weights first: the other way round, the gradient comes out transposed, and slowly.
        by_class = torch.baddbmm(self.bias[:, :, None], self.weight, inputs.transpose(1, 2))
        return by_class.transpose(1, 2)

    def _standardise(self, inputs: Tensor) -> None:
        """What ``nn.BatchNorm1d`` does to each member's batch and to its own statistics."""
        if not self.training:
            inputs -= self.mean[:, None]
            inputs *= (self.var[:, None] + self.norm.eps).rsqrt()
            return
        size = inputs.shape[1]
        if size < 2:
            raise ValueError(
                "a batch has one row, and batch normalisation needs two; raise batch_size"
            )
        mean = inputs.mean(dim=1, keepdim=True)
        inputs -= mean
        var = inputs.square().mean(dim=1, keepdim=True)
        inputs *= (var + self.norm.eps).rsqrt()
        self.mean.lerp_(mean[:, 0], self.norm.momentum)
        self.var.lerp_(var[:, 0] * (size / (size - 1)), self.norm.momentum)
        self.state["0.num_batches_tracked"] += 1

    def predict(self, inputs: Tensor) -> Tensor:
        # W (x - m) / s + b, as one product of the inputs with all members' W / s. The members'
        # common mean is taken off first: a large one would cost digits.
        centre = self.mean.mean(dim=0)
        scaled = self.weight * (self.var + self.norm.eps).rsqrt()[:, None]
        offset = self.bias - (scaled @ (self.mean - centre)[:, :, None])[:, :, 0]
        logits = torch.addmm(offset.flatten(), inputs - centre, scaled.flatten(0, 1).T)
        return logits.unflatten(1, offset.shape).transpose(0, 1)


class _MemberMeter:
    """Running means of each member's role losses; read once for every evaluation."""

    def __init__(self, members: int, phase: Phase) -> None:
        self.members, self.phase = members, phase
        self._reset()

    def _reset(self) -> None:
        self.costs: list[Tensor] = []
        self.keeps: list[np.ndarray] = []
        self.places: list[np.ndarray] = []
        self.rows = np.zeros((self.members, 3), dtype=np.int64)

    def add(self, costs: list[Tensor], batch: _Batch) -> None:
        """The values of a batch's terms; no device is waited for."""
        self.costs += [cost.detach() for cost in costs]
        self.keeps += [terms.keeps for terms in batch.terms]
        self.places += [terms.places for terms in batch.terms]
        self.rows += batch.counts

    def read_and_reset(self, step: int) -> list[dict[str, float]]:
        """Mean loss of each role since the last time, by name, of each member."""
        costs = torch.cat(self.costs).double().cpu().numpy() * np.concatenate(self.keeps)
        sums = np.bincount(np.concatenate(self.places), costs, 3 * self.members).reshape(-1, 3)
        rows = self.rows
        self._reset()
        broken = np.flatnonzero(~np.isfinite(sums).all(axis=1))
        if len(broken):
            raise FloatingPointError(
                f"the training loss of member {broken[0]} is not finite at step {step}; lower "
                f"learning_rate (now {self.phase.learning_rate:g}) or check the inputs for NaN"
            )
        means = np.where(rows > 0, sums / np.maximum(rows, 1), math.nan)
        names = [f"{role.name.lower()}_loss" for role in Role]
        return [dict(zip(names, of_one, strict=True)) for of_one in means.tolist()]


class _BestOfEach:
    """The best weights of each member seen so far, by validation accuracy, then loss."""

    def __init__(self, members: _Members, validation: Split, engine: Engine) -> None:
        self.members = members
        self.inputs = engine.to_device(validation.inputs)
        self.labels = engine.to_device(validation.labels)
        self.steps = [0] * members.count
        self.figures = [(-1.0, math.inf)] * members.count
        self.weights = {name: value.clone() for name, value in members.everything().items()}

    @torch.no_grad()
    def consider(self, step: int) -> list[tuple[float, float]]:
        """Validate all members; accuracy and loss in nats of each."""
        parts = [self.members.predict(part) for part in self.inputs.split(PREDICT_BATCH)]
        logits = torch.cat(parts, dim=1)
        hits = (logits.argmax(dim=2) == self.labels).double().mean(dim=1)
        costs = F.cross_entropy(
            logits.double().flatten(0, 1), self.labels.repeat(len(logits)), reduction="none"
        )
        costs = costs.view(len(logits), -1).mean(dim=1)
        found = [tuple(one) for one in torch.stack([hits, costs], dim=1).tolist()]
        risen = [
            member
            for member, ((accuracy, loss), (highest, lowest)) in enumerate(
                zip(found, self.figures, strict=True)
            )
            if (accuracy, -loss) > (highest, -lowest)
        ]
        for member in risen:
            self.steps[member], self.figures[member] = step, found[member]
        for name, value in self.members.everything().items():
            self.weights[name][risen] = value[risen]
        return found

    def restore(self, models: Sequence[nn.Module]) -> None:
        """Give every model the best weights of its member."""
        for member, model in enumerate(models):
            model.load_state_dict({name: value[member] for name, value in self.weights.items()})

    def results(self, history: list[list[dict[str, float]]]) -> list[FitResult]:
        return [
            FitResult(step, accuracy, loss, entries)
            for step, (accuracy, loss), entries in zip(
                self.steps, self.figures, history, strict=True
            )
        ]
