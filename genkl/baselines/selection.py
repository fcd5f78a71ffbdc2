"""Methods that select labels: confident learning, Jo-SRC's and DSOS's ways, neighbours' votes.

A selection gives every noisy instance a target distribution, or leaves it out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import beta as beta_distribution

from genkl.baselines.groundwork import Groundwork
from genkl.baselines.method import (
    TWO_RATES,
    Card,
    Method,
    Settings,
    choice,
    number,
    with_targets,
)
from genkl.baselines.neighbors import neighbor_labels
from genkl.detectors.evidence import Evidence, import_extra
from genkl.detectors.labels import DSOS, jensen_shannon
from genkl.learn import Lesson

FILTERS = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning")
"""Rules of confident learning."""

SURELY_INSIDE = 0.9
"""The posterior of "in distribution" beyond which DSOS replaces a label."""

TEMPERATURE = 0.05
"""Of DSOS's softened targets."""

MIXTURE_STEPS = 50
TINY = float(np.finfo(np.float64).tiny)
INSIDE = 1e-4
"""How far from 0 and 1 a Beta distribution is fitted: its density is infinite there."""


@dataclass(frozen=True)
class Selection:
    """What becomes of N given labels.

    Attributes:
        targets: distributions to learn, shape (N, k).
        is_kept: boolean, shape (N,): whether the instance is learned from at all.
        is_believed: boolean, shape (N,): whether its given label is.
    """

    targets: np.ndarray
    is_kept: np.ndarray
    is_believed: np.ndarray

    def facts(self) -> dict[str, float]:
        """Shares of the noisy split: whose label is believed, who is left out, who is changed."""
        return {
            "believed": float(self.is_believed.mean()),
            "left out": float((~self.is_kept).mean()),
            "changed": float((self.is_kept & ~self.is_believed).mean()),
        }


def select_by_jo_src(
    views: np.ndarray, given_labels: np.ndarray, tau_clean: float = 0.75
) -> Selection:
    r"""Believe likely labels, replace those that two views contradict, give up on the others.

    With q the mean of two views' predictions, y the given label, and the likelihood of being clean
    :math:`P = 1 - JS(q, y)`: where :math:`P \ge \tau` the given label is believed; elsewhere the
    instance learns q if both views predict the same class ("in-distribution"), and the uniform
    vector otherwise ("out-of-distribution").

    Differences from the paper, which selects in every batch anew and adds a consistency loss: the
    views are two halves of an ensemble, not two augmentations (features have none), and the
    selection is made once, before training.

    Args:
        views: two averaged predictions, shape (2, N, k).
        given_labels: y, shape (N,).
        tau_clean: :math:`\tau` in [0, 1].

    Returns:
        The selection; all are kept.

    Source: :cite:t:`yao2021josrc`.
    """
    pred_probs = views.mean(axis=0)
    num_classes = pred_probs.shape[1]
    given = np.eye(num_classes)[given_labels]
    believed = 1 - jensen_shannon(pred_probs, given) >= tau_clean
    consistent = views[0].argmax(axis=1) == views[1].argmax(axis=1)
    targets = np.where(consistent[:, None], pred_probs, 1 / num_classes)
    targets[believed] = given[believed]
    return Selection(targets, np.ones(len(targets), dtype=bool), believed)


def select_by_dsos(
    pred_probs: np.ndarray,
    given_labels: np.ndarray,
    threshold: float = math.log(2),
    target: str = "label",
) -> Selection:
    r"""Believe labels of low collision entropy; replace and soften the others.

    The collision entropy :math:`-\log \sum_j m_j^2` of :math:`m = \tfrac12 (q + y)` is 0 for a sure
    prediction of the given label y, log 2 for a sure one of another class, and more for an unsure
    one. Labels below the threshold are believed. Two Beta distributions are fitted to the others;
    v is the posterior of the upper one ("out of distribution"). Where that of the lower one,
    :math:`1 - v`, exceeds 0.9, the predicted class replaces y. An instance learns the softmax of
    :math:`(1 - v)\, e_y / 0.05`: nearly one-hot at v = 0, uniform at v = 1.

    Differences from the paper, which selects anew after every epoch and adds mixup and an entropy
    regulariser: the selection is made once, before training, by predictors that saw other
    labels. Its code falls back on scaled entropies where a mode of the mixture leaves [0, 1].

    Args:
        pred_probs: averaged predictions q, shape (N, k).
        given_labels: y, shape (N,).
        threshold: in nats; the paper's is log 2.
        target: "label" for the above; "prediction" for :math:`(1 - v)\, q + v\, u` with u uniform,
            and one-hot labels where they are believed, which was all that this did before.

    Returns:
        The selection; all are kept.

    Source: :cite:t:`albert2022addressing`, and the authors' code for the constants.
    """
    entropy = DSOS.score(Evidence(pred_probs, given_labels=given_labels))
    num_classes = pred_probs.shape[1]
    believed = entropy < threshold
    outside = np.zeros(len(entropy))
    outside[~believed] = upper_component(entropy[~believed])
    if target == "prediction":
        softened = (1 - outside)[:, None] * pred_probs + (outside / num_classes)[:, None]
        targets = np.where(believed[:, None], np.eye(num_classes)[given_labels], softened)
    else:
        replaced = ~believed & (1 - outside > SURELY_INSIDE)
        labels = np.where(replaced, pred_probs.argmax(axis=1), given_labels)
        believed = ~replaced
        scaled = (1 - outside)[:, None] * np.eye(num_classes)[labels] / TEMPERATURE
        targets = softmax(scaled, axis=1)
    return Selection(targets, np.ones(len(targets), dtype=bool), believed)


def select_by_confident_learning(
    pred_probs: np.ndarray, given_labels: np.ndarray, filter_by: str = "prune_by_noise_rate"
) -> Selection:
    """Leave out what cleanlab calls a label issue.

    Args:
        pred_probs: of instances that the predictor did not learn from, shape (N, k).
        given_labels: shape (N,).
        filter_by: rule of ``cleanlab.filter.find_label_issues``.

    Returns:
        The selection: one-hot targets of the given labels, without the issues.

    Raises:
        ModuleNotFoundError: without the extra ``benchmark``.

    Source: :cite:t:`northcutt2021confident`.
    """
    issues = import_extra("cleanlab.filter").find_label_issues(
        given_labels, np.clip(pred_probs, 0, 1), filter_by=filter_by, n_jobs=1
    )
    return Selection(np.eye(pred_probs.shape[1])[given_labels], ~issues, ~issues)


def upper_component(values: np.ndarray) -> np.ndarray:
    """Posterior of the upper of two Beta distributions that are fitted to values.

    Expectation maximisation, with moments for the maximisation. Values are first scaled so that
    they run from 0 to 1.

    Args:
        values: shape (N,).

    Returns:
        Shape (N,), in [0, 1]; 0 where there are fewer than two different values.

    Source: as :cite:t:`albert2022addressing` have it from earlier work on the loss.
    """
    if len(values) == 0 or np.ptp(values) == 0:
        return np.zeros(len(values))
    scaled = np.clip((values - values.min()) / np.ptp(values), INSIDE, 1 - INSIDE)
    posterior = np.where(scaled > np.median(scaled), 0.95, 0.05)
    for _ in range(MIXTURE_STEPS):
        components = [_Beta.of(scaled, weights) for weights in (1 - posterior, posterior)]
        posterior = _posterior(components, scaled)
    # Beyond the means, a wide component would win again what a narrow one lies nearer to.
    low, high = sorted(component.mean for component in components)
    return _posterior(components, np.clip(scaled, low, high))


@dataclass(frozen=True)
class _Beta:
    """A Beta distribution and its weight in a mixture."""

    mean: float
    concentration: float
    weight: float

    @staticmethod
    def of(values: np.ndarray, weights: np.ndarray) -> _Beta:
        """With the weighted mean and variance of the values."""
        total = max(weights.sum(), TINY)
        mean = float(np.clip(weights @ values / total, INSIDE, 1 - INSIDE))
        variance = max(float(weights @ np.square(values - mean) / total), INSIDE**2)
        return _Beta(mean, max(mean * (1 - mean) / variance - 1, INSIDE), total / len(values))

    def density(self, values: np.ndarray) -> np.ndarray:
        a, b = self.mean * self.concentration, (1 - self.mean) * self.concentration
        return self.weight * beta_distribution.pdf(values, a, b)


def _posterior(components: list[_Beta], values: np.ndarray) -> np.ndarray:
    lower, upper = (component.density(values) for component in components)
    return upper / np.maximum(lower + upper, TINY)


# -- the methods -----------------------------------------------------------------------------------


def confident(work: Groundwork, settings: Settings) -> Lesson:
    """Without the labels that confident learning calls wrong."""
    labels = work.dataset.noisy.labels.numpy()
    probs = work.held_out_probs()
    return _selected(work, select_by_confident_learning(probs, labels, settings["filter_by"]))


def jo_src(work: Groundwork, settings: Settings) -> Lesson:
    """Labels, predictions or the uniform vector, as Jo-SRC selects."""
    labels = work.dataset.noisy.labels.numpy()
    return _selected(work, select_by_jo_src(work.views(), labels, settings["tau_clean"]))


def dsos(work: Groundwork, settings: Settings) -> Lesson:
    """Labels, some replaced, softened by degrees, as DSOS does."""
    labels = work.dataset.noisy.labels.numpy()
    chosen = settings["threshold"], settings["target"]
    return _selected(work, select_by_dsos(work.noisy_probs(), labels, *chosen))


def relabelled_by_neighbors(work: Groundwork, settings: Settings) -> Lesson:
    """Labels that most of the nearest neighbours have."""
    dataset = work.dataset
    labels = torch.cat([dataset.clean.labels, dataset.noisy.labels]).numpy()
    weights = np.ones(len(labels))
    weights[: len(dataset.clean)] = settings["clean_weight"]
    given = dataset.noisy.labels.numpy()
    near = work.neighbors(min(settings["neighbors"], len(labels) - 1))
    voted = neighbor_labels(near, labels, weights, given, dataset.num_classes)
    targets = np.eye(dataset.num_classes)[voted]
    return _selected(work, Selection(targets, np.ones(len(voted), dtype=bool), voted == given))


def _selected(work: Groundwork, selection: Selection) -> Lesson:
    noisy = with_targets(work.setup.as_given, selection.targets)
    kept = noisy.take(np.flatnonzero(selection.is_kept))
    return Lesson(work.setup.clean + kept, facts=selection.facts())


METHODS = (
    Method(
        "confident learning",
        "selection",
        "northcutt2021confident",
        {"filter_by": FILTERS[0]},
        {"filter_by": FILTERS[:2], **TWO_RATES},
        confident,
        card=Card(
            "$-\\log p_y$ on labels that aren't pruned",
            "weighs each class by how much of it was pruned",
        ),
        checks={"filter_by": choice(*FILTERS)},
    ),
    Method(
        "Jo-SRC selection",
        "selection",
        "yao2021josrc",
        {"tau_clean": 0.75},
        {"tau_clean": (0.75, 0.5), **TWO_RATES},
        jo_src,
        card=Card(
            r"$t = e_y$ if $1 - JS(q, y) \ge \tau$, else $q$, or $u$ if two views disagree",
            "selects batch by batch with two augmentations; adds a consistency loss",
        ),
        checks={"tau_clean": number(lambda x: 0 <= x <= 1, "a likelihood between 0 and 1")},
    ),
    Method(
        "DSOS selection",
        "selection",
        "albert2022addressing",
        {"threshold": math.log(2), "target": "label"},
        {"threshold": (math.log(2), 0.5), **TWO_RATES},
        dsos,
        card=Card(
            r"$t = \sigma((1-v)\,e_y/.05)$, $y$ replaced by $c$ if $v < .1$",
            "selects anew after each epoch; adds mixup and an entropy term",
        ),
        checks={
            "target": choice("label", "prediction"),
            "threshold": number(
                lambda x: 0 <= x <= math.log(4), "a collision entropy in nats, 0 to log 4"
            ),
        },
    ),
    Method(
        "kNN relabelling",
        "targets",
        "koplowitz1981relation",
        {"neighbors": 20, "clean_weight": 5.0},
        {"neighbors": (20, 50), **TWO_RATES},
        relabelled_by_neighbors,
        card=Card(
            r"$-\log p_c$, $c$ the label that most of $K$ neighbours have",
            "leaves out those without a majority; no neighbour has more than one vote",
        ),
        checks={
            "neighbors": number(lambda x: x >= 1 and x == int(x), "how many, at least 1"),
            "clean_weight": number(
                lambda x: 0 <= x < math.inf, "the votes of a verified neighbour"
            ),
        },
    ),
)
