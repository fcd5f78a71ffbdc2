"""Methods that are compared: what a method is, its settings, and what tuning may try of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from genkl.baselines.groundwork import Groundwork
from genkl.checks import check_choice
from genkl.learn import Examples, GenKLConfig, IdentifyRule, Lesson

CANDIDATES = 4
"""Settings that the common search tries for each method, no matter which."""

FAMILIES = ("cross-entropy", "targets", "loss", "selection", "GenKL")
"""What a method changes."""

FACTOR = "learning_rate_factor"
"""The setting that every method has: multiplies the learning rate of ``config.train``."""

RATES = {FACTOR: (1.0, 0.1, 0.3, 3.0)}
"""What is tried for a method that has no setting of its own."""

TWO_RATES = {FACTOR: (1.0, 0.3)}
"""What is tried with each of two values of a method's own setting. The learning rate decides how
much of the noise is learned in so many steps, so it is tuned for all."""

Settings = Mapping[str, Any]
Teach = Callable[[Groundwork, Settings], Lesson]
Check = Callable[[str, Any], None]
"""Told a setting's name and value; raises a ValueError that says what it can be."""


def choice(*values: str) -> Check:
    """A setting that is one of these."""
    return lambda name, value: check_choice(name, value, values)


def number(is_right: Callable[[float], bool], words: str, *, optional: bool = False) -> Check:
    """A setting that is a number for which `is_right`, in words; None only where it is optional."""

    def check(name: str, value: Any) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not is_right(value):
            raise ValueError(f"{name} is {value!r}; state {words}")

    return check


@dataclass(frozen=True)
class Card:
    """What a method does, beside what its source does.

    Attributes:
        formula: what is learned, with mathematics between dollar signs.
        differs: what the source does otherwise.
    """

    formula: str
    differs: str


CHECK_FACTOR = number(lambda x: 0 < x < math.inf, "a positive factor; 1 leaves the learning rate")


@dataclass(frozen=True)
class Method:
    """A way to learn from a noisy split and a small clean one.

    Attributes:
        name: in tables and figures.
        family: one of `FAMILIES`.
        source: key in the book's bibliography.
        card: what it does, and what its source does otherwise.
        settings: defaults by name. None stands for what the configuration says.
        grid: candidates by the name of the setting; `CANDIDATES` combinations in all, the default
            among them.
        teach: from groundwork and settings to what is learned from; None for GenKL's rounds.
        identify: of GenKL's rounds: from a configuration to the rule that flags.
        needs_clean: whether it can't do without a clean split.
        finetunes: whether it is fine-tuned on the clean split, where there is one.
        checks: of the method's own settings, by name.

    Raises:
        ValueError: an unknown family, a candidate for a setting that isn't one, or not the number
            of candidates that all have.
    """

    name: str
    family: str
    source: str
    card: Card = field(kw_only=True)
    settings: Settings = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    teach: Teach | None = None
    identify: Callable[[GenKLConfig], IdentifyRule] | None = None
    needs_clean: bool = False
    finetunes: bool = True
    checks: Mapping[str, Check] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("family", self.family, FAMILIES)
        settings = MappingProxyType({**self.settings, FACTOR: self.settings.get(FACTOR, 1.0)})
        object.__setattr__(self, "settings", settings)
        count = math.prod(map(len, self.grid.values()))
        if count != CANDIDATES:
            raise ValueError(
                f"the grid of {self.name} has {count} candidates; all methods are tuned with "
                f"{CANDIDATES}"
            )
        if dict(settings) not in list(self.candidates()):
            raise ValueError(f"the grid of {self.name} leaves out its default settings")

    def candidates(self, grid: Mapping[str, tuple[Any, ...]] | None = None) -> Iterator[dict]:
        """Every combination of the grid's values, with the defaults of the other settings.

        Args:
            grid: another one.
        """
        grid = self.grid if grid is None else grid
        for values in itertools.product(*grid.values()):
            yield self.with_settings(dict(zip(grid, values, strict=True)))

    def with_settings(self, settings: Settings | None) -> dict[str, Any]:
        """The defaults with some settings replaced.

        Raises:
            ValueError: a setting that this method hasn't, or a value that it can't have; the
                message says what it can.
        """
        checks = {FACTOR: CHECK_FACTOR, **self.checks}
        settings = settings or {}
        for name, value in settings.items():
            check_choice(f"setting of {self.name}", name, self.settings)
            checks[name](name, value)
        return {**self.settings, **settings}


def everything(work: Groundwork) -> Examples:
    """All labels as they are, verified and given."""
    return work.setup.clean + work.setup.as_given


def with_targets(examples: Examples, targets: np.ndarray) -> Examples:
    """The same examples with other targets, shape (N, k)."""
    return replace(examples, targets=torch.from_numpy(targets).float())
