"""Which rows are blended? Mixup within the roles, and what a blended row costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genkl.losses.rows import RowLoss
from genkl.relabel import Role


@dataclass(frozen=True)
class Mixing:
    """Which row each row is mixed with, and how much of itself it keeps.

    Attributes:
        partner: row indices, shape (B,).
        keep: lambda, shape (B,), in [0.5, 1].
    """

    partner: Tensor
    keep: Tensor

    def to(self, device: torch.device) -> Mixing:
        """The same mixing on another device."""
        return Mixing(self.partner.to(device), self.keep.to(device))

    def blend(self, inputs: Tensor) -> Tensor:
        """Mixed inputs, same shape and dtype as inputs (B, ...)."""
        if not inputs.dtype.is_floating_point:  # as bytes, lambda would be 0 or 1
            return self.blend(inputs.float()).round().to(inputs.dtype)
        keep = self.keep.to(inputs.dtype).reshape(-1, *([1] * (inputs.ndim - 1)))
        return keep * inputs + (1 - keep) * inputs[self.partner]

    def cost(
        self,
        loss: RowLoss,
        logits: Tensor,
        targets: Tensor,
        kept_part: Tensor | None = None,
        own: slice | None = None,
    ) -> Tensor:
        """The loss against both partners' targets, weighted by lambda; shape (B,).

        Args:
            loss: a row loss.
            logits: of the mixed inputs, shape (B, k).
            targets: shape (B, k).
            kept_part: the part of each target that its row does not lend, shape (B, k), see
                `Relabelled`; None lends whole targets.
            own: the rows that logits belong to, see `three_term_loss`; then the result has as
                many.
        """
        keep = self.keep.to(logits.dtype)
        lent = targets[self.partner]
        if kept_part is not None:
            lent = (targets - kept_part)[self.partner] + kept_part
        if own is not None:
            keep, targets, lent = keep[own], targets[own], lent[own]
        return keep * loss(logits, targets) + (1 - keep) * loss(logits, lent)


def mixup(roles: np.ndarray, mixup_alpha: float, rng: np.random.Generator) -> Mixing | None:
    r"""Draw a mixing in which clean rows meet clean rows and non-NC rows meet non-NC rows.

    One :math:`\lambda \sim \mathrm{Beta}(a, a)` per role, raised to
    :math:`\max(\lambda, 1 - \lambda)`. NC rows are left alone. A partner lends its input and its
    whole target, so every per-instance field moves together.

    Args:
        roles: shape (B,), see `Role`.
        mixup_alpha: a; 0 switches mixup off (returns None).
        rng: source of randomness.

    Returns:
        The mixing on the CPU, or None.

    Raises:
        ValueError: negative mixup_alpha.

    Source: mixup :cite:p:`zhang2018mixup` as arXiv 2307.09810 uses it, equation :eq:`eq-mixup`.
    """
    if mixup_alpha < 0:
        raise ValueError(f"mixup_alpha is {mixup_alpha}; use 0 to switch mixup off")
    if mixup_alpha == 0:
        return None
    partner, keep = np.arange(len(roles)), np.ones(len(roles))
    for role in (Role.CLEAN, Role.NON_NC):
        rows = np.flatnonzero(roles == role)
        partner[rows] = rng.permutation(rows)
        lam = rng.beta(mixup_alpha, mixup_alpha)
        keep[rows] = max(lam, 1 - lam)
    return Mixing(torch.from_numpy(partner), torch.from_numpy(keep))
