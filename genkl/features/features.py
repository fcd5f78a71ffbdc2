"""What does a frozen network see? Features of images, computed once and kept on disk."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from torch import Tensor
from tqdm import tqdm

from genkl.checks import check_choice, check_positive
from genkl.data import NoisyDataset, Split
from genkl.data.images import FINGERPRINT_BYTES, ImageError, Images, JoinedImages, as_images
from genkl.data.loading import (
    MOST_WORKERS,
    ON_ERROR,
    BrokenImages,
    default_workers,
    image_batches,
    usable_cores,
)
from genkl.data.transforms import RESIZE_MODES, as_square
from genkl.features.networks import EFFICIENTNET_LITE0, Backbone
from genkl.features.store import FeatureStore, as_keys
from genkl.networks import pick_device

SHARD_ROWS = 1000
"""Features are written to disk every so many images: what an interruption can cost."""
BATCH_ON_CPU = 8
"""Few images at a time stay in the processor's cache: measured, four times as fast as 64."""
BATCH_ON_GPU = 128
HASHING_THREADS = 8

log = logging.getLogger(__name__)


def normalise(images: Tensor, backbone: Backbone) -> Tensor:
    """Bytes (B, 3, H, W) as the floats that a backbone expects."""
    mean = torch.tensor(backbone.mean, device=images.device).reshape(1, 3, 1, 1)
    std = torch.tensor(backbone.std, device=images.device).reshape(1, 3, 1, 1)
    return (images.float() / 255 - mean) / std


def preprocess(images: Tensor, size: int, backbone: Backbone, resize: str = "crop") -> Tensor:
    """Resize and normalise images for a backbone.

    Args:
        images: (B, C, H, W), uint8 in 0..255 or float in 0..1, which is rounded to bytes; grey
            images (C = 1) are repeated over three channels.
        size: output height and width in pixels.
        backbone: gives mean and scale.
        resize: see `as_square`.

    Returns:
        (B, 3, size, size), float32.

    Raises:
        ValueError: images without 1 or 3 channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (B, 1 or 3, H, W)")
    if images.dtype != torch.uint8:
        images = (images.float() * 255).round().clamp(0, 255).to(torch.uint8)
    resized = as_square(images, size, resize, backbone.crop_pct, backbone.interpolation)
    return normalise(resized.expand(-1, 3, -1, -1), backbone)


def extract_features(
    images: Tensor | Images,
    backbone: Backbone = EFFICIENTNET_LITE0,
    *,
    size: int | None = None,
    resize: str = "crop",
    batch_size: int | None = None,
    device: str | torch.device = "auto",
    num_workers: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    on_error: str = "raise",
    progress: bool = True,
) -> Tensor:
    """Features of every image; what was computed before comes from the disk.

    Each row is kept under its image's content, in a folder for this backbone, size and way of
    resizing. So a subset, another order or another seed's splits find what is there, an image that
    occurs twice is computed once, and an extraction that was interrupted goes on where it stopped.

    A row doesn't depend on num_workers. It depends on the other images of its batch, and on the
    device, by no more than the rounding of float32 arithmetic.

    Args:
        images: N images on disk, or a tensor (N, C, H, W), see `preprocess`.
        backbone: the frozen network.
        size: input height and width in pixels; None is ``backbone.size``.
        resize: "squash" or "crop", see `as_square`.
        batch_size: images per forward pass; None suits the device.
        device: "auto", "cpu", "cuda", ...
        num_workers: processes that decode; None suits the device.
        cache_dir: folder of the cache; default ``$GENKL_CACHE``, else the user's cache folder.
        on_error: "raise" stops at an image that can't be decoded; "skip" gives it a row of NaN,
            and logs how many such images there are and which. See also `drop_broken`.
        progress: show bars.

    Returns:
        (N, num_features), float32, on the CPU.

    Raises:
        ImageError: an image can't be decoded; the message holds its path.
        ValueError: no images at all or none that can be decoded, an unknown way of resizing, or a
            size that isn't positive.
        FloatingPointError: the network's output for an image is not finite.
    """
    images, device = as_images(images), pick_device(device)
    size = backbone.size if size is None else size
    check_choice("resize", resize, RESIZE_MODES)
    check_choice("on_error", on_error, ON_ERROR)
    check_positive("size", size)
    if len(images) == 0:
        raise ValueError("there are no images; features need at least one")
    digests, readable = _fingerprints(images, on_error, progress)
    store = FeatureStore(cache_folder(cache_dir) / _folder_name(backbone, size, resize))
    _, first = np.unique(as_keys(digests[readable]), return_index=True)
    distinct = np.sort(readable[first])
    missing = distinct[~store.has(digests[distinct])]
    if len(missing):
        batches = image_batches(
            images,
            functools.partial(
                as_square,
                size=size,
                resize=resize,
                crop_pct=backbone.crop_pct,
                interpolation=backbone.interpolation,
            ),
            batch_size=batch_size or (BATCH_ON_CPU if device.type == "cpu" else BATCH_ON_GPU),
            order=missing,
            num_workers=_decoders(images, len(missing), device)
            if num_workers is None
            else num_workers,
            on_error=on_error,
            progress="features" if progress else None,
        )
        _compute(images, backbone, batches, digests, store, device)
    good = readable[store.has(digests[readable])]
    if len(good) == 0:
        raise ValueError(f"none of the {len(images)} images can be used; see check_images")
    features = store.read(digests[good])
    if len(good) == len(images):
        return features
    result = torch.full((len(images), features.shape[1]), float("nan"))
    result[torch.from_numpy(good)] = features
    return result


def featurize(
    dataset: NoisyDataset,
    backbone: Backbone = EFFICIENTNET_LITE0,
    *,
    on_error: str = "raise",
    **options: Any,
) -> NoisyDataset:
    """The data set with every image replaced by its frozen features.

    All splits, further test sets included, go through `extract_features` together.

    Args:
        dataset: its inputs are `Images`, or tensors of shape (N, C, H, W).
        backbone: the frozen network.
        on_error: "raise" stops at an image that can't be decoded; "skip" drops such instances from
            their splits and logs how many and which. `Truth.match` then says what is known about
            the noisy instances that stay.
        options: passed on to `extract_features`.

    Returns:
        The data set with inputs of shape (N, num_features); its ``features`` say which.

    Raises:
        ValueError: inputs that are features already, or an unknown on_error.
        ImageError: see `extract_features`.
    """
    check_choice("on_error", on_error, ON_ERROR)
    splits = {**dataset.splits(), **dataset.more_tests}
    for name, split in splits.items():
        if isinstance(split.inputs, Tensor) and split.inputs.ndim != 4:
            raise ValueError(
                f"the {name} split of {dataset.name} has inputs of shape "
                f"{tuple(split.inputs.shape)}; featurize needs images (N, C, H, W)"
            )
    images = JoinedImages([as_images(split.inputs) for split in splits.values()])
    features = extract_features(images, backbone, on_error=on_error, **options)
    parts = iter(features.split([len(split) for split in splits.values()]))

    def with_features(split: Split) -> Split:
        changed = replace(split, inputs=next(parts))
        good = ~torch.isnan(changed.inputs).any(dim=1)
        return changed if good.all() else changed.take(good)

    changed = dataset.map_splits(with_features)
    left_out = {
        name: len(split) - len(rest)
        for (name, split), rest in zip(
            splits.items(), [*changed.splits().values(), *changed.more_tests.values()], strict=True
        )
        if len(split) > len(rest)
    }
    if left_out:
        counts = ", ".join(f"{count} of {name}" for name, count in left_out.items())
        log.warning("%s: %s left out, because their images are broken", dataset.name, counts)
    size, resize = options.get("size") or backbone.size, options.get("resize", "crop")
    return replace(changed, features=f"{backbone.name}, {size} pixels, {resize}")


def use_features(
    dataset: NoisyDataset,
    features: np.ndarray | Tensor,
    ids: np.ndarray | Tensor | None = None,
    *,
    more_tests: Mapping[str, np.ndarray | Tensor] | None = None,
    name: str = "features brought along",
) -> NoisyDataset:
    """The data set with every input replaced by a row of a matrix: CLIP, DINO, or your own.

    Args:
        dataset: its inputs are never read.
        features: shape (M, d), one row for each instance; a memory-mapped array will do.
        ids: shape (M,), the instance of each row; None says that row i is that of instance i.
        more_tests: for each further test set, shape (M, d), row i for its instance i; their ids
            count separately.
        name: what records say that was learned from.

    Returns:
        The data set with inputs of shape (N, d), float32.

    Raises:
        ValueError: features of an instance are missing or not finite, ids that occur twice, or
            other lengths.
    """
    missing = set(dataset.more_tests) - set(more_tests or {})
    if missing:
        raise ValueError(
            f"{dataset.name} has the further test set {min(missing)!r}, whose ids count "
            "separately; pass more_tests={name: features}, or leave it out: "
            "dataclasses.replace(dataset, more_tests={})"
        )
    chosen = {
        split_name: replace(split, inputs=_rows_of(split, split_name, features, ids))
        for split_name, split in dataset.splits().items()
    }
    more = {
        split_name: replace(split, inputs=_rows_of(split, split_name, more_tests[split_name], None))
        for split_name, split in dataset.more_tests.items()
    }
    return replace(dataset, **chosen, more_tests=more, features=name)


def _rows_of(
    split: Split, name: str, features: np.ndarray | Tensor, ids: np.ndarray | Tensor | None
) -> Tensor:
    if features.ndim != 2 or (ids is not None and len(ids) != len(features)):
        count = "" if ids is None else f" and {len(ids)} ids"
        raise ValueError(
            f"features have shape {tuple(features.shape)}{count}; pass one row (of d numbers) and "
            "one id for each instance"
        )
    wanted = split.ids.numpy()
    known = np.arange(len(features)) if ids is None else np.asarray(ids, dtype=np.int64)
    order = np.argsort(known, kind="stable")
    ordered = known[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise ValueError(f"instance {ordered[twice[0]]} has two rows of features; pass one")
    at = np.minimum(np.searchsorted(ordered, wanted), max(len(ordered) - 1, 0))
    absent = wanted != ordered[at] if len(ordered) else np.ones(len(wanted), dtype=bool)
    if absent.any():
        raise ValueError(
            f"instance {wanted[absent][0]} of the {name} split has no row of features "
            f"({absent.sum()} are missing); pass a row for each, with its id"
        )
    rows = order[at]
    if isinstance(features, Tensor):
        chosen = features[torch.from_numpy(rows)].detach().cpu().float()
    else:
        chosen = torch.from_numpy(np.asarray(features[rows], dtype=np.float32))
    broken = ~torch.isfinite(chosen).all(dim=1).numpy()
    if broken.any():
        raise ValueError(
            f"the features of instance {wanted[broken][0]} are not finite; compute them again, or "
            "drop the instance"
        )
    return chosen


def _decoders(images: Images, count: int, device: torch.device) -> int:
    """Processes beside the network; on the CPU they would take the cores that it computes on."""
    spare = MOST_WORKERS if device.type != "cpu" else max(0, usable_cores() // 2 - 1)
    return min(spare, default_workers(images, count))


def _compute(
    images: Images,
    backbone: Backbone,
    batches: Iterator[tuple[np.ndarray, Tensor]],
    digests: np.ndarray,
    store: FeatureStore,
    device: torch.device,
) -> None:
    """Put the features of all batches into the store, a shard at a time."""
    model = backbone.build().to(device, memory_format=torch.channels_last).eval()
    pending: list[tuple[np.ndarray, Tensor]] = []

    def write() -> None:
        if pending:
            rows = np.concatenate([rows for rows, _ in pending])
            store.add(digests[rows], torch.cat([features for _, features in pending]))
            pending.clear()

    try:
        for rows, batch in batches:
            inputs = normalise(batch.to(device), backbone)
            with torch.inference_mode():
                features = model(inputs.contiguous(memory_format=torch.channels_last))
            features = features.float().cpu()
            _check_features(features, rows, images, backbone)
            pending.append((rows, features))
            if sum(len(rows) for rows, _ in pending) >= SHARD_ROWS:
                write()
    finally:  # what was computed before an error or Ctrl-C is not lost
        write()


def _check_features(features: Tensor, rows: np.ndarray, images: Images, backbone: Backbone) -> None:
    if features.ndim != 2:
        raise ValueError(
            f"{backbone.name} gives features of shape {tuple(features.shape)}; its build must make "
            "a module that gives (B, d)"
        )
    broken = ~torch.isfinite(features).all(dim=1).numpy()
    if broken.any():
        raise FloatingPointError(
            f"the features of {images.name(int(rows[broken][0]))} are not finite; look at the "
            f"weights of {backbone.name}"
        )


def _fingerprints(images: Images, on_error: str, progress: bool) -> tuple[np.ndarray, np.ndarray]:
    """Every image's content hash (N, 16), and the rows of the images that could be read."""
    digests = np.zeros((len(images), FINGERPRINT_BYTES), dtype=np.uint8)
    errors: dict[int, ImageError] = {}

    def hash_block(block: range) -> int:
        for row in block:
            try:
                digests[row] = np.frombuffer(images.fingerprint(row), dtype=np.uint8)
            except ImageError as error:
                if on_error == "raise":
                    raise
                errors[row] = error
        return len(block)

    blocks = [range(a, min(a + 256, len(images))) for a in range(0, len(images), 256)]
    shown = progress and len(images) > 10_000
    pool = ThreadPoolExecutor(HASHING_THREADS)
    try:
        with tqdm(total=len(images), desc="hashing", unit="image", disable=not shown) as bar:
            for count in pool.map(hash_block, blocks):
                bar.update(count)
    finally:
        pool.shutdown(cancel_futures=True)
    if errors:
        log.warning("%s; left out", BrokenImages.of(errors, len(images)))
    return digests, np.delete(np.arange(len(images)), list(errors))


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder for computed features: the argument, ``$GENKL_CACHE``, or the user's cache."""
    return Path(cache_dir or os.environ.get("GENKL_CACHE") or _default_cache())


@functools.cache
def _default_cache() -> Path:
    return Path(platformdirs.user_cache_dir("genkl", appauthor=False))


def _folder_name(backbone: Backbone, size: int, resize: str) -> str:
    """A readable name; its hash holds everything that decides the features of an image."""
    crop = backbone.crop_pct if resize == "crop" else None
    key = (backbone.name, backbone.mean, backbone.std, size, resize, crop, backbone.interpolation)
    readable = re.sub(r"[^\w.-]+", "-", backbone.name)
    return f"{readable}-{size}-{resize}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
