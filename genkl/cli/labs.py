"""``genkl labs``: the labs without their solutions."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(areas: Any) -> None:
    """Add the command.

    Args:
        areas: what `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = areas.add_parser(
        "labs",
        help="the labs for students, without solutions",
        description="Write the labs for students, without solutions.",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to write")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    from genkl.teaching import write_labs

    for path in write_labs(options.out, overwrite=options.overwrite):
        print(path)
