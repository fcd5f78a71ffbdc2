"""What does a prediction cost? The three row losses, mixup, and their weighted sum.

Every row loss has one signature, ``(logits (B, k), targets (B, k)) -> (B,)``, so an ablation
replaces an entry of `PAPER_LOSSES` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genkl.relabel import Role

RowLoss = Callable[[Tensor, Tensor], Tensor]


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Cross-entropy against a target distribution, :math:`-\sum_j t_j \log \sigma(z)_j`.

    With one-hot targets it is the clean loss, with uniform targets the NC loss.

    Args:
        logits: z, shape (B, k).
        targets: t, shape (B, k).

    Returns:
        Shape (B,), in nats.

    Source: loss of arXiv 2307.09810, equations :eq:`eq-clean-loss` and :eq:`eq-nc-loss`.
    """
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)


def double_hot_loss(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Negative log of the mass the softmax puts on a double-hot target,
    :math:`-\log \sum_j \sigma(z)_j t_j`.

    Computed as a log-sum-exp, so it stays finite where the softmax underflows.

    Args:
        logits: z, shape (B, k).
        targets: t, shape (B, k), non-negative with at least one positive entry per row.

    Returns:
        Shape (B,), in nats; negative where a target's mass exceeds 1.

    Source: loss of arXiv 2307.09810, equation :eq:`eq-non-nc-loss`.
    """
    return -torch.logsumexp(F.log_softmax(logits, dim=1) + targets.log(), dim=1)


PAPER_LOSSES: Mapping[Role, RowLoss] = MappingProxyType(
    {
        Role.CLEAN: soft_cross_entropy,
        Role.NON_NC: double_hot_loss,
        Role.NC: soft_cross_entropy,
    }
)
"""The loss of each role in the paper."""


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


def three_term_loss(
    logits: Tensor,
    targets: Tensor,
    roles: Tensor,
    weights: tuple[float, float, float],
    *,
    losses: Mapping[Role, RowLoss] = PAPER_LOSSES,
    mixing: Mixing | None = None,
    kept_part: Tensor | None = None,
    own: slice | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Weighted sum of the mean losses of the three roles.

    .. math::

        L = \lambda_1 \bar L_{\mathrm{clean}} + \lambda_2 \bar L_{\mathrm{non-NC}}
            + \lambda_3 \bar L_{\mathrm{NC}},

    each mean over the batch's rows of that role. A role with no row in the batch contributes
    exactly 0. The paper's weights are :math:`\lambda_i = \omega_i / \text{batch size}`.

    Args:
        logits: shape (B, k), of the mixed inputs where a mixing is given.
        targets: shape (B, k).
        roles: shape (B,), see `Role`.
        weights: of (CLEAN, NON_NC, NC).
        losses: the row loss of each role.
        mixing: as drawn by `mixup`, on the device of the logits.
        kept_part: the part of each target that mixing leaves with its row, shape (B, k), see
            `Relabelled`; None lends whole targets.
        own: where several processes share a batch, the rows whose logits are given; everything
            else is about the whole batch. The result is then this process's part of each mean:
            the parts of all processes add up.

    Returns:
        The scalar loss, and the three unweighted means, shape (3,), detached (0 where empty).

    Source: loss of arXiv 2307.09810, equation :eq:`eq-three-term`.
    """
    rows = slice(None) if own is None else own
    per_row = logits.new_zeros(len(logits))
    for loss in dict.fromkeys(losses.values()):
        mine = _any_of(roles, [role for role in Role if losses[role] is loss])
        # A row of another role may have no finite loss under this one (log of a zero target), so
        # its target is replaced before the loss sees it: 0 * inf would poison the gradient.
        own_targets = torch.where(mine[:, None], targets, 1.0)
        if mixing is None:
            cost = loss(logits, own_targets[rows])
        else:
            cost = mixing.cost(loss, logits, own_targets, kept_part, own)
        per_row = torch.where(mine[rows], cost, per_row)
    members = F.one_hot(roles, len(Role)).to(per_row.dtype)
    means = per_row @ members[rows] / members.sum(dim=0).clamp(min=1)
    total = sum(weight * mean for weight, mean in zip(weights, means, strict=True))
    return total, means.detach()


def _any_of(roles: Tensor, wanted: list[Role]) -> Tensor:
    mask = roles == wanted[0]
    for role in wanted[1:]:
        mask = mask | (roles == role)
    return mask


def descend_logits(
    loss: RowLoss, target: np.ndarray, starts: np.ndarray, steps: int = 200, rate: float = 0.1
) -> np.ndarray:
    """Follow a loss downhill from given predictions, as if the logits were free to move.

    No network, no data: what is left is what the loss itself asks for.

    Args:
        loss: a row loss.
        target: shape (k,), the same for every start.
        starts: predictions to start from, shape (S, k), positive.
        steps: gradient steps.
        rate: step length.

    Returns:
        Predictions along the paths, shape (steps + 1, S, k), the starts first.
    """
    logits = torch.from_numpy(np.log(starts)).requires_grad_()
    targets = torch.from_numpy(np.asarray(target, dtype=np.float64)).expand_as(logits)
    path = [logits.detach().softmax(dim=1)]
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss(logits, targets).sum(), logits)
        logits = (logits - rate * gradient).detach().requires_grad_()
        path.append(logits.detach().softmax(dim=1))
    return torch.stack(path).numpy()
