"""Backbones of torchvision and timm, their weights, and the cache of frozen features."""

from genkl.data.sources import cache_folder
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
    "preprocess",
    "use_features",
]
