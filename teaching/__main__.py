"""The command line of ``python -m teaching``: homework and labs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from teaching import read_roster, write_homework, write_labs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m teaching", description="Homework and labs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    homework = commands.add_parser("homework", help="a notebook for each student, and the key")
    homework.add_argument(
        "--students", required=True, metavar="CSV", help="a roster with a column 'student'"
    )
    homework.add_argument(
        "--term", required=True, help="such as 2027-spring; another term, other numbers"
    )
    labs = commands.add_parser("labs", help="the labs for students, without solutions")
    for command in (homework, labs):
        command.add_argument("--out", required=True, metavar="FOLDER", help="where to write")
        command.add_argument("--overwrite", action="store_true", help="replace what is there")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "labs":
        for path in write_labs(options.out, overwrite=options.overwrite):
            print(path)
        return 0
    students = read_roster(options.students)
    made = write_homework(students, options.out, term=options.term, overwrite=options.overwrite)
    print(f"{len(made)} notebooks in {made[0].parent}")
    print(f"the key, for you alone, in {made[0].parents[1] / 'instructor'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
