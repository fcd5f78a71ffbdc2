"""The section that ends a chapter: its parameters, the commands, the run beside the record."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from book.machine.comparison import compare, own_path, recorded_path
from book.machine.online import Repository
from book.machine.parameters import Parameter, read_parameters
from book.machine.project import DEFAULT_PROFILE, Project

RECORD = "record_path"


def rerun_section(
    project: Project,
    name: str,
    values: Mapping[str, Any],
    repository: Repository | None = None,
) -> str:
    """The section "Run it yourself" that ends a chapter's page.

    Args:
        project: the book and the profile.
        name: the notebook.
        values: the parameters that its executed copy had.
        repository: where it is published, if it is.

    Returns:
        MyST Markdown, made from the notebook's parameters cell and from the two records.
    """
    known = read_parameters(project.template(name))
    parts = [
        "## Run it yourself",
        "The numbers on this page follow from these parameters. Change one of them.",
        _dropdown("Parameters and commands", "rerun", _parameters(project, name, known, values)),
    ]
    if recorded_path(project, name).exists() and own_path(project, name).exists():
        parts.append(_dropdown("This run beside the recorded one", "rerun", _both(project, name)))
    if repository:
        parts.append(_links(repository, name))
    return "\n\n".join(parts) + "\n"


def _parameters(
    project: Project, name: str, known: Mapping[str, Parameter], values: Mapping[str, Any]
) -> str:
    lines = [
        f"| parameter | meaning | range | here (`{project.profile}`) |",
        "|---|---|---|---|",
    ]
    for key, parameter in known.items():
        if key != RECORD:
            value = values.get(key, parameter.default)
            cells = (f"`{key}`", parameter.meaning, parameter.range or "–", f"`{value!r}`")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(
        [
            *lines,
            "",
            "Into this page, with the book rendered anew:",
            "",
            *_console(chapter_command(project, name, known, values)),
            "",
            "Or into a notebook of your own:",
            "",
            *_console(papermill_command(name, known, values)),
        ]
    )


def _both(project: Project, name: str) -> str:
    return "\n".join(
        [
            compare(project, name),
            "",
            "Mean ± standard deviation over repetitions. *Within the spread*: the means differ by "
            "less than one recorded standard deviation. For a run by papermill:",
            "",
            *_console(f"python -m book compare {name} {name}-mine.json"),
        ]
    )


def chapter_command(
    project: Project, name: str, known: Mapping[str, Parameter], values: Mapping[str, Any]
) -> str:
    """The command that executes a chapter with another parameter and renders the book."""
    profile = "" if project.profile == DEFAULT_PROFILE else f" --profile {project.profile}"
    options = "".join(_option(key, values.get(key, known[key].default)) for key in _free(known)[:1])
    return f"python -m book chapter {name}{profile}{options}"


def papermill_command(name: str, known: Mapping[str, Parameter], values: Mapping[str, Any]) -> str:
    """The papermill command that executes a notebook with these values.

    It names every parameter that has a range. What is measured goes to a record of its own.
    """
    options = "".join(_option(key, values.get(key, known[key].default)) for key in _free(known))
    if RECORD in known:
        options += f" -p {RECORD} ../{name}-mine.json"
    return f"papermill --cwd notebooks notebooks/{name}.ipynb {name}-mine.ipynb{options}"


def _free(known: Mapping[str, Parameter]) -> list[str]:
    return [key for key, parameter in known.items() if parameter.range]


def _option(key: str, value: Any) -> str:
    if isinstance(value, str | int | float) and value != "":
        return f" -p {key} {shlex.quote(str(value))}"
    return f" -y {shlex.quote(f'{key}: {value!r}')}"


def _console(command: str) -> list[str]:
    return ["```console", command, "```"]


def _links(repository: Repository, name: str) -> str:
    return (
        f"Without installing anything: [Binder]({repository.binder(name)}) or "
        f"[Colab]({repository.colab(name)}), with this repository's own files."
    )


def _dropdown(title: str, style: str, content: str) -> str:
    return f"::::{{dropdown}} {title}\n:class-container: {style}\n\n{content}\n::::"
