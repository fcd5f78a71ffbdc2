"""``genkl identify``: the command's help and options; `genkl.cli.identification` does it."""

from __future__ import annotations

import argparse
from typing import Any, Literal

from genkl.cli.options import Names, add_command

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
  genkl identify probs.npy --conforming validation_probs.npy --out table.parquet
  genkl identify large.parquet --id image --alpha 0.9 --out is_nc.npy --dry-run"""

FILE = """\
file of N rows of k probabilities: .npy (N, k); .csv or .parquet with a column for each class, or
.parquet with one column of lists"""


class Alpha:
    """A number on the command line, or auto."""

    def __new__(cls, text: str) -> float | str:
        """The number, or "auto"."""
        try:
            return text if text == "auto" else float(text)
        except ValueError:
            message = f"{text!r} is neither a number nor auto"
            raise argparse.ArgumentTypeError(message) from None


class InputOptions:
    """Predictions.

    Attributes:
        id (COLUMN): column of a table that names its rows (default: none, rows are numbered from 0)
        classes (NAME,NAME,...): columns of a table that hold the probabilities, in order of the
            classes (default: all but those of --id and --label-column); for .npy, names for its
            columns (default: numbers)
        from_logits: apply a softmax first, in double precision (default: the rows are
            probabilities)
        normalize: divide each row by its sum, such as where probabilities were rounded (default:
            rows must sum to 1)
        labels (FILE): given labels, numbers from 0 or names of classes, -1 for none: .npy (N,),
            .csv or .parquet. Rows are matched by the column of --id where FILE has it, else by
            their order (default: none)
        label_column (COLUMN): column of --labels, or without --labels of PRED_PROBS, that holds the
            given labels (default: the only one in --labels besides that of --id)
    """

    id: str | None = None
    classes: Names | None = None
    from_logits: bool = False
    normalize: bool = False
    labels: str | None = None
    label_column: str | None = None


class RuleOptions:
    """Rule.

    Attributes:
        preset: alpha, beta, sigma, number and seed of the vectors as the paper's scripts have them;
            options given beside it win (default: none)
        alpha (NUMBER|auto): greater than 0, larger flags fewer; auto chooses it from --conforming
            (default: that of --preset; auto with --conforming and no --preset)
        beta (NUMBER): in [0, 1/k), larger flags more (default: that of --preset, or 0.5/k, so that
            entries of half the uniform probability are dominant)
        sigma (NUMBER): spread of the uniform-like vectors (default: that of --preset, or 0.05)
        num_vectors (N): how many uniform-like vectors (default: that of --preset, or 20)
        seed (N): of the vectors (default: the first of --preset, or 0)
        permutation_invariant: use every permutation of every vector, so that the order of the
            classes does not matter (default: the vectors as drawn, as the paper does)
        threads (N): the result does not depend on it (default: one a core)
    """

    preset: Literal["clothing1m", "food101n", "mini-webvision"] | None = None
    alpha: Alpha | None = None
    beta: float | None = None
    sigma: float | None = None
    num_vectors: int | None = None
    seed: int | None = None
    permutation_invariant: bool = False
    threads: int | None = None


class ConformingOptions:
    """Alpha from conforming predictions.

    Attributes:
        conforming (FILE): predictions of the same models for instances known to conform that none
            was trained on, in any format of PRED_PROBS (default: none)
        max_flag_rate (SHARE): share of conforming instances that may be flagged (default: 0.05)
        confidence (PROBABILITY): keep that promise with this probability (default: on average)
        auto_beta: withdrawn, says so (default: --beta)
    """

    conforming: str | None = None
    max_flag_rate: float | None = None
    confidence: float | None = None
    auto_beta: bool = False


class OutputOptions:
    """Output.

    Attributes:
        out (FILE): write the table: .csv, .parquet, or - for CSV to stdout (the summary then goes
            to stderr); or .npy, one value per row, in bounded memory (default: print the summary
            and the first flagged rows)
        values: what an .npy output holds: booleans, or critical alphas (default: %(default)s)
        overwrite: replace FILE (default: refuse to)
        show (N): flagged rows to print where --out is not given (default: %(default)s)
        dry_run: print settings and plan, and do nothing else (default: do it)
        json: print settings and summary, or plan, for programs (default: for people)
    """

    out: str | None = None
    values: Literal["mask", "scores"] = "mask"
    overwrite: bool = False
    show: int = 10
    dry_run: bool = False
    json: bool = False


def add_parser(areas: Any) -> None:
    """Add the command, see `add_command`."""
    about = "flag the non-conforming rows in a file of predictions"
    groups = (InputOptions, RuleOptions, ConformingOptions, OutputOptions)
    texts = {"help": about, "description": DESCRIPTION, "epilog": EPILOG}
    parser = add_command(areas, "identify", groups, ("pred_probs", "PRED_PROBS", FILE), **texts)
    parser.set_defaults(command=_identify)


def _identify(options: argparse.Namespace) -> None:
    from genkl.cli.identification import identify

    identify(options)
