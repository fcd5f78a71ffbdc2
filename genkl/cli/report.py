"""``genkl report``: what to look at in a folder of images, or a table of predictions."""

from __future__ import annotations

import argparse
import csv
from typing import Any

DESCRIPTION = """\
Write one HTML page, and a table, that show what to look at in images and labels you don't trust:

  looks ambiguous           non-conforming (critical alpha >= alpha), and like images that conform
  looks out of distribution non-conforming, and unlike them
  label likely wrong        conforming, and other images with this look have another label
  looks fine                the rest

The page needs no server and no network: images by class and by kind, sortable, with thresholds to
move, and decisions to take by keyboard, which its own table holds as verified labels.

From a folder, a frozen network turns images into features, and each image is predicted from the
labels of the others, by cross-validation. From a table, predictions are yours: they must come from
models that did not learn the label that they judge."""

EPILOG = """\
examples:
  genkl report photographs
  genkl report photographs --labels labels.csv --no-label "Not sure" --out look.html
  genkl report predictions.csv --id image --labels labels.csv --images photographs
  genkl report probs.npy --labels given.npy --features features.npy --conforming validation.npy"""


def add_parser(areas: Any) -> None:
    """Add the command.

    Args:
        areas: what `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = areas.add_parser(
        "report",
        help="show what to look at in a folder of images, as one HTML page and a table",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_report)
    parser.add_argument(
        "source", metavar="FOLDER_OR_TABLE",
        help="folder of images; or predictions as 'genkl identify' reads them: .npy (N, k), .csv "
        "or .parquet with a column for each class",
    )  # fmt: skip
    _add_labels(parser.add_argument_group("labels"))
    _add_folder(parser.add_argument_group("a folder of images"))
    _add_table(parser.add_argument_group("a table of predictions"))
    _add_rule(parser.add_argument_group("what is flagged (the page can move the thresholds)"))
    _add_output(parser.add_argument_group("output"))


def _add_labels(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--labels", metavar="FILE",
        help="given labels: for a folder a .csv or .tsv, in it or elsewhere (default: the name of "
        "the sub-folder that an image is in); for predictions .npy, .csv or .parquet (default: "
        "none, and no label is judged)",
    )  # fmt: skip
    group.add_argument(
        "--label-column", metavar="COLUMN",
        help="column that holds them (default: label in the table of a folder; the only one "
        "besides that of --id in another)",
    )  # fmt: skip
    group.add_argument(
        "--classes", type=_names, metavar="NAME,NAME,...",
        help="names of the classes; in a table of predictions those columns (default: the labels "
        "that occur; every column but those of --id and --label-column)",
    )  # fmt: skip


def _add_folder(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--image-column", metavar="COLUMN",
        help="column of --labels with paths relative to the folder (default: image)",
    )  # fmt: skip
    group.add_argument(
        "--image-suffix", metavar="TEXT",
        help="what these paths lack, such as .jpg (default: nothing)",
    )  # fmt: skip
    group.add_argument(
        "--verified-column", metavar="COLUMN",
        help="column of --labels with labels that somebody checked, empty where nobody did. They "
        "teach instead of the given ones, and tell how often conforming images are flagged "
        "(default: verified, where there is one)",
    )  # fmt: skip
    group.add_argument(
        "--non-conforming-name", metavar="NAME",
        help="what that column says where no class fits, such as none in the table that the page "
        "saves (default: nothing)",
    )  # fmt: skip
    group.add_argument(
        "--no-label", action="append", metavar="NAME",
        help='what --label-column says where there is no label, such as "Not sure"; can be '
        "repeated (default: nothing)",
    )  # fmt: skip
    group.add_argument(
        "--missing", choices=("raise", "skip"),
        help="files in --labels that are not there (default: raise)",
    )  # fmt: skip
    group.add_argument(
        "--backbone", metavar="NAME",
        help="network of torchvision or timm that the features come from (default: "
        "EfficientNet-Lite0, whose weights a package holds)",
    )  # fmt: skip
    group.add_argument(
        "--weights", metavar="FILE|default|random",
        help="of --backbone (default: those that the framework publishes)",
    )  # fmt: skip
    group.add_argument(
        "--size", type=int, metavar="PIXELS",
        help="of its input; fewer are faster and see less (default: the network's own)",
    )  # fmt: skip
    group.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, mps (default: auto)")


def _add_table(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--id", metavar="COLUMN",
        help="column that names the rows; with --images, paths relative to it (default: numbers)",
    )  # fmt: skip
    group.add_argument(
        "--images", metavar="FOLDER", help="where the images are (default: none are shown)"
    )
    group.add_argument(
        "--features", metavar="FILE",
        help=".npy (N, d), to tell ambiguous from out of distribution by distance (default: by how "
        "much of the probability two classes hold, which tells little)",
    )  # fmt: skip
    group.add_argument(
        "--from-logits", action="store_true",
        help="apply a softmax first (default: the rows are probabilities)",
    )  # fmt: skip
    group.add_argument(
        "--conforming", metavar="FILE",
        help="predictions for instances known to conform that no model learned from; alpha is "
        "chosen by them (default: none)",
    )  # fmt: skip


def _add_rule(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--alpha", type=float, metavar="NUMBER",
        help="greater than 0, larger flags fewer (default: keeps within --max-flag-rate)",
    )  # fmt: skip
    group.add_argument(
        "--max-flag-rate", type=float, metavar="SHARE",
        help="of the images known to conform that may be flagged; where too few are known, of all "
        "(default: 0.05)",
    )  # fmt: skip
    group.add_argument("--beta", type=float, metavar="NUMBER", help="in [0, 1/k) (default: 0.5/k)")
    group.add_argument(
        "--sigma", type=float, metavar="NUMBER",
        help="spread of the uniform-like vectors (default: 0.05)",
    )  # fmt: skip
    group.add_argument(
        "--num-vectors", type=int, metavar="N", help="how many of them (default: 20)"
    )
    group.add_argument(
        "--permutation-invariant", action="store_true",
        help="use every permutation of every vector (default: the vectors as drawn)",
    )  # fmt: skip
    group.add_argument(
        "--min-gap", type=float, metavar="PROBABILITY",
        help="a label is likely wrong if another class has so much more (default: calls as many "
        "wrong as are confidently of another class)",
    )  # fmt: skip
    group.add_argument(
        "--max-distance", type=float, metavar="NUMBER",
        help="farther from images that conform is out of distribution (default: their median)",
    )  # fmt: skip
    group.add_argument(
        "--min-top-two-mass", type=float, metavar="SHARE",
        help="without features, ambiguous is what gives two classes so much (default: 0.9)",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=int, default=0, metavar="N",
        help="of the vectors, the folds and the sample that distances are measured to (default: "
        "%(default)s)",
    )  # fmt: skip


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out", default="report.html", metavar="FILE.html",
        help="the page (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--csv", metavar="FILE.csv", help="the table (default: beside the page, with its name)"
    )
    group.add_argument(
        "--title", metavar="TEXT", help="of the page (default: the name of FOLDER_OR_TABLE)"
    )
    group.add_argument(
        "--max-thumbnails", type=int, default=3000, metavar="N",
        help="images that the page holds itself, the ones to look at first; the others it shows "
        "from their files (default: %(default)s, about 10 MB)",
    )  # fmt: skip
    group.add_argument(
        "--overwrite", action="store_true", help="replace both files (default: refuse to)"
    )
    group.add_argument(
        "--dry-run", action="store_true",
        help="check everything that can be checked at once, say what would be done, do nothing "
        "else (default: do it)",
    )  # fmt: skip
    group.add_argument(
        "--json", action="store_true", help="print for programs (default: for people)"
    )


def _report(options: argparse.Namespace) -> None:
    from genkl.cli.reporting import report

    report(options)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in next(csv.reader([text]), [])]
    if "" in names or not names:
        raise argparse.ArgumentTypeError(f"{text!r} names a class by nothing; separate with commas")
    return names
