"""In what order? Batches that depend on the seed alone, and their inputs, brought to the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from genkl.data.loading import Transform, step_batches
from genkl.engine import Engine
from genkl.learn.examples import Examples
from genkl.learn.phase import Phase
from genkl.losses import Mixing, mixup
from genkl.relabel import Role


@dataclass(frozen=True)
class Draw:
    """The rows of one batch, shape (B,), over all processes, and how they are mixed."""

    rows: np.ndarray
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
        yield Draw(rows, mixup(roles[rows], mixup_alpha, rng))


def shuffled(rows: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Shuffled batches of one size, epoch after epoch; an epoch's incomplete rest is skipped."""
    size = min(batch_size, len(rows))
    while True:
        order = rows[rng.permutation(len(rows))]
        for at in range(0, len(rows) - size + 1, size):
            yield order[at : at + size]


class BatchInputs:
    """The inputs of each batch, one after the other, as this process needs them.

    With mixup a process needs its rows' partners, too. Tensors in memory are at hand everywhere;
    images on disk are decoded once, each by one process, which then show them to each other.

    Args:
        examples: N of them.
        draws: what will be asked for, in this order; read ahead where images are decoded.
        engine: where to.
        transform: of one image on disk; its randomness must come from torch's generator.
        seed: of the transform's randomness.
        start: number of the first draw.
    """

    def __init__(
        self,
        examples: Examples,
        draws: Iterator[Draw],
        engine: Engine,
        *,
        transform: Transform | None,
        seed: int,
        start: int,
    ) -> None:
        self.engine = engine
        self.held = self.decoded = None
        if isinstance(examples.inputs, Tensor):
            self.held = engine.to_device(examples.inputs)
            return
        if transform is None:
            raise ValueError(
                "the inputs are images on disk and transform is None; pass one that ends with a "
                "crop, see build_transform"
            )
        self.decoded = step_batches(
            examples.inputs,
            transform,
            (
                (step, draw.rows[engine.own(len(draw.rows))])
                for step, draw in enumerate(draws, start)
            ),
            num_workers=engine.num_workers,
            seed=seed,
            pin_memory=engine.device.type == "cuda",
        )

    def unmixed(self, rows: np.ndarray) -> Tensor:
        """This process's rows of the next batch (decoded) or of any (in memory), not mixed."""
        if self.held is None:
            return self.engine.to_device(next(self.decoded))
        return self.held[self.engine.to_device(rows[self.engine.own(len(rows))])]

    def mixed(self, rows: np.ndarray, mixing: Mixing | None, own: Tensor | None = None) -> Tensor:
        """This process's rows of the batch as the network sees them.

        Args:
            rows: of the whole batch, shape (B,).
            mixing: of the whole batch, on the device; None mixes nothing.
            own: what `unmixed` gave for this batch, if it was asked.
        """
        if mixing is None:
            return self.unmixed(rows) if own is None else own
        if self.held is not None:
            return mixing.blend(self.held[self.engine.to_device(rows)])[self.engine.own(len(rows))]
        own = self.unmixed(rows) if own is None else own
        whole = self.engine.gather(own, len(rows))
        return mixing.blend(whole)[self.engine.own(len(rows))]


def on_device(values: Tensor | None, engine: Engine) -> Tensor | None:
    """A tensor on the engine's device; None stays None."""
    return None if values is None else engine.to_device(values)


def role_counts(roles: np.ndarray) -> Tensor:
    """Rows of each role, shape (3,), counted where no GPU has to wait for it."""
    return torch.from_numpy(np.bincount(roles, minlength=len(Role)))
