"""A run's folder, log, progress bar: what is kept and shown, one finished unit at a time.

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

import contextlib
import csv
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from genkl import storage
from genkl.data import NoisyDataset
from genkl.engine import Engine
from genkl.learn.checkpoint import Checkpoint
from genkl.learn.result import FitResult, Round, round_to_dict
from genkl.learn.trainer import Watch
from genkl.provenance import provenance

if TYPE_CHECKING:
    from genkl.learn.run import RunOptions

RUN_FILE = "run.json"
LOCK_FILE = ".lock"


def is_used(folder: Path) -> bool:
    """Whether a folder holds files, but for hidden ones: those that nobody missed when cut off."""
    return folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir())


def in_use(run_dir: str | os.PathLike[str] | None) -> contextlib.AbstractContextManager[None]:
    """Let no other process run in a folder meanwhile.

    Raises:
        FileExistsError: one does.
    """

    def refuse() -> None:
        raise FileExistsError(
            f"run_dir {run_dir} is at work in another process; wait for it, or name a new folder"
        )

    folder = Path(run_dir or "")
    is_foreign = is_used(folder) and not (folder / RUN_FILE).exists()
    if run_dir is None or is_foreign:
        return contextlib.nullcontext()
    return storage.alone(folder / LOCK_FILE, refuse)


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
        DamagedFileError: what says which run it holds is damaged.
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
            storage.write_json(self._file, {"identity": self.identity, "provenance": provenance()})
        engine.wait()

    @property
    def _file(self) -> Path:
        return self.path / RUN_FILE

    def _refuse_another_run(self, resume: bool) -> None:
        if not self._file.exists():
            if is_used(self.path):
                raise FileExistsError(
                    f"run_dir {self.path} holds files that are no run; name an empty or new folder"
                )
            return
        if not resume:
            raise FileExistsError(
                f"run_dir {self.path} holds a run; pass resume=True to go on with it, "
                "or name a new folder"
            )
        found = storage.load_json(self._file).get("identity")
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

    def checkpoint(self, *units: str) -> Checkpoint:
        """Where the phase in progress of units that are trained together is kept."""
        name = units[0] if len(units) == 1 else f"{units[0]}-and-{len(units) - 1}-more"
        identity = {"unit": ", ".join(units), "run": _digest(self.identity)}
        return Checkpoint(self.path / "checkpoints" / f"{name}.safetensors", self.every, identity)

    def drop_checkpoint(self, *units: str) -> None:
        """Their models are kept."""
        if self.engine.is_first:
            self.checkpoint(*units).remove()

    def load_model(self, unit: str, model: nn.Module) -> list[FitResult] | None:
        """Bring a model to the state it finished a unit with; None if it hasn't finished."""
        path = self._model_path(unit)
        if not path.exists():
            return None
        tensors, values = storage.load_tensors(path)
        model.load_state_dict(tensors)
        return [FitResult(**fields) for fields in values["fits"]]

    def save_model(self, unit: str, model: nn.Module, fits: list[FitResult]) -> None:
        """Keep a model that has finished a unit."""
        if self.engine.is_first:
            values = {"fits": [dataclasses.asdict(fitted) for fitted in fits]}
            storage.save_tensors(self._model_path(unit), model.state_dict(), values)
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
        return {key: tensor.numpy() for key, tensor in storage.load_tensors(path)[0].items()}

    def save_predictions(self, name: str, **arrays: np.ndarray) -> None:
        """Keep averaged predictions."""
        if self.engine.is_first:
            tensors: dict[str, Tensor] = {k: torch.from_numpy(a) for k, a in arrays.items()}
            storage.save_tensors(self.path / "predictions" / f"{name}.safetensors", tensors, {})
        self.engine.wait()

    def keep_values(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Keep plain values, with versions and machine, unless they were kept before.

        Returns:
            What is in the folder now, kept first, with the time that it really took.
        """
        path = self.path / f"{name}.json"
        if self.engine.is_first and not path.exists():
            storage.write_json(path, {**storage.plain(values), "provenance": provenance()})
        self.engine.wait()
        return storage.load_json(path)


# -- the log and the bar ---------------------------------------------------------------------------

COLUMNS = (
    "unit",
    "step",
    "val_accuracy",
    "val_loss",
    "learning_rate",
    "clean_loss",
    "non_nc_loss",
    "nc_loss",
    "flagged",
)
"""Of a log: one row per evaluation. A unit is one phase of one model, "round-1-model-0-train"."""


class RunLog:
    """Evaluations of a run as ``log.jsonl``, ``log.csv`` and TensorBoard events in one folder.

    A log that was cut off is continued: of phases that didn't finish, what was logged is forgotten
    and comes again with the phase.

    Args:
        folder: made if it isn't there.
        finished: units whose rows stay.
    """

    def __init__(self, folder: Path, finished: set[str]) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        events = folder / "tensorboard" / "events"
        self.jsonl, self.csv = folder / "log.jsonl", folder / "log.csv"
        rows = [row for row in read_log(self.jsonl) if row["unit"] in finished]
        storage.write_atomically(self.jsonl, "".join(_line(row) for row in rows).encode())
        storage.write_atomically(self.csv, (",".join(COLUMNS) + "\n").encode())
        # Without `SummaryWriter`, whose thread waits for ever once the disk has been full.
        with storage.explained(folder):
            self._append_to_table(rows)
            events.parent.mkdir(exist_ok=True)
            self.board = EventsWriter(str(events))

    def add(self, unit: str, entry: Mapping[str, float], flagged: float) -> None:
        """Append one evaluation."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        row = {"unit": unit, **entry, "flagged": flagged}
        with storage.explained(self.jsonl.parent):
            with open(self.jsonl, "a", encoding="utf-8") as file:
                file.write(_line(row))
            self._append_to_table([row])
            for name in COLUMNS[2:]:
                if not _is_nan(row.get(name)):
                    shown, at = scalar(f"{unit}/{name}", row[name]), int(row["step"])
                    self.board.write_event(Event(wall_time=time.time(), step=at, summary=shown))

    def _append_to_table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with open(self.csv, "a", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writerows(
                {n: "" if _is_nan(row.get(n)) else row.get(n) for n in COLUMNS} for row in rows
            )

    def close(self) -> None:
        """Write what TensorBoard's writer still holds."""
        with storage.explained(self.jsonl.parent):
            self.board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``log.jsonl``; a last line that was cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text("utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        rows.append({name: math.nan if row.get(name) is None else row[name] for name in COLUMNS})
    return rows


def _is_nan(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


class RunBar:
    """A bar over the steps of a run, with the last losses, the share flagged and the accuracy.

    Args:
        description: the run's name.
        total: steps, if no round is spared.
        shown: False shows nothing.
    """

    def __init__(self, description: str = "", total: int = 0, shown: bool = False) -> None:
        self.shown = shown
        self.bar = tqdm(total=total, desc=description, unit="step", disable=not shown)
        self.facts: dict[str, str] = {}

    def expect(self, count: int) -> None:
        """So many more steps will be taken than was said at first."""
        self.bar.total += count

    def steps(self, count: int) -> None:
        """So many steps were taken, or found done."""
        self.bar.update(count)

    def show(self, **facts: float) -> None:
        """Show these, and what was shown before."""
        for name, value in facts.items():
            if math.isnan(value):
                self.facts.pop(name, None)
            else:
                self.facts[name] = (
                    f"{value:.3g}" if name not in ("flagged", "val") else f"{value:.1%}"
                )
        self.bar.set_postfix(self.facts, refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(storage.plain({name: row.get(name) for name in COLUMNS})) + "\n"


class Recorder:
    """Who keeps and shows what happens in a run; without a folder and a bar, nothing.

    Args:
        folder: of the run.
        bar: over its steps.

    Attributes:
        flagged: share of the noisy split that this round flagged, for log and bar.
    """

    def __init__(self, folder: RunFolder | None = None, bar: RunBar | None = None) -> None:
        self.folder, self.bar = folder, bar or RunBar()
        self.log: RunLog | None = None
        if folder is not None and folder.engine.is_first:
            self.log = RunLog(folder.path, folder.finished())
        self.flagged = math.nan

    @staticmethod
    def open(
        options: RunOptions, engine: Engine, identity: Mapping[str, Any], title: str, steps: int
    ) -> Recorder:
        """The recorder of a run, with a folder where one is asked for, and a bar over the steps."""
        folder = None
        if options.run_dir is not None:
            folder = RunFolder(
                Path(options.run_dir),
                identity,
                engine,
                resume=options.resume,
                every=options.checkpoint_every,
            )
        return Recorder(folder, RunBar(title, steps, options.progress and engine.is_first))

    def checkpoint(self, units: Sequence[str]) -> Checkpoint | None:
        """Where the phase of these units, trained together, is kept while it goes on."""
        return None if self.folder is None else self.folder.checkpoint(*units)

    def drop_checkpoint(self, units: Sequence[str]) -> None:
        """The models of these units are kept; their phase need not be."""
        if self.folder is not None:
            self.folder.drop_checkpoint(*units)

    def watch(self, units: Sequence[str]) -> Watch:
        """Tells the bar of every step, and the bar and the log of every evaluation of a unit."""

        def watch(event: str, facts: Mapping[str, float]) -> None:
            if event == "step":
                self.bar.steps(int(facts["steps"]))
                return
            if self.log is not None:
                self.log.add(units[int(facts["member"])], facts, self.flagged)
            self.bar.show(
                clean=facts["clean_loss"],
                non_nc=facts["non_nc_loss"],
                nc=facts["nc_loss"],
                flagged=self.flagged,
                val=facts["val_accuracy"],
            )

        return watch

    def kept(self, unit: str, model: nn.Module, steps: int) -> list[FitResult] | None:
        """Histories of a unit that finished before; the model is brought to where it was."""
        found = None if self.folder is None else self.folder.load_model(unit, model)
        if found is not None:
            self.bar.steps(steps)
        return found

    def keep(self, unit: str, model: nn.Module, fits: list[FitResult]) -> None:
        """Keep a finished unit."""
        if self.folder is not None:
            self.folder.save_model(unit, model, fits)

    def drop(self, unit: str) -> None:
        """A later unit holds all that this one did."""
        if self.folder is not None:
            self.folder.drop_model(unit)

    def once(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Arrays that were kept under this name, or are made now and kept."""
        found = None if self.folder is None else self.folder.predictions(name)
        if found is None:
            found = make()
            if self.folder is not None:
                self.folder.save_predictions(name, **found)
        return found

    def keep_round(self, done: Round) -> Round:
        """Show and keep a round; with the seconds that it took when it was done first."""
        self.bar.show(round=done.index, flagged=done.flagged, val=done.val_accuracy)
        if self.folder is None:
            return done
        kept = self.folder.keep_values(f"rounds/round-{done.index}", round_to_dict(done))
        return dataclasses.replace(done, seconds=kept["seconds"])

    def finish(self, record: Mapping[str, Any]) -> None:
        """Keep the whole run."""
        if self.folder is not None:
            self.folder.keep_values("record", record)

    def close(self) -> None:
        """Leave the bar as it is, and write what the log still holds."""
        self.bar.close()
        if self.log is not None:
            self.log.close()


# -- what runs -------------------------------------------------------------------------------------


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
    owner = getattr(function, "__self__", None)  # of a method: what it knows makes the difference
    known = f"({owner})" if dataclasses.is_dataclass(owner) else ""
    return f"{module}.{name or type(function).__qualname__}{known}"


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
