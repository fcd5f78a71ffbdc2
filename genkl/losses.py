r"""Losses: of a row, by name; mixup; the weighted sum of the three roles' means.

Every row loss has one signature, ``(logits (B, k), targets (B, k)) -> (B,)``, so an ablation
replaces an entry of `PAPER_LOSSES` and nothing else, or all of them (`losses_of`). In their
formulas t is a row of the targets and :math:`\sigma(z)` the softmax of a row of the logits. A new
loss is one function here and its entry in `ROW_LOSSES`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genkl.checks import check_choice
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


def mean_squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Squared error of the softmax, :math:`\lVert \sigma(z) - t \rVert_2^2`.

    Summed over the classes, as the literature on label noise does: the mean is over rows, and is
    taken by `three_term_loss`. (``torch.nn.MSELoss`` would divide by k as well.)

    Args:
        logits: z, shape (B, k).
        targets: t, shape (B, k); each row sums to 1, see `on_normalized`.

    Returns:
        Shape (B,), dimensionless, in [0, 2].

    Source: :cite:t:`ghosh2017robust`, equation :eq:`eq-mse`.
    """
    return (logits.softmax(dim=1) - targets).square().sum(dim=1)


def mean_absolute_error(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Absolute error of the softmax, :math:`\lVert \sigma(z) - t \rVert_1`.

    Summed over the classes like `mean_squared_error`; with a one-hot target
    :math:`2 - 2 \sigma(z)_y`. Noise-tolerant: over all k labels the loss adds up to
    :math:`2k - 2`, whatever the prediction, so label noise that is spread evenly over the other
    classes (with a probability below :math:`1 - 1/k`) doesn't move the minimum of its mean.

    Args:
        logits: z, shape (B, k).
        targets: t, shape (B, k); each row sums to 1, see `on_normalized`.

    Returns:
        Shape (B,), dimensionless, in [0, 2].

    Source: :cite:t:`ghosh2017robust`, equation :eq:`eq-mae`.
    """
    return (logits.softmax(dim=1) - targets).abs().sum(dim=1)


def kl_loss(logits: Tensor, targets: Tensor) -> Tensor:
    r"""KL divergence of the softmax from the target, :math:`\sum_j t_j \log (t_j / \sigma(z)_j)`.

    :math:`0 \log 0 = 0`. It is `soft_cross_entropy` less the target's entropy: the same gradient,
    and 0 where the prediction equals the target.

    Args:
        logits: z, shape (B, k).
        targets: t, shape (B, k); each row sums to 1, see `on_normalized`.

    Returns:
        Shape (B,), in nats.

    Source: :cite:t:`kullback1951information`, equation :eq:`eq-kl-loss`.
    """
    log_probs = F.log_softmax(logits, dim=1)
    return (torch.xlogy(targets, targets) - targets * log_probs).sum(dim=1)


def generalized_cross_entropy(logits: Tensor, targets: Tensor, *, q: float = 0.7) -> Tensor:
    r"""Generalized cross-entropy, :math:`\sum_j t_j (1 - \sigma(z)_j^q) / q`.

    The paper defines it for one-hot targets; for others this is its mean under the target. It
    leads from cross-entropy (the limit as q goes to 0) to half the mean absolute error (q = 1, a
    one-hot target). Computed from the log-softmax, so that it stays exact for a small q.

    Args:
        logits: z, shape (B, k).
        targets: t, shape (B, k); each row sums to 1, see `on_normalized`.
        q: in (0, 1]; larger forgives more wrong labels and learns more slowly. The paper's is 0.7.

    Returns:
        Shape (B,), dimensionless, in [0, 1/q].

    Raises:
        ValueError: q outside (0, 1].

    Source: :cite:t:`zhang2018generalized`, equation :eq:`eq-gce`.

    Example:
        >>> from functools import partial
        >>> ablation = {**PAPER_LOSSES, Role.CLEAN: partial(generalized_cross_entropy, q=0.5)}
    """
    if not 0 < q <= 1:
        raise ValueError(
            f"q is {q}; use a number in (0, 1], or soft_cross_entropy, which is the limit at 0"
        )
    return -(targets * torch.expm1(q * F.log_softmax(logits, dim=1))).sum(dim=1) / q


def symmetric_cross_entropy(
    logits: Tensor, targets: Tensor, *, a: float = 0.1, b: float = 1.0, log_zero: float = -4.0
) -> Tensor:
    r"""Cross-entropy, and cross-entropy with prediction and target exchanged:
    :math:`-a \sum_j t_j \log \sigma(z)_j - b \sum_j \sigma(z)_j \max(\log t_j, A)`.

    A stands in for log 0. With a one-hot target the second sum is
    :math:`-A\,(1 - \sigma(z)_y)`, a multiple of `mean_absolute_error`, and as noise-tolerant.

    The default a and b are the authors' for CIFAR-10; for CIFAR-100 they take 6 and 0.1. Their
    script clips the target at 1e-4, which is ``log_zero=math.log(1e-4)``, about -9.2.

    Args:
        logits: z, shape (B, k).
        targets: t, shape (B, k); each row sums to 1, see `on_normalized`.
        a: weight of the cross-entropy, at least 0.
        b: weight of the reverse cross-entropy, at least 0.
        log_zero: A, less than 0, in nats.

    Returns:
        Shape (B,), in nats.

    Raises:
        ValueError: a or b below 0, log_zero not below 0.

    Source: :cite:t:`wang2019symmetric`, equation :eq:`eq-sce`.
    """
    for name, weight in (("a", a), ("b", b)):
        if not weight >= 0:
            raise ValueError(f"{name} is {weight}; weights are at least 0")
    if not log_zero < 0:
        raise ValueError(f"log_zero is {log_zero}; it stands for log 0: use a number below 0")
    log_probs = F.log_softmax(logits, dim=1)
    reverse = -(log_probs.exp() * targets.log().clamp(min=log_zero)).sum(dim=1)
    return a * -(targets * log_probs).sum(dim=1) + b * reverse


def soft_bootstrapping(logits: Tensor, targets: Tensor, *, beta: float = 0.95) -> Tensor:
    r"""Cross-entropy against label and prediction together,
    :math:`-\sum_j (\beta t_j + (1 - \beta) \sigma(z)_j) \log \sigma(z)_j`.

    That is :math:`\beta` times the cross-entropy plus :math:`1 - \beta` times the entropy of the
    softmax: the gradient flows through both, as in entropy minimisation.

    Args:
        logits: z, shape (B, k).
        targets: t, shape (B, k); each row sums to 1, see `on_normalized`.
        beta: the label's share, in [0, 1]; 1 is cross-entropy. The paper's is 0.95.

    Returns:
        Shape (B,), in nats.

    Raises:
        ValueError: beta outside [0, 1].

    Source: :cite:t:`reed2015training`, equation 6 there.
    """
    _check_share(beta)
    log_probs = F.log_softmax(logits, dim=1)
    return -((beta * targets + (1 - beta) * log_probs.exp()) * log_probs).sum(dim=1)


def hard_bootstrapping(logits: Tensor, targets: Tensor, *, beta: float = 0.8) -> Tensor:
    r"""Cross-entropy against label and predicted class together,
    :math:`-\sum_j (\beta t_j + (1 - \beta) [j = c]) \log \sigma(z)_j`,
    :math:`c = \arg\max_j z_j`.

    Args:
        logits: z, shape (B, k).
        targets: t, shape (B, k); each row sums to 1, see `on_normalized`.
        beta: the label's share, in [0, 1]; 1 is cross-entropy. The paper's is 0.8.

    Returns:
        Shape (B,), in nats.

    Raises:
        ValueError: beta outside [0, 1].

    Source: :cite:t:`reed2015training`, equation 7 there.
    """
    _check_share(beta)
    log_probs = F.log_softmax(logits, dim=1)
    of_label = (targets * log_probs).sum(dim=1)
    return -(beta * of_label + (1 - beta) * log_probs.amax(dim=1))


def _check_share(beta: float) -> None:
    if not 0 <= beta <= 1:
        raise ValueError(f"beta is {beta}; state the label's share in [0, 1]; 1 is cross-entropy")


ROW_LOSSES: Mapping[str, RowLoss] = MappingProxyType(
    {
        "ce": soft_cross_entropy,
        "double-hot": double_hot_loss,
        "mse": mean_squared_error,
        "mae": mean_absolute_error,
        "kl": kl_loss,
        "gce": generalized_cross_entropy,
        "sce": symmetric_cross_entropy,
    }
)
"""The row losses by name, with their default parameters."""


@functools.cache
def on_normalized(loss: RowLoss) -> RowLoss:
    """The same row loss against targets that are divided by their sum.

    Double-hot targets are no distributions: they may sum to less than 1 or to more. All losses
    but `double_hot_loss` compare the softmax, which sums to 1, with its target entry by entry, and
    would teach a double-hot row the wrong thing, or weigh it by its mass. One-hot targets stay as
    they are.

    Args:
        loss: a row loss; parameters are bound with ``functools.partial``.

    Returns:
        A row loss, the same object for the same loss. Its targets, shape (B, k), must be
        non-negative with at least one positive entry per row.

    Example:
        >>> import torch
        >>> ablation = {**PAPER_LOSSES, Role.NON_NC: on_normalized(soft_cross_entropy)}
        >>> ablation[Role.NON_NC](torch.zeros(1, 2), torch.tensor([[0.3, 0.9]])).item()
        0.693...
    """

    def normalized(logits: Tensor, targets: Tensor) -> Tensor:
        return loss(logits, targets / targets.sum(dim=1, keepdim=True))

    normalized.__qualname__ = normalized.__name__ = f"on_normalized({_describe(loss)})"
    return normalized


def _describe(loss: RowLoss) -> str:
    """A name that is the same in every process: run folders record it."""
    if isinstance(loss, functools.partial):
        bound = [*map(str, loss.args), *(f"{k}={v}" for k, v in loss.keywords.items())]
        return f"{_describe(loss.func)}({', '.join(bound)})"
    return f"{loss.__module__}.{getattr(loss, '__qualname__', type(loss).__qualname__)}"


# -- mixup -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixing:
    """Which row each row is mixed with, and how much of itself it keeps.

    Attributes:
        partner: row indices, shape (B,).
        keep: lambda, shape (B,), in [0.5, 1].
    """

    partner: Tensor
    keep: Tensor

    @staticmethod
    def join(mixings: Sequence[Mixing]) -> Mixing:
        """Of batches of one size that follow one another: each row's partner is of its batch."""
        if len(mixings) == 1:
            return mixings[0]
        size = len(mixings[0].keep)
        partners = [mixing.partner + at * size for at, mixing in enumerate(mixings)]
        return Mixing(torch.cat(partners), torch.cat([mixing.keep for mixing in mixings]))

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
        keep, lent = self.keep.to(logits.dtype), self.lent(targets, kept_part)
        if own is not None:
            keep, targets, lent = keep[own], targets[own], lent[own]
        # One call for both, since a small model's step is mostly calls.
        both = row_costs(loss, torch.cat([logits, logits]), torch.cat([targets, lent]))
        of_own, of_lent = both.chunk(2)
        return keep * of_own + (1 - keep) * of_lent

    def lent(self, targets: Tensor, kept_part: Tensor | None) -> Tensor:
        """The target lent to each row, its own kept part included; shape (B, k), see `cost`."""
        if kept_part is None:
            return targets.index_select(0, self.partner)
        return (targets - kept_part).index_select(0, self.partner) + kept_part


MIXED_ROLES = (int(Role.CLEAN), int(Role.NON_NC))


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
    for role in MIXED_ROLES:
        rows = np.flatnonzero(roles == role)
        partner[rows] = rng.permutation(rows)
        lam = rng.beta(mixup_alpha, mixup_alpha)
        keep[rows] = max(lam, 1 - lam)
    return Mixing(torch.from_numpy(partner), torch.from_numpy(keep))


# -- the three roles -------------------------------------------------------------------------------


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

    def __or__(self, other: Mapping[Role, RowLoss]) -> Mapping[Role, RowLoss]:
        return _ByRole({**self, **other})

    def __ror__(self, other: Mapping[Role, RowLoss]) -> Mapping[Role, RowLoss]:
        return _ByRole({**other, **self})

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
    two of the mixing included. Faster, and with row losses of any kind: the batches of M members
    may follow one another in one of M B rows; then role_counts are (M, 3), the loss is the sum of
    the members', and there are means for each.

    Args:
        logits: shape (B, k), of the mixed inputs where a mixing is given.
        targets: shape (B, k).
        roles: shape (B,), see `Role`.
        weights: of (CLEAN, NON_NC, NC).
        losses: the row loss of each role that occurs.
        mixing: as drawn by `mixup`, on the device of the logits.
        kept_part: the part of each target that mixing leaves with its row, shape (B, k), see
            `Relabelled`; None lends whole targets.
        own: where several processes share a batch, the rows whose logits are given; everything
            else is about the whole batch. The result is then this process's part of each mean:
            the parts of all processes add up.
        role_counts: the number of rows of each role to divide by, shape (3,), where it is more
            than the rows given: those of the whole batch, if each process knows only its part.
            The parts then add up, too. Shape (M, 3) for M members, see above. None counts the
            roles given.

    Returns:
        The scalar loss, and the three unweighted means, shape (3,) or (M, 3), detached (0 where
        empty).

    Source: loss of arXiv 2307.09810, equation :eq:`eq-three-term`.
    """
    rows = slice(None) if own is None else own
    different = list(dict.fromkeys(losses.values()))
    per_row = logits.new_zeros(len(logits))
    if len(different) == 1:  # it is every row's
        per_row = _costs(different.pop(), logits, targets, mixing, kept_part, own)
    for loss in different:
        mine = _any_of(roles, [role for role, its in losses.items() if its is loss])
        # A row of another role may have no finite loss under this one (log of a zero target), so
        # its target is replaced before the loss sees it: 0 * inf would poison the gradient.
        own_targets = torch.where(mine[:, None], targets, 1.0)
        cost = _costs(loss, logits, own_targets, mixing, kept_part, own)
        per_row = torch.where(mine[rows], cost, per_row)
    # Not F.one_hot, which looks at the values of the roles.
    of_role = roles[:, None] == torch.arange(len(Role), device=roles.device)
    of_role = of_role.to(per_row.dtype)
    counts = of_role.sum(dim=0) if role_counts is None else role_counts.to(per_row)
    members = counts.shape[:-1]
    sums = per_row.reshape(*members, 1, -1) @ of_role[rows].reshape(*members, -1, len(Role))
    means = sums.squeeze(-2) / counts.clamp(min=1)
    total = sum(weight * mean for weight, mean in zip(weights, means.unbind(-1), strict=True))
    return total.sum(), means.detach()


def _costs(
    loss: RowLoss,
    logits: Tensor,
    targets: Tensor,
    mixing: Mixing | None,
    kept_part: Tensor | None,
    own: slice | None,
) -> Tensor:
    """A row loss of every row given, mixed or not; shape (B,)."""
    if mixing is not None:
        return mixing.cost(loss, logits, targets, kept_part, own)
    return row_costs(loss, logits, targets if own is None else targets[own])


def row_costs(loss: RowLoss, logits: Tensor, targets: Tensor) -> Tensor:
    """A row loss of every row; shape (B,).

    Raises:
        ValueError: the loss gives something else than one value a row.
    """
    costs = loss(logits, targets)
    if costs.shape != logits.shape[:-1]:
        raise ValueError(
            f"losses: {_describe(loss)} gives shape {tuple(costs.shape)} for {len(logits)} rows; "
            'it must give one value a row, as reduction="none" does'
        )
    return costs


def complete(
    losses: Mapping[Role, RowLoss], num_classes: int, device: torch.device
) -> Mapping[Role, RowLoss]:
    """The row loss of every role, the paper's where none is given; each is tried on two rows.

    Raises:
        ValueError: no such role, or a loss that gives something else than one value a row.
    """
    for role in losses:
        check_choice("role in losses", role, list(Role))
    losses = PAPER_LOSSES | losses
    rows = torch.full((2, num_classes), 1 / num_classes, device=device)
    for loss in dict.fromkeys(losses.values()):
        row_costs(loss, rows.log(), rows)
    return losses


def _any_of(roles: Tensor, wanted: list[Role]) -> Tensor:
    mask = roles == int(wanted[0])
    for role in wanted[1:]:
        mask = mask | (roles == int(role))
    return mask
