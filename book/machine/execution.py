"""Execution of notebooks: stale ones run side by side, and a good copy is never lost."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from book.machine.copies import SETUP, code_fingerprint
from book.machine.parameters import (
    PARAMETERS,
    Parameter,
    check_parameters,
    code_cells,
    read_parameters,
    tags_of,
    with_parameters,
)
from book.machine.profiles import Job, in_turn, plan, read_overrides
from book.machine.project import (
    PACKAGE,
    BookError,
    Project,
    need,
    read_notebook,
    relative,
    say,
    search_path,
)
from genkl.provenance import usable_cores
from genkl.storage import explained, write_json

HEARTBEAT_SECONDS = 20
POLL_SECONDS = 0.05
KERNEL_STARTS = 3
NOT_IN_NUMBERS = ("book", "test")
"""Extras of pyproject.toml whose versions no notebook's numbers depend on."""


@dataclass
class Outcome:
    """What happened to each notebook."""

    executed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@in_turn
def execute(
    project: Project,
    names: Sequence[str] = (),
    *,
    jobs: int | None = None,
    force: bool = False,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Outcome:
    """Execute the stale notebooks of a profile.

    A notebook is stale when its code, its parameters, a file that it uses, or the version of an
    installed dependency differs from those of its last good copy; its prose may change. A failing
    one leaves the others to finish and its last good copy in place.

    Args:
        project: the book and the profile.
        names: notebooks to look at; all where empty.
        jobs: how many at once; by default as many as there are cores and notebooks.
        force: execute them even if nothing has changed.
        overrides: changed parameters; those kept on disk where None.

    Returns:
        What was executed, what was unchanged, and what failed with which message.

    Raises:
        BookError: nothing was executed, because the request can't be met.
    """
    need("papermill", "yaml")
    planned = plan(project, names, overrides)
    limit = jobs or min(usable_cores(), len(project.names()))
    threads = max(1, usable_cores() // limit)  # the same for one notebook as for all
    settings = [threads, _versions(project.root)]
    made_from = {job.name: _made_from(project, job, settings) for job in planned}
    stale = [
        job for job in planned if force or _last_made_from(project, job) != made_from[job.name]
    ]
    outcome = Outcome(unchanged=[job.name for job in planned if job not in stale])
    project.executed.mkdir(parents=True, exist_ok=True)
    running: list[_Run] = []
    try:
        while stale or running:
            while stale and len(running) < limit:
                job = stale.pop(0)
                running.append(_Run(project, job, made_from[job.name], threads))
            for run in [run for run in running if run.has_ended()]:
                running.remove(run)
                run.publish(outcome)
            time.sleep(POLL_SECONDS if running else 0)
    finally:
        for run in running:
            run.process.terminate()
    return outcome


def _made_from(project: Project, job: Job, settings: list[Any]) -> str:
    """A digest of everything that a copy's outputs follow from."""
    code = code_fingerprint(project.template(job.name))
    files = {
        str(relative(path, project.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in job.depends_on
    }
    everything = [job.parameters, job.changed, settings, code, files]
    text = json.dumps(everything, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _last_made_from(project: Project, job: Job) -> str | None:
    """The digest that the last good copy was made from."""
    try:
        copy = read_notebook(project.copy(job.name))
    except (OSError, BookError):
        return None
    made_from: str | None = copy["metadata"].get(PACKAGE, {}).get("made_from")
    return made_from


class _Run:
    """One notebook that is executed in a process of its own; only a good copy is published.

    Kernels that start side by side may pick the same port, and one then dies before its first
    cell; such a start is tried again.
    """

    def __init__(self, project: Project, job: Job, made_from: str, threads: int):
        self.project, self.name, self.threads = project, job.name, threads
        self.folder = tempfile.TemporaryDirectory(dir=project.executed, prefix=".running-")
        self.prepared = Path(self.folder.name, "in.ipynb")
        self.copy = Path(self.folder.name, f"{job.name}.ipynb")
        write_json(self.prepared, _prepare(project, job, made_from))
        self.log = Path(self.folder.name, "log.txt")
        self.began = self.told = time.monotonic()
        self.starts = 0
        say(f"{self.name}: executing")
        self.start()

    def start(self) -> None:
        self.starts += 1
        environment = kernel_environment(self.project, self.threads)
        paths = self.prepared, self.copy, self.log
        self.process = start_papermill(*paths, cwd=self.project.notebooks, env=environment)

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.began

    def has_ended(self) -> bool:
        """Whether it has. If not, it tells from time to time where it is."""
        if self.process.poll() is None:
            if time.monotonic() - self.told > HEARTBEAT_SECONDS:
                number, cells = _reached(self.copy)
                where = f"code cell {number} of {len(cells)}" if number else "starting"
                say(f"{self.name}: {where} ({self.seconds:.0f} s)")
                self.told = time.monotonic()
            return False
        if self.process.returncode and self.starts < KERNEL_STARTS and not _reached(self.copy)[0]:
            say(f"{self.name}: its kernel did not start")
            self.start()
            return False
        return True

    def publish(self, outcome: Outcome) -> None:
        """Put a good copy in place; explain any other, and keep it apart."""
        failed = self.project.executed / "failed" / self.copy.name
        with self.folder:
            try:
                if self.process.returncode == 0 and self.copy.exists() and read_notebook(self.copy):
                    with explained(self.project.copy(self.name)):
                        os.replace(self.copy, self.project.copy(self.name))
                    failed.unlink(missing_ok=True)
                    outcome.executed.append(self.name)
                    say(f"{self.name}: done in {self.seconds:.1f} s")
                    return
                problem = _explain(self.name, self.copy, self.log.read_text("utf-8", "replace"))
            except (OSError, BookError) as error:
                problem = f"{self.name}: {error}"
            if self.copy.exists():
                failed.parent.mkdir(exist_ok=True)
                os.replace(self.copy, failed)
                problem += f"\n  what ran is in {relative(failed, self.project.root)}"
        outcome.failed[self.name] = problem
        say(f"{self.name}: FAILED after {self.seconds:.1f} s")


def _prepare(project: Project, job: Job, made_from: str) -> dict[str, Any]:
    """The notebook with this job's parameters written in its parameters cell."""
    notebook = read_notebook(project.template(job.name))
    notebook["cells"] = [cell for cell in notebook["cells"] if SETUP not in tags_of(cell)]
    for cell in notebook["cells"]:
        if PARAMETERS in tags_of(cell):
            cell["source"] = with_parameters("".join(cell["source"]), job.parameters)
    own = notebook["metadata"].setdefault(PACKAGE, {})
    own |= {"profile": project.profile, "changed": job.changed, "made_from": made_from}
    return notebook


def start_papermill(
    prepared: Path, copy: Path, log: Path, *, cwd: Path, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Begin to execute a notebook, in a folder and with an environment."""
    command = [sys.executable, "-P", "-m", "papermill", str(prepared), str(copy)]
    command += ["--kernel", "python3", "--no-progress-bar", "--log-level", "ERROR"]
    with log.open("wb") as file:
        return subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )


def kernel_environment(project: Project, threads: int) -> dict[str, str]:
    """The kernels' environment: a fixed number of threads, and this folder's modules."""
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM"):
        environment[f"{library}_NUM_THREADS"] = str(threads)
    return environment | {
        "PYTHONPATH": search_path(project.root),
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "TQDM_DISABLE": "1",
    }


def _reached(copy: Path) -> tuple[int, list[dict[str, Any]]]:
    """The number of the last code cell of a copy that has begun, and all code cells."""
    try:
        cells = code_cells(copy)
    except (OSError, BookError):  # not written yet, or half
        return 0, []
    started = [cell["metadata"].get("papermill", {}).get("start_time") for cell in cells]
    return max((number for number, time in enumerate(started, 1) if time), default=0), cells


def _explain(name: str, copy: Path, log: str) -> str:
    """Which cell of which notebook failed, and how."""
    number, cells = _reached(copy)
    free = shutil.disk_usage(copy.parent).free / 1e6
    silence = f"no message; if the disk is full ({free:,.0f} MB are free), free some more"
    said = "\n    ".join(log.strip().splitlines()[-5:]) or silence
    if not number:
        return f"{name}: papermill {'failed' if cells else 'could not start'}:\n    {said}"
    cell = cells[number - 1]
    for output in cell["outputs"]:
        if output["output_type"] == "error":  # else the kernel itself ended
            said = f"{output['ename']}: {output['evalue']}"
    first = (cell["source"].strip().splitlines() or ["(empty)"])[0]
    where = f"code cell {number} of {len(cells)}, which begins `{first}`"
    return f"{name}: {where}, failed:\n    {said}"


def _versions(root: Path) -> dict[str, str]:
    """Python's version, and that of every dependency that numbers may follow from."""
    found = {"python": platform.python_version()}
    pyproject = root / "pyproject.toml"
    if pyproject.exists():
        project = tomllib.loads(pyproject.read_text("utf-8")).get("project", {})
        requirements = list(project.get("dependencies", []))
        for extra, needed in project.get("optional-dependencies", {}).items():
            requirements += needed if extra not in NOT_IN_NUMBERS else []
        for requirement in requirements:
            name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = "missing"
    return found


def summarize(outcome: Outcome) -> str:
    """One line on what happened, then what failed."""
    parts = [f"{len(outcome.executed)} executed", f"{len(outcome.unchanged)} unchanged"]
    if outcome.failed:
        parts.append(f"{len(outcome.failed)} FAILED")
    return "\n".join(["Notebooks: " + ", ".join(parts), *outcome.failed.values()])


@in_turn
def change_chapter(
    project: Project, name: str, changes: Mapping[str, str], *, reset: bool = False
) -> Outcome:
    """Execute one notebook with changed parameters, and keep them if it succeeds.

    Args:
        project: the book and the profile.
        name: the notebook.
        changes: parameter -> value as typed; they replace earlier changes of this chapter. Where
            empty, the chapter is executed again with what it has.
        reset: forget the chapter's changes.

    Returns:
        What happened to it.
    """
    overrides = read_overrides(project)
    plan(project, [name], {})
    known = read_parameters(project.template(name))
    if changes or reset:
        check_parameters(name, known, dict.fromkeys(changes - known.keys()))
        overrides[name] = {key: _typed(text, known[key]) for key, text in changes.items()}
    (job,) = plan(project, [name], overrides)
    overrides[name] = {key: value for key, (value, _) in job.changed.items()}
    kept = {key: values for key, values in overrides.items() if values}
    force = not changes and not reset
    outcome = execute(project, [name], force=force, overrides=overrides)
    if not outcome.failed:
        write_json(project.overrides, kept)
    return outcome


def _typed(text: str, parameter: Parameter) -> Any:
    """A value from the command line: text stays text where text is declared."""
    if parameter.annotation == "str":
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)
