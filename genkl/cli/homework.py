"""``genkl homework``: a notebook for each student of a roster, and the instructor's key."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(areas: Any) -> None:
    """Add the command.

    Args:
        areas: what `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = areas.add_parser(
        "homework",
        help="homework: a notebook for each student, and the key",
        description="Write a notebook with numbers of their own for each student, and the key.",
    )
    parser.add_argument(
        "--students", required=True, metavar="CSV", help="a roster with a column 'student'"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to write")
    parser.add_argument(
        "--term", required=True, help="such as 2027-spring; another term, other numbers"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    from genkl.teaching import read_roster, write_homework

    students = read_roster(options.students)
    made = write_homework(students, options.out, term=options.term, overwrite=options.overwrite)
    print(f"{len(made)} notebooks in {made[0].parent}")
    print(f"the key, for you alone, in {made[0].parents[1] / 'instructor'}")
