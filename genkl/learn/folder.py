"""Where does a run live, so that nothing of it is lost? One folder, one finished unit at a time.

::

    run.json                        what runs here: settings, data, versions, machine
    models/UNIT.safetensors         weights of each model that has finished a phase, and its history
    predictions/round-1.safetensors what each round relabelled with
    rounds/round-1.json             what each round did
    checkpoints/UNIT.safetensors    the phase in progress
    log.csv, log.jsonl, tensorboard/
    record.json                     the whole run, when it has ended

To go on is to do everything again, except that what is finished is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genkl.data import NoisyDataset
from genkl.engine import Engine
from genkl.learn.checkpoint import Checkpoint
from genkl.learn.loop import FitResult
from genkl.provenance import provenance
from genkl.storage import load_tensors, plain, save_tensors, write_json

RUN_FILE = "run.json"


class RunFolder:
    """A run's folder. Only the first process writes; the others wait for it.

    Args:
        path: the folder; made if it isn't there.
        identity: everything that decides what the run comes to.
        engine: its processes.
        resume: go on with the run that is in the folder, if there is one.
        every: steps between two checkpoints of the phase in progress.

    Raises:
        FileExistsError: the folder holds a run, and resume is False; or other files.
        ValueError: it holds another run; the message names the first setting that differs.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        engine: Engine,
        *,
        resume: bool = False,
        every: int = 500,
    ) -> None:
        self.path, self.engine, self.every = path, engine, every
        self.identity = json.loads(json.dumps(identity))
        self._refuse_another_run(resume)
        engine.wait()
        if engine.is_first and not self._file.exists():
            write_json(self._file, {"identity": self.identity, "provenance": provenance()})
        engine.wait()

    @property
    def _file(self) -> Path:
        return self.path / RUN_FILE

    def _refuse_another_run(self, resume: bool) -> None:
        if not self._file.exists():
            if self.path.exists() and any(self.path.iterdir()):
                raise FileExistsError(
                    f"run_dir {self.path} holds files that are no run; name an empty or new folder"
                )
            return
        if not resume:
            raise FileExistsError(
                f"run_dir {self.path} holds a run; pass resume=True (--resume) to go on with it, "
                "or name a new folder"
            )
        found = json.loads(self._file.read_text("utf-8"))["identity"]
        difference = first_difference(found, self.identity)
        if difference is not None:
            name, theirs, ours = difference
            raise ValueError(
                f"run_dir {self.path} holds a run with {name} = {theirs!r}, and now it is "
                f"{ours!r}; use the same settings, or a new folder"
            )

    def finished(self) -> set[str]:
        """Units that won't be trained again: those kept, and those that a kept one went on from."""
        kept = {file.stem for file in (self.path / "models").glob("*.safetensors")}
        return kept | {u.replace("-finetune", "-train") for u in kept if u.endswith("-finetune")}

    def checkpoint(self, unit: str) -> Checkpoint:
        """Where the phase in progress is kept."""
        identity = {"unit": unit, "run": _digest(self.identity)}
        return Checkpoint(self.path / "checkpoints" / f"{unit}.safetensors", self.every, identity)

    def load_model(self, unit: str, model: nn.Module) -> list[FitResult] | None:
        """Bring a model to the state it finished a unit with; None if it hasn't finished."""
        path = self._model_path(unit)
        if not path.exists():
            return None
        tensors, values = load_tensors(path)
        model.load_state_dict(tensors)
        return [FitResult(**fields) for fields in values["fits"]]

    def save_model(self, unit: str, model: nn.Module, fits: list[FitResult]) -> None:
        """Keep a model that has finished a unit; its checkpoint is no longer needed."""
        if self.engine.is_first:
            values = {"fits": [dataclasses.asdict(one) for one in fits]}
            save_tensors(self._model_path(unit), model.state_dict(), values)
            self.checkpoint(unit).remove()
        self.engine.wait()

    def drop_model(self, unit: str) -> None:
        """A later unit holds all that this one did."""
        if self.engine.is_first:
            self._model_path(unit).unlink(missing_ok=True)

    def _model_path(self, unit: str) -> Path:
        return self.path / "models" / f"{unit}.safetensors"

    def predictions(self, name: str) -> dict[str, np.ndarray] | None:
        """Averaged predictions that were kept under this name."""
        path = self.path / "predictions" / f"{name}.safetensors"
        if not path.exists():
            return None
        return {key: tensor.numpy() for key, tensor in load_tensors(path)[0].items()}

    def save_predictions(self, name: str, **arrays: np.ndarray) -> None:
        """Keep averaged predictions."""
        if self.engine.is_first:
            tensors: dict[str, Tensor] = {k: torch.from_numpy(a) for k, a in arrays.items()}
            save_tensors(self.path / "predictions" / f"{name}.safetensors", tensors, {})
        self.engine.wait()

    def keep_values(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Keep plain values, with versions and machine, unless they were kept before.

        Returns:
            What is in the folder now, kept first, with the time that it really took.
        """
        path = self.path / f"{name}.json"
        if self.engine.is_first and not path.exists():
            write_json(path, {**plain(values), "provenance": provenance()})
        self.engine.wait()
        return json.loads(path.read_text("utf-8"))


def identity_of(dataset: NoisyDataset) -> dict[str, Any]:
    """What tells one data set from another: name, sizes, and a hash of its ids and labels."""
    digest = hashlib.sha256()
    for split in dataset.splits().values():
        digest.update(split.ids.numpy().tobytes() + split.labels.numpy().tobytes())
        if isinstance(split.inputs, Tensor):
            digest.update(split.inputs.contiguous().numpy().tobytes())
    return {
        "dataset": dataset.name,
        "features": dataset.features,
        "instances": {name: len(split) for name, split in dataset.splits().items()},
        "content": digest.hexdigest()[:16],
    }


def describe(function: Any) -> str:
    """A function's name, and what is bound to it, without addresses in memory."""
    inner = getattr(function, "func", None)
    if inner is not None:
        named = [(f"{name}=", value) for name, value in function.keywords.items()]
        bound = [
            start + (describe(value) if callable(value) else str(value))
            for start, value in [*(("", value) for value in function.args), *named]
        ]
        return f"{describe(inner)}({', '.join(bound)})"
    module, name = getattr(function, "__module__", "?"), getattr(function, "__qualname__", None)
    return f"{module}.{name or type(function).__qualname__}"


def first_difference(ours: Any, theirs: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The name and the two values of the first entry in which two nested dictionaries differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            inner = first_difference(
                ours.get(key), theirs.get(key), f"{name}.{key}" if name else str(key)
            )
            if inner is not None:
                return inner
        return None
    return None if ours == theirs else (name, ours, theirs)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
