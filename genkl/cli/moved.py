"""Commands that moved out of the package: each says in one line where it went."""

from __future__ import annotations

import argparse
from typing import Any

MOVED = {
    "book": "python -m book",
    "homework": "python -m teaching homework",
    "labs": "python -m teaching labs",
}
"""Old command to new one; the new ones run in a checkout of the book."""


def add_parser(areas: Any) -> None:
    """Add the old names; they are not listed in the help.

    Args:
        areas: what `argparse.ArgumentParser.add_subparsers` returned.
    """
    for name in MOVED:
        parser = areas.add_parser(name, add_help=False)
        parser.add_argument("rest", nargs=argparse.REMAINDER)
        parser.set_defaults(command=_command, moved=name)


def _command(options: argparse.Namespace) -> int:
    raise ValueError(
        f"genkl {options.moved} is now `{MOVED[options.moved]}`: run it in a checkout of the book"
    )
