"""Provenance of results: versions, commit, hardware, and fingerprints of the code."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("genkl", "torch", "torchvision", "timm", "numpy", "scikit-learn", "pandas")


@functools.cache
def provenance() -> dict[str, Any]:
    """Versions, commit, and hardware of this process."""
    import torch

    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(
            _git("status", "--porcelain", "--", "genkl", "notebooks", "benchmarks")
        ),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _version(package: str) -> str | None:
    import importlib.metadata  # as long an import as the rest of the rule together

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def code_fingerprints(modules: Iterable[str]) -> dict[str, str]:
    """The `code_fingerprint` of each module on its own, by name."""
    return {module: code_fingerprint(module) for module in modules}


def changed_modules(fingerprints: Mapping[str, str]) -> dict[str, bool]:
    """Those modules whose source is no longer what it was, and whether they are still there.

    Args:
        fingerprints: from `code_fingerprints`, as a record kept them.
    """
    changed = {}
    for module, then in fingerprints.items():
        try:
            if code_fingerprint(module) != then:
                changed[module] = True
        except ValueError:
            changed[module] = False
    return changed


def code_fingerprint(*modules: str) -> str:
    """Hash of the source of modules and packages, to see whether a result is of this code.

    Comments and layout count, too: better a false alarm than a stale number.

    Args:
        modules: dotted names, such as "genkl.losses"; of a package, everything in it. They stand
            beside this package, or can be imported.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: there is no such module.
    """
    digest = hashlib.sha256()
    for module in sorted(modules):
        for root in _roots(module):
            place = root.joinpath(*module.split("."))
            files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
            if files and files[0].is_file():
                break
        else:
            raise ValueError(f"there is no module {module!r}; name those of the package")
        for file in files:
            digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _roots(module: str) -> Iterator[Path]:
    """Folders that may hold it: the package's own, then that of its topmost package."""
    yield Path(__file__).parent.parent
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is not None and spec.submodule_search_locations:
        yield from (Path(place).parent for place in spec.submodule_search_locations)
    elif spec is not None and spec.has_location:
        yield Path(spec.origin).parent


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
