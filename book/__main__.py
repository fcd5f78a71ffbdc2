"""The command line of ``python -m book``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from book.machine.audience import AUDIENCES
from book.machine.comparison import compare
from book.machine.execution import change_chapter, execute, summarize
from book.machine.online import write_setup_cells
from book.machine.profiles import plan, read_overrides
from book.machine.project import DEFAULT_PROFILE, BookError, Project
from book.machine.rendering import render
from book.machine.slides import build_slides


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m book", description="Execute the book's notebooks and render it."
    )
    add_commands(parser)
    options = parser.parse_args(arguments)
    try:
        return run_command(options)
    except BookError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the last good copies and pages are in place", file=sys.stderr)
        return 130


def run_command(options: argparse.Namespace) -> int:
    """Run the command that a parser with `add_commands` has found; return its exit status."""
    project = Project((options.root or _find_root()).resolve(), options.profile)
    return int(options.book_command(project, options))


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands to a parser: that of ``python -m book``, or of ``genkl book``."""
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
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser(
        "execute", parents=[shared, parallel], help="execute the notebooks that are stale"
    )
    one.add_argument("names", nargs="*", metavar="NAME", help="notebooks (default: all)")
    one.add_argument("--force", action="store_true", help="also those that are not stale")
    one.set_defaults(book_command=_execute_command)

    one = commands.add_parser(
        "chapter", parents=[shared], help="re-execute one chapter, with changed parameters"
    )
    one.add_argument("name", metavar="NAME", help="a notebook, such as 1_geometry")
    one.add_argument(
        "-p", dest="changes", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
        help="a parameter and its value; can be repeated",
    )  # fmt: skip
    one.add_argument("--reset", action="store_true", help="forget this chapter's changes")
    one.set_defaults(book_command=_chapter_command)

    one = commands.add_parser(
        "render", parents=[shared, parallel], help="execute, then build _build/html"
    )
    one.add_argument(
        "--audience", choices=AUDIENCES, default=AUDIENCES[0],
        help="student: no solutions; instructor: the key, too (default: %(default)s)",
    )  # fmt: skip
    one.set_defaults(book_command=_render_command)

    one = commands.add_parser(
        "slides", parents=[shared], help="make the lectures' slides from the rendered pages"
    )
    one.set_defaults(book_command=_slides_command)

    one = commands.add_parser(
        "compare", parents=[shared], help="hold a run's record against the one in results/"
    )
    one.add_argument("name", metavar="NAME", help="a notebook, such as 2_identification")
    one.add_argument(
        "record", nargs="?", type=Path, help="a record (default: that of the last execution)"
    )
    one.set_defaults(book_command=_compare_command)

    one = commands.add_parser(
        "online",
        parents=[shared],
        help="write Colab's first cell into the notebooks",
    )
    one.set_defaults(book_command=_online_command)


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
            f"python -m book chapter {options.name} --reset{profile}"
        )
    return status


def _render_command(project: Project, options: argparse.Namespace) -> int:
    audience = getattr(options, "audience", AUDIENCES[0])
    page = render(project, jobs=getattr(options, "jobs", None), audience=audience)
    print(f"The book: {page}", flush=True)
    return 0


def _slides_command(project: Project, options: argparse.Namespace) -> int:
    for path in build_slides(project, project.html, project.html.with_name("slides")):
        print(path, flush=True)
    return 0


def _compare_command(project: Project, options: argparse.Namespace) -> int:
    plan(project, [options.name], {})
    print(compare(project, options.name, options.record), flush=True)
    return 0


def _online_command(project: Project, options: argparse.Namespace) -> int:
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
