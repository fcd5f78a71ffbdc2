"""Detectors of non-conforming instances: the divergence, and scores to compare it with.

Every detector has one shape: `Evidence` in, a score per instance out, higher for less conforming.
Where a well-kept library has a method as a function, it comes from there (cleanlab, pytorch-ood,
scikit-learn: ``pip install 'genkl[benchmark]'``), otherwise from its formula.
"""

from collections.abc import Mapping
from types import MappingProxyType

from genkl.detectors.evidence import FAMILIES, Detector, Evidence
from genkl.detectors.features import FEATURE_DETECTORS, knn_detector, vim_detector
from genkl.detectors.labels import LABEL_DETECTORS, cleanlab_detector, jo_src_detector
from genkl.detectors.predictions import PREDICTION_DETECTORS, energy_detector, genkl_detector

DETECTORS: Mapping[str, Detector] = MappingProxyType(
    {
        detector.name: detector
        for detector in (*PREDICTION_DETECTORS, *LABEL_DETECTORS, *FEATURE_DETECTORS)
    }
)
"""Every detector by its name, in the order of tables."""

__all__ = [
    "DETECTORS",
    "FAMILIES",
    "Detector",
    "Evidence",
    "cleanlab_detector",
    "energy_detector",
    "genkl_detector",
    "jo_src_detector",
    "knn_detector",
    "vim_detector",
]
