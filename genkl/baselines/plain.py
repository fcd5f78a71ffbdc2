"""Methods that take labels as they are: cross-entropy, label smoothing, mixup, robust losses."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from genkl.baselines.groundwork import Groundwork
from genkl.baselines.method import (
    RATES,
    TWO_RATES,
    Card,
    Method,
    Settings,
    choice,
    everything,
    number,
)
from genkl.learn import Lesson
from genkl.losses import (
    RowLoss,
    generalized_cross_entropy,
    hard_bootstrapping,
    soft_bootstrapping,
)
from genkl.relabel import Role


def as_given(work: Groundwork, settings: Settings) -> Lesson:
    """All labels as they are, with cross-entropy."""
    return Lesson(everything(work))


def clean_alone(work: Groundwork, settings: Settings) -> Lesson:
    """The clean split alone."""
    return Lesson(work.setup.clean)


def label_smoothing(work: Groundwork, settings: Settings) -> Lesson:
    r"""Targets :math:`(1 - \epsilon)\, e_y + \epsilon / k`."""
    examples = everything(work)
    smoothing = settings["smoothing"]
    if smoothing == 0:
        return Lesson(examples)
    targets = (1 - smoothing) * examples.targets + smoothing / examples.targets.shape[1]
    return Lesson(replace(examples, targets=targets))


def mixed_up(work: Groundwork, settings: Settings) -> Lesson:
    """Blends of two inputs with their two targets."""
    return Lesson(everything(work), mixup_alpha=settings["mixup_alpha"])


def with_gce(work: Groundwork, settings: Settings) -> Lesson:
    """Generalized cross-entropy."""
    return _with_loss(work, partial(generalized_cross_entropy, q=settings["q"]))


def bootstrapped(work: Groundwork, settings: Settings) -> Lesson:
    """Targets that are part label, part the network's current prediction."""
    loss = {"hard": hard_bootstrapping, "soft": soft_bootstrapping}[settings["variant"]]
    if settings["beta"] is not None:
        loss = partial(loss, beta=settings["beta"])
    return _with_loss(work, loss)


def _with_loss(work: Groundwork, loss: RowLoss) -> Lesson:
    return Lesson(everything(work), dict.fromkeys(Role, loss))


BASELINE = "a baseline there, with other networks and steps"

METHODS = (
    Method(
        "clean set alone",
        "cross-entropy",
        "huang2023genkl",
        card=Card(r"$-\log p_y$ on verified labels alone", BASELINE),
        grid=RATES,
        teach=clean_alone,
        needs_clean=True,
        finetunes=False,
    ),
    Method(
        "given labels",
        "cross-entropy",
        "huang2023genkl",
        card=Card(r"$-\log p_y$ on all labels, $y$ verified or given", BASELINE),
        grid=RATES,
        teach=as_given,
        finetunes=False,
    ),
    Method(
        "given labels + fine-tuning",
        "cross-entropy",
        "huang2023genkl",
        card=Card(r"the same, then $-\log p_y$ on verified labels at a low rate", BASELINE),
        grid=RATES,
        teach=as_given,
    ),
    Method(
        "label smoothing",
        "targets",
        "szegedy2016rethinking",
        {"smoothing": 0.1},
        {"smoothing": (0.1, 0.4), **TWO_RATES},
        label_smoothing,
        card=Card(r"$t = (1-\epsilon)\,e_y + \epsilon/k$", "was made for clean labels"),
        checks={
            "smoothing": number(lambda x: 0 <= x < 1, "a share of at least 0 and below 1; 0 is off")
        },
    ),
    Method(
        "mixup",
        "targets",
        "zhang2018mixup",
        {"mixup_alpha": 1.0},
        {"mixup_alpha": (1.0, 8.0), **TWO_RATES},
        mixed_up,
        card=Card(r"$t = \lambda e_y + (1-\lambda)e_{y'}$, $x$ alike", "blends across roles, too"),
        checks={
            "mixup_alpha": number(lambda x: 0 <= x < math.inf, "a number of at least 0; 0 is off")
        },
    ),
    Method(
        "GCE",
        "loss",
        "zhang2018generalized",
        {"q": 0.7},
        {"q": (0.7, 0.3), **TWO_RATES},
        with_gce,
        card=Card("$(1 - p_y^q)/q$", "has a truncated variant, too, which prunes in rounds"),
        checks={"q": number(lambda x: 0 < x <= 1, "a number in (0, 1]")},
    ),
    Method(
        "bootstrapping",
        "loss",
        "reed2015training",
        {"variant": "hard", "beta": None},
        {"variant": ("hard", "soft"), **TWO_RATES},
        bootstrapped,
        card=Card(r"$t = \beta e_y + (1-\beta)z$, $z = p$ or its peak", "reconstructs labels, too"),
        checks={
            "variant": choice("hard", "soft"),
            "beta": number(
                lambda x: 0 <= x <= 1,
                "the label's share, in [0, 1]; 1 is cross-entropy",
                optional=True,
            ),
        },
    ),
)
