"""Which eyes? Networks that know ImageNet or start afresh, and frozen features kept on disk."""

from genkl.features.features import (
    cache_folder,
    extract_features,
    featurize,
    normalise,
    preprocess,
    use_features,
)
from genkl.features.networks import (
    EFFICIENTNET_LITE0,
    RESNET50,
    Backbone,
    build_efficientnet_lite0,
    find_network,
    finetunable,
    get_backbone,
)
from genkl.features.weights import (
    load_by_position,
    load_strictly,
    read_weights,
    weights_hash,
)

__all__ = [
    "Backbone",
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
    "normalise",
    "preprocess",
    "read_weights",
    "use_features",
    "weights_hash",
]
