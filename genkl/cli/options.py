"""Options of a command: the documented fields of a class, and what is written on the line."""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from genkl.storage import plain

Pairs = list[tuple[str, str]]
"""An option with a key and a value, that can be repeated."""

FIELD = re.compile(r"^ {4}(?P<name>\w+)(?: \((?P<written>.+?)\))?: (?P<help>.*(?:\n {6}.*)*)", re.M)
"""A line of the section "Attributes" of a docstring, with those that go on with it."""


class Names(list[str]):
    """Names on the command line, separated by commas; quoted where they hold one.

    Raises:
        argparse.ArgumentTypeError: an empty name.
    """

    def __init__(self, text: str) -> None:
        super().__init__(name.strip() for name in next(csv.reader([text]), []))
        if "" in self or not self:
            raise argparse.ArgumentTypeError(
                f"{text!r} names a class by nothing; separate with commas"
            )


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of the commands are."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"error: {' '.join(message.split())}; usage: {self.prog} --help\n")


def as_typed(text: str, options: argparse.Namespace) -> str:
    """An error of a function in the words of the command line: "size is 0", 'missing="skip"'."""
    for name, flag in {**vars(options).get("flags", {}), **vars(options).get("spoken", {})}.items():
        bare = r"|(?<!-o )\bclass_names\b(?!=)" if name == "class_names" else ""
        text = re.sub(rf"^{name}(?= is )|(?<![\w.-]){name}=(True\b)?(?!\S?\w){bare}", flag, text)
        text = re.sub(rf"(?<![\w.-]){name}=(?=\S?\w)", f"{flag} ", text)
    return text


def add_command(
    areas: Any,
    name: str,
    groups: Sequence[type],
    source: tuple[str, str, str] | None = None,
    **texts: Any,
) -> argparse.ArgumentParser:
    """Add a command with its help as it is written, and its options.

    Args:
        areas: what `argparse.ArgumentParser.add_subparsers` returned.
        name: of the command.
        groups: of options, see `add_options`.
        source: what it works on: its name, its name in the help, and what it is.
        **texts: ``help``, ``description`` and ``epilog``.
    """
    parser = areas.add_parser(name, formatter_class=argparse.RawDescriptionHelpFormatter, **texts)
    if source:
        parser.add_argument(source[0], metavar=source[1], help=source[2])
    add_options(parser, *groups)
    return parser


def add_options(parser: argparse.ArgumentParser, *groups: type) -> None:
    """Add an option for each field of some classes.

    A class is a group in the help, titled by the first sentence of its docstring ("Options." is
    none of its own). A field is an option ``--field-name``, required if it has no default. In the
    section "Attributes" its text is the help; what stands in parentheses is the name of its value,
    after another flag if it begins with one: ``changes (--set KEY VALUE): ...``. A bool is a
    switch, a Literal a choice, and a list an option that can be repeated, empty at first.

    Args:
        parser: of the command.
        groups: classes with annotated fields.
    """
    flags: dict[str, str] = {}
    for group in groups:
        title, *_ = (group.__doc__ or "").partition(".")
        into = parser
        if title != "Options":
            into = parser.add_argument_group(title[:1].lower() + title[1:])
        told = {
            found["name"]: found for found in FIELD.finditer(inspect.cleandoc(group.__doc__ or ""))
        }
        for name, kind in get_type_hints(group).items():
            flag, settings = f"--{name.replace('_', '-')}", _reading(kind)
            if hasattr(group, name):
                settings["default"] = getattr(group, name)
            elif "default" not in settings:
                settings["required"] = True
            if name in told:
                settings["help"] = " ".join(told[name]["help"].split())
                written = (told[name]["written"] or "").split()
                if written and written[0].startswith("-"):
                    flag, *written = written
                if written:
                    settings["metavar"] = tuple(written) if len(written) > 1 else written[0]
            into.add_argument(flag, dest=name, **settings)
            flags[name] = flag
    parser.set_defaults(flags=flags)


def _reading(kind: Any) -> dict[str, Any]:
    """How argparse reads a value of this type."""
    if type(None) in get_args(kind):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if kind == Pairs:
        return {"action": "append", "nargs": 2, "default": []}
    if get_origin(kind) is list:
        return {"action": "append", "type": get_args(kind)[0], "default": []}
    return {"type": kind}


def value_of(text: str) -> Any:
    """What a word on the command line stands for: JSON if it is that, else the text.

    A whole number is an int however it is written, and NaN and Infinity are words.
    """
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return int(value) if isinstance(value, float) and value.is_integer() else value


KINDS = {
    "bool": ({bool}, "true or false"),
    "int": ({int}, "a whole number"),
    "float": ({int, float}, "a number"),
}
"""Annotation -> the types that a value may have, and what to ask for."""


def typed(option: str, kind: str, text: str) -> Any:
    """The same for what is annotated as, for example, "int | None", "str" or "Sequence[str]".

    Raises:
        ValueError: it is of another kind; names the option.
    """
    value, plain = value_of(text), kind.removesuffix(" | None")
    if value is None and plain != kind:
        return None
    if "Sequence" in kind:
        return value if isinstance(value, list) else Names(text)
    if "str" in kind:
        return text
    fits, asked = KINDS.get(plain, ({type(value)}, ""))
    if type(value) not in fits or value in (math.inf, -math.inf):
        raise ValueError(f"{option} is {text!r}; it must be {asked}")
    return value


def flag(name: str) -> str:
    """An option as it is written."""
    return f"--{name.replace('_', '-')}"


def given_of(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """What was said; the rest has its defaults where it is used."""
    told = {name: getattr(options, name) for name in names}
    return {name: value for name, value in told.items() if value not in (None, [])}


def print_json(content: Any) -> None:
    """For programs."""
    print(json.dumps(plain(content), indent=1, allow_nan=False, default=str))


def print_facts(facts: dict[str, Any], as_json: bool = False) -> None:
    """A line for each fact that there is, or JSON with all."""
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = [f"{inner} {setting}" for inner, setting in value.items()]
        if value not in (None, []):
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"{name:<{max(map(len, facts))}}  {text}")
