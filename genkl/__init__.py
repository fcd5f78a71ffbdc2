"""GenKL: learning from noisy web images with a generalized KL divergence.

Public names are loaded from their modules on first use, so that ``import genkl`` is quick.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from genkl.extras import explain_missing

__version__ = "0.1.0"

_MODULES: dict[str, tuple[str, ...]] = {
    "genkl.published": ("Published",),
    "genkl.data": ("ImageError", "ImageFiles", "Images", "Kind", "NoisyDataset", "Split", "Truth"),
    "genkl.data.registry": ("DATASETS", "load_dataset"),
    "genkl.data.sources": ("DataNotFoundError",),
    "genkl.data.arrays": ("dataset_from_arrays",),
    "genkl.data.planting": ("label_strangers", "plant_noise"),
    "genkl.data.statistics": ("count_kinds", "count_labels", "noise_matrix"),
    "genkl.data.loading": ("check_images", "drop_broken", "image_batches"),
    "genkl.data.transforms": ("build_transform",),
    "genkl.data.digits": ("load_digits",),
    "genkl.data.solar_cells": ("load_solar_cells",),
    "genkl.networks": ("default_model", "linear_head", "small_cnn", "small_resnet"),
    "genkl.features": (
        "Backbone",
        "EFFICIENTNET_LITE0",
        "RESNET50",
        "extract_features",
        "featurize",
        "finetunable",
        "get_backbone",
        "use_features",
    ),
    "genkl.predict": ("predict_probs",),
    "genkl.rule.divergence": ("entropy", "generalized_kl", "uniform_like_vectors"),
    "genkl.rule.identify": (
        "entropy_score",
        "flag_above",
        "identify_nc",
        "nc_score",
    ),
    "genkl.rule.conformal": ("threshold_for_budget",),
    "genkl.rule.kinds": ("looks_ambiguous", "nc_evidence"),
    "genkl.rule.neighbors": ("neighbor_distance",),
    "genkl.rule.choose": ("alpha_path", "diagnose", "jaccard"),
    "genkl.detectors": (
        "DETECTORS",
        "Detector",
        "Evidence",
        "cleanlab_detector",
        "energy_detector",
        "genkl_detector",
        "jo_src_detector",
        "knn_detector",
        "vim_detector",
    ),
    "genkl.rule.stream": ("identify_file", "score_file"),
    "genkl.relabel": (
        "Relabelled",
        "Role",
        "double_hot",
        "relabel_by_posterior",
        "relabel_instances",
        "reverse_class_ratio",
    ),
    "genkl.posterior": (
        "class_posterior",
        "estimate_transition",
        "fit_pool",
        "none_probs",
        "pool",
        "posterior_targets",
    ),
    "genkl.losses": (
        "PAPER_LOSSES",
        "ROW_LOSSES",
        "double_hot_loss",
        "generalized_cross_entropy",
        "hard_bootstrapping",
        "kl_loss",
        "losses_of",
        "mean_absolute_error",
        "mean_squared_error",
        "mixup",
        "on_normalized",
        "soft_bootstrapping",
        "soft_cross_entropy",
        "symmetric_cross_entropy",
        "three_term_loss",
    ),
    "genkl.engine": ("Engine",),
    "genkl.evaluate": (
        "accuracy",
        "auroc",
        "average_precision",
        "identification_report",
        "mean_and_std",
        "precision_recall_f1",
        "recall_at_share",
    ),
    "genkl.learn": (
        "Checkpoint",
        "Decision",
        "Examples",
        "FitResult",
        "GenKLConfig",
        "Phase",
        "Round",
        "Run",
        "RunFolder",
        "divergence_rule",
        "entropy_rule",
        "fit",
        "flag_nothing",
        "pretrain_models",
        "run_genkl",
    ),
    "genkl.baselines": (
        "METHODS",
        "Groundwork",
        "Method",
        "Search",
        "run_method",
        "search_settings",
    ),
    "genkl.presets": (
        "CLOTHING1M",
        "DIGITS",
        "FOOD101N",
        "MINI_WEBVISION",
        "PHOTOGRAPHS",
        "PaperPreset",
        "SOLAR_CELLS",
    ),
    "genkl.records": ("load_record", "runs_to_frame", "save_record", "stale_because"),
}
_EXPORTS: dict[str, str] = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_EXPORTS)

_RESAMPLES = "replaced: from benchmarks.statistics import hierarchical_interval, Resamples"
_MOVED = {
    "BASELINES": "genkl.METHODS: all methods, by name",
    "backbones": "genkl.features",
    "blockwise": "genkl.rule.evaluation",
    "book": "`python -m book`, in a checkout of the book",
    "bootstrap_interval": _RESAMPLES,
    "choose": "genkl.rule.choose",
    "choose_alpha_beta": "withdrawn (see chapter 8): beta = 0.5 / k; or benchmarks.choosing",
    "combination": "in a checkout of the book: from benchmarks.combine import combination",
    "compare": "genkl.evaluate, and benchmarks.statistics in a checkout of the book",
    "conformal": "genkl.rule.conformal",
    "delong_test": _RESAMPLES,
    "descend_logits": "in a checkout of the book: notebooks/figures/simplex.py",
    "divergence": "genkl.rule.divergence",
    "identify": "genkl.rule.identify",
    "kinds": "genkl.rule.kinds",
    "mean_and_interval": _RESAMPLES,
    "models": "genkl.networks",
    "over_base": _RESAMPLES,
    "paired_comparison": _RESAMPLES,
    "paired_over_seeds": _RESAMPLES,
    "pipeline": "genkl.learn",
    "run_baseline": "genkl.run_method, with the method's name before the data set",
    "stream": "genkl.rule.stream",
    "sweep": "benchmarks.sweep, in a checkout of the book",
    "teaching": "`python -m teaching`, in a checkout of the book",
    "train": "genkl.learn",
}
"""What moved: old name in this package -> where it went."""


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        raise AttributeError(f"genkl.{name} is now {_MOVED[name]}")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'genkl' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    except ModuleNotFoundError as error:
        explained = explain_missing(error)
        if explained is None:
            raise
        raise ModuleNotFoundError(explained, name=error.name) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})


class _MovedFinder:
    """The last to be asked for a module: says where one of this package went."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        package, _, module = name.partition(".")
        if package == __name__ and module in _MOVED:
            raise ModuleNotFoundError(f"{name} is now {_MOVED[module]}")


sys.meta_path.append(_MovedFinder)
