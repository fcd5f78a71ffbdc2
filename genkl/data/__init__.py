"""Data sets: splits to learn from, the truth about them, images, tables; one file a data set.

`genkl.data.registry` loads any data set by name. Names are loaded on first use, so that tables and
the list of data sets are there without PyTorch.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "genkl.data.base": ("Kind", "NoisyDataset", "Split", "Truth", "make_split"),
    "genkl.data.images": ("ImageError", "ImageFiles", "Images"),
}
_EXPORTS = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'genkl.data' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
