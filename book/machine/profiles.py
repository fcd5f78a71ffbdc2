"""Profiles of the manifest, changed parameters, and the jobs that they make."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from book.machine.dependencies import Modules, quoted_files
from book.machine.parameters import as_declared, check_parameters, read_parameters
from book.machine.project import BookError, Project, need, say
from genkl.storage import DamagedFileError, alone, load_json

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One notebook to execute: with which parameters, and the files that its code depends on.

    ``changed`` maps a parameter that the reader changed to [its value, its value otherwise].
    """

    name: str
    parameters: dict[str, Any]
    changed: dict[str, list[Any]]
    depends_on: list[Path]


def read_manifest(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """``notebooks/manifest.yml``: profile -> notebook -> parameters."""
    need("yaml")
    import yaml

    path = root / "notebooks" / "manifest.yml"
    if not path.exists():
        raise BookError(f"no {path}: run this in the book's folder, or name it with --root")
    try:
        manifest = yaml.safe_load(path.read_text("utf-8")) or {}
        return {
            str(profile): {str(name): dict(given or {}) for name, given in (entries or {}).items()}
            for profile, entries in manifest.items()
        }
    except (yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise BookError(f"{path}: {error}") from None


def read_overrides(project: Project) -> dict[str, dict[str, Any]]:
    """The parameters that the reader changed in this profile: notebook -> parameters."""
    try:
        overrides: dict[str, dict[str, Any]] = load_json(project.overrides)
        if not all(isinstance(values, dict) for values in overrides.values()):
            raise DamagedFileError(project.overrides, "it holds no parameters by chapter")
        return overrides
    except FileNotFoundError:
        return {}
    except DamagedFileError as error:
        raise BookError(
            f"{error}; it holds the parameters that you changed: delete it to return to the "
            "chapters' own, and change them again"
        ) from None


def entries_of(project: Project) -> dict[str, dict[str, Any]]:
    """The notebooks of a project's profile, with their parameters.

    Raises:
        BookError: no manifest, or no such profile in it.
    """
    manifest = read_manifest(project.root)
    if project.profile not in manifest:
        raise BookError(f"no profile {project.profile!r}; the profiles: {', '.join(manifest)}")
    return manifest[project.profile]


_AT_WORK: set[Path] = set()


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Let no other command work in a folder meanwhile; one that does is waited for.

    What is called meanwhile may ask for the same folder.
    """
    if folder in _AT_WORK:
        yield
        return
    waiting = f"Another command is at work in {folder}; this one goes on when it has ended ..."
    with alone(folder / ".lock", lambda: say(waiting)):
        _AT_WORK.add(folder)
        try:
            yield
        finally:
            _AT_WORK.discard(folder)


def in_turn(function: Callable[..., T]) -> Callable[..., T]:
    """Have one command at a time work on a profile: the next one finds what this one has done."""

    @functools.wraps(function)
    def in_its_turn(project: Project, *given: Any, **options: Any) -> T:
        entries_of(project)
        with at_work(project.executed):
            return function(project, *given, **options)

    return in_its_turn


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
    entries = entries_of(project)
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
    modules, wanted = Modules(project), list(names) or existing
    jobs = [
        _job(project, modules, name, entries[name], overrides.get(name, {})) for name in entries
    ]
    return [job for job in jobs if job.name in wanted]


def _job(
    project: Project,
    modules: Modules,
    name: str,
    given: Mapping[str, Any],
    overrides: Mapping[str, Any],
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
        depends_on=[*modules.used_by(template), *quoted_files(project, template)],
    )
