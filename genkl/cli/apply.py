"""``genkl apply``: a table of labels with what people decided."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from genkl.cli.options import Names, add_command, given_of, print_facts, print_json

DESCRIPTION = """\
Write a table of labels anew with what people decided on the page of 'genkl report': --labels with
the decisions in its label column (-1 where no class fits), and three more columns:

  given   the label that came with the image
  source  given, decided, suggested, or disputed (people differ: the label stays as it was)
  by      who decided

Images that a column "verified" has are what 'genkl run' tests on and chooses thresholds by.
Suspects are no fair sample for that, so no more images become verified; what is there is corrected
where it was decided otherwise."""

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
        suggestions: take the report's suggestion where nobody decided (default: the label stays)
        classes (NAME,NAME,...): names of the classes, where --labels has numbers, or lacks one
            (default: the labels that occur)
        image_column (COLUMN): column of --labels with paths (default: image)
        label_column (COLUMN): column of --labels with labels (default: label)
        verified_column (COLUMN): column of --labels with labels that somebody checked (default:
            verified, where there is one)
        image_suffix (TEXT): what these paths lack, such as .jpg (default: nothing)
        overwrite: replace --out (default: refuse to)
        json: print for programs (default: for people)
    """

    labels: Path = Path("labels.csv")
    out: Path = Path("cleaned.csv")
    suggestions: bool = False
    classes: Names | None = None
    image_column: str | None = None
    label_column: str | None = None
    verified_column: str | None = None
    image_suffix: str | None = None
    overwrite: bool = False
    json: bool = False


def add_parser(areas: Any) -> None:
    """Add the command, see `add_command`."""
    about = "write a table of labels anew with what people decided on the report's page"
    texts = {"help": about, "description": DESCRIPTION, "epilog": EPILOG}
    parser = add_command(areas, "apply", (ApplyOptions,), **texts)
    parser.set_defaults(command=_apply, spoken={"class_names": "--classes"})
    told = "tables that the page saved, one for each person; a person is called as the file"
    parser.add_argument("decisions", nargs="+", metavar="DECISIONS", type=Path, help=told)


def _apply(options: argparse.Namespace) -> None:
    from genkl.cli.files import checked_destination
    from genkl.data.tables import checked_source
    from genkl.report.decisions import apply_decisions, read_decisions
    from genkl.storage import replacing

    read_from = [checked_source(path, "DECISIONS") for path in options.decisions]
    read_from.append(checked_source(options.labels, "--labels"))
    out = checked_destination("--out", options.out, read_from, options.overwrite)
    if out.suffix != ".csv":
        raise ValueError(f"--out is {out}; the table's name must end in .csv")
    people = {path.stem: read_decisions(path) for path in options.decisions}
    if len(people) < len(options.decisions):
        raise ValueError("DECISIONS has two files of one name, and a person is called as the file")
    names = ["suggestions", "image_column", "label_column", "verified_column", "image_suffix"]
    told = {"class_names": options.classes, **given_of(options, names)}
    table, agreement = apply_decisions(options.labels, people, **told)
    with replacing(out) as path:
        table.to_csv(path, index=False)
    label = table[options.label_column or "label"]
    facts = {"images": len(table), "labels": dict(Counter(table["source"]))}
    facts |= {"other than given": int((label != table["given"]).sum()), "written": str(out)}
    if options.json:
        print_json(facts | {"agreement": agreement.to_dict("records")})
        return
    print_facts(facts)
    for row in agreement.to_dict("records"):
        shares = f"agree on {row['agree']:.0%} (kappa {row['kappa']:.2f})" * bool(row["images"])
        print(f"{row['people']}: {row['images']} images in common {shares}".rstrip())
