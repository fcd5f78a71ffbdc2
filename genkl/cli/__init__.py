"""The command line: ``genkl AREA COMMAND``, or ``python -m genkl AREA COMMAND``.

Each area is a module with a function ``add_parser(areas)``; a command is a function of the parsed
options that returns an exit status, or None for 0. What takes long to import is imported by the
command that needs it, so that ``genkl --help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from genkl import __version__
from genkl.cli import apply, data, identify, predict, report, run
from genkl.cli.options import Parser, as_typed
from genkl.extras import explain_missing

AREAS = (data, run, predict, identify, report, apply)
"""In the order that ``genkl --help`` lists them."""

MOVED = {
    "book": "python -m book",
    "homework": "python -m teaching homework",
    "labs": "python -m teaching labs",
}
"""Commands that moved out of the package: the new ones run in a checkout of the book."""

FORESEEABLE = (OSError, ValueError, TypeError, ImportError, FloatingPointError, MemoryError)
"""What a user's input, files or machine can cause. Anything else is a defect, with a traceback."""

EPILOG = """\
exit status: 0 done, 1 error, 2 wrong usage, 130 interrupted, 141 the reader closed the pipe
environment: GENKL_DEBUG=1 shows the traceback of an error; GENKL_DATA names your data folders;
GENKL_CACHE names the folder that fetched data goes to"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes those of the process.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C, 141 where the reader of the output
        is gone.

    Raises:
        SystemExit: after ``--help`` and ``--version`` (status 0), and for wrong usage (2).
    """
    with contextlib.suppress(AttributeError):  # a name that nothing can show stops nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer goes nowhere, or it would fail again when Python ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="genkl",
        description="Learning from noisy labels with a generalized KL divergence.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"genkl {__version__}")
    areas = parser.add_subparsers(required=True, metavar="AREA")
    for area in AREAS:
        area.add_parser(areas)
    return parser


def _run(arguments: Sequence[str] | None) -> int:
    options = argparse.Namespace()
    try:
        arguments = sys.argv[1:] if arguments is None else arguments
        if arguments and arguments[0] in MOVED:
            raise ValueError(
                f"genkl {arguments[0]} is now `{MOVED[arguments[0]]}`: run it in a checkout of the "
                "book"
            )
        options = build_parser().parse_args(arguments)
        return int(options.command(options) or 0)
    except KeyboardInterrupt:
        how = "add --resume" if hasattr(options, "resume") else "run it again"
        print(f"interrupted; what is complete is kept, {how} to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except (*FORESEEABLE, argparse.ArgumentTypeError) as error:
        if os.environ.get("GENKL_DEBUG", "0") not in ("", "0"):
            raise
        print(f"error: {as_typed(_in_one_line(error), options)}", file=sys.stderr)
        return 1


def _in_one_line(error: BaseException) -> str:
    told = explain_missing(error) if isinstance(error, ImportError) else None
    return " ".join((told or str(error)).split()) or type(error).__name__
