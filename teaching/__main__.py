"""The command line of ``python -m teaching``: homework, labs, and checks of what came back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from book.machine.project import BookError
from teaching.handout import (
    read_answers,
    read_roster,
    require_own_numbers,
    write_homework,
    write_labs,
)
from teaching.questions import AGREES, MISSING


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m teaching", description="Homework and labs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    homework = commands.add_parser("homework", help="a notebook for each student, and the key")
    homework.add_argument(
        "--students", required=True, metavar="CSV", help="a roster with a column 'student'"
    )
    homework.add_argument(
        "--term", required=True, help="such as 2027-spring; another term, other numbers"
    )
    homework.set_defaults(run=_homework)
    labs = commands.add_parser("labs", help="the labs for students, without solutions")
    labs.set_defaults(run=_labs)
    for command in (homework, labs):
        command.add_argument("--out", required=True, metavar="FOLDER", help="where to write")
        command.add_argument("--overwrite", action="store_true", help="replace what is there")
    check = commands.add_parser("check", help="execute notebooks, and say which answers agree")
    check.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="their code is run")
    check.add_argument("--term", help="check too that the numbers are the student's of this term")
    check.set_defaults(run=_check)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (OSError, ValueError, BookError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _homework(options: argparse.Namespace) -> int:
    students = read_roster(options.students)
    read = [options.students]
    asked = {"term": options.term, "overwrite": options.overwrite, "read": read}
    made = write_homework(students, options.out, **asked)
    print(f"{len(made)} notebooks in {made[0].parent}")
    print(f"the key, for you alone, in {made[0].parents[1] / 'instructor'}")
    return 0


def _labs(options: argparse.Namespace) -> int:
    for path in write_labs(options.out, overwrite=options.overwrite):
        print(path)
    return 0


def _check(options: argparse.Namespace) -> int:
    """A line for each notebook, and one for each answer that does not agree."""
    all_agree = True
    for path in options.notebooks:
        answers = read_answers(path)
        if options.term:
            require_own_numbers(path, options.term)
        open_ = {name: said for name, said in answers.items() if said != AGREES}
        print(f"{Path(path).stem}: {len(answers) - len(open_)} of {len(answers)} answers agree")
        for name, said in open_.items():
            print(f"  {name}: {'no answer' if said == MISSING else said}")
        all_agree = all_agree and not open_
    return 0 if all_agree else 1


if __name__ == "__main__":
    sys.exit(main())
