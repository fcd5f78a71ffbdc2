"""``genkl identify``: flag the non-conforming rows in a file of predictions."""

from __future__ import annotations

import argparse
import csv
from typing import Any

PRESETS = {"clothing1m": "CLOTHING1M", "food101n": "FOOD101N", "mini-webvision": "MINI_WEBVISION"}
"""Name on the command line -> name in `genkl`."""

DESCRIPTION = """\
Flag the predictions that conform to no class: those with D(p||q) >= 0, the generalized KL
divergence, for any uniform-like vector p. A table has one line per prediction, in their order:

  row              number of the row, from 0, or with --id that column
  is_nc            whether it is flagged
  score            critical alpha: the largest alpha at which it is still flagged
  entropy          of the prediction, in nats
  predicted        class with the largest probability, by name where names are known
  predicted_prob   that probability
  dominant_entries how many entries reach tau = 1/k - beta
  given_label, given_prob   with --labels or --label-column: the label and its probability"""

EPILOG = """\
examples:
  genkl identify probs.npy --preset clothing1m
  genkl identify probs.csv --id image --alpha 0.9 --out flagged.csv
  genkl identify probs.npy --auto-beta --conforming validation_probs.npy --out table.parquet
  genkl identify large.parquet --id image --alpha 0.9 --out is_nc.npy --dry-run"""


def add_parser(areas: Any) -> None:
    """Add the command.

    Args:
        areas: what `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = areas.add_parser(
        "identify",
        help="flag the non-conforming rows in a file of predictions",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_identify)
    _add_input(parser.add_argument_group("predictions"))
    _add_rule(parser.add_argument_group("rule"))
    _add_automatic(parser.add_argument_group("alpha and beta from conforming predictions"))
    _add_output(parser.add_argument_group("output"))


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "pred_probs", metavar="PRED_PROBS",
        help="file of N rows of k probabilities: .npy (N, k); .csv or .parquet with a column for "
        "each class, or .parquet with one column of lists",
    )  # fmt: skip
    group.add_argument(
        "--id", metavar="COLUMN",
        help="column of a table that names its rows (default: none, rows are numbered from 0)",
    )  # fmt: skip
    group.add_argument(
        "--classes", type=_names, metavar="NAME,NAME,...",
        help="columns of a table that hold the probabilities, in order of the classes (default: "
        "all but those of --id and --label-column); for .npy, names for its columns (default: "
        "numbers)",
    )  # fmt: skip
    group.add_argument(
        "--from-logits", action="store_true",
        help="apply a softmax first, in double precision (default: the rows are probabilities)",
    )  # fmt: skip
    group.add_argument(
        "--labels", metavar="FILE",
        help="given labels, numbers from 0 or names of classes: .npy (N,), .csv or .parquet. Rows "
        "are matched by the column of --id where FILE has it, else by their order (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--label-column", metavar="COLUMN",
        help="column of --labels, or without --labels of PRED_PROBS, that holds the given labels "
        "(default: the only one in --labels besides that of --id)",
    )  # fmt: skip


def _add_rule(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--preset", choices=PRESETS,
        help="alpha, beta, sigma, number and seed of the vectors as the paper's scripts have them; "
        "options given beside it win (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--alpha", type=_alpha, metavar="NUMBER|auto",
        help="greater than 0, larger flags fewer; auto chooses it from --conforming (default: that "
        "of --preset; auto with --auto-beta, or with --conforming and no --preset)",
    )  # fmt: skip
    group.add_argument(
        "--beta", type=float, metavar="NUMBER",
        help="in [0, 1/k), larger flags more (default: that of --preset, or 0.5/k, so that entries "
        "of half the uniform probability are dominant)",
    )  # fmt: skip
    group.add_argument(
        "--sigma", type=float, metavar="NUMBER",
        help="spread of the uniform-like vectors (default: that of --preset, or 0.05)",
    )  # fmt: skip
    group.add_argument(
        "--num-vectors", type=int, metavar="N",
        help="how many uniform-like vectors (default: that of --preset, or 20)",
    )  # fmt: skip
    group.add_argument(
        "--seed", type=int, metavar="N",
        help="of the vectors, and of the halves in --auto-beta (default: the first of --preset, "
        "or 0)",
    )  # fmt: skip
    group.add_argument(
        "--permutation-invariant", action="store_true",
        help="use every permutation of every vector, so that the order of the classes does not "
        "matter (default: the vectors as drawn, as the paper does)",
    )  # fmt: skip
    group.add_argument(
        "--threads", type=int, metavar="N",
        help="the result does not depend on it (default: one a core)",
    )  # fmt: skip


def _add_automatic(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--conforming", metavar="FILE",
        help="predictions of the same models for instances known to conform that none was trained "
        "on, in any format of PRED_PROBS (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--max-flag-rate", type=float, metavar="SHARE",
        help="share of conforming instances that may be flagged (default: 0.05)",
    )  # fmt: skip
    group.add_argument(
        "--confidence", type=float, metavar="PROBABILITY",
        help="keep that promise with this probability (default: on average)",
    )  # fmt: skip
    group.add_argument(
        "--auto-beta", action="store_true",
        help="try ten betas from 0 to 0.95/k; take the one that flags most at that rate "
        "(default: --beta)",
    )  # fmt: skip


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out", metavar="FILE",
        help="write the table: .csv, .parquet, or - for CSV to stdout (the summary then goes to "
        "stderr); or .npy, one value per row, in bounded memory (default: print the summary and "
        "the first flagged rows)",
    )  # fmt: skip
    group.add_argument(
        "--values", choices=("mask", "scores"), default="mask",
        help="what an .npy output holds: booleans, or critical alphas (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--overwrite", action="store_true", help="replace FILE (default: refuse to)")
    group.add_argument(
        "--show", type=int, default=10, metavar="N",
        help="flagged rows to print where --out is not given (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--dry-run", action="store_true",
        help="print settings and plan, and do nothing else (default: do it)",
    )  # fmt: skip
    group.add_argument(
        "--json", action="store_true",
        help="print settings and summary, or plan, for programs (default: for people)",
    )  # fmt: skip


def _identify(options: argparse.Namespace) -> None:
    from genkl.cli.identification import identify

    identify(options)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in next(csv.reader([text]), [])]
    if "" in names or not names:
        raise argparse.ArgumentTypeError(f"{text!r} names a class by nothing; separate with commas")
    return names


def _alpha(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None
