"""Has it run? Stale notebooks are executed side by side; a good copy is never lost."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
from book.machine.profiles import Job, plan, read_overrides
from book.machine.project import PACKAGE, BookError, Project, need, relative, say

HEARTBEAT_SECONDS = 20
KERNEL_STARTS = 3


@dataclass
class Outcome:
    """What happened to each notebook."""

    executed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def execute(
    project: Project,
    names: Sequence[str] = (),
    *,
    jobs: int | None = None,
    force: bool = False,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Outcome:
    """Execute the stale notebooks of a profile.

    A notebook is stale when its code, its parameters, a package file that it uses, or the version
    of an installed dependency differs from those of its last good copy; its prose may change. A
    failing one leaves the others to finish and its last good copy in place.

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
    need("doit", "papermill", "yaml")
    from doit.cmd_base import ModuleTaskLoader
    from doit.doit_cmd import DoitMain
    from doit.reporter import ZeroReporter
    from doit.tools import config_changed

    planned = plan(project, names, overrides)
    limit = min(_cores(), len(project.names()))
    at_once = max(1, min(jobs or limit, len(planned)))
    threads = max(1, _cores() // max(1, jobs or limit))  # the same for one notebook as for all
    outcome = Outcome()
    versions = _versions(project.root)
    project.executed.mkdir(parents=True, exist_ok=True)

    class Reporter(ZeroReporter):  # type: ignore[misc]
        def skip_uptodate(self, task: Any) -> None:
            outcome.unchanged.append(task.name.partition(":")[2])

    def task_notebook() -> Iterator[dict[str, Any]]:
        for job in planned:
            code = code_fingerprint(project.template(job.name))
            settings = [job.parameters, job.changed, threads, versions, code]
            yield {
                "name": job.name,
                "actions": [(_run_job, [project, job, threads, outcome])],
                "file_dep": [str(path) for path in job.depends_on],
                "targets": [str(project.copy(job.name))],
                "uptodate": [config_changed(json.dumps(settings, sort_keys=True, default=repr))],
                "io": {"capture": False},
            }

    settings = {
        "dep_file": str(project.executed / ".doit.json"),
        "backend": "json",
        "reporter": Reporter,
        "continue": True,
        "verbosity": 2,
        "always": force,
        "num_process": at_once if at_once > 1 else 0,
        "par_type": "thread",
    }
    namespace = {"DOIT_CONFIG": settings, "task_notebook": task_notebook}
    status = DoitMain(ModuleTaskLoader(namespace)).run(["run"])
    if status and not outcome.failed:
        raise BookError("the notebooks could not be executed; see the message above")
    return outcome


def _run_job(project: Project, job: Job, threads: int, outcome: Outcome) -> Any:
    """Execute one notebook in a process of its own; publish the copy only if it is good."""
    from doit.exceptions import TaskFailed

    began = time.monotonic()
    say(f"{job.name}: executing")
    with tempfile.TemporaryDirectory(dir=project.executed, prefix=".running-") as folder:
        prepared, copy = Path(folder) / "in.ipynb", Path(folder) / f"{job.name}.ipynb"
        prepared.write_text(json.dumps(_prepare(project, job)), "utf-8")
        problem = _run_papermill(project, job, prepared, copy, threads)
        failed = project.executed / "failed" / copy.name
        if problem is None:
            os.replace(copy, project.copy(job.name))
            failed.unlink(missing_ok=True)
            outcome.executed.append(job.name)
            say(f"{job.name}: done in {time.monotonic() - began:.1f} s")
            return None
        if copy.exists():
            failed.parent.mkdir(exist_ok=True)
            os.replace(copy, failed)
            problem += f"\n  what ran is in {relative(failed, project.root)}"
    outcome.failed[job.name] = problem
    say(f"{job.name}: FAILED after {time.monotonic() - began:.1f} s")
    return TaskFailed(problem)


def _prepare(project: Project, job: Job) -> dict[str, Any]:
    """The notebook with this job's parameters written in its parameters cell."""
    notebook: dict[str, Any] = json.loads(project.template(job.name).read_text("utf-8"))
    notebook["cells"] = [cell for cell in notebook["cells"] if SETUP not in tags_of(cell)]
    for cell in notebook["cells"]:
        if PARAMETERS in tags_of(cell):
            cell["source"] = with_parameters("".join(cell["source"]), job.parameters)
    own = notebook["metadata"].setdefault(PACKAGE, {})
    own |= {"profile": project.profile, "changed": job.changed}
    return notebook


def _run_papermill(
    project: Project, job: Job, prepared: Path, copy: Path, threads: int
) -> str | None:
    """Run papermill; return what went wrong, if anything.

    Kernels that start side by side may pick the same port, and one then dies before its first
    cell; such a start is tried again.
    """
    for _ in range(KERNEL_STARTS):
        problem = _run_papermill_once(project, job, prepared, copy, threads)
        if problem is None or _has_begun(copy):
            break
        say(f"{job.name}: its kernel did not start")
    return problem


def _has_begun(copy: Path) -> bool:
    """Whether a cell of an executed copy has run."""
    return copy.exists() and any(
        cell["metadata"].get("papermill", {}).get("start_time") for cell in code_cells(copy)
    )


def _run_papermill_once(
    project: Project, job: Job, prepared: Path, copy: Path, threads: int
) -> str | None:
    """Run papermill, telling from time to time where it is; return what went wrong, if anything."""
    command = [sys.executable, "-P", "-m", "papermill", str(prepared), str(copy)]
    command += ["--kernel", "python3", "--no-progress-bar", "--log-level", "ERROR"]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        with subprocess.Popen(
            command, cwd=project.notebooks, env=_kernel_environment(project, threads),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        ) as process:  # fmt: skip
            try:
                while process.poll() is None:
                    try:
                        process.wait(HEARTBEAT_SECONDS)
                    except subprocess.TimeoutExpired:
                        where = _progress(copy)
                        say(f"{job.name}: {where} ({time.monotonic() - began:.0f} s)")
            finally:
                process.terminate()
        if process.returncode == 0 and copy.exists():
            return None
        log.seek(0)
        return _explain(job.name, copy, log.read())


def _kernel_environment(project: Project, threads: int) -> dict[str, str]:
    """The kernels' environment: a fixed number of threads, and this folder's package."""
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM"):
        environment[f"{library}_NUM_THREADS"] = str(threads)
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(project.root), *([inherited] if inherited else [])]
    )
    return environment | {
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "TQDM_DISABLE": "1",
    }


def _progress(copy: Path) -> str:
    """Which cell of an unfinished copy is running."""
    try:
        cells = code_cells(copy)
    except (OSError, ValueError):
        return "starting"
    done = [cell["metadata"].get("papermill", {}).get("status") == "completed" for cell in cells]
    return f"code cell {min(sum(done) + 1, len(cells))} of {len(cells)}"


def _explain(name: str, copy: Path, log: str) -> str:
    """Which cell of which notebook failed, and how."""
    last_words = "\n    ".join(log.strip().splitlines()[-5:]) or "no message"
    if not copy.exists():
        return f"{name}: papermill could not start\n    {last_words}"
    cells = code_cells(copy)
    reached = f"{name}: papermill failed:"
    for number, cell in enumerate(cells, 1):
        source = cell["source"].strip().splitlines() or ["(empty)"]
        if cell["metadata"].get("papermill", {}).get("start_time"):
            reached = (
                f"{name}: code cell {number} of {len(cells)}, which begins `{source[0]}`, failed:"
            )
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                return f"{reached}\n    {output['ename']}: {output['evalue']}"
    return f"{reached}\n    {last_words}"  # no cell says why: the kernel itself ended in this one


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions(root: Path) -> dict[str, str]:
    """Python's version, and that of every dependency that pyproject.toml names."""
    import tomllib

    found = {"python": platform.python_version()}
    pyproject = root / "pyproject.toml"
    if pyproject.exists():
        project = tomllib.loads(pyproject.read_text("utf-8")).get("project", {})
        for requirement in project.get("dependencies", []):
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
    need("doit", "papermill", "yaml")
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
        with tempfile.NamedTemporaryFile("w", dir=project.executed, delete=False) as file:
            json.dump(kept, file, indent=1)
        os.replace(file.name, project.overrides)
    return outcome


def _typed(text: str, parameter: Parameter) -> Any:
    """A value from the command line: text stays text where text is declared."""
    if parameter.annotation == "str":
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)
