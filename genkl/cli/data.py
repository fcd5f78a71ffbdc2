"""``genkl data``: which data sets there are, where they are, and what is in them."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genkl.data.registry import Entry


class _Names:
    """The names of the data sets, looked up when they are asked for: that imports PyTorch."""

    def __iter__(self) -> Iterator[str]:
        from genkl.data.registry import DATASETS

        return iter(DATASETS)

    def __contains__(self, name: object) -> bool:
        return name in list(self)


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
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--data-root", metavar="FOLDER", help="your data folder (default: $GENKL_DATA, the cache)"
    )
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("name", metavar="NAME", choices=_Names(), help="%(choices)s")
    loaded = argparse.ArgumentParser(add_help=False)
    loaded.add_argument(
        "-o", dest="options", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
        help="an option of the loader, such as: -o labels worst; can be repeated "
        "(default: the loader's own)",
    )  # fmt: skip

    one = commands.add_parser(
        "list", parents=[shared], help="every data set: is it here, licence, size, how to get it"
    )
    one.add_argument("--json", action="store_true", help="for programs (default: for people)")
    one.set_defaults(command=_list)

    one = commands.add_parser(
        "get", parents=[named], help="download a data set whose licence allows it"
    )
    one.add_argument("--data-root", metavar="FOLDER", help="where to (default: as for list)")
    one.set_defaults(command=_get)

    one = commands.add_parser(
        "show", parents=[named, shared, loaded], help="count a data set's classes and noise"
    )
    one.add_argument("--seed", type=int, default=0, help="of the splits (default: 0)")
    one.set_defaults(command=_show)

    one = commands.add_parser(
        "check",
        parents=[named, shared, loaded],
        help="decode every image and name those that can't be read",
    )
    one.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    one.set_defaults(command=_check, seed=0)


def _facts(entry: Entry, data_root: str | None) -> dict[str, Any]:
    from genkl.data.sources import find_data, is_present

    source = entry.source
    lacking = [one for one in (source, *entry.also_needs) if not is_present(one, data_root)]
    present = not lacking
    where = None
    if present and source.folders:
        where = str(find_data(source, data_root))
    return {
        "name": source.name,
        "title": source.title,
        "present": present,
        "where": where,
        "licence": source.licence,
        "size": source.size,
        "home": source.url,
        "how_to_get": " ".join(one.how_to_get for one in lacking or (source,)),
        "downloads": bool(source.downloads),
    }


def _list(options: argparse.Namespace) -> None:
    from genkl.data.registry import DATASETS

    facts = [_facts(entry, options.data_root) for entry in DATASETS.values()]
    if options.json:
        print(json.dumps(facts, indent=1))
        return
    width = max(len(fact["name"]) for fact in facts)
    for fact in facts:
        mark = "here" if fact["present"] else "yours" if fact["licence"] == "yours" else "-"
        print(f"{fact['name']:<{width}}  {mark:<5} {fact['title']}")
        lines = [f"{fact['size']}; licence: {fact['licence']}"]
        if fact["where"]:
            lines.append(f"in {fact['where']}")
        elif not fact["present"]:
            lines.append(fact["how_to_get"])
            if fact["downloads"]:
                lines.append(f"genkl data get {fact['name']}")
        for line in lines:
            print(textwrap.fill(line, 96, initial_indent=" " * (width + 8),
                                subsequent_indent=" " * (width + 8)))  # fmt: skip
    print("\nLooked in: --data-root, or $GENKL_DATA and the cache. Load one with "
          "genkl.load_dataset(NAME).")  # fmt: skip


def _get(options: argparse.Namespace) -> None:
    from genkl.data.registry import DATASETS
    from genkl.data.sources import DataNotFoundError, explain, fetch, find_data, is_present

    source = DATASETS[options.name].source
    if source.package is not None:
        if not is_present(source):
            raise DataNotFoundError(explain(source))
        print(f"{source.title} comes with the package {source.package}, which is installed")
        return
    needed = [source, *DATASETS[options.name].also_needs]
    for one in needed:
        if is_present(one, options.data_root):
            print(f"{one.title} is here: {find_data(one, options.data_root)}")
        else:
            print(f"{one.title}: licence {one.licence}")
            print(f"{one.title} is here: {fetch(one, options.data_root)}")


def _load(options: argparse.Namespace):
    from genkl.data.registry import DATASETS, load_dataset

    chosen = {key: _value(text) for key, text in options.options}
    if DATASETS[options.name].source.folders and options.data_root is not None:
        chosen["data_root"] = options.data_root
    return load_dataset(options.name, seed=options.seed, **chosen)


def _show(options: argparse.Namespace) -> None:
    from genkl.data.statistics import count_kinds, count_labels

    dataset, truth = _load(options)
    print(count_labels(dataset).to_string())
    print(f"\nnoisy split, according to: {truth.source}")
    print(count_kinds(dataset, truth).to_string())


def _check(options: argparse.Namespace) -> int:
    from genkl.data.images import as_images
    from genkl.data.loading import check_images

    dataset, _ = _load(options)
    broken = 0
    for name, split in {**dataset.splits(), **dataset.more_tests}.items():
        if len(split) == 0:
            continue
        report = check_images(as_images(split.inputs), num_workers=options.workers)
        for path, reason in zip(report.names, report.reasons, strict=True):
            print(f"{name}: {path}: {reason}")
        broken += len(report)
        print(f"{name}: {len(split)} images, {len(report) or 'none'} can't be read")
    return 1 if broken else 0


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
