"""Transforms of images: a preset's steps as torchvision's, and squares for a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genkl.checks import check_choice, check_positive

if TYPE_CHECKING:  # importing it takes a second, which those with features in hand are spared
    from torchvision.transforms import v2

Transforms = tuple[tuple[str, int | None], ...]
"""Steps of image preparation in their order, each a name in `STEPS` and its number."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESIZE_MODES = ("crop", "squash")
STEPS = {
    "resize": "Resize",
    "centre crop": "CenterCrop",
    "random crop": "RandomCrop",
    "random resized crop": "RandomResizedCrop",
    "random rotation": "RandomRotation",
    "random flip": "RandomHorizontalFlip",
}
"""Name of a step -> torchvision's transform. The number of a step is the short side in pixels
("resize"), the side of a square (the crops), or the largest angle in degrees, either way."""


def build_transform(
    steps: Transforms | Sequence[tuple[str, int | None]],
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    *,
    normalize: bool = True,
) -> v2.Compose:
    """The transform that a preset's steps describe.

    All its randomness comes from torch's generator: `image_batches` seeds it for every image.

    Args:
        steps: pairs of a name in `STEPS` and its number, in their order, such as
            ``CLOTHING1M.train_transforms``.
        mean: per-channel mean that images in [0, 1] are centred by.
        std: per-channel scale.
        normalize: False leaves bytes, a quarter of the memory, for a network that starts with
            `NormaliseBytes` (all of this package do).

    Returns:
        Maps one image (3, H, W), uint8, to float32, normalised, or to bytes; its size is that of
        the last crop.

    Raises:
        ValueError: an unknown step, or a number that doesn't belong to its step.

    Example:
        >>> transform = build_transform(CLOTHING1M.test_transforms)
        >>> image = transform(torch.zeros(3, 480, 640, dtype=torch.uint8))
        >>> tuple(image.shape), image.dtype
        ((3, 224, 224), torch.float32)
    """
    from torchvision.transforms import v2

    built = []
    for name, number in steps:
        check_choice("step", name, STEPS)
        if (number is None) != (name == "random flip") or (number is not None and number <= 0):
            needed = "None" if name == "random flip" else "pixels or degrees, greater than 0"
            raise ValueError(f"step {name!r} has the number {number}; pass {needed}")
        built.append(getattr(v2, STEPS[name])(*([] if number is None else [number])))
    if not normalize:
        return v2.Compose(built or [v2.Identity()])
    return v2.Compose([*built, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


def as_square(
    images: Tensor,
    size: int,
    resize: str = "crop",
    crop_pct: float = 1.0,
    interpolation: str = "bilinear",
) -> Tensor:
    """Images of any proportions as squares, antialiased.

    Args:
        images: (..., C, H, W).
        size: height and width of the result in pixels.
        resize: "crop" cuts out the central square and keeps proportions; "squash" shows the whole
            image and changes them.
        crop_pct: side of that square, as a share of the image's short side (more than 1 is 1).
        interpolation: "bilinear" or "bicubic".

    Returns:
        (..., C, size, size), same dtype.

    Raises:
        ValueError: an unknown way of resizing, or a size that isn't positive.
    """
    from torchvision.transforms.v2 import InterpolationMode, functional

    check_choice("resize", resize, RESIZE_MODES)
    check_positive("size", size)
    if resize == "crop":  # torchvision's own centre is another one where a side is odd
        height, width = images.shape[-2:]
        side = max(1, round(min(height, width) * min(crop_pct, 1.0)))
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side]
    mode = InterpolationMode(interpolation)
    return functional.resize(images, [size, size], mode, antialias=True)
