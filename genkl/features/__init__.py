"""Backbones of torchvision and timm, their weights, and the cache of frozen features."""

from genkl.features.backbones import (
    EFFICIENTNET_LITE0,
    RESNET50,
    Backbone,
    build_efficientnet_lite0,
    find_network,
    finetunable,
    get_backbone,
)
from genkl.features.extract import Computing, extract_features, featurize, preprocess, use_features
from genkl.features.store import cache_folder
from genkl.features.weights import (
    load_by_position,
    load_strictly,
    read_weights,
    weights_hash,
)

__all__ = [
    "Backbone",
    "Computing",
    "EFFICIENTNET_LITE0",
    "RESNET50",
    "build_efficientnet_lite0",
    "cache_folder",
    "extract_features",
    "featurize",
    "find_network",
    "finetunable",
    "get_backbone",
    "load_by_position",
    "load_strictly",
    "preprocess",
    "read_weights",
    "use_features",
    "weights_hash",
]
