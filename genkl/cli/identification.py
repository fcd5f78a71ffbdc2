"""What ``genkl identify`` does: settings and files are checked, then the package is called."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genkl import __version__
from genkl.checks import check_beta, check_positive, check_probabilities
from genkl.cli.files import (
    PredictionFile,
    check_columns,
    checked_destination,
    checked_source,
    in_words_of_the_command,
    open_predictions,
    read_labels,
    replacing,
    softmax_chunks,
    writing,
)
from genkl.cli.identify import PRESETS
from genkl.rule.choose import choose_alpha_beta, diagnose
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import dominance_threshold, entropy, uniform_like_vectors
from genkl.rule.identify import flag_above, identify_nc, nc_score
from genkl.rule.kinds import nc_evidence
from genkl.rule.stream import identify_file, score_file

DEFAULT_BETA = 0.5
"""In units of 1/k. The paper's three lie between 0.42 and 0.81; in between the choice matters
little, and towards 1 the rule gets worse (see the book's chapter on identification)."""

CLASSES_SHOWN = 20
TABLE_FORMATS = (".csv", ".parquet")


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


@dataclass(frozen=True)
class Request:
    """All that was asked for, checked as far as it can be before work starts."""

    predictions: PredictionFile
    conforming: PredictionFile | None
    labels: Path | None
    label_column: str | None
    id_column: str | None
    from_logits: bool
    settings: Settings
    out: Path | None
    to_stdout: bool
    values: str
    overwrite: bool
    threads: int | None

    @property
    def streams(self) -> bool:
        """Whether a value per row is written in bounded memory, instead of a table."""
        return self.out is not None and self.out.suffix == ".npy"

    @property
    def needs_copy(self) -> bool:
        """Whether that takes a copy of the predictions as an array stored row by row."""
        source = self.predictions
        return self.from_logits or source.path.suffix == ".csv" or not source.is_contiguous


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
    try:
        if request.streams:
            settings, summary = _stream(request)
        else:
            settings, summary, table = _tabulate(request)
            _write(request, table)
    except ValueError as error:
        raise in_words_of_the_command(request.predictions, error) from error
    if options.json:
        _print_json({"configuration": _configuration(request, settings), "summary": summary})
        return
    into = sys.stderr if request.to_stdout else sys.stdout
    print(_summary_text(request, settings, summary), file=into)
    if table is not None and request.out is None and not request.to_stdout:
        _print_first(table, options.show)


# --- What is asked for -----------------------------------------------------------------------


def _understood(options: argparse.Namespace) -> Request:
    _check_combinations(options)
    source = checked_source("PRED_PROBS", options.pred_probs)
    sources = {"PRED_PROBS": source}
    for argument, path in (("--labels", options.labels), ("--conforming", options.conforming)):
        if path is not None:
            sources[argument] = checked_source(argument, path)
    out = None
    if options.out not in (None, "-"):
        out = checked_destination("--out", options.out, [*sources.values()], options.overwrite)
    labels = sources.get("--labels")
    if labels is None and options.label_column is not None:
        labels = source
    in_table = labels is not None and options.label_column and source.samefile(labels)
    predictions = open_predictions(
        "PRED_PROBS",
        source,
        classes=options.classes,
        without=[options.label_column] if in_table else [],
        id_column=options.id,
    )
    settings = _settings(options, predictions)
    if options.id in _column_names(labels):
        raise ValueError(
            f"--id is {options.id!r}, which is a column of the table to write; rename it"
        )
    return Request(
        predictions=predictions,
        conforming=_open_conforming(options, predictions),
        labels=labels,
        label_column=options.label_column,
        id_column=options.id,
        from_logits=options.from_logits,
        settings=settings,
        out=out,
        to_stdout=options.out == "-",
        values=options.values,
        overwrite=options.overwrite,
        threads=options.threads,
    )


def _check_combinations(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other, or that would be ignored."""
    out = options.out
    suffix = None if out in (None, "-") else Path(out).suffix
    if suffix not in (None, ".npy", *TABLE_FORMATS):
        raise ValueError(f"--out is {out}; its name must end in .csv, .parquet or .npy, or be -")
    if out == "-" and options.json:
        raise ValueError("--out is - and --json is given, which both go to stdout; name a file")
    if options.overwrite and suffix is None:
        raise ValueError("--overwrite is given without a file to write; add --out FILE")
    if options.show < 0:
        raise ValueError(f"--show is {options.show}; it must be 0 or greater")
    if options.threads is not None and options.threads < 1:
        raise ValueError(f"--threads is {options.threads}; it must be at least 1")
    if suffix == ".npy" and (options.labels or options.label_column):
        raise ValueError(
            f"labels are given and --out is {out}, which holds one value per row; name a .csv or "
            ".parquet"
        )
    if options.values == "scores":
        if suffix != ".npy":
            raise ValueError(
                "--values is scores without an .npy file to write; add --out FILE.npy, or leave "
                "it out: a table has the scores"
            )
        if options.alpha is not None or options.auto_beta or options.conforming:
            raise ValueError(
                "--values is scores, which need no alpha; leave --alpha, --auto-beta and "
                "--conforming out"
            )
    if options.auto_beta and options.beta is not None:
        raise ValueError(f"--auto-beta is given and --beta is {options.beta}; leave one out")
    if options.auto_beta and isinstance(options.alpha, float):
        raise ValueError(
            f"--auto-beta is given and --alpha is {options.alpha}; it chooses both: leave one out"
        )


def _settings(options: argparse.Namespace, predictions: PredictionFile) -> Settings:
    preset, num_classes = None, predictions.num_classes
    if options.preset is not None:
        from genkl import presets

        preset = getattr(presets, PRESETS[options.preset])
        if preset.num_classes != num_classes:
            raise ValueError(
                f"--preset is {options.preset}, for {preset.num_classes} classes, and "
                f"{predictions} has {num_classes}; pass another preset, or --alpha and --beta"
            )

    def chosen(name: str, otherwise: Any) -> Any:
        given = getattr(options, name)
        if given is None and preset is not None:
            given = getattr(preset, name)
        return otherwise if given is None else given

    seed = options.seed
    if seed is None:
        seed = 0 if preset is None else preset.seeds[0]
    alpha = chosen("alpha", "auto" if options.conforming else None)
    beta = chosen("beta", DEFAULT_BETA / num_classes)
    if options.auto_beta:
        alpha = beta = "auto"
    settings = Settings(
        preset=options.preset,
        alpha=None if options.values == "scores" else alpha,
        beta=beta,
        sigma=chosen("sigma", 0.05),
        num_vectors=chosen("num_vectors", 20),
        seed=seed,
        permutation_invariant=options.permutation_invariant,
        max_flag_rate=options.max_flag_rate,
        confidence=options.confidence,
    )
    return _checked(settings, options, num_classes)


def _checked(settings: Settings, options: argparse.Namespace, num_classes: int) -> Settings:
    if settings.alpha is None and options.values != "scores":
        raise ValueError(
            "--alpha is missing; pass a number (the paper's lie between 0.9 and 1.1), --preset, or "
            "--conforming FILE to have it chosen"
        )
    if settings.alpha == "auto" and options.conforming is None:
        asked = "--auto-beta is given" if options.auto_beta else "--alpha is auto"
        raise ValueError(
            f"{asked} and --conforming is missing; pass a file of predictions for held-out "
            "instances that are known to conform, or a number for --alpha"
        )
    if isinstance(settings.alpha, float):
        check_positive(
            "--alpha", settings.alpha, "; raise it to flag fewer instances, lower it to flag more"
        )
    if settings.alpha != "auto":
        for name in ("conforming", "max_flag_rate", "confidence"):
            if (value := getattr(options, name)) is not None:
                raise ValueError(
                    f"--{name.replace('_', '-')} is {value}, which has no use where alpha is "
                    f"{settings.alpha}; add --alpha auto, or leave it out"
                )
    for name, value in (("--max-flag-rate", settings.max_flag_rate),
                        ("--confidence", settings.confidence)):  # fmt: skip
        if value is not None and not 0 < value < 1:
            raise ValueError(f"{name} is {value}; it must lie between 0 and 1")
    if settings.beta != "auto":
        try:
            check_beta(settings.beta, num_classes)
        except ValueError as error:
            raise ValueError(f"--{error}") from error
    if not 0 <= settings.seed < 1 << 32:
        raise ValueError(f"--seed is {settings.seed}; it must lie between 0 and {(1 << 32) - 1}")
    if settings.num_vectors < 1:
        raise ValueError(f"--num-vectors is {settings.num_vectors}; it must be at least 1")
    if not (math.isfinite(settings.sigma) and settings.sigma >= 0):
        raise ValueError(f"--sigma is {settings.sigma}; it must be a finite number, 0 or greater")
    if settings.alpha == "auto" and settings.max_flag_rate is None:
        settings = replace(settings, max_flag_rate=0.05)
    return settings


def _open_conforming(
    options: argparse.Namespace, predictions: PredictionFile
) -> PredictionFile | None:
    """The layout of --conforming, whose columns are those of the predictions."""
    if options.conforming is None:
        return None
    is_table = Path(options.conforming).suffix != ".npy"
    columns = (predictions.columns or predictions.classes) if is_table else None
    found = open_predictions(
        "--conforming", options.conforming, classes=columns, named_by="PRED_PROBS"
    )
    if found.num_classes != predictions.num_classes:
        raise ValueError(
            f"{found} has {found.num_classes} classes and {predictions} has "
            f"{predictions.num_classes}; both must come from the same models"
        )
    return found


def _column_names(labels: Path | None) -> list[str]:
    return ["is_nc", "score", "entropy", "predicted", "predicted_prob", "dominant_entries",
            *(["given_label", "given_prob"] if labels else [])]  # fmt: skip


# --- The plan --------------------------------------------------------------------------------


def _configuration(request: Request, settings: Settings) -> dict[str, Any]:
    source, conforming = request.predictions, request.conforming
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
        "id": request.id_column,
        "from_logits": request.from_logits,
        "labels": None if request.labels is None else str(request.labels),
        "label_column": request.label_column,
        **asdict(settings),
        "tau": tau,
        "conforming": None if conforming is None else str(conforming.path),
        "conforming_rows": None if conforming is None else conforming.rows,
        "out": "-" if request.to_stdout else None if request.out is None else str(request.out),
        "overwrite": request.overwrite,
        "threads": request.threads,
    }


def _plan(request: Request) -> dict[str, Any]:
    source, mebi, copy = request.predictions, 1 << 20, 0
    entries, is_auto = source.rows * source.num_classes, request.settings.alpha == "auto"
    memory = 200 * mebi  # Python, its libraries, and the rows that are looked at at a time
    if request.streams:
        steps = f"read rows strip by strip; write {request.values}"
        memory += source.unit_bytes * (2 if source.table is not None else 6)
        memory += source.rows * (9 if is_auto else 0)
        if request.needs_copy:
            copy = entries * (8 if request.from_logits else source.dtype.itemsize)
        elif request.settings.beta == "auto":
            memory += source.nbytes
    else:
        columns = [request.id_column or "row", *_column_names(request.labels)]
        steps = "read all rows; make a table of " + ", ".join(columns)
        memory += source.nbytes + 3 * source.unit_bytes + 24 * entries + 150 * source.rows
        memory += 16 * entries * request.from_logits
    if request.conforming is not None:
        memory += 2 * request.conforming.nbytes
    return {
        "steps": steps,
        "writes": "stdout" if request.out is None else str(request.out),
        "estimated_memory_mb": round(memory / mebi),
        "estimated_temporary_disk_mb": round(copy / mebi),
    }


# --- A table ---------------------------------------------------------------------------------


def _tabulate(request: Request) -> tuple[Settings, dict[str, Any], pd.DataFrame]:
    source = request.predictions
    labels = None
    if request.labels is not None:
        argument = "PRED_PROBS" if request.labels.samefile(source.path) else "--labels"
        labels = read_labels(
            argument, request.labels, request.label_column, source, request.id_column
        )
    probs = _read_probabilities(source, request.from_logits)
    settings = _chosen(request, probs)
    vectors = settings.vectors(source.num_classes)
    options: dict[str, Any] = {"permutation_invariant": settings.permutation_invariant}
    scores = nc_score(probs, settings.beta, vectors, num_threads=request.threads, **options)
    if request.settings.alpha == "auto":
        mask = flag_above(scores, settings.alpha)
    else:
        mask = identify_nc(
            probs, settings.alpha, settings.beta, vectors, num_threads=request.threads, **options
        )
    predicted = probs.argmax(axis=1)
    id_column = request.id_column
    columns: dict[str, Any] = {
        id_column or "row": source.column(id_column) if id_column else np.arange(source.rows),
        "is_nc": mask,
        "score": scores,
        "entropy": entropy(probs),
        "predicted": _named(source, predicted),
        "predicted_prob": probs.max(axis=1),
        "dominant_entries": nc_evidence(probs, settings.beta)["dominant_entries"],
    }
    if labels is not None:
        columns["given_label"] = _named(source, labels)
        columns["given_prob"] = probs[np.arange(source.rows), labels]
    table = pd.DataFrame(columns)
    found = diagnose(probs, settings.alpha, settings.beta, vectors, **options)
    warnings = [_as_options(text) for text in found.warnings]
    if settings.alpha == math.inf:
        warnings.insert(0, _too_few(request))
    summary = {
        **_counts(int(mask.sum()), source.rows),
        "renaming_agreement": found.renaming_agreement,
        "uniform_is_flagged": found.uniform_is_flagged,
        "by_class": _by_class(source, _class_counts(source, predicted, mask)),
        "warnings": warnings,
    }
    return settings, summary, table


def _read_probabilities(source: PredictionFile, from_logits: bool) -> np.ndarray:
    """All rows as probabilities, checked, shape (N, k)."""
    if from_logits:
        return np.concatenate(list(softmax_chunks(source)))
    probs = source.read()
    check_columns(source, probs)
    try:
        check_probabilities("pred_probs", probs, ndim=2)
    except ValueError as error:
        raise in_words_of_the_command(source, error) from error
    return probs


def _chosen(request: Request, probs: np.ndarray | None) -> Settings:
    """Settings with alpha and, if wanted, beta chosen from conforming predictions."""
    settings, conforming = request.settings, request.conforming
    if conforming is None:
        return settings
    conforming_probs = _read_probabilities(conforming, request.from_logits)
    vectors = settings.vectors(conforming.num_classes)
    budget: dict[str, Any] = {
        "max_flag_rate": settings.max_flag_rate,
        "confidence": settings.confidence,
    }
    options: dict[str, Any] = {"permutation_invariant": settings.permutation_invariant}
    if settings.beta == "auto":
        choice = choose_alpha_beta(
            probs, conforming_probs, vectors, seed=settings.seed, **budget, **options
        )
        return replace(settings, alpha=choice.alpha, beta=choice.beta)
    scores = nc_score(
        conforming_probs, settings.beta, vectors, num_threads=request.threads, **options
    )
    return replace(settings, alpha=threshold_for_budget(scores, **budget))


def _write(request: Request, table: pd.DataFrame) -> None:
    if request.to_stdout:
        table.to_csv(sys.stdout, index=False)
    elif request.out is not None:
        with replacing("--out", request.out) as path:
            if request.out.suffix == ".csv":
                table.to_csv(path, index=False)
            else:
                table.to_parquet(path, index=False)


# --- One value per row -----------------------------------------------------------------------


def _stream(request: Request) -> tuple[Settings, dict[str, Any]]:
    source, out = request.predictions, request.out
    if not request.from_logits:
        check_columns(source, next(source.chunks()))  # `score_file` would name the row alone
    with writing("--out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            if request.needs_copy:
                source = _copied(request, Path(folder) / source.path.name)
            probs = None
            if request.settings.beta == "auto":
                is_array = source.path.suffix == ".npy"
                probs = np.load(source.path, mmap_mode="r") if is_array else source.read()
            settings = _chosen(request, probs)
            _write_values(request, source, settings, Path(folder) / "scores.npy")
            return settings, _stream_summary(request, source, settings)


def _copied(request: Request, path: Path) -> PredictionFile:
    """The predictions as probabilities in an array file, stored row by row."""
    source, path = request.predictions, path.with_suffix(".npy")
    chunks = softmax_chunks(source) if request.from_logits else source.chunks()
    copy = replace(
        source,
        path=path,
        dtype=np.dtype(np.float64) if request.from_logits else source.dtype,
        columns=None,
        table=None,
        is_contiguous=True,
    )
    header = {"descr": copy.dtype.str, "fortran_order": False,
              "shape": (copy.rows, copy.num_classes)}  # fmt: skip
    with open(path, "xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            np.ascontiguousarray(chunk, dtype=copy.dtype).tofile(file)
    return copy


def _write_values(
    request: Request, source: PredictionFile, settings: Settings, temporary: Path
) -> None:
    vectors = settings.vectors(source.num_classes)
    options: dict[str, Any] = {
        "permutation_invariant": settings.permutation_invariant,
        "columns": source.columns,
        "num_threads": request.threads,
        "progress": sys.stderr.isatty(),
    }
    if request.values == "scores":
        score_file(source.path, request.out, settings.beta, vectors,
                   overwrite=request.overwrite, **options)  # fmt: skip
    elif request.settings.alpha == "auto":  # as `identify_nc` does, whose alpha may be infinite
        score_file(source.path, temporary, settings.beta, vectors, **options)
        mask = flag_above(np.load(temporary, mmap_mode="r"), settings.alpha)
        with replacing("--out", request.out) as path, open(path, "xb") as file:
            np.save(file, mask)
    else:
        identify_file(source.path, request.out, settings.alpha, settings.beta, vectors,
                      overwrite=request.overwrite, **options)  # fmt: skip


def _stream_summary(request: Request, source: PredictionFile, settings: Settings) -> dict[str, Any]:
    if request.values == "scores":
        return {}
    mask = np.load(request.out, mmap_mode="r")
    counts, first = np.zeros((2, source.num_classes), dtype=np.int64), 0
    for chunk in source.chunks():
        flagged = np.asarray(mask[first : first + len(chunk)])
        counts += _class_counts(source, chunk.argmax(axis=1), flagged)
        first += len(chunk)
    summary = _counts(int(counts[1].sum()), source.rows)
    summary["by_class"] = _by_class(source, counts)
    summary["warnings"] = [_too_few(request)] if settings.alpha == math.inf else []
    return summary


# --- What is said ----------------------------------------------------------------------------


def _counts(flagged: int, rows: int) -> dict[str, Any]:
    return {"flagged": flagged, "flagged_share": flagged / rows}


def _class_counts(source: PredictionFile, predicted: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How many are predicted as each class, and how many of them are flagged, shape (2, k)."""
    groups = (predicted, predicted[mask])
    return np.array([np.bincount(group, minlength=source.num_classes) for group in groups])


def _by_class(source: PredictionFile, counts: np.ndarray) -> list[dict[str, Any]]:
    names = source.classes or range(source.num_classes)
    return [
        {"class": name, "instances": int(instances), "flagged": int(flagged)}
        for name, instances, flagged in zip(names, *counts, strict=True)
    ]


def _named(source: PredictionFile, numbers: np.ndarray) -> np.ndarray:
    return numbers if source.classes is None else np.array(source.classes, dtype=object)[numbers]


def _as_options(warning: str) -> str:
    """A warning of `diagnose`, with the names of the options for those of the arguments."""
    for argument, option in (
        ("see nearby, or alpha='auto'", "lower --alpha, or pass --alpha auto"),
        ("permutation_invariant=True", "--permutation-invariant"),
    ):
        warning = warning.replace(argument, option)
    return warning


def _too_few(request: Request) -> str:
    settings, conforming = request.settings, request.conforming
    sure = "" if settings.confidence is None else f" with confidence {settings.confidence:g}"
    return (
        f"alpha is infinite: {conforming.rows} conforming predictions are too few for a flag rate "
        f"of {settings.max_flag_rate:g}{sure}; pass more, or raise --max-flag-rate"
    )


def _summary_text(request: Request, settings: Settings, summary: dict[str, Any]) -> str:
    source = request.predictions
    tau = dominance_threshold(source.num_classes, settings.beta)
    rule = f"beta {settings.beta:.6g}, tau {tau:.6g}; {settings.num_vectors} vectors"
    rule += f", sigma {settings.sigma:g}, seed {settings.seed}"
    if settings.alpha is not None:
        rule = f"alpha {settings.alpha:.6g}, {rule}"
    if settings.permutation_invariant:
        rule += ", permutation-invariant"
    lines = [
        f"{source.path}: {source.rows} predictions, {source.num_classes} classes",
        rule,
    ]
    if request.conforming is not None:
        lines.append(
            f"alpha {'and beta ' if request.settings.beta == 'auto' else ''}chosen from "
            f"{request.conforming.rows} conforming predictions, of which a share of "
            f"{settings.max_flag_rate:g} may be flagged"
            + ("" if settings.confidence is None else f", with confidence {settings.confidence:g}")
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
    print(json.dumps(_for_json(content), indent=1, allow_nan=False))


def _for_json(content: Any) -> Any:
    """Infinite and undefined numbers, which JSON has none of, become null."""
    if isinstance(content, dict):
        return {key: _for_json(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_for_json(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
