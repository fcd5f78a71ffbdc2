"""What is seen while a run goes on: a bar, a table on disk, TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from genkl.storage import write_atomically

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
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.jsonl, self.csv = folder / "log.jsonl", folder / "log.csv"
        rows = [row for row in read_log(self.jsonl) if row["unit"] in finished]
        write_atomically(self.jsonl, "".join(_line(row) for row in rows).encode())
        write_atomically(self.csv, (_header() + "".join(_csv(row) for row in rows)).encode())
        self.board = SummaryWriter(str(folder / "tensorboard"))

    def add(self, unit: str, entry: Mapping[str, float], flagged: float) -> None:
        """Append one evaluation."""
        row = {"unit": unit, **entry, "flagged": flagged}
        with open(self.jsonl, "a", encoding="utf-8") as file:
            file.write(_line(row))
        with open(self.csv, "a", encoding="utf-8", newline="") as file:
            file.write(_csv(row))
        for name in COLUMNS[2:]:
            value = row.get(name, math.nan)
            if not math.isnan(value):
                self.board.add_scalar(f"{unit}/{name}", value, int(row["step"]))

    def close(self) -> None:
        """Write what TensorBoard's writer still holds."""
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


class RunBar:
    """A bar over the steps of a run, with the last losses, the share flagged and the accuracy.

    Args:
        description: the run's name.
        total: steps, if no round is spared.
        shown: False shows nothing.
    """

    def __init__(self, description: str, total: int, shown: bool) -> None:
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
    plain = {n: None if isinstance(v, float) and math.isnan(v) else v for n, v in row.items()}
    return json.dumps({name: plain.get(name) for name in COLUMNS}) + "\n"


def _header() -> str:
    return ",".join(COLUMNS) + "\n"


def _csv(row: Mapping[str, Any]) -> str:
    text = io.StringIO()
    values = [row.get(name, "") for name in COLUMNS]
    csv.writer(text, lineterminator="\n").writerow(
        "" if isinstance(value, float) and math.isnan(value) else value for value in values
    )
    return text.getvalue()
