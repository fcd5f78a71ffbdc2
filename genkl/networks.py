"""Small networks: for small images and for features; seeded construction, and the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ModelFactory = Callable[[tuple[int, ...], int], nn.Module]
"""``(input_shape, num_classes) -> module``, which maps a batch of inputs to logits (B, k)."""


SMALL_RESNET_SIDE = 32
"""Images at least this high and wide get a `small_resnet` from `default_model`."""


class NormaliseBytes(nn.Module):
    """Bytes become floats of about zero mean and unit scale; floats pass as they are.

    A network that starts with it takes images from a data set (uint8) and images that a transform
    has prepared (float).

    Args:
        mean: per-channel mean that bytes, brought to [0, 1], are centred by.
        std: per-channel scale.
        channels: grey images are repeated over so many channels.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = (images.float() / 255 - self.mean) / self.std
        return images.expand(-1, self.channels, -1, -1)


class ByteConv2d(nn.Conv2d):
    """A convolution that takes bytes, too: 0 to 255 become 0 to 1."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.float() / 255 if images.dtype == torch.uint8 else images)


def small_cnn(input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Two convolutions, the second with stride 2, one hidden layer: enough for 8x8 digits.

    Args:
        input_shape: (channels, height, width).
        num_classes: k.

    Returns:
        Module mapping (B, channels, height, width) to logits (B, k); takes floats, or bytes.

    Raises:
        ValueError: input_shape does not have three axes.
    """
    channels, height, width = check_image_shape(input_shape)
    return nn.Sequential(
        ByteConv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * ((height + 1) // 2) * ((width + 1) // 2), 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )


def check_image_shape(input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Refuse a shape that isn't one of images.

    Raises:
        ValueError: input_shape does not have three axes.
    """
    if len(input_shape) != 3:
        raise ValueError(f"input_shape is {input_shape}; expected (channels, height, width)")
    return input_shape


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without weights, as in ResNets for CIFAR.

    Args:
        channels: of the input.
        width: channels of the output; where it is larger, the shortcut is padded with zeros.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.stride, self.added = stride, width - channels

    def forward(self, inputs: Tensor) -> Tensor:
        inner = self.norm1(self.conv1(inputs)).relu()
        shortcut = F.pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return (self.norm2(self.conv2(inner)) + shortcut).relu()


def small_resnet(input_shape: tuple[int, ...], num_classes: int, *, depth: int = 20) -> nn.Module:
    """ResNet-20 for images of about 32 by 32 pixels: 0.27 million weights.

    Args:
        input_shape: (channels, height, width).
        num_classes: k.
        depth: 6n + 2 for n blocks in each of the three stages of 16, 32 and 64 channels.

    Returns:
        Module mapping (B, channels, height, width) to logits (B, k). Bytes are normalised inside;
        floats are taken as prepared, with about zero mean and unit scale.

    Raises:
        ValueError: input_shape does not have three axes, or no such depth.

    Source: He et al., Deep Residual Learning for Image Recognition (2016), section 4.2.
    """
    channels, _, _ = check_image_shape(input_shape)
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth is {depth}; choose 8, 14, 20, 26, 32, ... (6n + 2)")
    layers: list[nn.Module] = [
        NormaliseBytes((0.5,) * channels, (0.25,) * channels, channels),
        nn.Conv2d(channels, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    inside = 16
    for width in (16, 32, 64):
        for at in range(depth // 6):
            layers.append(ResidualBlock(inside, width, 2 if width > 16 and at == 0 else 1))
            inside = width
    model = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes)
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


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
    """A linear head for features, a small ResNet for images from 32 pixels on, else a small CNN."""
    if len(input_shape) == 1:
        return linear_head(input_shape, num_classes)
    large = len(input_shape) == 3 and min(input_shape[1:]) >= SMALL_RESNET_SIDE
    return (small_resnet if large else small_cnn)(input_shape, num_classes)


def seeded_model(
    factory: ModelFactory, input_shape: tuple[int, ...], num_classes: int, seed: int
) -> nn.Module:
    """Build a model whose initial weights depend on the seed alone; no global state changes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory(input_shape, num_classes)


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The GPU if there is one and "auto" is asked for, otherwise the device named.

    Raises:
        ValueError: no such device, or none on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device is {str(device)!r}, which this machine doesn't have; pass cpu, or auto to "
            "take what there is"
        ) from error
    return torch.device(device)
