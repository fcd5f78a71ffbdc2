"""Ensembles: M models of one architecture as one module, its weights stacked, each as if alone.

A step of a linear head is little arithmetic and much bookkeeping. Here the bookkeeping is done once
for all members: every weight has a first axis of M members, and a pass multiplies for all of them.
No member's gradient meets another's: each is the model that it would be alone, up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from genkl.data import Images
from genkl.engine import Engine
from genkl.predict import PREDICT_BATCH

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
                "a batch has one row, and batch normalisation needs two; raise batch_size"
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
