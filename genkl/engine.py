"""The engine: devices, processes and precision of a computation, through Lightning Fabric.

Fabric was chosen because the training loop stays ours to read: it starts the processes (its own,
torchrun's or Slurm's), moves and wraps a model, and casts to the precision asked for. It holds no
global state, so a notebook can use two engines.
"""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from genkl.checks import check_choice
from genkl.networks import pick_device

if TYPE_CHECKING:  # importing it takes a second, which only those who train or predict wait for
    from lightning_fabric import Fabric

ACCELERATORS = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What to compute on, and how. Nothing happens before it is used.

    Attributes:
        accelerator: "auto" (a GPU if there is one), "cpu", "cuda" or "mps".
        devices: processes on this machine, each with its own GPU if there are any. Under torchrun
            or Slurm, which start the processes themselves, their numbers count instead.
        num_nodes: machines.
        precision: "32-true", "bf16-mixed" (autocast) or "16-mixed".
        compile: pass models through ``torch.compile``: minutes at the start, faster steps after.
        channels_last: store images channels-last; None does so for large ones only.
        num_workers: processes that decode images, beside each device; None suits the machine.
        batch_heads: train the small models of an ensemble together, see
            `genkl.learn.fit_together`; False trains one after the other. The numbers are the same
            up to rounding.

    Raises:
        ValueError: an unknown accelerator or precision, or no device.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"
    compile: bool = False
    channels_last: bool | None = None
    num_workers: int | None = None
    batch_heads: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        check_choice("accelerator", self.accelerator, ACCELERATORS)
        check_choice("precision", self.precision, PRECISIONS)
        for name in ("devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_workers is not None and self.num_workers < 0:
            raise ValueError(f"num_workers is {self.num_workers}; use 0 to decode in this process")

    @property
    def fabric(self) -> Fabric:
        """The Fabric behind it, made on first use and the same for equal engines."""
        return _fabric(self)

    def launch(self) -> None:
        """Start the other processes, if several are asked for and nobody has started them yet.

        Each runs the same program again from its beginning; under torchrun and Slurm, which have
        started them, this only makes them meet. Call it before data is loaded.
        """
        self.fabric.launch()

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.fabric.device

    @property
    def rank(self) -> int:
        """Which of the processes this is, from 0."""
        return self.fabric.global_rank

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self.fabric.world_size

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows bars."""
        return self.rank == 0

    def own(self, count: int) -> slice:
        """This process's part of ``count`` rows: contiguous, in order of rank, sizes within 1."""
        bounds = self._bounds(count)
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def gather(self, part: Tensor, count: int) -> Tensor:
        """All ``count`` rows, in order, on every process, from the part of each (see `own`)."""
        if self.world_size == 1:
            return part
        sizes = np.diff(self._bounds(count)).tolist()
        padded = part.new_zeros((max(sizes), *part.shape[1:]))
        padded[: len(part)] = part
        parts = self.fabric.all_gather(padded.to(self.device)).to(part.device)
        return torch.cat([rows[:size] for rows, size in zip(parts, sizes, strict=True)])

    def _bounds(self, count: int) -> list[int]:
        return np.linspace(0, count, self.world_size + 1).astype(int).tolist()

    def wait(self) -> None:
        """Go on when every process is here."""
        self.fabric.barrier()

    def place(self, model: nn.Module, *, large_images: bool = False) -> nn.Module:
        """Move a model to the device, channels-last where that helps or is asked for; in place."""
        channels_last = large_images if self.channels_last is None else self.channels_last
        if channels_last:
            return model.to(self.device, memory_format=torch.channels_last)
        return model.to(self.device)

    def prepare(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The model and optimiser to train with: compiled, cast and synchronised as asked for.

        The parameters stay those of the model given. Batch normalisation takes its statistics over
        all processes on GPUs; on CPUs, which can't, over the rows of each.
        """
        if self.is_plain:
            return model, optimizer
        if self.world_size > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return self.fabric.setup(torch.compile(model) if self.compile else model, optimizer)

    @property
    def is_plain(self) -> bool:
        """Whether PyTorch alone takes a step, in one process, full precision, nothing compiled.

        Then Fabric is left out: it would change no number, and load the compiler (seconds).
        """
        return self.world_size == 1 and self.precision == "32-true" and not self.compile

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss that came from what `prepare` gave."""
        if self.is_plain:
            loss.backward()
        else:
            self.fabric.backward(loss)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision asked for, for a forward pass outside `prepare`."""
        return self.fabric.autocast()

    def to_device(self, array: np.ndarray | Tensor) -> Tensor:
        """A tensor on the device; the copy to a GPU does not wait."""
        tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
        device = self.device  # asking takes time
        if device.type == "cuda" and tensor.device.type == "cpu":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)

    @contextmanager
    def randomness(self, seed: int) -> Iterator[None]:
        """Torch's generators seeded for this process (dropout draws from them), then put back."""
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus):
            torch.manual_seed((seed + 0x9E3779B97F4A7C15 * self.rank) % 2**63)
            yield

    def generator_states(self) -> dict[str, Tensor]:
        """States of torch's generators in all processes, one row for each."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        if self.world_size == 1:
            return {name: state[None] for name, state in states.items()}
        return {
            name: self.fabric.all_gather(state.to(self.device)).cpu()
            for name, state in states.items()
        }

    def restore_generators(self, states: dict[str, Tensor]) -> None:
        """Go on from `generator_states`; with other hardware or processes, from a fresh seed."""
        # Cloned: torch reads a state as words and crashes where a row doesn't begin at one.
        own = {n: rows[self.rank].clone() for n, rows in states.items() if len(rows) > self.rank}
        if "cpu" in own:
            torch.set_rng_state(own["cpu"])
        if "cuda" in own and self.device.type == "cuda":
            torch.cuda.set_rng_state(own["cuda"], self.device)


def as_engine(engine: Engine | str | torch.device) -> Engine:
    """An engine, or the one that a device's name stands for: "auto", "cpu", "cuda".

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(engine, Engine):
        return engine
    return Engine(accelerator=pick_device(engine).type if engine != "auto" else "auto")


@functools.cache
def _fabric(engine: Engine) -> Fabric:
    with warnings.catch_warnings():  # what it says about the machine is for its own users
        warnings.simplefilter("ignore")
        from lightning_fabric import Fabric
        from lightning_fabric.utilities.exceptions import MisconfigurationException

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        devices, num_nodes, started = _processes(engine)
        several = started or devices * num_nodes > 1
        try:
            return Fabric(
                accelerator=engine.accelerator,
                devices=devices,
                num_nodes=num_nodes,
                strategy="ddp" if several else "auto",
                precision=engine.precision,
            )
        except (MisconfigurationException, RuntimeError) as error:
            raise ValueError(
                f"accelerator is {engine.accelerator!r}, which can't give {devices} here "
                f"({str(error).strip().splitlines()[0]}); use cpu, auto, or fewer devices"
            ) from error


def _processes(engine: Engine) -> tuple[int, int, bool]:
    """Processes per machine, machines, and whether somebody else has started them."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        local = int(environment["LOCAL_WORLD_SIZE"])
        return local, int(environment["WORLD_SIZE"]) // local, True
    from lightning_fabric.plugins.environments import SLURMEnvironment

    if SLURMEnvironment.detect() and environment.get("SLURM_JOB_NAME") not in ("bash", None):
        nodes = int(environment.get("SLURM_NNODES", 1))
        return int(environment.get("SLURM_NTASKS", 1)) // nodes, nodes, True
    return engine.devices, engine.num_nodes, False
