"""Checkpoints of training: everything that changes, in one checked file, to go on from."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genkl.checks import check_positive
from genkl.storage import DamagedFileError, explained, load_tensors, save_tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Where a phase of training is kept while it runs, and how often.

    The file before the last one stays beside it, under ``previous-...``: a damaged file costs the
    steps since then, not the run.

    Attributes:
        path: the file, ``.safetensors``.
        every: steps between two writes; so many are lost at most.
        identity: what a checkpoint must have been made with to go on from it.

    Raises:
        ValueError: every is not positive.
    """

    path: Path
    every: int = 500
    identity: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_positive("every", self.every)

    @property
    def previous(self) -> Path:
        """The file before the last one."""
        return self.path.with_name(f"previous-{self.path.name}")

    @property
    def _next(self) -> Path:
        """A complete file, before it takes the place of the last one."""
        return self.path.with_name(f"next-{self.path.name}")

    def save(self, tensors: Mapping[str, Mapping[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Write the state; what was there before stays until this is complete.

        Args:
            tensors: by group and name.
            values: what JSON can hold.

        Raises:
            OSError: no space, or no permission; says what to do.
        """
        flat = {f"{group}.{n}": t for group, named in tensors.items() for n, t in named.items()}
        save_tensors(self._next, flat, {"identity": dict(self.identity), **values})
        with explained(self.path):
            if self.path.exists():
                os.replace(self.path, self.previous)
            os.replace(self._next, self.path)

    def load(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """The last good state; None if there is none.

        Raises:
            DamagedFileError: the only file there is is damaged.
            ValueError: it was made with other settings; the message names the first.
        """
        damaged: DamagedFileError | None = None
        for path in (self.path, self.previous):
            try:
                tensors, values = load_tensors(path)
            except FileNotFoundError:
                continue
            except DamagedFileError as error:
                log.warning("%s", error)
                damaged = error
                continue
            if damaged is not None:
                log.warning("going on from %s, step %s", path, values["step"])
            self._check_identity(path, values["identity"])
            grouped: dict[str, dict[str, Tensor]] = defaultdict(dict)
            for key, tensor in tensors.items():
                group, _, name = key.partition(".")
                grouped[group][name] = tensor
            return grouped, values
        if damaged is not None:
            raise damaged
        return None

    def remove(self) -> None:
        """The phase is finished; what it led to is kept elsewhere."""
        for path in (self.path, self.previous, self._next):
            path.unlink(missing_ok=True)

    def _check_identity(self, path: Path, found: Mapping[str, Any]) -> None:
        for name, value in self.identity.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{path} was made with {name} = {found.get(name)!r}, and now it is {value!r}; "
                    "use the same settings, or another folder"
                )


def pack_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors by name, and plain values."""
    state = optimizer.state_dict()
    tensors, scalars = {}, {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            elif value is not None:
                scalars[f"{index}.{name}"] = value
    return tensors, {"scalars": scalars, "groups": state["param_groups"]}


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Bring an optimiser to the state that `pack_optimizer` took."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *values["scalars"].items()]:
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    groups = [  # JSON has no tuples
        {name: tuple(v) if isinstance(v, list) and name != "params" else v for name, v in g.items()}
        for g in values["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
