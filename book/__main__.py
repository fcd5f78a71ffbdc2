"""The command line of ``python -m book``: execute notebooks, render pages, make slides."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from book.machine.audience import AUDIENCES
from book.machine.comparison import compare
from book.machine.execution import change_chapter, execute, summarize
from book.machine.online import write_setup_cells
from book.machine.profiles import plan, read_overrides
from book.machine.project import DEFAULT_PROFILE, BookError, Project, say
from book.machine.rendering import render
from book.machine.slides import build_slides


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        project = Project((options.root or _find_root()).resolve(), options.profile)
        return int(options.run(project, options))
    except (BookError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the last good copies and pages are in place", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m book", description="Execute the book's notebooks and render it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., int], purpose: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=purpose)
        made.set_defaults(run=run)
        made.add_argument(
            "--profile",
            default=os.environ.get("GENKL_PROFILE", DEFAULT_PROFILE),
            help="a profile of notebooks/manifest.yml (default: %(default)s)",
        )
        made.add_argument("--root", type=Path, help="the book's folder (default: this one)")
        return made

    execution = command("execute", _execute, "execute the notebooks that are stale")
    execution.add_argument("names", nargs="*", metavar="NAME", help="notebooks (default: all)")
    execution.add_argument("--force", action="store_true", help="also those that are not stale")
    _add_changes(command("chapter", _chapter, "re-execute one chapter, with changed parameters"))
    rendering = command("render", _render, "execute, then build _build/html")
    rendering.add_argument(
        "--audience",
        choices=AUDIENCES,
        default=AUDIENCES[0],
        help="student: no solutions; instructor: the key, too (default: %(default)s)",
    )
    for parallel in (execution, rendering):
        parallel.add_argument(
            "--jobs", type=_positive, metavar="N", help="notebooks at once (default: one a core)"
        )
    command("slides", _slides, "make the lectures' slides from the rendered pages")
    comparison = command("compare", _compare, "hold a run's record against the one in results/")
    comparison.add_argument("name", metavar="NAME", help="a notebook, such as 2_identification")
    comparison.add_argument(
        "record", nargs="?", type=Path, help="a record (default: that of the last execution)"
    )
    command("online", _online, "write Colab's first cell into the notebooks")
    return parser


def _add_changes(chapter: argparse.ArgumentParser) -> None:
    chapter.add_argument("name", metavar="NAME", help="a notebook, such as 1_geometry")
    chapter.add_argument(
        "-p",
        dest="changes",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="a parameter and its value; can be repeated",
    )
    chapter.add_argument("--reset", action="store_true", help="forget this chapter's changes")


def _execute(project: Project, options: argparse.Namespace) -> int:
    outcome = execute(project, options.names, jobs=options.jobs, force=options.force)
    print(summarize(outcome), flush=True)
    return 1 if outcome.failed else 0


def _chapter(project: Project, options: argparse.Namespace) -> int:
    if options.reset and options.changes:
        raise BookError("--reset forgets the changes: give it without -p")
    outcome = change_chapter(project, options.name, dict(options.changes), reset=options.reset)
    if outcome.failed:
        print(summarize(outcome), flush=True)
        return 1
    say("Rendering the whole book; chapters that are stale or new are executed first.")
    render(project)
    print(f"The chapter: {project.html / 'notebooks' / options.name}.html", flush=True)
    if changed := read_overrides(project).get(options.name):
        profile = "" if project.profile == DEFAULT_PROFILE else f" --profile {project.profile}"
        print(
            f"{options.name} keeps {_listing(changed)}. To return to its own parameters: "
            f"python -m book chapter {options.name} --reset{profile}"
        )
    return 0


def _render(project: Project, options: argparse.Namespace) -> int:
    page = render(project, jobs=options.jobs, audience=options.audience)
    print(f"The book: {page}", flush=True)
    return 0


def _slides(project: Project, options: argparse.Namespace) -> int:
    for path in build_slides(project, project.html, project.html.with_name("slides")):
        print(path, flush=True)
    return 0


def _compare(project: Project, options: argparse.Namespace) -> int:
    plan(project, [options.name], {})
    print(compare(project, options.name, options.record), flush=True)
    return 0


def _online(project: Project, options: argparse.Namespace) -> int:
    changed = write_setup_cells(project)
    print(f"Notebooks changed: {', '.join(changed) or 'none'}", flush=True)
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


if __name__ == "__main__":
    sys.exit(main())
