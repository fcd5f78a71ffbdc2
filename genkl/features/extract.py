"""Frozen features of images: computed once, kept in the cache; or a matrix brought along."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from genkl.checks import check_choice, check_positive
from genkl.data import NoisyDataset, Split
from genkl.data.images import (
    ImageError,
    Images,
    JoinedImages,
    as_bytes,
    as_images,
)
from genkl.data.loading import (
    MOST_WORKERS,
    ON_ERROR,
    BrokenImages,
    Transform,
    default_workers,
    image_batches,
)
from genkl.data.sources import cache_folder
from genkl.data.transforms import RESIZE_MODES, as_square
from genkl.features.backbones import EFFICIENTNET_LITE0, Backbone
from genkl.features.store import DIGEST, FeatureStore
from genkl.features.weights import first_line
from genkl.networks import NormaliseBytes, pick_device
from genkl.provenance import usable_cores

BATCH_ON_CPU = 8
"""Few images at a time stay in the processor's cache: measured, four times as fast as 64."""
BATCH_ON_GPU = 128
HASHING_THREADS = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Computing:
    """With what features are computed.

    Attributes:
        batch_size: images per forward pass; None suits the device.
        device: "auto", "cpu", "cuda", ...
        num_workers: processes that decode; None suits the device.
    """

    batch_size: int | None = None
    device: str | torch.device = "auto"
    num_workers: int | None = None


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
    squares = _to_squares(backbone, size, resize)(as_bytes(images))
    return NormaliseBytes(backbone.mean, backbone.std, 3).to(images.device)(squares)


def extract_features(
    images: Tensor | Images,
    backbone: Backbone = EFFICIENTNET_LITE0,
    *,
    size: int | None = None,
    resize: str = "crop",
    cache_dir: str | os.PathLike[str] | None = None,
    on_error: str = "raise",
    progress: bool = True,
    **how: Any,
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
        cache_dir: folder of the cache; default ``$GENKL_CACHE``, else the user's cache folder.
        on_error: "raise" stops at an image that can't be decoded; "skip" gives it a row of NaN,
            and logs how many such images there are and which. See also `drop_broken`.
        progress: show bars.
        how: batch_size, device and num_workers, see `Computing`.

    Returns:
        (N, num_features), float32, on the CPU.

    Raises:
        ImageError: an image can't be decoded; the message holds its path.
        ValueError: no images at all or none that can be decoded, an unknown way of resizing, or a
            size that isn't positive.
        FloatingPointError: the network's output for an image is not finite.
    """
    images, computing = as_images(images), Computing(**how)
    device = pick_device(computing.device)
    size = backbone.size if size is None else size
    check_choice("resize", resize, RESIZE_MODES)
    check_choice("on_error", on_error, ON_ERROR)
    check_positive("size", size)
    if len(images) == 0:
        raise ValueError("there are no images; features need at least one")
    digests, readable = _fingerprints(images, on_error, progress)
    store = FeatureStore(cache_folder(cache_dir) / _folder_name(backbone, size, resize))
    known, features = store.read(digests)
    missing = readable[~known[readable]]
    if len(missing):
        del features  # a second time as much memory; they are read again
        order = np.sort(missing[np.unique(digests[missing], return_index=True)[1]])
        batch_size, num_workers = _suited(computing, device, images, len(order))
        batches = image_batches(
            images,
            _to_squares(backbone, size, resize),
            batch_size=batch_size,
            order=order,
            num_workers=num_workers,
            on_error=on_error,
            progress="features" if progress else None,
        )
        try:
            for rows, computed in _computed(images, backbone, batches, device):
                store.add(digests[rows], computed)
        finally:  # what was computed before an error or Ctrl-C is not lost
            store.flush()
        known, features = store.read(digests)
    if not known.any():
        raise ValueError(f"none of the {len(images)} images can be used; see check_images")
    return features


def check_size(backbone: Backbone, size: int) -> None:
    """Refuse a size that a backbone can't take: an image of another than its own is tried.

    Raises:
        ValueError: names the backbone's own size.
    """
    check_positive("size", size)
    if size != backbone.size:
        _forward(backbone.build().eval(), torch.zeros(1, 3, size, size), backbone)


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
    parts = zip(splits, features.split([len(split) for split in splits.values()]), strict=True)

    def with_features(split: Split) -> Split:
        name, rows = next(parts)
        good = ~torch.isnan(rows).any(dim=1)
        changed = replace(split, inputs=rows)
        if good.all():
            return changed
        about = (dataset.name, name, int((~good).sum()), len(split))
        log.warning("%s, %s: %d of %d left out, because their images are broken", *about)
        return changed.take(good)

    size, resize = options.get("size") or backbone.size, options.get("resize", "crop")
    description = f"{backbone.name}, {size} pixels, {resize}"
    return replace(dataset.map_splits(with_features), features=description)


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
    brought = dict.fromkeys(dataset.splits(), (features, ids))
    brought |= {split_name: (rows, None) for split_name, rows in (more_tests or {}).items()}
    names = iter([*dataset.splits(), *dataset.more_tests])

    def with_features(split: Split) -> Split:
        split_name = next(names)
        rows, their_ids = brought[split_name]
        return replace(split, inputs=_rows_of(split, split_name, rows, their_ids))

    return replace(dataset.map_splits(with_features), features=name)


def _rows_of(
    split: Split, name: str, features: np.ndarray | Tensor, ids: np.ndarray | Tensor | None
) -> Tensor:
    import pandas as pd

    if features.ndim != 2 or (ids is not None and len(ids) != len(features)):
        count = "" if ids is None else f" and {len(ids)} ids"
        raise ValueError(
            f"features have shape {tuple(features.shape)}{count}; pass one row (of d numbers) and "
            "one id for each instance"
        )
    wanted = split.ids.numpy()
    known = pd.Index(np.arange(len(features)) if ids is None else np.asarray(ids, dtype=np.int64))
    if not known.is_unique:
        twice = known[known.duplicated()][0]
        raise ValueError(f"instance {twice} has two rows of features; pass one")
    rows = known.get_indexer(wanted)
    absent = rows < 0
    if absent.any():
        raise ValueError(
            f"instance {wanted[absent][0]} of the {name} split has no row of features "
            f"({absent.sum()} are missing); pass a row for each, with its id"
        )
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


def _to_squares(backbone: Backbone, size: int, resize: str) -> Transform:
    crop_pct, interpolation = backbone.crop_pct, backbone.interpolation
    return functools.partial(
        as_square, size=size, resize=resize, crop_pct=crop_pct, interpolation=interpolation
    )


def _suited(
    computing: Computing, device: torch.device, images: Images, count: int
) -> tuple[int, int]:
    """Images per forward pass, and processes beside the network: on the CPU they would take the
    cores that it computes on."""
    on_cpu = device.type == "cpu"
    workers = computing.num_workers
    if workers is None:
        spare = max(0, usable_cores() // 2 - 1) if on_cpu else MOST_WORKERS
        workers = min(spare, default_workers(images, count))
    return computing.batch_size or (BATCH_ON_CPU if on_cpu else BATCH_ON_GPU), workers


def _computed(
    images: Images,
    backbone: Backbone,
    batches: Iterator[tuple[np.ndarray, Tensor]],
    device: torch.device,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Rows and their features, batch by batch."""
    prepare = NormaliseBytes(backbone.mean, backbone.std, 3).to(device)
    model = backbone.build().to(device, memory_format=torch.channels_last).eval()
    for rows, batch in batches:
        inputs = prepare(batch.to(device)).contiguous(memory_format=torch.channels_last)
        features = _forward(model, inputs, backbone)
        _check_features(features, rows, images, backbone)
        yield rows, features


def _forward(model: nn.Module, inputs: Tensor, backbone: Backbone) -> Tensor:
    """Features of a batch; what fails at another size than the backbone's own is its size."""
    size = inputs.shape[-1]
    try:
        with torch.inference_mode():
            return model(inputs).float().cpu()
    except (RuntimeError, ValueError, AssertionError) as error:
        if size == backbone.size:
            raise
        raise ValueError(
            f"size is {size}, which {backbone.name} can't take ({first_line(error)}); its own is "
            f"{backbone.size}"
        ) from error


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
    """Every image's content hash, and the rows of the images that could be read."""
    digests = np.zeros(len(images), dtype=DIGEST)
    errors: dict[int, ImageError] = {}

    def fingerprint(row: int) -> bytes | ImageError:
        try:
            return images.fingerprint(row)
        except ImageError as error:
            return error

    shown = progress and len(images) > 10_000
    with (
        ThreadPool(HASHING_THREADS) as pool,
        tqdm(total=len(images), desc="hashing", unit="image", disable=not shown) as bar,
    ):
        for row, found in enumerate(pool.imap(fingerprint, range(len(images)), chunksize=256)):
            bar.update()
            if isinstance(found, bytes):
                digests[row] = found
            elif on_error == "raise":
                raise found
            else:
                errors[row] = found
    if errors:
        log.warning("%s; left out", BrokenImages.of(errors, len(images)))
    return digests, np.delete(np.arange(len(images)), list(errors))


def _folder_name(backbone: Backbone, size: int, resize: str) -> str:
    """A readable name; its hash holds everything that decides the features of an image."""
    crop = backbone.crop_pct if resize == "crop" else None
    key = (backbone.name, backbone.mean, backbone.std, size, resize, crop, backbone.interpolation)
    readable = re.sub(r"[^\w.-]+", "-", backbone.name)
    return f"{readable}-{size}-{resize}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
