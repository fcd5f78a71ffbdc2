"""``genkl apply``: a table of labels with what people decided."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from genkl.cli.options import add_command, given_of, print_facts

DESCRIPTION = """\
Write a table of labels anew with what people decided on the page of 'genkl report': --labels with
the decisions in its label column (-1 where no class fits), and three more columns:

  given   the label that came with the image
  source  given, decided, suggested, or disputed (people differ: the label stays as it was)
  by      who decided

A column "verified" stays as it is. It is what 'genkl run' tests on and chooses thresholds by, and
suspects that somebody looked at are no fair sample for that: fill it in for images drawn at random.
"""

EPILOG = """\
examples:
  genkl apply report.csv --labels labels.csv --out cleaned.csv
  genkl apply anna.csv ben.csv --labels labels.csv --suggestions --out cleaned.csv
  genkl report photographs --labels cleaned.csv --out again.html"""


class ApplyOptions:
    """Options.

    Attributes:
        labels (FILE): the table to begin with, .csv or .tsv; it is not changed (default:
            %(default)s)
        out (FILE.csv): the table to write (default: %(default)s)
        suggestions: take the report's suggestion where nobody decided (default: the given label)
        image_column (COLUMN): column of --labels with paths (default: image)
        label_column (COLUMN): column of --labels with labels (default: label)
        image_suffix (TEXT): what these paths lack, such as .jpg (default: nothing)
        overwrite: replace --out (default: refuse to)
        json: print for programs (default: for people)
    """

    labels: Path = Path("labels.csv")
    out: Path = Path("cleaned.csv")
    suggestions: bool = False
    image_column: str | None = None
    label_column: str | None = None
    image_suffix: str | None = None
    overwrite: bool = False
    json: bool = False


def add_parser(areas: Any) -> None:
    """Add the command, see `add_command`."""
    about = "write a table of labels anew with what people decided on the report's page"
    texts = {"help": about, "description": DESCRIPTION, "epilog": EPILOG}
    parser = add_command(areas, "apply", (ApplyOptions,), **texts)
    parser.set_defaults(command=_apply)
    told = "tables that the page saved, one for each person; a person is called as the file"
    parser.add_argument("decisions", nargs="+", metavar="DECISIONS", type=Path, help=told)


def _apply(options: argparse.Namespace) -> None:
    from genkl.cli.files import checked_destination
    from genkl.report.decisions import apply_decisions, merge_decisions, read_decisions
    from genkl.storage import replacing

    read_from = [*options.decisions, options.labels]
    out = checked_destination("--out", options.out, read_from, options.overwrite)
    people = {path.stem: path for path in options.decisions}
    if len(people) < len(options.decisions):
        raise ValueError("DECISIONS has two files of one name, and a person is called as the file")
    read = {name: read_decisions(path) for name, path in people.items()}
    merged, agreement = merge_decisions(read)
    told = given_of(options, ["suggestions", "image_column", "label_column", "image_suffix"])
    table = apply_decisions(options.labels, merged, **told)
    with replacing(out) as path:
        table.to_csv(path, index=False)
    changed = int((table[options.label_column or "label"] != table["given"]).sum())
    facts = {"images": len(table), **Counter(table["source"]), "labels changed": changed}
    facts |= {
        f"{row['people']} agree": f"{row['agree']:.0%} of {row['images']}, kappa {row['kappa']:.2f}"
        for row in agreement.to_dict("records")
    }
    print_facts({**facts, "written": str(out)}, options.json)
