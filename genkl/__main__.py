"""The command line: ``python -m genkl data list``, and more to come."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from genkl.data.images import as_images
from genkl.data.registry import DATASETS, Entry, load_dataset
from genkl.data.sources import (
    DataNotFoundError,
    explain,
    fetch,
    find_data,
    is_present,
)
from genkl.data.statistics import count_kinds, count_labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except KeyboardInterrupt:
        print("interrupted; what is complete is kept, run it again to go on", file=sys.stderr)
        return 130
    except (OSError, ValueError, TypeError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m genkl", description="GenKL on your machine.")
    areas = parser.add_subparsers(required=True, metavar="AREA")
    data = areas.add_parser("data", help="data sets: what there is, where it is, what is in it")
    commands = data.add_subparsers(required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--data-root", metavar="FOLDER", help="your data folder (default: $GENKL_DATA, the cache)"
    )

    one = commands.add_parser(
        "list", parents=[shared], help="every data set: is it here, licence, size, how to get it"
    )
    one.add_argument("--json", action="store_true", help="for programs")
    one.set_defaults(command=_list)

    one = commands.add_parser("get", help="download a data set whose licence allows it")
    one.add_argument("name", metavar="NAME", choices=DATASETS, help=", ".join(DATASETS))
    one.add_argument("--data-root", metavar="FOLDER", help="where to (default: as for list)")
    one.set_defaults(command=_get)

    one = commands.add_parser("show", parents=[shared], help="count a data set's classes and noise")
    one.add_argument("name", metavar="NAME", choices=DATASETS, help=", ".join(DATASETS))
    one.add_argument("--seed", type=int, default=0, help="of the splits (default 0)")
    one.add_argument(
        "-o", dest="options", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
        help="an option of the loader, such as: -o labels worst; can be repeated",
    )  # fmt: skip
    one.set_defaults(command=_show)

    one = commands.add_parser(
        "check", parents=[shared], help="decode every image and name those that can't be read"
    )
    one.add_argument("name", metavar="NAME", choices=DATASETS, help=", ".join(DATASETS))
    one.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    one.add_argument(
        "-o", dest="options", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
        help="an option of the loader; can be repeated",
    )  # fmt: skip
    one.set_defaults(command=_check, seed=0)
    return parser


def _facts(entry: Entry, data_root: str | None) -> dict[str, Any]:
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
                lines.append(f"python -m genkl data get {fact['name']}")
        for line in lines:
            print(textwrap.fill(line, 96, initial_indent=" " * (width + 8),
                                subsequent_indent=" " * (width + 8)))  # fmt: skip
    print("\nLooked in: --data-root, or $GENKL_DATA and the cache. Load one with "
          "genkl.load_dataset(NAME).")  # fmt: skip


def _get(options: argparse.Namespace) -> None:
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
    chosen = {key: _value(text) for key, text in options.options}
    if DATASETS[options.name].source.folders and options.data_root is not None:
        chosen["data_root"] = options.data_root
    return load_dataset(options.name, seed=options.seed, **chosen)


def _show(options: argparse.Namespace) -> None:
    dataset, truth = _load(options)
    print(count_labels(dataset).to_string())
    print(f"\nnoisy split, according to: {truth.source}")
    print(count_kinds(dataset, truth).to_string())


def _check(options: argparse.Namespace) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
