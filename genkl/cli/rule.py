"""The rule that options of ``genkl identify`` ask for: presets, defaults, and what is refused."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genkl.checks import check_beta, check_positive
from genkl.cli.options import flag
from genkl.rule.divergence import uniform_like_vectors
from genkl.rule.evaluation import SampledRule

DEFAULT_BETA = 0.5
"""In units of 1/k. The paper's three lie between 0.42 and 0.81; in between the choice matters
little, and towards 1 the rule gets worse (see the book's chapter on identification)."""


LEAST = {"show": 0, "threads": 1, "num_vectors": 1, "sigma": 0, "seed": 0}
"""Options with a lower bound."""


@dataclass(frozen=True)
class Settings:
    """The rule. What is to be chosen is "auto" until it has been; an unused alpha is None."""

    preset: str | None
    alpha: float | str | None
    beta: float
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
        """The rule at this beta."""
        vectors = self.vectors(num_classes)
        return SampledRule.of(vectors, self.beta, num_classes, self.permutation_invariant)


def refused(options: argparse.Namespace) -> Iterator[str]:
    """Options that contradict each other, that would be ignored, or numbers out of range."""
    out, suffix = options.out, None if options.out in (None, "-") else Path(options.out).suffix
    if suffix not in (None, ".csv", ".parquet", ".npy"):
        yield f"--out is {out}; its name must end in .csv, .parquet or .npy, or be -"
    if out == "-" and options.json:
        yield "--out is - and --json is given, which both go to stdout; name a file"
    if options.overwrite and suffix is None:
        yield "--overwrite is given without a file to write; add --out FILE"
    if suffix == ".npy" and (options.labels or options.label_column):
        yield f"labels are given and --out is {out}, one value per row; name a .csv or .parquet"
    if options.values == "scores":
        if suffix != ".npy":
            yield "--values is scores, which a table has anyway; name an .npy file with --out"
        if options.alpha is not None or options.conforming:
            yield "--values is scores, which need no alpha; leave --alpha and --conforming out"
    if options.auto_beta:
        yield "--auto-beta is withdrawn: it chose no better than a lot; leave it out, or set --beta"
    for name, least in LEAST.items():
        value = getattr(options, name)
        if value is not None and not least <= value < math.inf:
            yield f"{flag(name)} is {value}; it must be a finite number of at least {least}"
    if (options.seed or 0) >= 1 << 32:
        yield f"--seed is {options.seed}; it must be less than {1 << 32}"
    for name in ("max_flag_rate", "confidence"):
        value = getattr(options, name)
        if value is not None and not 0 < value < 1:
            yield f"{flag(name)} is {value}; it must lie between 0 and 1"


def asked_for(options: argparse.Namespace, num_classes: int, predictions: str) -> Settings:
    """What the options ask for, with the values of a preset and defaults for what they leave out.

    Args:
        options: parsed.
        num_classes: k.
        predictions: what the user calls them, for messages.

    Raises:
        ValueError: alpha is missing, or useless; a beta, or a preset for another k.
    """
    preset = None
    if options.preset is not None:
        from genkl import presets

        preset = getattr(presets, options.preset.upper().replace("-", "_"))
        if preset.num_classes != num_classes:
            raise ValueError(
                f"--preset is {options.preset}, for {preset.num_classes} classes, and "
                f"{predictions} has {num_classes}; pass another preset, or --alpha and --beta"
            )

    def chosen(name: str, otherwise: Any) -> Any:
        given = [getattr(source, name, None) for source in (options, preset)]
        return next((value for value in given if value is not None), otherwise)

    beta = chosen("beta", DEFAULT_BETA / num_classes)
    alpha = chosen("alpha", "auto" if options.conforming else None)
    settings = Settings(
        preset=options.preset,
        alpha=None if options.values == "scores" else alpha,
        beta=beta,
        sigma=chosen("sigma", 0.05),
        num_vectors=chosen("num_vectors", 20),
        seed=chosen("seed", 0 if preset is None else preset.seeds[0]),
        permutation_invariant=options.permutation_invariant,
        max_flag_rate=chosen("max_flag_rate", 0.05 if alpha == "auto" else None),
        confidence=options.confidence,
    )
    _check(options, settings, num_classes)
    return settings


def _check(options: argparse.Namespace, settings: Settings, num_classes: int) -> None:
    alpha = settings.alpha
    if alpha is None and options.values != "scores" and options.out is not None:
        raise ValueError(
            "--alpha is missing; pass a number (the paper's lie between 0.9 and 1.1), --preset, or "
            "--conforming FILE to have it chosen; without --out, see what each would flag"
        )
    if alpha == "auto" and options.conforming is None:
        raise ValueError(
            "--alpha is auto and --conforming is missing; pass a file of predictions for held-out "
            "instances that are known to conform, or a number for --alpha"
        )
    if isinstance(alpha, float):
        remedy = "; raise it to flag fewer instances, lower it to flag more"
        check_positive("--alpha", alpha, remedy)
    for name in ("conforming", "max_flag_rate", "confidence"):
        value = getattr(options, name)
        if alpha != "auto" and value is not None:
            raise ValueError(
                f"{flag(name)} is {value}, which has no use where alpha is {alpha}; add --alpha "
                "auto, or leave it out"
            )
    check_beta(settings.beta, num_classes, "--beta")
