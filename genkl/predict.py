"""Predictions of models: logits, and softmax probabilities averaged over an ensemble."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from genkl.data import Images
from genkl.data.loading import Transform, image_batches
from genkl.engine import Engine, as_engine

PREDICT_BATCH = 1024
DECODED_BATCH = 128
"""Images from the disk per forward pass: they are larger than what fits memory otherwise."""


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    inputs: Tensor | Images,
    batch_size: int | None = None,
    *,
    transform: Transform | None = None,
    engine: Engine | str = "auto",
    progress: str | None = None,
) -> Tensor:
    """Logits in evaluation mode, in the order of the inputs; the model's mode is restored.

    Several processes divide the inputs and exchange the results: each returns all rows.

    Args:
        model: maps (B, ...) to (B, k); stays on the device it is on.
        inputs: shape (N, ...), or N images on disk.
        batch_size: rows per forward pass; None suits the kind of inputs.
        transform: of one image on disk, without randomness.
        engine: precision and processes.
        progress: what a bar says; None shows no bar.

    Returns:
        Shape (N, k), on the CPU, float32.

    Raises:
        ValueError: images on disk without a transform, or fewer inputs than processes.
        ImageError: an image that can't be decoded.
    """
    engine, was_training = as_engine(engine), model.training
    if engine.world_size > max(1, len(inputs)):
        raise ValueError(f"{len(inputs)} inputs are fewer than the {engine.world_size} processes")
    device, own = next(model.parameters()).device, engine.own(len(inputs))
    model.eval()
    parts = []
    shown = progress is not None and engine.is_first
    bar = tqdm(total=own.stop - own.start, desc=progress, unit="image", disable=not shown)
    try:
        with bar:
            for batch in _batches(inputs, own, batch_size, transform, engine.num_workers):
                with engine.autocast():
                    logits = model(batch.to(device, non_blocking=True))
                parts.append(logits.float().cpu())
                bar.update(len(batch))
    finally:
        model.train(was_training)
    return engine.gather(torch.cat(parts) if parts else torch.empty(0), len(inputs))


def predict_probs(
    models: Iterable[nn.Module],
    inputs: Tensor | Images,
    batch_size: int | None = None,
    *,
    transform: Transform | None = None,
    engine: Engine | str = "auto",
    progress: str | None = None,
) -> np.ndarray:
    r"""Ensemble prediction :math:`q = \frac1M \sum_m \sigma(f_m(x))`.

    Args:
        models: M networks, at least one.
        inputs: shape (N, ...), or N images on disk.
        batch_size: rows per forward pass; None suits the kind of inputs.
        transform: of one image on disk, without randomness.
        engine: precision and processes, see `predict_logits`.
        progress: what a bar says; None shows no bar.

    Returns:
        Shape (N, k), float64, rows sum to 1.

    Raises:
        ValueError: no model, or images on disk without a transform.
        FloatingPointError: a model's output is not finite.

    Source: prediction vectors of arXiv 2307.09810, equation :eq:`eq-ensemble`.
    """
    total, count = None, 0
    for model in models:
        logits = predict_logits(
            model, inputs, batch_size, transform=transform, engine=engine, progress=progress
        )
        probs = logits.double().softmax(dim=1)
        if not bool(torch.isfinite(probs).all()):
            raise FloatingPointError(
                f"model {count} gives predictions that are not finite; lower the learning rate"
            )
        total, count = (probs if total is None else total + probs), count + 1
    if total is None:
        raise ValueError("models is empty; predictions need at least one model")
    return (total / count).numpy()


def _batches(
    inputs: Tensor | Images,
    own: slice,
    batch_size: int | None,
    transform: Transform | None,
    num_workers: int | None,
) -> Iterator[Tensor]:
    if isinstance(inputs, Tensor):
        yield from inputs[own].split(batch_size or PREDICT_BATCH)
        return
    if transform is None:
        raise ValueError(
            "the inputs are images on disk and transform is None; pass one that ends with a crop, "
            "see build_transform"
        )
    size, rows = batch_size or DECODED_BATCH, np.arange(own.start, own.stop)
    options = {"batch_size": size, "order": rows, "num_workers": num_workers}
    for _, batch in image_batches(inputs, transform, **options):
        yield batch
