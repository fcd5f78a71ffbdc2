"""``genkl data``: which data sets there are, where they are, and what is in them."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from genkl.cli.options import Pairs, add_options, print_json, typed
from genkl.data.registry import DATASETS, Entry, load_dataset
from genkl.data.sources import DataNotFoundError, explain, fetch, find_data, is_present


class RootOptions:
    """Options.

    Attributes:
        data_root (FOLDER): your data folder, to look in and to fetch to (default: $GENKL_DATA, then
            the cache)
    """

    data_root: str | None = None


class DatasetOptions(RootOptions):
    """Data.

    Attributes:
        data_root (FOLDER): your data folder (default: $GENKL_DATA, then the cache)
        options (-o KEY VALUE): an option of the data set's loader, such as -o noisy_limit 10000;
            can be repeated (default: the loader's own)
    """

    options: Pairs


class ListOptions:
    """Options.

    Attributes:
        json: for programs (default: for people)
    """

    json: bool = False


class ShowOptions:
    """Options.

    Attributes:
        seed (N): of the splits (default: %(default)s)
    """

    seed: int = 0


class CheckOptions:
    """Options.

    Attributes:
        workers (N): processes (default: one a core)
    """

    workers: int | None = None


def add_parser(areas: Any) -> None:
    """Add the area and its commands.

    Args:
        areas: what `argparse.ArgumentParser.add_subparsers` returned.
    """
    data = areas.add_parser(
        "data",
        help="data sets: what there is, where it is, what is in it",
        description="Data sets: what there is, where it is, and what is in it.",
    )
    commands = data.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[..., int | None], *groups: type) -> None:
        told = (command.__doc__ or "").rstrip(".")
        parser = commands.add_parser(name, help=told[:1].lower() + told[1:])
        parser.set_defaults(command=command, seed=0)
        if name != "list":
            parser.add_argument("name", metavar="NAME", choices=DATASETS, help="%(choices)s")
        add_options(parser, *groups)

    add("list", _list, RootOptions, ListOptions)
    add("get", _get, RootOptions)
    add("show", _show, DatasetOptions, ShowOptions)
    add("check", _check, DatasetOptions, CheckOptions)


def _list(options: argparse.Namespace) -> None:
    """Every data set: is it here, licence, size, how to get it."""
    facts = [_facts(entry, options.data_root) for entry in DATASETS.values()]
    if options.json:
        print_json(facts)
        return
    width = max(map(len, DATASETS)) + 8
    for fact in facts:
        mark = "here" if fact["present"] else "yours" if fact["licence"] == "yours" else "-"
        print(f"{fact['name']:<{width - 8}}  {mark:<5} {fact['title']}")
        lines = [f"{fact['size']}; licence: {fact['licence']}"]
        if fact["where"]:
            lines.append(f"in {fact['where']}")
        elif not fact["present"]:
            lines.append(fact["how_to_get"])
            if fact["downloads"]:
                lines.append(f"genkl data get {fact['name']}")
        for line in lines:
            print(textwrap.indent(textwrap.fill(line, 96 - width), " " * width))
    print(
        "\nLooked in: --data-root, or $GENKL_DATA and the cache. Load one with "
        "genkl.load_dataset(NAME)."
    )


def _facts(entry: Entry, data_root: str | None) -> dict[str, Any]:
    source = entry.source
    lacking = [
        needed for needed in (source, *entry.also_needs) if not is_present(needed, data_root)
    ]
    found = str(find_data(source, data_root)) if source.folders and not lacking else None
    return {
        "name": source.name,
        "title": source.title,
        "present": not lacking,
        "where": found,
        "licence": source.licence,
        "size": source.size,
        "home": source.url,
        "how_to_get": " ".join(needed.how_to_get for needed in lacking or (source,)),
        "downloads": bool(source.downloads),
    }


def _get(options: argparse.Namespace) -> None:
    """Download a data set whose licence allows it."""
    entry = DATASETS[options.name]
    if entry.source.package is not None:
        if not is_present(entry.source):
            raise DataNotFoundError(explain(entry.source))
        print(
            f"{entry.source.title} comes with the package {entry.source.package}, which is "
            "installed"
        )
        return
    for source in (entry.source, *entry.also_needs):
        if is_present(source, options.data_root):
            where = find_data(source, options.data_root)
        else:
            print(f"{source.title}: licence {source.licence}")
            where = fetch(source, options.data_root)
        print(f"{source.title} is here: {where}")


def _show(options: argparse.Namespace) -> None:
    """Count a data set's classes and noise."""
    from genkl.data.statistics import count_kinds, count_labels

    dataset, truth = load(options.name, options)
    print(count_labels(dataset).to_string())
    print(f"\nnoisy split, according to: {truth.source}")
    print(count_kinds(dataset, truth).to_string())


def _check(options: argparse.Namespace) -> int:
    """Decode every image and name those that can't be read."""
    from genkl.data.images import as_images
    from genkl.data.loading import check_images

    dataset, _ = load(options.name, options)
    broken = 0
    for name, split in {**dataset.splits(), **dataset.more_tests}.items():
        if len(split) == 0:
            continue
        unreadable = check_images(as_images(split.inputs), num_workers=options.workers)
        for path, reason in zip(unreadable.names, unreadable.reasons, strict=True):
            print(f"{name}: {path}: {reason}")
        broken += len(unreadable)
        print(f"{name}: {len(split)} images, {len(unreadable) or 'none'} can't be read")
    return 1 if broken else 0


def load(name: str, options: argparse.Namespace) -> tuple[Any, Any]:
    """A data set and its truth, as --seed, --data-root and -o say.

    Raises:
        ValueError: a bad option; the message says what to do.
        DataNotFoundError: its files are not here; says how to get them.
    """
    known = dict(inspect.signature(DATASETS[name].function).parameters)
    del known["seed"]
    if known.pop("columns", None):
        from genkl.data.folder import Columns

        known |= inspect.signature(Columns).parameters
    chosen = {}
    for key, text in options.options:
        if key not in known:
            raise ValueError(f"-o {key}: {name} has no such option; it has {', '.join(known)}")
        chosen[key] = typed(f"-o {key}", known[key].annotation, text)
    if options.data_root is not None and DATASETS[name].source.folders:
        chosen["data_root"] = options.data_root
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in chosen:
            raise ValueError(f"-o {key} is missing; {name} needs it: add -o {key} {key.upper()}")
    options.flags |= {key: f"-o {key}" for key in known.keys() - {"data_root"}}
    return load_dataset(name, seed=options.seed, **chosen)
