"""Which methods are compared? Their names, sources, settings, and what tuning may try."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from genkl.baselines import lessons
from genkl.checks import check_choice
from genkl.learn import (
    GenKLConfig,
    IdentifyRule,
    divergence_rule,
    entropy_rule,
    flag_nothing,
)

CANDIDATES = 4
"""Settings that the common search tries for each method, no matter which."""

FAMILIES = ("cross-entropy", "targets", "loss", "selection", "GenKL")
"""What a method changes."""

FILTERS = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning")

FACTOR = "learning_rate_factor"
"""The setting that every method has: multiplies the learning rate of ``config.train``."""


@dataclass(frozen=True)
class Method:
    """A way to learn from a noisy split and a small clean one.

    Attributes:
        name: in tables and figures.
        family: one of `FAMILIES`.
        source: key in the book's bibliography.
        settings: defaults by name. None stands for what the configuration says.
        grid: candidates by the name of the setting; `CANDIDATES` combinations in all, the default
            among them.
        teach: from groundwork and settings to what is learned from; None for GenKL's rounds.
        identify: of GenKL's rounds: from a configuration to the rule that flags.
        needs_clean: whether it can't do without a clean split.
        finetunes: whether it is fine-tuned on the clean split, where there is one.

    Raises:
        ValueError: an unknown family, a candidate for a setting that isn't one, or not the number
            of candidates that all have.
    """

    name: str
    family: str
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    teach: lessons.Teach | None = None
    identify: Callable[[GenKLConfig], IdentifyRule] | None = None
    needs_clean: bool = False
    finetunes: bool = True

    def __post_init__(self) -> None:
        check_choice("family", self.family, FAMILIES)
        settings = MappingProxyType({**self.settings, FACTOR: self.settings.get(FACTOR, 1.0)})
        object.__setattr__(self, "settings", settings)
        for name in self.grid:
            check_choice(f"setting of {self.name}", name, settings)
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

    def with_settings(self, settings: Mapping[str, Any] | None) -> dict[str, Any]:
        """The defaults with some settings replaced.

        Raises:
            ValueError: a setting that this method hasn't, or a value that it can't have; the
                message says what it can.
        """
        settings = settings or {}
        for name, value in settings.items():
            check_choice(f"setting of {self.name}", name, self.settings)
            _check_value(name, value)
        return {**self.settings, **settings}


def _check_value(name: str, value: Any) -> None:
    if value is None and name in OPTIONAL:
        return
    if name in CHOICES:
        check_choice(name, value, CHOICES[name])
        return
    is_right, words = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_right(value):
        raise ValueError(f"{name} is {value!r}; state {words}")


OPTIONAL = ("beta", "max_flag_rate", "mixup_alpha")
"""Settings that may be None: the paper's beta, what the configuration says."""

CHOICES: Mapping[str, tuple[str, ...]] = {"variant": ("hard", "soft"), "filter_by": FILTERS}

RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    FACTOR: (lambda x: 0 < x < math.inf, "a positive factor; 1 leaves the learning rate"),
    "smoothing": (lambda x: 0 <= x < 1, "a share of at least 0 and below 1; 0 is off"),
    "mixup_alpha": (lambda x: 0 <= x < math.inf, "a number of at least 0; 0 is off"),
    "q": (lambda x: 0 < x <= 1, "a number in (0, 1]"),
    "beta": (lambda x: 0 <= x <= 1, "the label's share, in [0, 1]; 1 is cross-entropy"),
    "quantile": (lambda x: 0 < x <= 1, "a quantile in (0, 1]"),
    "tau_clean": (lambda x: 0 <= x <= 1, "a likelihood between 0 and 1"),
    "threshold": (lambda x: 0 <= x <= math.log(4), "a collision entropy in nats, 0 to log 4"),
    "neighbors": (lambda x: x >= 1 and x == int(x), "how many, at least 1"),
    "clean_weight": (lambda x: 0 <= x < math.inf, "the votes of a verified neighbour"),
    "max_flag_rate": (lambda x: 0 < x < 1, "a share between 0 and 1"),
}

RATES = {FACTOR: (1.0, 0.1, 0.3, 3.0)}
"""What is tried for a method that has no setting of its own."""

TWO_RATES = {FACTOR: (1.0, 0.3)}
"""What is tried with each of two values of a method's own setting. The learning rate decides how
much of the noise is learned in so many steps, so it is tuned for all."""

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                "clean set alone",
                "cross-entropy",
                "huang2023genkl",
                grid=RATES,
                teach=lessons.clean_alone,
                needs_clean=True,
                finetunes=False,
            ),
            Method(
                "given labels",
                "cross-entropy",
                "huang2023genkl",
                grid=RATES,
                teach=lessons.as_given,
                finetunes=False,
            ),
            Method(
                "given labels + fine-tuning",
                "cross-entropy",
                "huang2023genkl",
                grid=RATES,
                teach=lessons.as_given,
            ),
            Method(
                "label smoothing",
                "targets",
                "szegedy2016rethinking",
                {"smoothing": 0.1},
                {"smoothing": (0.1, 0.4), **TWO_RATES},
                lessons.label_smoothing,
            ),
            Method(
                "mixup",
                "targets",
                "zhang2018mixup",
                {"mixup_alpha": 1.0},
                {"mixup_alpha": (1.0, 8.0), **TWO_RATES},
                lessons.mixed_up,
            ),
            Method(
                "GCE",
                "loss",
                "zhang2018generalized",
                {"q": 0.7},
                {"q": (0.7, 0.3), **TWO_RATES},
                lessons.with_gce,
            ),
            Method(
                "bootstrapping",
                "loss",
                "reed2015training",
                {"variant": "hard", "beta": None},
                {"variant": ("hard", "soft"), **TWO_RATES},
                lessons.bootstrapped,
            ),
            Method(
                "forward correction",
                "loss",
                "patrini2017making",
                {"quantile": 0.97},
                RATES,
                lessons.forward_corrected,
            ),
            Method(
                "confident learning",
                "selection",
                "northcutt2021confident",
                {"filter_by": FILTERS[0]},
                {"filter_by": FILTERS[:2], **TWO_RATES},
                lessons.confident,
            ),
            Method(
                "Jo-SRC selection",
                "selection",
                "yao2021josrc",
                {"tau_clean": 0.75},
                {"tau_clean": (0.75, 0.5), **TWO_RATES},
                lessons.jo_src,
            ),
            Method(
                "DSOS selection",
                "selection",
                "albert2022addressing",
                {"threshold": math.log(2)},
                {"threshold": (math.log(2), 0.5), **TWO_RATES},
                lessons.dsos,
            ),
            Method(
                "kNN relabelling",
                "targets",
                "bahri2020deep",
                {"neighbors": 20, "clean_weight": 5.0},
                {"neighbors": (20, 50), **TWO_RATES},
                lessons.relabelled_by_neighbors,
            ),
            Method(
                "GenKL",
                "GenKL",
                "huang2023genkl",
                {"max_flag_rate": None, "mixup_alpha": None},
                {"max_flag_rate": (None, 0.15), **TWO_RATES},
                identify=divergence_rule,
            ),
            Method(
                "GenKL, no NC stage",
                "GenKL",
                "huang2023genkl",
                {"mixup_alpha": None},
                {"mixup_alpha": (None, 0.0), **TWO_RATES},
                identify=lambda config: flag_nothing,
            ),
            Method(
                "GenKL, entropy",
                "GenKL",
                "huang2023genkl",
                {"max_flag_rate": None, "mixup_alpha": None},
                {"max_flag_rate": (None, 0.15), **TWO_RATES},
                identify=lambda config: entropy_rule(config.max_flag_rate),
            ),
        )
    }
)
"""The methods that are compared, by name."""
