"""What do the models believe? Softmax predictions, averaged over an ensemble."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

PREDICT_BATCH = 1024


@torch.no_grad()
def predict_logits(model: nn.Module, inputs: Tensor, batch_size: int = PREDICT_BATCH) -> Tensor:
    """Logits in evaluation mode, in the order of the inputs; the model's mode is restored.

    Args:
        model: maps (B, ...) to (B, k); inputs are moved to its device batch by batch.
        inputs: shape (N, ...).
        batch_size: rows per forward pass.

    Returns:
        Shape (N, k), on the CPU, float32.
    """
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        batches = [model(batch.to(device)).float().cpu() for batch in inputs.split(batch_size)]
    finally:
        model.train(was_training)
    return torch.cat(batches)


def predict_probs(
    models: Iterable[nn.Module], inputs: Tensor, batch_size: int = PREDICT_BATCH
) -> np.ndarray:
    r"""Ensemble prediction :math:`q = \frac1M \sum_m \sigma(f_m(x))`.

    Args:
        models: M networks, at least one.
        inputs: shape (N, ...).
        batch_size: rows per forward pass.

    Returns:
        Shape (N, k), float64, rows sum to 1.

    Raises:
        ValueError: no model.
        FloatingPointError: a model's output is not finite.

    Source: prediction vectors of arXiv 2307.09810, equation :eq:`eq-ensemble`.
    """
    total, count = None, 0
    for model in models:
        probs = predict_logits(model, inputs, batch_size).double().softmax(dim=1)
        if not bool(torch.isfinite(probs).all()):
            raise FloatingPointError(
                f"model {count} gives predictions that are not finite; lower the learning rate"
            )
        total, count = (probs if total is None else total + probs), count + 1
    if total is None:
        raise ValueError("models is empty; predictions need at least one model")
    return (total / count).numpy()
