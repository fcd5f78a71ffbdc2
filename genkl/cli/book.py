"""``genkl book``: the commands of ``python -m genkl.book``."""

from __future__ import annotations

import argparse
from typing import Any

from genkl.book.__main__ import add_commands, run_command
from genkl.book.project import BookError


def add_parser(areas: Any) -> None:
    """Add the area and its commands.

    Args:
        areas: what `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = areas.add_parser(
        "book",
        help="the book: execute its notebooks, change a chapter, render it",
        description="Execute the book's notebooks and render it.",
    )
    add_commands(parser)
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> int:
    try:
        return run_command(options)
    except BookError as error:
        raise ValueError(str(error)) from error
