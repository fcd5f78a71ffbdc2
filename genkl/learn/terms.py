"""The three-term loss of a batch; of an ensemble each row loss is asked only for its roles' rows.

A step of small models is mostly calls. The host knows the roles and the mixing of their batches, so
it can say which values a step needs, and how much each counts, before the device has seen them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from genkl.engine import Engine
from genkl.learn.batches import Batch
from genkl.losses import RowLoss, three_term_loss
from genkl.relabel import Role


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
    costs = torch.cat([loss(of_logits, of_targets) for loss, of_logits, of_targets in asked_of])
    # Not a product with a matrix: 0 * nan would carry one member's nan to the others.
    means = logits.new_zeros(len(counts)).index_add_(0, place, shares[0] * costs.detach())
    return shares[1] @ costs, means.view(members, -1), counts.view(members, -1)
