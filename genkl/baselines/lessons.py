"""What does each method learn from? From a setting and its groundwork to a `Lesson`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from genkl.baselines.groundwork import Groundwork
from genkl.baselines.neighbors import neighbor_labels
from genkl.baselines.selection import (
    Selection,
    select_by_confident_learning,
    select_by_dsos,
    select_by_jo_src,
)
from genkl.baselines.transitions import anchor_transition, average_transition, forward_targets
from genkl.learn import Examples, Lesson
from genkl.losses import (
    RowLoss,
    double_hot_loss,
    generalized_cross_entropy,
    hard_bootstrapping,
    soft_bootstrapping,
)
from genkl.relabel import Role

Settings = Mapping[str, Any]
Teach = Callable[[Groundwork, Settings], Lesson]


def as_given(work: Groundwork, settings: Settings) -> Lesson:
    """All labels as they are, with cross-entropy."""
    return Lesson(_everything(work))


def clean_alone(work: Groundwork, settings: Settings) -> Lesson:
    """The clean split alone."""
    return Lesson(work.setting.clean)


def label_smoothing(work: Groundwork, settings: Settings) -> Lesson:
    r"""Targets :math:`(1 - \epsilon)\, e_y + \epsilon / k`."""
    examples = _everything(work)
    smoothing = settings["smoothing"]
    if smoothing == 0:
        return Lesson(examples)
    targets = (1 - smoothing) * examples.targets + smoothing / examples.targets.shape[1]
    return Lesson(replace(examples, targets=targets))


def mixed_up(work: Groundwork, settings: Settings) -> Lesson:
    """Blends of two inputs with their two targets."""
    return Lesson(_everything(work), mixup_alpha=settings["mixup_alpha"])


def with_gce(work: Groundwork, settings: Settings) -> Lesson:
    """Generalized cross-entropy."""
    return _with_loss(work, partial(generalized_cross_entropy, q=settings["q"]))


def bootstrapped(work: Groundwork, settings: Settings) -> Lesson:
    """Targets that are part label, part the network's current prediction."""
    loss = {"hard": hard_bootstrapping, "soft": soft_bootstrapping}[settings["variant"]]
    if settings["beta"] is not None:
        loss = partial(loss, beta=settings["beta"])
    return _with_loss(work, loss)


def forward_corrected(work: Groundwork, settings: Settings) -> Lesson:
    """Given labels through the transition matrix; verified ones as they are."""
    if work.is_clean_empty:
        transition = anchor_transition(work.held_out_probs(), settings["quantile"])
    else:
        transition = average_transition(work.given_label_probs(), work.dataset.clean.labels.numpy())
    given = work.setting.as_given
    targets = forward_targets(work.dataset.noisy.labels.numpy(), transition)
    examples = work.setting.clean + _with_targets(given, targets)
    facts = {"label kept": float(np.diag(transition).mean())}
    return Lesson(examples, dict.fromkeys(Role, double_hot_loss), facts=facts)


def confident(work: Groundwork, settings: Settings) -> Lesson:
    """Without the labels that confident learning calls wrong."""
    return _selected(
        work,
        select_by_confident_learning(
            work.held_out_probs(), work.dataset.noisy.labels.numpy(), settings["filter_by"]
        ),
    )


def jo_src(work: Groundwork, settings: Settings) -> Lesson:
    """Labels, predictions or the uniform vector, as Jo-SRC selects."""
    labels = work.dataset.noisy.labels.numpy()
    return _selected(work, select_by_jo_src(work.views(), labels, settings["tau_clean"]))


def dsos(work: Groundwork, settings: Settings) -> Lesson:
    """Labels, or predictions softened by degrees, as DSOS does."""
    labels = work.dataset.noisy.labels.numpy()
    return _selected(work, select_by_dsos(work.noisy_probs(), labels, settings["threshold"]))


def relabelled_by_neighbors(work: Groundwork, settings: Settings) -> Lesson:
    """Labels that most of the nearest neighbours have."""
    dataset = work.dataset
    labels = torch.cat([dataset.clean.labels, dataset.noisy.labels]).numpy()
    weights = np.ones(len(labels))
    weights[: len(dataset.clean)] = settings["clean_weight"]
    given = dataset.noisy.labels.numpy()
    voted = neighbor_labels(
        work.neighbors(min(settings["neighbors"], len(labels) - 1)),
        labels,
        weights,
        given,
        dataset.num_classes,
    )
    targets = np.eye(dataset.num_classes)[voted]
    kept = np.ones(len(voted), dtype=bool)
    return _selected(work, Selection(targets, kept, voted == given))


def _everything(work: Groundwork) -> Examples:
    return work.setting.clean + work.setting.as_given


def _with_loss(work: Groundwork, loss: RowLoss) -> Lesson:
    return Lesson(_everything(work), dict.fromkeys(Role, loss))


def _with_targets(examples: Examples, targets: np.ndarray) -> Examples:
    return replace(examples, targets=torch.from_numpy(targets).float())


def _selected(work: Groundwork, selection: Selection) -> Lesson:
    noisy = _with_targets(work.setting.as_given, selection.targets)
    kept = noisy.take(np.flatnonzero(selection.is_kept))
    return Lesson(work.setting.clean + kept, facts=selection.facts())
