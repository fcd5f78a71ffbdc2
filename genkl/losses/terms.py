"""What does a batch cost? The weighted sum of three means, one per role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from genkl.checks import check_choice
from genkl.losses.mixing import Mixing
from genkl.losses.rows import (
    ROW_LOSSES,
    RowLoss,
    double_hot_loss,
    on_normalized,
    soft_cross_entropy,
)
from genkl.relabel import Role


class _ByRole(Mapping[Role, RowLoss]):
    """A read-only mapping that ``torch.compile`` can read, which it cannot a ``mappingproxy``."""

    def __init__(self, losses: Mapping[Role, RowLoss]) -> None:
        self._losses = dict(losses)

    def __getitem__(self, role: Role) -> RowLoss:
        return self._losses[role]

    def __iter__(self) -> Iterator[Role]:
        return iter(self._losses)

    def __len__(self) -> int:
        return len(self._losses)

    def __repr__(self) -> str:
        return repr(self._losses)


PAPER_LOSSES: Mapping[Role, RowLoss] = _ByRole(
    {
        Role.CLEAN: soft_cross_entropy,
        Role.NON_NC: double_hot_loss,
        Role.NC: soft_cross_entropy,
    }
)
"""The loss of each role in the paper."""


def losses_of(name: str) -> Mapping[Role, RowLoss]:
    """The loss of each role in an ablation: one row loss for all three, or the paper's.

    Targets are normalised (see `on_normalized`) for all but `double_hot_loss`, whose gradient
    their scale doesn't change. Under "double-hot" NC rows cost log k whatever the prediction: they
    teach nothing.

    Args:
        name: "paper" for `PAPER_LOSSES`, or one of `ROW_LOSSES`.

    Returns:
        A read-only mapping, for the argument ``losses`` of `three_term_loss` and `run_genkl`. With
        other parameters than the default ones, write
        ``dict.fromkeys(Role, on_normalized(functools.partial(loss, ...)))``.

    Raises:
        ValueError: unknown name (the message lists the known ones).

    Example:
        >>> losses_of("paper") is PAPER_LOSSES
        True
        >>> set(losses_of("mae").values()) == {on_normalized(mean_absolute_error)}
        True
    """
    check_choice("losses", name, ("paper", *ROW_LOSSES))
    if name == "paper":
        return PAPER_LOSSES
    loss = ROW_LOSSES[name]
    if loss is not double_hot_loss:
        loss = on_normalized(loss)
    return _ByRole(dict.fromkeys(Role, loss))


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
    role_counts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Weighted sum of the mean losses of the three roles.

    .. math::

        L = \lambda_1 \bar L_{\mathrm{clean}} + \lambda_2 \bar L_{\mathrm{non-NC}}
            + \lambda_3 \bar L_{\mathrm{NC}},

    each mean over the batch's rows of that role. A role with no row in the batch contributes
    exactly 0. The paper's weights are :math:`\lambda_i = \omega_i / \text{batch size}`.

    Nothing here waits for the device or depends on the values of a tensor, so it can be compiled,
    and ``torch.vmap`` evaluates it for an ensemble: a leading axis of members on every tensor, the
    two of the mixing included.

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
        role_counts: the number of rows of each role to divide by, shape (3,), where it is more
            than the rows given: those of the whole batch, if each process knows only its part.
            The parts then add up, too. None counts the roles given.

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
    # Not F.one_hot, which looks at the values of the roles.
    members = roles[:, None] == torch.arange(len(Role), device=roles.device)
    members = members.to(per_row.dtype)
    counts = members.sum(dim=0) if role_counts is None else role_counts.to(per_row)
    means = per_row @ members[rows] / counts.clamp(min=1)
    total = sum(weight * mean for weight, mean in zip(weights, means, strict=True))
    return total, means.detach()


def _any_of(roles: Tensor, wanted: list[Role]) -> Tensor:
    mask = roles == int(wanted[0])
    for role in wanted[1:]:
        mask = mask | (roles == int(role))
    return mask
