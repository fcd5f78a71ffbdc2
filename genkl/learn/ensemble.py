"""Ensembles: M models of one architecture as one module, its weights stacked, each as if alone.

A step of a linear head is little arithmetic and much bookkeeping. Here the bookkeeping is done once
for all members: every weight has a first axis of M members, and a pass multiplies for all of them.
No member's gradient meets another's: each is the model that it would be alone, up to rounding.
`batch_loss` asks each row loss only for its roles' rows: the host knows roles and mixing, and says
which values a step needs before the device has seen them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from genkl.data import Images
from genkl.engine import Engine
from genkl.learn.batches import Batch
from genkl.losses import RowLoss, row_costs, three_term_loss
from genkl.predict import PREDICT_BATCH
from genkl.relabel import Role

PLAIN_MODULES = (
    nn.Sequential,
    nn.Flatten,
    nn.Identity,
    nn.Linear,
    nn.LayerNorm,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
)
"""Modules without randomness or state of their own. Convolutions are left out, though they could be
stacked: on a CPU M of them at once are slower than one after the other."""

MAX_WEIGHTS = 300_000
"""Per member. From about here on the arithmetic takes the time, and there is nothing to gain."""


class Ensemble(nn.Module):
    """M models of one architecture as one module.

    Attributes:
        stacked: a copy of the first model whose parameters and buffers, shape (M, ...), are those
            of all. Its ``state_dict`` has the models' names.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.count = len(models)
        self.stacked = copy.deepcopy(models[0])
        learned, state = stack_module_state([*models])
        for name, value in {**learned, **state}.items():
            owner, _, leaf = name.rpartition(".")
            module = self.stacked.get_submodule(owner)
            if name in learned:
                module._parameters[leaf] = nn.Parameter(value.detach())
            else:
                module._buffers[leaf] = value
        self.skeleton = (copy.deepcopy(models[0]).to("meta"),)  # hidden: it holds no weights

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, (M B, k), of B rows of each member, (M B, ...), which may be overwritten."""
        return self._vmapped(inputs.unflatten(0, (self.count, -1)), 0).flatten(0, 1)

    def predict(self, inputs: Tensor) -> Tensor:
        """Logits, (M, V, k), in evaluation mode, of inputs (V, ...) that are the same for all."""
        return self._vmapped(inputs, None)

    def _vmapped(self, inputs: Tensor, axis: int | None) -> Tensor:
        def logits(weights: dict[str, Tensor], batch: Tensor) -> Tensor:
            return functional_call(self.skeleton[0], weights, (batch,))

        weights = dict(self.stacked.named_parameters()) | dict(self.stacked.named_buffers())
        return torch.vmap(logits, (0, axis))(weights, inputs)


class HeadEnsemble(Ensemble):
    """The same for linear heads, where the two modules can be written out: twice as fast."""

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.view(self.count, -1, inputs.shape[-1])
        with torch.no_grad():
            self._standardise(inputs)
        linear = self.stacked[1]
        # Weights first: the other way round, the gradient comes out transposed, and slowly.
        by_class = torch.baddbmm(linear.bias[:, :, None], linear.weight, inputs.transpose(1, 2))
        return by_class.transpose(1, 2).flatten(0, 1)

    def _standardise(self, inputs: Tensor) -> None:
        """What ``nn.BatchNorm1d`` does to each member's batch and to its own statistics."""
        norm = self.stacked[0]
        if not self.training:
            inputs -= norm.running_mean[:, None]
            inputs *= (norm.running_var[:, None] + norm.eps).rsqrt()
            return
        size = inputs.shape[1]
        if size < 2:
            raise ValueError(
                "a batch has one row, and batch normalisation needs two; raise batch_size, or "
                "learn from more than one image"
            )
        mean = inputs.mean(dim=1, keepdim=True)
        inputs -= mean
        var = inputs.square().mean(dim=1, keepdim=True)
        inputs *= (var + norm.eps).rsqrt()
        norm.running_mean.lerp_(mean[:, 0], norm.momentum)
        norm.running_var.lerp_(var[:, 0] * (size / (size - 1)), norm.momentum)
        norm.num_batches_tracked += 1

    def predict(self, inputs: Tensor) -> Tensor:
        # W (x - m) / s + b, as one product of the inputs with all members' W / s. The members'
        # common mean is taken off first: a large one would cost digits.
        norm, linear = self.stacked
        centre = norm.running_mean.mean(dim=0)
        scaled = linear.weight * (norm.running_var + norm.eps).rsqrt()[:, None]
        offset = linear.bias - (scaled @ (norm.running_mean - centre)[:, :, None])[:, :, 0]
        logits = torch.addmm(offset.flatten(), inputs - centre, scaled.flatten(0, 1).T)
        return logits.unflatten(1, offset.shape).transpose(0, 1)


def as_one(models: Sequence[nn.Module]) -> nn.Module:
    """The module to train: a single model is itself, several are an `Ensemble`."""
    if len(models) == 1:
        return models[0]
    return (HeadEnsemble if _is_head(models[0]) else Ensemble)(models)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Weights and statistics by name, the members along the first axis; nothing is copied."""
    if isinstance(module, Ensemble):
        return module.stacked.state_dict()
    return {name: value[None] for name, value in module.state_dict().items()}


def load_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Bring a module to what `state_of` gave."""
    if isinstance(module, Ensemble):
        module.stacked.load_state_dict(state)
    else:
        module.load_state_dict({name: value[0] for name, value in state.items()})


@torch.no_grad()
def ensemble_logits(module: Ensemble, inputs: Tensor, engine: Engine) -> Tensor:
    """What each member predicts for the same inputs: shape (M, V, k), on the CPU."""
    parts = engine.to_device(inputs).split(PREDICT_BATCH)
    return torch.cat([module.predict(part) for part in parts], dim=1).cpu()


# -- their loss ---------------------------------------------------------------------------------


def batch_loss(
    logits: Tensor,
    batch: Batch,
    weights: tuple[float, float, float],
    losses: Mapping[Role, RowLoss],
    *,
    members: int,
    engine: Engine,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of M members' `three_term_loss`, with which it agrees up to rounding.

    Args:
        logits: of this process's rows of M B, shape (M B, k) where there is one process.
        batch: that they belong to; where M > 1, with the roles that were drawn.
        weights, losses: see `three_term_loss`.
        members: M; more than one only in one process.
        engine: where to compute.

    Returns:
        The scalar loss, the members' unweighted means, shape (M, 3), detached, and the numbers of
        rows that they are over, shape (M, 3).
    """
    if members > 1:
        return _of_ensemble(logits, batch, weights, losses, members, engine)
    every_role = torch.arange(len(Role), device=batch.roles.device)
    counts = (batch.roles[None, :, None] == every_role).sum(dim=1)
    loss, means = three_term_loss(
        logits,
        batch.targets,
        batch.roles,
        weights,
        losses=losses,
        mixing=batch.mixing,
        kept_part=batch.kept_part,
        own=engine.own(len(batch.roles)) if engine.world_size > 1 else None,
        role_counts=counts,
    )
    return loss, means, counts


def _of_ensemble(
    logits: Tensor,
    batch: Batch,
    weights: tuple[float, float, float],
    losses: Mapping[Role, RowLoss],
    members: int,
    engine: Engine,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, where every member's mean is a weighted sum of T values: a row's loss against its
    own target and, where it keeps less than all of itself, against its partner's."""
    roles = batch.draw.roles
    place = len(Role) * np.repeat(np.arange(members), len(roles) // members) + roles
    counts = np.bincount(place, minlength=len(Role) * members)
    keeps, targets = np.ones(len(roles)), batch.targets
    if batch.mixing is not None:
        keep = batch.draw.mixing.keep.numpy()
        keeps = np.concatenate([keep, 1 - keep])
        targets = torch.cat([targets, batch.mixing.lent(targets, batch.kept_part)])
    different = dict.fromkeys(losses.values())
    asked = [
        np.flatnonzero(np.array([losses.get(role) is loss for role in Role])[roles])
        for loss in different
    ]
    if batch.mixing is not None:
        both = [np.concatenate([rows, rows + len(roles)]) for rows in asked]
        asked = [rows[keeps[rows] > 0] for rows in both]
    source = np.concatenate(asked)  # of targets, those that are lent behind the others
    at = source % len(roles)
    shares = keeps[source] / counts[place[at]]
    shares = np.stack([shares, shares * np.asarray(weights)[roles[at]]]).astype(np.float32)
    place = place[at]
    at, source, place, shares, counts = map(engine.to_device, (at, source, place, shares, counts))
    sizes = [len(rows) for rows in asked]
    parts = (logits.index_select(0, at), targets.index_select(0, source))
    asked_of = zip(different, *(part.split(sizes) for part in parts), strict=True)
    costs = torch.cat([row_costs(*asked) for asked in asked_of])
    # Not a product with a matrix: 0 * nan would carry one member's nan to the others.
    means = logits.new_zeros(len(counts)).index_add_(0, place, shares[0] * costs.detach())
    return shares[1] @ costs, means.view(members, -1), counts.view(members, -1)


# -- who can ---------------------------------------------------------------------------------------


def obstacle(
    models: Sequence[nn.Module], inputs: Sequence[Tensor | Images], engine: Engine
) -> str | None:
    """Why these models can't be an `Ensemble`, in words; None if nothing is in the way.

    It takes linear heads (`genkl.linear_head`) and networks of `PLAIN_MODULES`, all alike and of at
    most `MAX_WEIGHTS` weights, with inputs in memory, one process and full precision.

    Args:
        models: M of them.
        inputs: of everything that they are to see.
        engine: that is to compute.
    """
    for given in inputs:
        if not (isinstance(given, Tensor) and given.dtype == torch.float32):
            return "inputs have to be a float32 tensor in memory"
    if engine.world_size > 1:
        return f"there are {engine.world_size} processes"
    if not engine.is_plain:
        return "it computes in the precision '32-true', and not compiled"
    if not models:
        return "models is empty"
    first = models[0]
    for model in models:
        # What a module prints says all that a plain one is made with.
        if repr(model) != repr(first) or _signature(model) != _signature(first):
            return "the models differ in more than the values of their weights"
        if any(
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
            for m in model.modules()
        ):
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
