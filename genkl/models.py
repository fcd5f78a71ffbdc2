"""Which network? Small models for the embedded data, and seeded construction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

ModelFactory = Callable[[tuple[int, ...], int], nn.Module]
"""``(input_shape, num_classes) -> module``, which maps a batch of inputs to logits (B, k)."""


def small_cnn(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Two convolutions, the second with stride 2, one hidden layer: enough for 8x8 digits.

    Args:
        input_shape: (channels, height, width).
        num_classes: k.

    Returns:
        Module mapping (B, channels, height, width) to logits (B, k).

    Raises:
        ValueError: input_shape does not have three axes.
    """
    if len(input_shape) != 3:
        raise ValueError(f"input_shape is {input_shape}; expected (channels, height, width)")
    channels, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * ((height + 1) // 2) * ((width + 1) // 2), 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )


def linear_head(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A trainable linear layer on frozen features (standardised by its own batch statistics).

    Args:
        input_shape: (num_features,).
        num_classes: k.

    Returns:
        Module mapping (B, num_features) to logits (B, k).

    Raises:
        ValueError: input_shape does not have one axis.
    """
    if len(input_shape) != 1:
        raise ValueError(f"input_shape is {input_shape}; expected (num_features,)")
    return nn.Sequential(
        nn.BatchNorm1d(input_shape[0], affine=False), nn.Linear(input_shape[0], num_classes)
    )


def default_model(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A linear head for feature vectors, a small CNN for images."""
    build = linear_head if len(input_shape) == 1 else small_cnn
    return build(input_shape, num_classes)


def seeded_model(
    factory: ModelFactory, input_shape: tuple[int, ...], num_classes: int, seed: int
) -> nn.Module:
    """Build a model whose initial weights depend on the seed alone; no global state changes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory(input_shape, num_classes)


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The GPU if there is one and "auto" is asked for, otherwise the device named."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
