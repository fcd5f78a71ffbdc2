"""Examples: what is learned from, inputs with their targets and roles, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from genkl.data import Images, Split
from genkl.data.images import JoinedImages, as_images
from genkl.relabel import Relabelled, verified

LARGE_IMAGE = 64
"""From this height and width on convolutions gain from channels-last storage."""


@dataclass(frozen=True)
class Examples:
    """N inputs, their targets (N, k) and roles (N,).

    Attributes:
        inputs: a tensor of shape (N, ...), or images on disk, which are decoded as they are needed.
        targets: shape (N, k).
        roles: shape (N,), see `Role`.
        kept_part: the part of each target that mixup leaves with its row, (N, k), or None where it
            leaves none; see `Relabelled`.
        given: labels, shape (N,), that the network's own belief may turn into verified ones, see
            `SelfSelection`; None where there are none.
    """

    inputs: Tensor | Images
    targets: Tensor
    roles: Tensor
    kept_part: Tensor | None = None
    given: Tensor | None = None

    @staticmethod
    def of(inputs: Tensor | Images, relabelled: Relabelled) -> Examples:
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

    def with_given(self, labels: Tensor) -> Examples:
        """The same examples with labels that a `SelfSelection` may turn into verified ones."""
        return replace(self, given=labels.long())

    def __add__(self, more: Examples) -> Examples:
        both, parts, given = (self, more), None, None
        if any(part.kept_part is not None for part in both):
            parts = torch.cat(
                [
                    torch.zeros_like(part.targets) if part.kept_part is None else part.kept_part
                    for part in both
                ]
            )
        if all(part.given is not None for part in both):
            given = torch.cat([part.given for part in both])
        return Examples(
            join_inputs([part.inputs for part in both]),
            torch.cat([part.targets for part in both]),
            torch.cat([part.roles for part in both]),
            parts,
            given,
        )

    def take(self, rows: np.ndarray | Tensor) -> Examples:
        """The examples at these positions."""
        rows = torch.as_tensor(rows)
        inputs = self.inputs
        inputs = inputs[rows] if isinstance(inputs, Tensor) else inputs.take(rows.numpy())
        values = (self.targets, self.roles, self.kept_part, self.given)
        return Examples(inputs, *(None if value is None else value[rows] for value in values))

    def __len__(self) -> int:
        return len(self.roles)


def has_large_images(inputs: Tensor | Images) -> bool:
    """Whether these are images on disk, or tensors of at least `LARGE_IMAGE` pixels each way."""
    if isinstance(inputs, Tensor):
        return inputs.ndim == 4 and min(inputs.shape[2:]) >= LARGE_IMAGE
    return True


def layout_of(model: nn.Module) -> torch.memory_format:
    """How images are best stored for a model: as its convolutions store their weights."""
    channels_last = any(
        p.ndim == 4
        and p.shape[1] > 1
        and p.is_contiguous(memory_format=torch.channels_last)
        and not p.is_contiguous()
        for p in model.parameters()
    )
    return torch.channels_last if channels_last else torch.contiguous_format


def join_inputs(parts: Sequence[Tensor | Images]) -> Tensor | Images:
    """Inputs one after the other; an empty part may be of the other kind."""
    parts = [part for part in parts if len(part)] or list(parts[:1])
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat(parts) if len(parts) > 1 else parts[0]
    return JoinedImages([as_images(part) for part in parts]) if len(parts) > 1 else parts[0]
