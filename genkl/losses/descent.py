"""Where does a loss lead? Predictions that follow it downhill."""

from __future__ import annotations

import numpy as np
import torch

from genkl.losses.rows import RowLoss


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
