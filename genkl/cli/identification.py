"""What ``genkl identify`` does: settings and files, the rule, a table or a value per row."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genkl import __version__
from genkl.checks import check_probabilities
from genkl.cli.files import checked_destination, files_read, open_inputs, read_labels, writing
from genkl.cli.options import print_facts, print_json
from genkl.cli.rule import Settings, asked_for, refused
from genkl.data.tables import Predictions
from genkl.rule.choose import AlphaPath, diagnose
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import dominance_threshold, entropy
from genkl.rule.evaluation import evaluate
from genkl.rule.identify import flag_above
from genkl.rule.stream import evaluate_batches, votes_from, write_array
from genkl.storage import replacing

CLASSES_SHOWN = 20
PAPER_ALPHAS = (0.9, 1.0, 1.1)
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5)
"""Of the predictions, to be flagged where no alpha is given."""
COLUMNS = ("is_nc", "score", "entropy", "predicted", "predicted_prob", "dominant_entries")
LABEL_COLUMNS = ("given_label", "given_prob")
SHOWN = ("id", "from_logits", "normalize", "label_column", "out", "overwrite", "threads")
"""Options that the configuration shows as they are."""


@dataclass(frozen=True)
class Request:
    """All that was asked for, checked as far as it can be before work starts."""

    options: argparse.Namespace
    predictions: Predictions
    conforming: Predictions | None
    labels: Path | None
    settings: Settings

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the table."""
        return (self.options.id or "row", *COLUMNS, *(LABEL_COLUMNS if self.labels else ()))

    @property
    def streams(self) -> bool:
        """Whether a value per row is written in bounded memory, instead of a table."""
        return str(self.options.out).endswith(".npy")


def identify(options: argparse.Namespace) -> None:
    """Do what the parsed options ask for.

    Raises:
        ValueError, OSError: the message names the argument, its value and the remedy.
    """
    request = _understood(options)
    if options.dry_run:
        configuration, plan = _configuration(request, request.settings), _plan(request)
        if options.json:
            print_json({"configuration": configuration, "plan": plan})
        else:
            print_facts({**configuration, **plan})
        return
    if request.settings.alpha is None and options.out is None:
        _survey(request)
        return
    table = None
    if request.streams:
        settings, summary = _stream(request)
    else:
        settings, summary, table = _tabulate(request)
        _write(options.out, table)
    if options.json:
        print_json({"configuration": _configuration(request, settings), "summary": summary})
        return
    text = _summary_text(request, settings, summary)
    print(text, file=sys.stderr if options.out == "-" else sys.stdout)
    if options.out is None:
        _print_first(table, options.show)


# --- What is asked for -----------------------------------------------------------------------


def _understood(options: argparse.Namespace) -> Request:
    for reason in refused(options):
        raise ValueError(reason)
    if options.out not in (None, "-"):
        checked_destination("--out", options.out, files_read(options), options.overwrite)
    predictions, conforming, labels = open_inputs(options, options.pred_probs, "PRED_PROBS")
    settings = asked_for(options, predictions.num_classes, str(predictions))
    request = Request(options, predictions, conforming, labels, settings)
    if options.id in request.columns[1:]:
        raise ValueError(
            f"--id is {options.id!r}, which is a column of the table to write; rename it"
        )
    return request


# --- The plan --------------------------------------------------------------------------------


def _configuration(request: Request, settings: Settings) -> dict[str, Any]:
    source, conforming, options = request.predictions, request.conforming, request.options
    return {
        "genkl": __version__,
        "pred_probs": str(source.path),
        "rows": source.rows,
        "num_classes": source.num_classes,
        "dtype": str(source.dtype),
        "classes": source.classes and list(source.classes),
        **{name: getattr(options, name) for name in SHOWN},
        "labels": request.labels and str(request.labels),
        **asdict(settings),
        "alpha": None if settings.alpha == math.inf else settings.alpha,
        "tau": dominance_threshold(source.num_classes, settings.beta),
        "conforming": conforming and str(conforming.path),
        "conforming_rows": conforming and conforming.rows,
    }


def _plan(request: Request) -> dict[str, Any]:
    source, mebi = request.predictions, 1 << 20
    entries, at_once = source.rows * source.num_classes, 0
    if source.table is not None:
        at_once = source.table.unit_bytes
    memory = 200 * mebi  # Python, its libraries, and the rows that are looked at at a time
    if request.settings.alpha is None and request.options.out is None:
        steps = "read all rows; show what each alpha would flag"
    elif request.streams:
        steps = f"read rows strip by strip; write {request.options.values}"
        memory += at_once * (2 if source.path.suffix == ".csv" else 6)
    else:
        steps = "read all rows; make a table of " + ", ".join(request.columns)
        memory += 3 * at_once + 24 * entries + 150 * source.rows
    if not request.streams:
        memory += entries * source.dtype.itemsize * (3 if source.from_logits else 1)
    if request.conforming is not None:
        memory += 2 * 8 * request.conforming.rows * source.num_classes
    writes = "stdout" if request.options.out in (None, "-") else request.options.out
    return {"steps": steps, "writes": writes, "estimated_memory_mb": round(memory / mebi)}


# --- The rule --------------------------------------------------------------------------------


def _chosen(request: Request) -> Settings:
    """Settings with alpha, if wanted, chosen from conforming predictions."""
    settings, conforming = request.settings, request.conforming
    if conforming is None:
        return settings
    known = conforming.read()
    with conforming.named():
        check_probabilities("pred_probs", known, ndim=2)
    rule = settings.rule(conforming.num_classes)
    scores = evaluate(known, rule, num_threads=request.options.threads)
    budget = {"max_flag_rate": settings.max_flag_rate, "confidence": settings.confidence}
    return replace(settings, alpha=threshold_for_budget(scores, **budget))


def _tabulate(request: Request) -> tuple[Settings, dict[str, Any], pd.DataFrame]:
    source, options, labels = request.predictions, request.options, None
    if request.labels is not None:
        argument = "--labels" if options.labels else "PRED_PROBS"
        labels = read_labels(request.labels, argument, options.label_column, source, options.id)
    probs = source.read()
    settings = _chosen(request)
    rule = settings.rule(source.num_classes)
    with source.named():
        scores = evaluate(probs, rule, num_threads=options.threads)
    if request.settings.alpha == "auto":  # as `identify_nc` does, whose alpha may be infinite
        mask = flag_above(scores, settings.alpha)
    else:
        mask = votes_from(scores, probs, rule, settings.alpha)
    ids = source.table.column(options.id) if options.id else np.arange(source.rows)
    predicted, dominant = probs.argmax(axis=1), (probs >= rule.tau).sum(axis=1)
    values = [ids, mask, scores, entropy(probs), _named(source, predicted), probs.max(axis=1)]
    values.append(dominant)
    if labels is not None:
        own = np.where(labels < 0, np.nan, probs[np.arange(source.rows), labels])
        values += [_named(source, labels), own.astype(probs.dtype, copy=False)]
    table = pd.DataFrame(dict(zip(request.columns, values, strict=True)))
    summary = _summary(request, settings, _class_counts(source, predicted, mask))
    about = {"permutation_invariant": settings.permutation_invariant, "scores": scores}
    vectors = settings.vectors(source.num_classes)
    found = diagnose(probs, settings.alpha, settings.beta, vectors, **about)
    summary["warnings"] += found.warn(
        flag_more="lower --alpha, or pass --alpha auto", invariant="--permutation-invariant"
    )
    summary["renaming_agreement"] = found.renaming_agreement
    summary["uniform_is_flagged"] = found.uniform_is_flagged
    return settings, summary, table


def _write(out: str | None, table: pd.DataFrame) -> None:
    if out == "-":
        table.to_csv(sys.stdout, index=False)
    elif out is not None:
        with writing("--out"), replacing(out) as path:
            write = table.to_csv if out.endswith(".csv") else table.to_parquet
            write(path, index=False)


def _stream(request: Request) -> tuple[Settings, dict[str, Any]]:
    source, options, counts = request.predictions, request.options, 0
    settings = _chosen(request)
    is_mask, is_chosen = options.values == "mask", request.settings.alpha == "auto"
    alpha = None if is_chosen else settings.alpha

    def flag(probs: np.ndarray, found: np.ndarray) -> np.ndarray:
        nonlocal counts
        # Where alpha was chosen, as `identify_nc` does, whose alpha may be infinite.
        mask = flag_above(found, settings.alpha) if is_chosen else found
        counts = counts + _class_counts(source, probs.argmax(axis=1), mask)
        return mask

    told = {"num_threads": options.threads, "progress": sys.stderr.isatty()}
    rule, then = settings.rule(source.num_classes), flag if is_mask else None
    values = evaluate_batches(source, rule, alpha, then=then, **told)
    with writing("--out"):
        write_array(Path(options.out), (source.rows,), bool if is_mask else float, values)
    return settings, _summary(request, settings, counts) if is_mask else {}


def _survey(request: Request) -> None:
    """What some alphas would flag, and how to choose one."""
    source, settings, probs = request.predictions, request.settings, request.predictions.read()
    with source.named():
        rule = settings.rule(source.num_classes)
        scores = evaluate(probs, rule, num_threads=request.options.threads)
    path, predicted = AlphaPath(scores, np.sort(scores)), probs.argmax(axis=1)
    by_share = {share: math.ceil(1e4 * path.alpha_for(share)) / 1e4 for share in SHARES}
    named, rows = source.classes or range(source.num_classes), []
    for alpha in sorted({*PAPER_ALPHAS, *by_share.values()}):
        mask = path.mask(alpha)
        instances, flagged = _class_counts(source, predicted, mask)
        shares = flagged / np.maximum(instances, 1)
        most = int(shares.argmax())
        rows.append(
            {
                "alpha": alpha,
                "flagged": float(mask.mean()),
                "peak of flagged": _median(probs[mask].max(axis=1)),
                "peak of spared": _median(probs[~mask].max(axis=1)),
                "most flagged class": named[most] if mask.any() else "-",
                "of it": float(shares[most]) if mask.any() else math.nan,
            }
        )
    if request.options.json:
        print_json({"configuration": _configuration(request, settings), "survey": rows})
        return
    percent, short = "{:.1%}".format, "{:.2f}".format
    formats = {"alpha": "{:.4f}".format, "flagged": percent, "of it": percent}
    formats |= {"peak of flagged": short, "peak of spared": short}
    print(f"{source.path}: {source.rows} predictions, {source.num_classes} classes; no alpha\n")
    print(pd.DataFrame(rows).to_string(index=False, formatters=formats, na_rep="-"))
    print(
        "\nA peak is the largest probability; medians are shown. Choose alpha by a promise about "
        "instances\nknown to conform, by a share, or as the paper does. Add one of:\n"
        "  --conforming validation_probs.npy --max-flag-rate 0.05\n"
        f"  --alpha {by_share[0.05]:.4f}    (flags 5 % or less)\n"
        "  --alpha 0.9    (the paper's lie between 0.9 and 1.1; see --preset)"
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


# --- What is said ----------------------------------------------------------------------------


def _class_counts(source: Predictions, predicted: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How many are predicted as each class, and how many of them are flagged, shape (2, k)."""
    groups = (predicted, predicted[mask])
    return np.array([np.bincount(group, minlength=source.num_classes) for group in groups])


def _summary(request: Request, settings: Settings, counts: np.ndarray) -> dict[str, Any]:
    source, flagged = request.predictions, int(counts[1].sum())
    by_class = [
        {"class": name, "instances": int(instances), "flagged": int(share)}
        for name, instances, share in zip(
            source.classes or range(source.num_classes), *counts, strict=True
        )
    ]
    warnings = []
    if settings.alpha == math.inf:
        sure = "" if settings.confidence is None else f" with confidence {settings.confidence:g}"
        warnings.append(
            f"alpha is infinite: {request.conforming.rows} conforming predictions are too few for "
            f"a flag rate of {settings.max_flag_rate:g}{sure}; pass more, or raise --max-flag-rate"
        )
    return {
        "flagged": flagged,
        "flagged_share": flagged / source.rows,
        "by_class": by_class,
        "warnings": warnings,
    }


def _named(source: Predictions, numbers: np.ndarray) -> np.ndarray:
    """Names of classes, shape (N,), "" for -1; or their numbers, where they have no names."""
    return numbers if source.classes is None else np.array([*source.classes, ""], object)[numbers]


def _summary_text(request: Request, settings: Settings, summary: dict[str, Any]) -> str:
    source = request.predictions
    tau = dominance_threshold(source.num_classes, settings.beta)
    rule = f"beta {settings.beta:.6g}, tau {tau:.6g}; {settings.num_vectors} vectors"
    rule += f", sigma {settings.sigma:g}, seed {settings.seed}"
    if settings.alpha is not None:
        rule = f"alpha {settings.alpha:.6g}, {rule}"
    if settings.permutation_invariant:
        rule += ", permutation-invariant"
    lines = [f"{source.path}: {source.rows} predictions, {source.num_classes} classes", rule]
    if request.conforming is not None:
        sure = "" if settings.confidence is None else f", with confidence {settings.confidence:g}"
        lines.append(
            f"alpha {'and beta ' if request.settings.beta == 'auto' else ''}chosen from "
            f"{request.conforming.rows} conforming predictions, of which a share of "
            f"{settings.max_flag_rate:g} may be flagged{sure}"
        )
    if summary:
        lines += [f"flagged: {summary['flagged']} ({summary['flagged_share']:.2%})", ""]
        lines += _class_lines(summary["by_class"])
        lines += [f"! {text}" for text in summary["warnings"]]
    if request.options.out not in (None, "-"):
        lines.append(f"written: {request.options.out}")
    return "\n".join(lines)


def _class_lines(by_class: list[dict[str, Any]]) -> list[str]:
    table = pd.DataFrame(by_class).rename(columns={"class": "predicted class"})
    shares = table["flagged"] / table["instances"].clip(lower=1)
    table["share"] = [f"{share:.1%}" for share in shares]
    note = []
    if len(table) > CLASSES_SHOWN:
        order = shares.sort_values(ascending=False, kind="stable").index
        table = table.loc[order[:CLASSES_SHOWN]]
        note = [f"({CLASSES_SHOWN} of {len(by_class)} classes, by share; --json has all)"]
    return [*table.to_string(index=False).splitlines(), *note, ""]


def _print_first(table: pd.DataFrame, most: int) -> None:
    flagged = table[table["is_nc"]].drop(columns="is_nc")
    if most and len(flagged):
        shown = flagged.head(most)
        print(f"first {len(shown)} of {len(flagged)} flagged rows (--out FILE writes all rows)")
        print(shown.to_string(index=False, float_format="{:.4g}".format))
