r"""What does one prediction cost? The row losses of the paper, of its ablations, and robust ones.

Every row loss has one signature, ``(logits (B, k), targets (B, k)) -> (B,)``. In their formulas t
is a row of the targets and :math:`\sigma(z)` the softmax of a row of the logits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

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
