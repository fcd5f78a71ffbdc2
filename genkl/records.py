"""What exactly was measured? Runs as rows, and records that carry where they came from."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from genkl.pipeline import Round, Run

SCHEMA = 1
PACKAGES = ("genkl", "torch", "torchvision", "timm", "numpy", "scikit-learn", "pandas")


def runs_to_frame(runs: Iterable[Run], *, every_round: bool = False) -> pd.DataFrame:
    """One row per run (its best round), or one per round.

    Args:
        runs: from `run_genkl` and `run_baseline`.
        every_round: keep all rounds.

    Returns:
        Columns method, dataset, seed, clean_labels, and every scalar of `Round`.
    """
    rows = []
    for run in runs:
        for one in run.rounds if every_round else (run.best,):
            rows.append(
                {
                    "method": run.method,
                    "dataset": run.dataset,
                    "seed": run.seed,
                    "clean_labels": run.clean_labels,
                    **{
                        name: value
                        for name, value in round_to_dict(one).items()
                        if isinstance(value, int | float)
                    },
                }
            )
    return pd.DataFrame(rows)


def round_to_dict(one: Round) -> dict[str, Any]:
    """The saved fields of a round: everything but arrays and histories."""
    unsaved = {"pred_probs", "scores", "is_nc", "history"}
    return {f.name: getattr(one, f.name) for f in dataclasses.fields(one) if f.name not in unsaved}


def run_to_dict(run: Run) -> dict[str, Any]:
    """A run as plain values: settings, seed, and every round."""
    return {
        "method": run.method,
        "dataset": run.dataset,
        "seed": run.seed,
        "clean_labels": run.clean_labels,
        "features": run.features,
        "config": dataclasses.asdict(run.config),
        "published_behaviour": [switch.name for switch in run.published_behaviour],
        "best_round": run.best.index,
        "rounds": [round_to_dict(one) for one in run.rounds],
    }


def save_record(
    path: str | os.PathLike[str],
    *,
    title: str,
    runs: Iterable[Run] = (),
    tables: dict[str, pd.DataFrame] | None = None,
    settings: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a results record: what was run, with what, where, and what came out.

    Args:
        path: the JSON file to write; its folder is made.
        title: what was measured, in words.
        runs: saved with configuration, seed and every round.
        tables: measured tables that are not runs, by name.
        settings: further parameters behind the tables.
        overwrite: replace an existing file.

    Returns:
        The path.

    Raises:
        FileExistsError: the file exists and overwrite is False.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True or another path")
    record = {
        "schema": SCHEMA,
        "title": title,
        "provenance": provenance(),
        "settings": settings or {},
        "runs": [run_to_dict(run) for run in runs],
        "tables": {
            name: json.loads(table.to_json(orient="records", double_precision=15))
            for name, table in (tables or {}).items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_without_nan(record), indent=1, allow_nan=False) + "\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)
    return path


def load_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a record that `save_record` wrote.

    Raises:
        ValueError: not such a record, or written in another schema.
    """
    record = json.loads(Path(path).read_text())
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise ValueError(f"{path} has schema {found}, this version reads {SCHEMA}; write it anew")
    return record


@functools.cache
def provenance() -> dict[str, Any]:
    """Versions, commit, and hardware of this process."""
    import torch

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(
            _git("status", "--porcelain", "--", "genkl", "notebooks", "benchmarks")
        ),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


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


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null and the words "inf", "-inf"."""
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
