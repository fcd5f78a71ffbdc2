"""What ``genkl identify`` does: settings and files, the rule, a table or a value per row."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genkl import __version__, presets
from genkl.checks import check_beta, check_positive, check_probabilities
from genkl.cli.files import REMEDIES, checked_destination, read_labels, writing
from genkl.data.tables import Predictions, checked_source, open_predictions
from genkl.rule.blockwise import SampledRule, evaluate
from genkl.rule.choose import choose_alpha_beta, diagnose
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import dominance_threshold, entropy, uniform_like_vectors
from genkl.rule.identify import flag_above
from genkl.rule.stream import evaluate_batches, votes_from, write_array
from genkl.storage import plain, replacing

DEFAULT_BETA = 0.5
"""In units of 1/k. The paper's three lie between 0.42 and 0.81; in between the choice matters
little, and towards 1 the rule gets worse (see the book's chapter on identification)."""

CLASSES_SHOWN = 20
COLUMNS = ("is_nc", "score", "entropy", "predicted", "predicted_prob", "dominant_entries")
LABEL_COLUMNS = ("given_label", "given_prob")

LEAST = {"show": 0, "threads": 1, "num_vectors": 1, "sigma": 0, "seed": 0}
"""Options with a lower bound."""


@dataclass(frozen=True)
class Settings:
    """The rule. What is to be chosen is "auto" until it has been; an unused alpha is None."""

    preset: str | None
    alpha: float | str | None
    beta: float | str
    sigma: float
    num_vectors: int
    seed: int
    permutation_invariant: bool
    max_flag_rate: float | None
    confidence: float | None

    def vectors(self, num_classes: int) -> np.ndarray:
        """The uniform-like vectors P, shape (n, k)."""
        return uniform_like_vectors(num_classes, self.num_vectors, self.sigma, self.seed)

    def rule(self, num_classes: int) -> SampledRule:
        """The rule at the beta that has been chosen."""
        vectors = self.vectors(num_classes)
        return SampledRule.of(vectors, self.beta, num_classes, self.permutation_invariant)


@dataclass(frozen=True)
class Request:
    """All that was asked for, checked as far as it can be before work starts."""

    options: argparse.Namespace
    predictions: Predictions
    conforming: Predictions | None
    labels: Path | None
    settings: Settings
    out: Path | None

    @property
    def streams(self) -> bool:
        """Whether a value per row is written in bounded memory, instead of a table."""
        return self.out is not None and self.out.suffix == ".npy"

    @property
    def is_mapped(self) -> bool:
        """Whether the predictions are an array that can be looked at without being read."""
        return self.predictions.table is None and not self.predictions.from_logits


def identify(options: argparse.Namespace) -> None:
    """Do what the parsed options ask for.

    Raises:
        ValueError, OSError: the message names the argument, its value and the remedy.
    """
    request = _understood(options)
    if options.dry_run:
        configuration, plan = _configuration(request, request.settings), _plan(request)
        if options.json:
            _print_json({"configuration": configuration, "plan": plan})
        else:
            _print_facts({**configuration, **plan})
        return
    table = None
    if request.streams:
        settings, summary = _stream(request)
    else:
        settings, summary, table = _tabulate(request)
        _write(request, table)
    if options.json:
        _print_json({"configuration": _configuration(request, settings), "summary": summary})
        return
    to_stdout = options.out == "-"
    text = _summary_text(request, settings, summary)
    print(text, file=sys.stderr if to_stdout else sys.stdout)
    if table is not None and options.out is None:
        _print_first(table, options.show)


# --- What is asked for -----------------------------------------------------------------------


def _understood(options: argparse.Namespace) -> Request:
    _check_combinations(options)
    _check_numbers(options)
    source = checked_source(options.pred_probs, "PRED_PROBS")
    labels = options.labels and checked_source(options.labels, "--labels")
    read = [source, *([labels] if labels else [])]
    if options.conforming is not None:
        read.append(checked_source(options.conforming, "--conforming"))
    out = None
    if options.out not in (None, "-"):
        out = checked_destination("--out", options.out, read, options.overwrite)
    if labels is None and options.label_column is not None:
        labels = source
    text = {} if options.id is None else {options.id: "--id"}
    if labels is not None and options.label_column and source.samefile(labels):
        text[options.label_column] = "--label-column"
    opened = partial(open_predictions, from_logits=options.from_logits)
    predictions = opened(
        source, "PRED_PROBS", classes=options.classes, text=text, remedies=REMEDIES
    )
    if options.id in _column_names(labels):
        raise ValueError(
            f"--id is {options.id!r}, which is a column of the table to write; rename it"
        )
    settings, conforming = _settings(options, predictions), None
    if options.conforming is not None:
        is_array = options.conforming.endswith(".npy")
        names = None if is_array else predictions.columns or predictions.classes
        named_by = replace(REMEDIES, columns="PRED_PROBS")
        conforming = opened(options.conforming, "--conforming", classes=names, remedies=named_by)
        if conforming.num_classes != predictions.num_classes:
            raise ValueError(
                f"{conforming} has {conforming.num_classes} classes and {predictions} has "
                f"{predictions.num_classes}; both must come from the same models"
            )
    for file in filter(None, (predictions, conforming)):
        if file.rows == 0:
            raise ValueError(f"{file} has no rows; pass at least one prediction")
    return Request(options, predictions, conforming, labels, settings, out)


def _check_combinations(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other, or that would be ignored."""
    out, is_scores = options.out, options.values == "scores"
    suffix = None if out in (None, "-") else Path(out).suffix
    for wrong, message in (
        (
            suffix not in (None, ".npy", ".csv", ".parquet"),
            f"--out is {out}; its name must end in .csv, .parquet or .npy, or be -",
        ),
        (
            out == "-" and options.json,
            "--out is - and --json is given, which both go to stdout; name a file",
        ),
        (
            options.overwrite and suffix is None,
            "--overwrite is given without a file to write; add --out FILE",
        ),
        (
            suffix == ".npy" and (options.labels or options.label_column),
            f"labels are given and --out is {out}, which holds one value per row; name a .csv or "
            ".parquet",
        ),
        (
            is_scores and suffix != ".npy",
            "--values is scores without an .npy file to write; add --out FILE.npy, or leave it "
            "out: a table has the scores",
        ),
        (
            is_scores and (options.alpha is not None or options.auto_beta or options.conforming),
            "--values is scores, which need no alpha; leave --alpha, --auto-beta and --conforming "
            "out",
        ),
        (
            options.auto_beta and options.beta is not None,
            f"--auto-beta is given and --beta is {options.beta}; leave one out",
        ),
        (
            options.auto_beta and isinstance(options.alpha, float),
            f"--auto-beta is given and --alpha is {options.alpha}; it chooses both: leave one out",
        ),
    ):
        if wrong:
            raise ValueError(message)


def _check_numbers(options: argparse.Namespace) -> None:
    for name, least in LEAST.items():
        value = getattr(options, name)
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{_option(name)} is {value}; it must be finite and at least {least}")
    if (options.seed or 0) >= 1 << 32:
        raise ValueError(f"--seed is {options.seed}; it must be at most {(1 << 32) - 1}")
    for name in ("max_flag_rate", "confidence"):
        value = getattr(options, name)
        if value is not None and not 0 < value < 1:
            raise ValueError(f"{_option(name)} is {value}; it must lie between 0 and 1")
    if isinstance(options.alpha, float):
        remedy = "; raise it to flag fewer instances, lower it to flag more"
        check_positive("--alpha", options.alpha, remedy)


def _settings(options: argparse.Namespace, predictions: Predictions) -> Settings:
    preset, num_classes = None, predictions.num_classes
    if options.preset is not None:
        preset = getattr(presets, options.preset.upper().replace("-", "_"))
        if preset.num_classes != num_classes:
            raise ValueError(
                f"--preset is {options.preset}, for {preset.num_classes} classes, and "
                f"{predictions} has {num_classes}; pass another preset, or --alpha and --beta"
            )

    def chosen(name: str, otherwise: Any) -> Any:
        given = [getattr(source, name, None) for source in (options, preset)]
        return next((value for value in (*given, otherwise) if value is not None), None)

    alpha = chosen("alpha", "auto" if options.conforming else None)
    beta = chosen("beta", DEFAULT_BETA / num_classes)
    if options.auto_beta:
        alpha = beta = "auto"
    elif not 0 <= beta < 1 / num_classes:
        try:
            check_beta(beta, num_classes)
        except ValueError as error:
            raise ValueError(f"--{error}") from error
    if options.values == "scores":
        alpha = None
    else:
        _check_alpha(options, alpha)
    return Settings(
        preset=options.preset,
        alpha=alpha,
        beta=beta,
        sigma=chosen("sigma", 0.05),
        num_vectors=chosen("num_vectors", 20),
        seed=chosen("seed", 0 if preset is None else preset.seeds[0]),
        permutation_invariant=options.permutation_invariant,
        max_flag_rate=chosen("max_flag_rate", 0.05 if alpha == "auto" else None),
        confidence=options.confidence,
    )


def _check_alpha(options: argparse.Namespace, alpha: float | str | None) -> None:
    """Refuse an alpha that is not there, or options for another."""
    if alpha is None:
        raise ValueError(
            "--alpha is missing; pass a number (the paper's lie between 0.9 and 1.1), --preset, or "
            "--conforming FILE to have it chosen"
        )
    if alpha == "auto" and options.conforming is None:
        asked = "--auto-beta is given" if options.auto_beta else "--alpha is auto"
        raise ValueError(
            f"{asked} and --conforming is missing; pass a file of predictions for held-out "
            "instances that are known to conform, or a number for --alpha"
        )
    for name in ("conforming", "max_flag_rate", "confidence"):
        value = getattr(options, name)
        if alpha != "auto" and value is not None:
            raise ValueError(
                f"{_option(name)} is {value}, which has no use where alpha is {alpha}; add --alpha "
                "auto, or leave it out"
            )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _column_names(labels: Path | None) -> tuple[str, ...]:
    return COLUMNS + (LABEL_COLUMNS if labels else ())


# --- The plan --------------------------------------------------------------------------------


def _configuration(request: Request, settings: Settings) -> dict[str, Any]:
    source, conforming, options = request.predictions, request.conforming, request.options
    tau = None
    if settings.beta != "auto":
        tau = dominance_threshold(source.num_classes, settings.beta)
    return {
        "genkl": __version__,
        "pred_probs": str(source.path),
        "rows": source.rows,
        "num_classes": source.num_classes,
        "dtype": str(source.dtype),
        "classes": None if source.classes is None else list(source.classes),
        "id": options.id,
        "from_logits": options.from_logits,
        "labels": None if request.labels is None else str(request.labels),
        "label_column": options.label_column,
        **asdict(settings),
        "alpha": None if settings.alpha == math.inf else settings.alpha,
        "tau": tau,
        "conforming": None if conforming is None else str(conforming.path),
        "conforming_rows": None if conforming is None else conforming.rows,
        "out": options.out,
        "overwrite": options.overwrite,
        "threads": options.threads,
    }


def _plan(request: Request) -> dict[str, Any]:
    source, mebi, copy = request.predictions, 1 << 20, 0
    entries = source.rows * source.num_classes
    unit = 0 if source.table is None else source.table.unit_bytes
    memory = 200 * mebi  # Python, its libraries, and the rows that are looked at at a time
    if request.streams:
        steps = f"read rows strip by strip; write {request.options.values}"
        memory += unit * (2 if source.path.suffix == ".csv" else 6)
        if request.settings.beta == "auto" and not request.is_mapped:
            copy = source.nbytes
    else:
        columns = [request.options.id or "row", *_column_names(request.labels)]
        steps = "read all rows; make a table of " + ", ".join(columns)
        memory += source.nbytes + 3 * unit + 24 * entries + 150 * source.rows
        memory += 16 * entries * source.from_logits
    if request.conforming is not None:
        memory += 2 * request.conforming.nbytes
    return {
        "steps": steps,
        "writes": "stdout" if request.out is None else str(request.out),
        "estimated_memory_mb": round(memory / mebi),
        "estimated_temporary_disk_mb": round(copy / mebi),
    }


# --- The rule --------------------------------------------------------------------------------


def _chosen(request: Request, probs: np.ndarray | None) -> Settings:
    """Settings with alpha and, if wanted, beta chosen from conforming predictions."""
    settings, conforming = request.settings, request.conforming
    if conforming is None:
        return settings
    known = conforming.read()
    with conforming.named():
        check_probabilities("pred_probs", known, ndim=2)
    budget = {"max_flag_rate": settings.max_flag_rate, "confidence": settings.confidence}
    if settings.beta == "auto":
        with request.predictions.named():
            choice = choose_alpha_beta(
                probs,
                known,
                settings.vectors(conforming.num_classes),
                permutation_invariant=settings.permutation_invariant,
                seed=settings.seed,
                **budget,
            )
        return replace(settings, alpha=choice.alpha, beta=choice.beta)
    rule = settings.rule(conforming.num_classes)
    scores = evaluate(known, rule, num_threads=request.options.threads)
    return replace(settings, alpha=threshold_for_budget(scores, **budget))


def _tabulate(request: Request) -> tuple[Settings, dict[str, Any], pd.DataFrame]:
    source, options, labels = request.predictions, request.options, None
    if request.labels is not None:
        argument = "--labels" if options.labels else "PRED_PROBS"
        labels = read_labels(request.labels, argument, options.label_column, source, options.id)
    probs = source.read()
    settings = _chosen(request, probs)
    rule = settings.rule(source.num_classes)
    with source.named():
        scores = evaluate(probs, rule, num_threads=options.threads)
    if request.settings.alpha == "auto":  # as `identify_nc` does, whose alpha may be infinite
        mask = flag_above(scores, settings.alpha)
    else:
        mask = votes_from(scores, probs, rule, settings.alpha)
    predicted = probs.argmax(axis=1)
    dominant = (probs >= rule.tau).sum(axis=1)
    values = [mask, scores, entropy(probs), _named(source, predicted), probs.max(axis=1), dominant]
    if labels is not None:
        values += [_named(source, labels), probs[np.arange(source.rows), labels]]
    ids = source.table.column(options.id) if options.id else np.arange(source.rows)
    names = (options.id or "row", *_column_names(request.labels))
    table = pd.DataFrame(dict(zip(names, [ids, *values], strict=True)))
    found = diagnose(
        probs,
        settings.alpha,
        settings.beta,
        settings.vectors(source.num_classes),
        permutation_invariant=settings.permutation_invariant,
        scores=scores,
    )
    summary = _summary(request, settings, _class_counts(source, predicted, mask))
    summary["warnings"] += found.warn(
        flag_more="lower --alpha, or pass --alpha auto", invariant="--permutation-invariant"
    )
    summary["renaming_agreement"] = found.renaming_agreement
    summary["uniform_is_flagged"] = found.uniform_is_flagged
    return settings, summary, table


def _write(request: Request, table: pd.DataFrame) -> None:
    if request.options.out == "-":
        table.to_csv(sys.stdout, index=False)
    elif request.out is not None:
        with writing("--out"), replacing(request.out) as path:
            if request.out.suffix == ".csv":
                table.to_csv(path, index=False)
            else:
                table.to_parquet(path, index=False)


def _stream(request: Request) -> tuple[Settings, dict[str, Any]]:
    source, counts = request.predictions, 0
    with _all_rows(request) as probs:
        settings = _chosen(request, probs)
    # As `identify_nc` does: votes at a given alpha, scores where it was chosen and may be infinite.
    is_given = isinstance(request.settings.alpha, float)
    is_mask = request.options.values == "mask"

    def count(probs: np.ndarray, found: np.ndarray) -> None:
        nonlocal counts
        mask = found if is_given else flag_above(found, settings.alpha)
        counts = counts + _class_counts(source, probs.argmax(axis=1), mask)

    found = evaluate_batches(
        source,
        settings.rule(source.num_classes),
        settings.alpha if is_given else None,
        num_threads=request.options.threads,
        progress=sys.stderr.isatty(),
        seen=count if is_mask else None,
    )
    if is_mask and not is_given:
        found = (flag_above(scores, settings.alpha) for scores in found)
    with writing("--out"):
        write_array(request.out, (source.rows,), bool if is_mask else float, found)
    return settings, _summary(request, settings, counts) if is_mask else {}


@contextlib.contextmanager
def _all_rows(request: Request) -> Iterator[np.ndarray | None]:
    """All predictions where they are wanted, mapped: if need be from a copy."""
    source = request.predictions
    if request.settings.beta != "auto":
        yield None
    elif request.is_mapped:
        yield np.load(source.path, mmap_mode="r")
    else:
        folder = next(folder for folder in request.out.absolute().parents if folder.exists())
        with tempfile.TemporaryDirectory(prefix=f".{request.out.name}.", dir=folder) as temporary:
            path = Path(temporary) / "probs.npy"
            with writing("--out"):
                write_array(path, (source.rows, source.num_classes), source.dtype, source.batches())
            yield np.load(path, mmap_mode="r")


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
    return numbers if source.classes is None else np.array(source.classes, dtype=object)[numbers]


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
    if request.out is not None:
        lines.append(f"written: {request.out}")
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


def _print_facts(facts: dict[str, Any]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        if value is not None:
            text = ", ".join(value) if isinstance(value, list) else value
            print(f"{name:<{width}}  {text}")


def _print_json(content: Any) -> None:
    print(json.dumps(plain(content), indent=1, allow_nan=False))
