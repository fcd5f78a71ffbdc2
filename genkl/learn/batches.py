"""Batches of training: drawn by seed alone, looked up, mixed, and brought to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, tee

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genkl.data.loading import Transform, step_batches
from genkl.engine import Engine
from genkl.learn.examples import Examples
from genkl.learn.phase import Phase
from genkl.losses import Mixing, mixup
from genkl.relabel import Role

Agrees = Callable[[Tensor, Tensor], Tensor]
"""``(inputs of this process, given labels (B,)) -> mask (B,)``: whom the network agrees with."""


@dataclass(frozen=True)
class Draw:
    """The rows of one batch, over all processes, their roles, both (B,), and how they are mixed."""

    rows: np.ndarray
    roles: np.ndarray
    mixing: Mixing | None


def draw_batches(
    roles: np.ndarray, phase: Phase, seed: int, *, mixup_alpha: float = 0.0, start: int = 0
) -> Iterator[Draw]:
    """Batches for ever: the same in every process and after every interruption.

    Args:
        roles: of all examples, shape (N,).
        phase: batch sizes.
        seed: decides the order and the mixing.
        mixup_alpha: see `mixup`.
        start: how many batches to leave out, because they were learned from before.

    Returns:
        An endless iterator.
    """
    return islice(_all_batches(roles, phase, seed, mixup_alpha), start, None)


def _all_batches(roles: np.ndarray, phase: Phase, seed: int, mixup_alpha: float) -> Iterator[Draw]:
    rng = np.random.default_rng(seed)
    parts = [shuffled(np.arange(len(roles)), phase.batch_size, rng)]
    if phase.clean_batch_size is not None:
        clean = np.flatnonzero(roles == Role.CLEAN)
        others = np.flatnonzero(roles != Role.CLEAN)
        sizes = ((clean, phase.clean_batch_size), (others, phase.batch_size))
        parts = [shuffled(rows, size, rng) for rows, size in sizes if len(rows)]
    while True:
        rows = np.concatenate([next(part) for part in parts])
        yield Draw(rows, roles[rows], mixup(roles[rows], mixup_alpha, rng))


def shuffled(rows: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Shuffled batches of one size, epoch after epoch; an epoch's incomplete rest is skipped."""
    size = min(batch_size, len(rows))
    while True:
        order = rows[rng.permutation(len(rows))]
        for at in range(0, len(rows) - size + 1, size):
            yield order[at : at + size]


@dataclass(frozen=True)
class Batch:
    """One step of M members, each with B rows: M B rows, a member's behind the other's.

    Attributes:
        inputs: mixed, of this process's rows, on the device.
        targets: of all processes, shape (M B, k).
        roles: shape (M B,).
        mixing: of targets, as of inputs; None where nothing is mixed.
        kept_part: see `Examples`, shape (M B, k), or None.
        draw: what the batch was made from, on the host.
    """

    inputs: Tensor
    targets: Tensor
    roles: Tensor
    mixing: Mixing | None
    kept_part: Tensor | None
    draw: Draw


class Batches:
    """The batches of M members in a phase, side by side.

    With mixup a process needs its rows' partners, too. Tensors in memory are at hand everywhere;
    images on disk are decoded once, each by one process, which then show them to each other.

    Args:
        examples: what all members learn from.
        phase: batch sizes and steps.
        seeds: one for each member: decides its order and its mixing.
        engine: where to, and which of the rows are this process's.
        mixup_alpha: see `mixup`.
        transform: of one image on disk; its randomness must come from torch's generator.
        agrees: whose given label the network believes: they count as clean in this step.
        start: how many batches to leave out, because they were learned from before.

    Raises:
        ValueError: images on disk without a transform.
    """

    def __init__(
        self,
        examples: Examples,
        phase: Phase,
        seeds: Sequence[int],
        engine: Engine,
        *,
        mixup_alpha: float = 0.0,
        transform: Transform | None = None,
        agrees: Agrees | None = None,
        start: int = 0,
    ) -> None:
        self.engine, self.seeds, self.mixup_alpha = engine, seeds, mixup_alpha
        self.device, self.alone = engine.device, engine.world_size == 1  # asking takes time
        self.agrees, self.start = agrees, start
        self.targets, self.roles, self.kept_part, self.given = (
            None if values is None else engine.to_device(values)
            for values in (examples.targets, examples.roles, examples.kept_part, examples.given)
        )
        roles = examples.roles.numpy()
        streams = [
            draw_batches(roles, phase, seed, mixup_alpha=mixup_alpha, start=start) for seed in seeds
        ]
        draws = islice(_side_by_side(streams), phase.steps - start)
        self.held = self.decoded = None
        if isinstance(examples.inputs, Tensor):
            self.draws, self.held = draws, engine.to_device(examples.inputs)
            return
        if transform is None:
            raise ValueError(
                "the inputs are images on disk and transform is None; pass one that ends with a "
                "crop, see build_transform"
            )
        self.draws, ahead = tee(draws)
        self.decoded = step_batches(
            examples.inputs,
            transform,
            (
                (step, draw.rows[engine.own(len(draw.rows))])
                for step, draw in enumerate(ahead, start)
            ),
            num_workers=engine.num_workers,
            seed=seeds[0],
            pin_memory=engine.device.type == "cuda",
        )

    def __iter__(self) -> Iterator[Batch]:
        for step, draw in enumerate(self.draws, self.start + 1):
            index = self.engine.to_device(draw.rows)
            targets = F.embedding(index, self.targets)  # faster than an index in brackets
            roles = self.roles.index_select(0, index)
            mixing = None if draw.mixing is None else draw.mixing.to(self.device)
            unmixed = None
            if self.agrees is not None:
                unmixed = self._own_rows(index)
                targets, roles = self._believe(unmixed, targets, roles, self.given[index])
                mixing = self._mix_anew(step, roles)
            kept_part = None if self.kept_part is None else F.embedding(index, self.kept_part)
            inputs = self._mixed(index, mixing, unmixed)
            yield Batch(inputs, targets, roles, mixing, kept_part, draw)

    def _own_rows(self, index: Tensor) -> Tensor:
        """This process's rows of the next batch (decoded) or of any (in memory), not mixed."""
        if self.held is None:
            return self.engine.to_device(next(self.decoded))
        return self.held[index[self._own(len(index))]]

    def _own(self, count: int) -> slice:
        """This process's part of so many rows."""
        return slice(None) if self.alone else self.engine.own(count)

    def _mixed(self, index: Tensor, mixing: Mixing | None, unmixed: Tensor | None) -> Tensor:
        """This process's rows of the batch as the network sees them."""
        own = self._own(len(index))
        if mixing is not None and self.held is not None:
            if len(self.seeds) > 1:
                return self._blended_at_once(index, mixing)
            return mixing.blend(self.held[index])[own]
        unmixed = self._own_rows(index) if unmixed is None else unmixed
        if mixing is None:
            return unmixed
        return mixing.blend(self.engine.gather(unmixed, len(index)))[own]

    def _blended_at_once(self, index: Tensor, mixing: Mixing) -> Tensor:
        """The same for features: two rows are fetched, weighed and added, nothing written between.

        Where many small models learn together, the blending is a third of the step otherwise.
        """
        pairs = torch.stack([index, index.index_select(0, mixing.partner)], dim=1)
        shares = torch.stack([mixing.keep, 1 - mixing.keep], dim=1).to(self.held.dtype)
        mixed = F.embedding_bag(pairs, self.held.flatten(1), mode="sum", per_sample_weights=shares)
        return mixed.view(len(index), *self.held.shape[1:])

    def _believe(
        self, inputs: Tensor, targets: Tensor, roles: Tensor, given: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Targets and roles in which whoever the network agrees with counts as clean."""
        clean = self.agrees(inputs, given)
        hot = F.one_hot(given, targets.shape[1]).to(targets.dtype)
        return (
            torch.where(clean[:, None], hot, targets),
            torch.where(clean, torch.full_like(roles, int(Role.CLEAN)), roles),
        )

    def _mix_anew(self, step: int, roles: Tensor) -> Mixing | None:
        """Partners among the roles that this step gave; the host has to wait for them."""
        mixings = [
            mixup(of_member, self.mixup_alpha, np.random.default_rng((seed, step)))
            for seed, of_member in zip(
                self.seeds, roles.cpu().numpy().reshape(len(self.seeds), -1), strict=True
            )
        ]
        return None if mixings[0] is None else Mixing.join(mixings).to(self.engine.device)


def _side_by_side(streams: Sequence[Iterator[Draw]]) -> Iterator[Draw]:
    """The next draw of every stream, as one."""
    for draws in zip(*streams, strict=True):
        mixing = None
        if draws[0].mixing is not None:
            mixing = Mixing.join([draw.mixing for draw in draws])
        rows, roles = (
            np.concatenate(parts) for parts in zip(*((d.rows, d.roles) for d in draws), strict=True)
        )
        yield Draw(rows, roles, mixing)
