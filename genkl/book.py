"""How are the book's notebooks executed and its pages rendered?

Notebooks are committed without outputs. This module executes them into ``_executed/<profile>/``,
each one only when something it depends on has changed, and renders the pages from those copies::

    python -m genkl.book execute                            # what is stale, in parallel
    python -m genkl.book chapter 1_geometry -p alpha 0.9    # one chapter, another parameter
    python -m genkl.book render                             # execute, then build _build/html

A profile (``notebooks/manifest.yml``) names the parameters of every notebook.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGE = "genkl"
DEFAULT_PROFILE = "quick"
HEARTBEAT_SECONDS = 20
KERNEL_STARTS = 3


class BookError(Exception):
    """Something the reader can put right; the message says what."""


# --- The project: where things are -----------------------------------------------------------


@dataclass(frozen=True)
class Project:
    """A book's folder, and the places inside it.

    Args:
        root: the folder that holds ``_config.yml``, ``notebooks/`` and ``genkl/``.
        profile: a profile of the manifest.
    """

    root: Path
    profile: str = DEFAULT_PROFILE

    @property
    def notebooks(self) -> Path:
        """The committed notebooks."""
        return self.root / "notebooks"

    @property
    def executed(self) -> Path:
        """The executed copies of this profile."""
        return self.root / "_executed" / self.profile

    @property
    def html(self) -> Path:
        """The published book."""
        return self.root / "_build" / "html"

    @property
    def overrides(self) -> Path:
        """Parameters changed with `change_chapter`, kept until they are reset."""
        return self.executed / "overrides.json"

    def template(self, name: str) -> Path:
        """The committed notebook."""
        return self.notebooks / f"{name}.ipynb"

    def copy(self, name: str) -> Path:
        """The executed notebook."""
        return self.executed / f"{name}.ipynb"

    def names(self) -> list[str]:
        """The names of all committed notebooks, sorted."""
        return sorted(path.stem for path in self.notebooks.glob("*.ipynb"))


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell, such as ``alpha: float = 1.05``."""

    name: str
    default: Any
    annotation: str


@dataclass(frozen=True)
class Job:
    """One notebook to execute: with which parameters, and what it depends on.

    ``changed`` maps a parameter that the reader changed to [its value, its value otherwise].
    """

    name: str
    parameters: dict[str, Any]
    changed: dict[str, list[Any]]
    depends_on: list[Path]


@dataclass
class Outcome:
    """What happened to each notebook."""

    executed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


# --- Notebooks and their parameters ----------------------------------------------------------


def code_cells(template: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook, with ``source`` as one string."""
    notebook = json.loads(template.read_text("utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def read_parameters(template: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares in its cell tagged ``parameters``.

    Raises:
        BookError: the cell holds something else than names and literals.
    """
    parameters = {}
    for cell in code_cells(template):
        if "parameters" in cell["metadata"].get("tags", []):
            for name, annotation, value in _assignments(template, cell["source"]):
                default = ast.literal_eval(value)
                written = ast.unparse(annotation) if annotation else type(default).__name__
                parameters[name] = Parameter(name, default, written)
    return parameters


def _assignments(template: Path, source: str) -> Iterator[tuple[str, ast.expr | None, ast.expr]]:
    try:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", 0)
            value = getattr(node, "value", None)
            if not isinstance(target, ast.Name) or value is None:
                raise ValueError(f"line {node.lineno} assigns no value to a name")
            ast.literal_eval(value)
            yield target.id, getattr(node, "annotation", None), value
    except (SyntaxError, ValueError) as error:
        raise BookError(
            f"{template.name}: its parameters cell holds only literals: {error}"
        ) from None


def with_parameters(source: str, values: Mapping[str, Any]) -> str:
    """A parameters cell with other values in the place of its literals.

    Example:
        >>> with_parameters("alpha: float = 1.05  # paper\\nseed: int = 0", {"alpha": 0.9})
        'alpha: float = 0.9  # paper\\nseed: int = 0'
    """
    lines = source.encode().splitlines(keepends=True)  # ast counts columns in bytes
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    text = source.encode()
    for name, _, value in reversed(list(_assignments(Path("parameters"), source))):
        if name in values and value.end_lineno and value.end_col_offset is not None:
            begin = starts[value.lineno - 1] + value.col_offset
            end = starts[value.end_lineno - 1] + value.end_col_offset
            text = text[:begin] + repr(values[name]).encode() + text[end:]
    return text.decode()


def check_parameters(name: str, known: Mapping[str, Parameter], values: Mapping[str, Any]) -> None:
    """Raise if a notebook does not declare these parameters, or declares other types."""
    for key, value in values.items():
        if key not in known:
            names = ", ".join(known) or "none"
            raise BookError(f"{name} has no parameter {key!r}; its parameters: {names}")
        if not _fits(value, ast.parse(known[key].annotation, mode="eval").body):
            raise BookError(
                f"{name}: {key} is declared {known[key].annotation} (such as "
                f"{known[key].default!r}), got {type(value).__name__} {value!r}"
            )


def _fits(value: Any, annotation: ast.expr) -> bool:
    """Whether a literal has the declared type; an int may stand for a float, a bool for nothing."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id="float"):
            return isinstance(value, float | int) and not isinstance(value, bool)
        case ast.Name(id="int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case ast.Name(id="list" | "tuple"):
            return isinstance(value, list | tuple)  # YAML and JSON know only lists
        case ast.Name(id="bool" | "str" | "dict" | "NoneType" as known):
            return type(value).__name__ == known
        case ast.Subscript(value=outer, slice=inner):
            kinds = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            items = value.values() if isinstance(value, dict) else value
            kind = kinds[-1] if isinstance(value, dict) else kinds[0]
            return _fits(value, outer) and all(_fits(item, kind) for item in items)
    return True


def as_declared(value: Any, default: Any) -> Any:
    """A YAML or JSON list as the tuple that the notebook declares."""
    return tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value


# --- What a notebook depends on --------------------------------------------------------------


class _Undecidable(Exception):
    """The code may use any file of the package."""


def package_files(project: Project, template: Path) -> list[Path]:
    """The files of the package that a notebook uses, directly or not; found without executing it.

    Names are mapped through the package's ``_EXPORTS``, so that ``genkl.fit`` is a dependency on
    ``genkl/train.py`` and what that imports, and not on everything. Where the code can't be
    decided (a star import, names made at run time), all files are returned.
    """
    package = Package(project.root / PACKAGE)
    try:
        modules = package.used_by("\n".join(_python(cell) for cell in code_cells(template)))
    except (_Undecidable, SyntaxError):
        modules = set(package.modules)
    return sorted(package.modules[module] for module in modules - {f"{PACKAGE}.book"})


def _python(cell: Mapping[str, Any]) -> str:
    """A cell's source without the lines that are IPython's."""
    return re.sub(r"^(\s*)[%!].*", r"\1pass", cell["source"], flags=re.MULTILINE)


class Package:
    """The package's modules and who imports whom, read from the source files."""

    def __init__(self, folder: Path):
        self.modules: dict[str, Path] = {}
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            self.modules[".".join(part for part in parts if part != "__init__")] = path
        self.exports: dict[str, str] = {}
        init = folder / "__init__.py"
        if init.exists() and "_EXPORTS" in init.read_text("utf-8"):
            self.exports = runpy.run_path(str(init), run_name=PACKAGE)["_EXPORTS"]

    def used_by(self, source: str) -> set[str]:
        """All modules that code outside the package uses, directly or not."""
        done: set[str] = set()
        waiting = self._imports(source, "", is_package=False)
        while waiting:
            module = waiting.pop()
            if module in done:
                continue
            done.add(module)
            path = self.modules[module]
            is_package = path.name == "__init__.py"
            waiting |= self._imports(path.read_text("utf-8"), module, is_package=is_package)
        return done

    def _imports(self, source: str, importer: str, *, is_package: bool) -> set[str]:
        """The modules of the package that some code names, with the packages around them."""
        tree = ast.parse(source)
        found: set[str] = set()
        aliases: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == PACKAGE:
                        found |= self._resolve(PACKAGE, alias.name[len(PACKAGE) + 1 :])
                        if alias.name == PACKAGE or not alias.asname:
                            aliases.add(alias.asname or PACKAGE)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = importer.split(".")[: None if is_package else -1]
                    parts = parts[: len(parts) - node.level + 1]
                    base = ".".join([*parts, *([node.module] if node.module else [])])
                if base.split(".")[0] == PACKAGE:
                    for alias in node.names:
                        found |= self._resolve(base, alias.name)
            elif isinstance(node, ast.Name | ast.Attribute):
                name = node.id if isinstance(node, ast.Name) else node.attr
                if name in {"import_module", "__import__", "exec", "eval"} and not self._is_method(
                    node
                ):
                    raise _Undecidable
        return found | self._attributes(tree, aliases)

    @staticmethod
    def _is_method(node: ast.Name | ast.Attribute) -> bool:
        """Whether this is ``model.eval`` and the like, and not the built-in function."""
        return isinstance(node, ast.Attribute) and node.attr in {"eval", "exec"}

    def _attributes(self, tree: ast.AST, aliases: set[str]) -> set[str]:
        """The modules behind ``genkl.name`` in code that imports the package itself."""
        found: set[str] = set()
        followed = set()
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in aliases
            ):
                followed.add(node.value)
                if not node.attr.startswith("__"):
                    found |= self._resolve(PACKAGE, node.attr)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in aliases and node not in followed:
                raise _Undecidable  # the package itself is handed on
        return found

    def _resolve(self, base: str, name: str) -> set[str]:
        """The modules needed for ``from base import name``; their enclosing packages are loaded."""
        module = f"{base}.{name}" if name else base
        if base == PACKAGE and name in self.exports:
            module = self.exports[name]
        elif name and module not in self.modules:
            if base == PACKAGE and self.exports:
                raise _Undecidable  # a star, or a name that is unknown
            module = base
        parts = module.split(".")
        found = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
        if self.exports:  # a lazy __init__ is a table of names, and these have been looked up
            found.discard(PACKAGE)
        return found & set(self.modules)


def quoted_files(project: Project, template: Path) -> list[Path]:
    """Files of the repository that a notebook names in a string, as a path from its folder."""
    files = set()
    for cell in code_cells(template):
        try:
            nodes = list(ast.walk(ast.parse(_python(cell))))
        except SyntaxError:
            continue
        for node in nodes:
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and "." in text and len(text) < 200 and "\n" not in text:
                path = (project.notebooks / text).resolve()
                if path.is_relative_to(project.root.resolve()) and path.is_file():
                    files.add(path)
    return sorted(files)


# --- Profiles --------------------------------------------------------------------------------


def read_manifest(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """``notebooks/manifest.yml``: profile -> notebook -> parameters."""
    import yaml

    path = root / "notebooks" / "manifest.yml"
    if not path.exists():
        raise BookError(f"no {path}: run this in the book's folder, or name it with --root")
    try:
        manifest = yaml.safe_load(path.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise BookError(f"{path}: {error}") from None
    return {
        str(profile): {str(name): dict(values or {}) for name, values in (entries or {}).items()}
        for profile, entries in manifest.items()
    }


def read_overrides(project: Project) -> dict[str, dict[str, Any]]:
    """The parameters that the reader changed in this profile: notebook -> parameters."""
    if not project.overrides.exists():
        return {}
    overrides: dict[str, dict[str, Any]] = json.loads(project.overrides.read_text("utf-8"))
    return overrides


def plan(
    project: Project,
    names: Iterable[str] = (),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Job]:
    """The jobs of a profile, checked before any work is done.

    Args:
        project: the book and the profile.
        names: notebooks to plan; all where empty.
        overrides: changed parameters; those kept on disk where None.

    Returns:
        The jobs in the manifest's order.

    Raises:
        BookError: an unknown profile, notebook or parameter, or a value of another type. The
            message lists the known ones.
    """
    manifest = read_manifest(project.root)
    if project.profile not in manifest:
        raise BookError(f"no profile {project.profile!r}; the profiles: {', '.join(manifest)}")
    entries = manifest[project.profile]
    existing = project.names()
    for name in [*names, *entries]:
        if name not in existing:
            raise BookError(f"no notebook {name!r}; the notebooks: {', '.join(existing)}")
    if missing := [name for name in existing if name not in entries]:
        raise BookError(
            f"notebooks/manifest.yml: profile {project.profile!r} does not name "
            f"{', '.join(missing)} (`{missing[0]}: {{}}` takes the notebook's own parameters)"
        )
    if overrides is None:
        overrides = read_overrides(project)
    jobs = [_plan_one(project, name, entries[name], overrides.get(name, {})) for name in entries]
    return [job for job in jobs if job.name in (list(names) or existing)]


def _plan_one(
    project: Project, name: str, given: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Job:
    template = project.template(name)
    known = read_parameters(template)
    check_parameters(name, known, given)
    check_parameters(name, known, overrides)
    usual = {key: parameter.default for key, parameter in known.items()}
    usual |= {key: as_declared(value, usual[key]) for key, value in given.items()}
    changes = {key: as_declared(value, usual[key]) for key, value in overrides.items()}
    parameters = usual | changes
    if "record_path" in known and "record_path" not in {*given, *overrides}:
        parameters["record_path"] = f"../_executed/{project.profile}/records/{name}.json"
    return Job(
        name=name,
        parameters=parameters,
        changed={key: [value, usual[key]] for key, value in changes.items() if value != usual[key]},
        depends_on=[
            template,
            *package_files(project, template),
            *quoted_files(project, template),
        ],
    )


# --- Executing -------------------------------------------------------------------------------


def execute(
    project: Project,
    names: Sequence[str] = (),
    *,
    jobs: int | None = None,
    force: bool = False,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Outcome:
    """Execute the stale notebooks of a profile.

    A notebook is stale when its content, its parameters, a package file that it uses, or the
    version of an installed dependency differs from those of its last good copy. A failing one
    leaves the others to finish and its last good copy in place.

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
    _need("doit", "papermill", "yaml")
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
            settings = [job.parameters, job.changed, threads, versions]
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
    _say(f"{job.name}: executing")
    with tempfile.TemporaryDirectory(dir=project.executed, prefix=".running-") as folder:
        prepared, copy = Path(folder) / "in.ipynb", Path(folder) / f"{job.name}.ipynb"
        prepared.write_text(json.dumps(_prepare(project, job)), "utf-8")
        problem = _run_papermill(project, job, prepared, copy, threads)
        failed = project.executed / "failed" / copy.name
        if problem is None:
            os.replace(copy, project.copy(job.name))
            failed.unlink(missing_ok=True)
            outcome.executed.append(job.name)
            _say(f"{job.name}: done in {time.monotonic() - began:.1f} s")
            return None
        if copy.exists():
            failed.parent.mkdir(exist_ok=True)
            os.replace(copy, failed)
            problem += f"\n  what ran is in {_relative(failed, project.root)}"
    outcome.failed[job.name] = problem
    _say(f"{job.name}: FAILED after {time.monotonic() - began:.1f} s")
    return TaskFailed(problem)


def _prepare(project: Project, job: Job) -> dict[str, Any]:
    """The notebook with this job's parameters written in its parameters cell."""
    notebook: dict[str, Any] = json.loads(project.template(job.name).read_text("utf-8"))
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = with_parameters("".join(cell["source"]), job.parameters)
    notebook["metadata"][PACKAGE] = {"profile": project.profile, "changed": job.changed}
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
        _say(f"{job.name}: its kernel did not start")
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
                        _say(f"{job.name}: {where} ({time.monotonic() - began:.0f} s)")
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


# --- Changing one chapter --------------------------------------------------------------------


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
    _need("doit", "papermill", "yaml")
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


# --- Rendering -------------------------------------------------------------------------------


def build_html(project: Project, output: Path) -> Path:
    """Build the pages from the executed copies, strictly: a warning is a failure.

    Args:
        project: the book and the profile.
        output: a folder for Jupyter Book's own files; kept, it makes the next build quick.

    Returns:
        The folder with the pages, which is not published.

    Raises:
        BookError: the build failed.
    """
    _need("jupyter_book", "sphinx_exercise", "sphinx_proof", "sphinxcontrib.bibtex")
    run = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-P", "-c", run, "build", str(project.root)]
    command += ["--path-output", str(output), "-W", "-n", "--keep-going", "-q"]
    environment = os.environ | {"GENKL_PROFILE": project.profile, "GENKL_ALREADY_EXECUTED": "1"}
    output.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=project.root, env=environment, stdout=subprocess.PIPE)
    if done.returncode:
        sys.stdout.write(done.stdout.decode(errors="replace"))
        # A page that was read once does not warn a second time: start afresh.
        shutil.rmtree(output / "_build" / ".doctrees", ignore_errors=True)
        raise BookError("the pages could not be built; the warnings above say why")
    return output / "_build" / "html"


def render(project: Project, *, jobs: int | None = None) -> Path:
    """Execute what is stale, build the pages, and publish them only if both succeed.

    Returns:
        The published page to open.

    Raises:
        BookError: a notebook or the build failed; what was published before is still there.
    """
    outcome = execute(project, jobs=jobs)
    _say(summarize(outcome))
    if outcome.failed:
        raise BookError("the book was not rendered, because a notebook failed")
    _say("Rendering the pages ...")
    began = time.monotonic()
    built = build_html(project, project.root / "_build" / ".staging" / project.profile)
    _publish(built, project.html)
    _say(f"Rendered in {time.monotonic() - began:.1f} s")
    return project.html / "index.html"


def _publish(built: Path, published: Path) -> None:
    """Put a finished build in the place of the published one, by renaming."""
    new, old = published.with_name("html.new"), published.with_name("html.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    published.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(built, new)
    if published.exists():
        os.replace(published, old)
    os.replace(new, published)
    shutil.rmtree(old, ignore_errors=True)


# --- The command line ------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    project = Project((options.root or _find_root()).resolve(), options.profile)
    try:
        return int(options.command(project, options))
    except BookError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the last good copies and pages are in place", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--profile",
        default=os.environ.get("GENKL_PROFILE", DEFAULT_PROFILE),
        help="a profile of notebooks/manifest.yml (default: %(default)s)",
    )
    shared.add_argument("--root", type=Path, help="the book's folder (default: this one)")
    parallel = argparse.ArgumentParser(add_help=False)
    parallel.add_argument(
        "--jobs", type=_positive, metavar="N", help="notebooks at once (default: one a core)"
    )
    parser = argparse.ArgumentParser(
        prog="python -m genkl.book", description="Execute the book's notebooks and render it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser(
        "execute", parents=[shared, parallel], help="execute the notebooks that are stale"
    )
    one.add_argument("names", nargs="*", metavar="NAME", help="notebooks (default: all)")
    one.add_argument("--force", action="store_true", help="also those that are not stale")
    one.set_defaults(command=_execute_command)

    one = commands.add_parser(
        "chapter", parents=[shared], help="re-execute one chapter, with changed parameters"
    )
    one.add_argument("name", metavar="NAME", help="a notebook, such as 1_geometry")
    one.add_argument(
        "-p", dest="changes", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
        help="a parameter and its value; can be repeated",
    )  # fmt: skip
    one.add_argument("--reset", action="store_true", help="forget this chapter's changes")
    one.set_defaults(command=_chapter_command)

    one = commands.add_parser(
        "render", parents=[shared, parallel], help="execute, then build _build/html"
    )
    one.set_defaults(command=_render_command)
    return parser


def _execute_command(project: Project, options: argparse.Namespace) -> int:
    outcome = execute(project, options.names, jobs=options.jobs, force=options.force)
    print(summarize(outcome), flush=True)
    return 1 if outcome.failed else 0


def _chapter_command(project: Project, options: argparse.Namespace) -> int:
    if options.reset and options.changes:
        raise BookError("--reset forgets the changes: give it without -p")
    outcome = change_chapter(project, options.name, dict(options.changes), reset=options.reset)
    if outcome.failed:
        print(summarize(outcome), flush=True)
        return 1
    status = _render_command(project, options)
    if changed := read_overrides(project).get(options.name):
        profile = "" if project.profile == DEFAULT_PROFILE else f" --profile {project.profile}"
        print(
            f"{options.name} keeps {_listing(changed)}. To return to its own parameters: "
            f"python -m genkl.book chapter {options.name} --reset{profile}"
        )
    return status


def _render_command(project: Project, options: argparse.Namespace) -> int:
    page = render(project, jobs=getattr(options, "jobs", None))
    print(f"The book: {page}", flush=True)
    return 0


def _listing(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in values.items())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _find_root() -> Path:
    """This folder if it holds a book, else the checkout that this file is in."""
    here = Path.cwd()
    return here if (here / "notebooks" / "manifest.yml").exists() else Path(__file__).parents[1]


@functools.cache
def _need(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise BookError(f'{module} is not installed: pip install -e ".[book]"')


def _say(line: str) -> None:
    print(line, flush=True)


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


if __name__ == "__main__":
    sys.exit(main())
