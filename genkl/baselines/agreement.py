"""Methods that believe whom others agree with: WANN, SSR, CUFIT, and DivideMix's core."""

from __future__ import annotations

import numpy as np
from sklearn.mixture import GaussianMixture

from genkl.baselines.groundwork import Groundwork
from genkl.baselines.method import (
    TWO_RATES,
    Card,
    Method,
    Settings,
    everything,
    number,
    with_targets,
)
from genkl.baselines.neighbors import nearest_neighbors
from genkl.baselines.selection import Selection
from genkl.learn import Lesson

SMALLEST, LARGEST = 11, 51
"""Neighbours that WANN tries, every odd number."""

MIXUP, SHARPNESS = 4.0, 2.0
"""Of SSR and DivideMix; the sharpness is one over DivideMix's temperature."""


def reliable_sizes(
    neighbors: np.ndarray, labels: np.ndarray, smallest: int = SMALLEST, largest: int = LARGEST
) -> np.ndarray:
    """The fewest neighbours, an odd number, most of which agree with an instance's own label.

    Args:
        neighbors: of all N instances, the nearest first, shape (N, at least largest).
        labels: shape (N,); a tie goes to the lowest class.
        smallest, largest: tried from the one on; whoever is agreed with by none gets the other.

    Returns:
        Shape (N,); one over it is the instance's reliability.

    Source: :cite:t:`disalvo2025embedding`, algorithm 1 there.
    """
    sizes = np.full(len(labels), largest)
    votes = np.zeros((len(labels), labels.max() + 1), np.int64)
    rows, counted = np.arange(len(labels)), 0
    for size in range(smallest, largest, 2):
        np.add.at(votes, (rows[:, None], labels[neighbors[:, counted:size]]), 1)
        counted = size
        sizes[(sizes == largest) & (votes.argmax(axis=1) == labels)] = size
    return sizes


def reliable_votes(
    neighbors: np.ndarray, labels: np.ndarray, sizes: np.ndarray, num_classes: int
) -> np.ndarray:
    """Votes of so many neighbours as the nearest one needs, each by its reliability.

    Args:
        neighbors: rows of the labels, the nearest first, shape (Q, at least the largest size).
        labels: of the instances that vote, shape (N,).
        sizes: of `reliable_sizes`, shape (N,).
        num_classes: k.

    Returns:
        Shares, shape (Q, k).

    Source: :cite:t:`disalvo2025embedding`, algorithm 2 there.
    """
    votes = np.zeros((len(neighbors), num_classes))
    asked = np.arange(neighbors.shape[1]) < sizes[neighbors[:, :1]]
    rows = np.arange(len(neighbors))[:, None]
    np.add.at(votes, (rows, labels[neighbors]), asked / sizes[neighbors])
    return votes / votes.sum(axis=1, keepdims=True)


def select_by_ssr(
    pred_probs: np.ndarray,
    given_labels: np.ndarray,
    verified: np.ndarray,
    neighbors: np.ndarray,
    threshold: float = 0.9,
) -> Selection:
    """Relabel whom the predictor is sure of, and keep whose label no class outvotes.

    Args:
        pred_probs: of the N noisy instances, shape (N, k).
        given_labels: theirs, shape (N,).
        verified: labels of the m instances that stand before them, shape (m,).
        neighbors: of the noisy instances among all m + N, without themselves, shape (N, K).
        threshold: a belief above it replaces the given label.

    Returns:
        The selection. Each instance votes for itself, too, and a vote counts one over the number of
        the label's instances.

    Source: :cite:t:`feng2022ssr`.
    """
    num_classes = pred_probs.shape[1]
    sure = pred_probs.max(axis=1) > threshold
    labels = np.where(sure, pred_probs.argmax(axis=1), given_labels)
    every = np.concatenate([verified, labels])
    rows = np.arange(len(labels))
    votes = np.eye(num_classes)[labels]
    np.add.at(votes, (rows[:, None], every[neighbors]), 1.0)
    votes /= np.maximum(np.bincount(every, minlength=num_classes), 1)
    kept = votes[rows, labels] >= votes.max(axis=1)
    return Selection(np.eye(num_classes)[labels], kept, kept & (labels == given_labels))


def low_loss_posterior(losses: np.ndarray, seed: int = 0) -> np.ndarray:
    """Chance of each loss to belong to the lower of two Gaussians; shape (N,).

    Source: :cite:t:`li2020dividemix`, with the settings of its repository.
    """
    scaled = (losses - losses.min()) / max(np.ptp(losses), 1e-12)
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed)
    posterior = mixture.fit(scaled[:, None]).predict_proba(scaled[:, None])
    return posterior[:, mixture.means_[:, 0].argmin()]


def refined_targets(
    pred_probs: np.ndarray, given_labels: np.ndarray, is_right: np.ndarray, threshold: float = 0.5
) -> np.ndarray:
    r"""DivideMix's targets: the label, where it is likely right, mixed with the belief; sharpened.

    Args:
        pred_probs: p, mean of two networks, shape (N, k).
        given_labels: y, shape (N,).
        is_right: w, posterior of the label to be right, shape (N,).
        threshold: labels at or below it are not looked at.

    Returns:
        :math:`w e_y + (1 - w) p`, or p, squared and normalised; shape (N, k).

    Source: :cite:t:`li2020dividemix`.
    """
    weight = np.where(is_right > threshold, is_right, 0.0)[:, None]
    mixed = weight * np.eye(pred_probs.shape[1])[given_labels] + (1 - weight) * pred_probs
    sharp = mixed**SHARPNESS
    return sharp / sharp.sum(axis=1, keepdims=True)


# -- the methods -----------------------------------------------------------------------------------


def _lesson(work: Groundwork, selection: Selection, mixup_alpha: float = 0.0) -> Lesson:
    noisy = with_targets(work.setup.as_given, selection.targets)
    kept = noisy.take(np.flatnonzero(selection.is_kept))
    return Lesson(work.setup.clean + kept, mixup_alpha=mixup_alpha, facts=selection.facts())


def wann(work: Groundwork, settings: Settings) -> Lesson:
    """Labels that reliable neighbours vote for."""
    everyone, start = everything(work), len(work.dataset.clean)
    largest = min(settings["largest"], len(everyone) - 1)
    near = nearest_neighbors(everyone.inputs, everyone.inputs, largest)
    labels = everyone.targets.argmax(dim=1).numpy()
    sizes = reliable_sizes(near, labels, largest=largest)
    voted = reliable_votes(near[start:], labels, sizes, work.dataset.num_classes).argmax(axis=1)
    targets, agrees = np.eye(work.dataset.num_classes)[voted], voted == labels[start:]
    return _lesson(work, Selection(targets, np.ones(len(voted), dtype=bool), agrees))


def ssr(work: Groundwork, settings: Settings) -> Lesson:
    """Sure beliefs for labels, then those that neighbours confirm, blended."""
    dataset = work.dataset
    count = len(dataset.clean) + len(dataset.noisy) - 1
    chosen = select_by_ssr(
        work.noisy_probs(),
        dataset.noisy.labels.numpy(),
        dataset.clean.labels.numpy(),
        work.neighbors(min(settings["neighbors"] - 1, count)),
        settings["threshold"],
    )
    return _lesson(work, chosen, MIXUP)


def cufit(work: Groundwork, settings: Settings) -> Lesson:
    """Labels that a linear probe's pupil believes."""
    labels = work.dataset.noisy.labels.numpy()
    agrees = np.ones(len(labels), dtype=bool)
    for name in ("linear-probe", "first-adapter"):
        learned = work.setup.clean + work.setup.as_given.take(np.flatnonzero(agrees))
        models = work._train(settings["models"], learned, name)
        agrees = work.setup.predict(models, work.dataset.noisy).argmax(axis=1) == labels
    targets = np.eye(work.dataset.num_classes)[labels]
    return _lesson(work, Selection(targets, agrees, agrees))


def dividemix(work: Groundwork, settings: Settings) -> Lesson:
    """Labels by the loss of two networks, and their belief for the others, blended."""
    setup, noisy = work.setup, work.dataset.noisy
    labels = noisy.labels.numpy()
    models = work._train(2, everything(work), "warm-up")
    views = np.stack([setup.predict([model], noisy) for model in models])
    losses = -np.log(np.maximum(views[:, np.arange(len(labels)), labels], 1e-12))
    is_right = np.mean(
        [low_loss_posterior(costs, setup.seed_of(0, 0, 4)) for costs in losses], axis=0
    )
    targets = refined_targets(views.mean(axis=0), labels, is_right, settings["threshold"])
    kept = np.ones(len(labels), dtype=bool)
    return _lesson(work, Selection(targets, kept, is_right > settings["threshold"]), MIXUP)


SHARE = number(lambda x: 0 <= x <= 1, "a probability between 0 and 1")
COUNT = number(lambda x: x >= 1 and x == int(x), "how many, at least 1")
METHODS = (
    Method(
        "WANN",
        "targets",
        "disalvo2025embedding",
        {"largest": LARGEST},
        {"largest": (LARGEST, 101), **TWO_RATES},
        wann,
        checks={"largest": number(lambda x: x >= SMALLEST and x % 2 == 1, "an odd number, 11 on")},
        card=Card(
            "the class with most votes of $K$ neighbours, each weighing $1/K_i$; $K_i$: the fewest "
            "of its neighbours (11, 13, ... 51) whose majority has its label; $K$: the nearest's",
            'classifies by this vote ("WANN votes" of the benchmark); by Euclidean distance of '
            "standardised features, here by cosine",
        ),
    ),
    Method(
        "SSR",
        "selection",
        "feng2022ssr",
        {"threshold": 0.9, "neighbors": 200},
        {"threshold": (0.9, 0.7), **TWO_RATES},
        ssr,
        checks={"threshold": SHARE, "neighbors": number(lambda x: x >= 2 and x == int(x), "2 on")},
        card=Card(
            r"$y$, or $c$ where $q_c > \theta$, of whom no class outvotes it among 200 neighbours, "
            "a vote over its class's size; with mixup, Beta(4, 4)",
            "relabels and selects in every epoch, by the network itself; class-balanced batches; "
            "feature consistency",
        ),
    ),
    Method(
        "CUFIT",
        "selection",
        "yu2024cufit",
        {"models": 1},
        {"models": (1, 3), **TWO_RATES},
        cufit,
        checks={"models": COUNT},
        card=Card(
            r"$y$, of whom a first adapter predicts it, which learned those that a linear probe "
            "predicts, which learned all",
            "all three at once, batch by batch; the adapters are layers within a transformer",
        ),
    ),
    Method(
        "DivideMix core",
        "selection",
        "li2020dividemix",
        {"threshold": 0.5},
        {"threshold": (0.5, 0.8), **TWO_RATES},
        dividemix,
        checks={"threshold": SHARE},
        card=Card(
            r"$w e_y + (1 - w) q$ where $w > .5$, else $q$, squared and normalised, with mixup, "
            r"Beta(4, 4); $w$: posterior of the lower of two Gaussians on the losses, $q$ and $w$ "
            "means of two networks after a warm-up on all labels",
            "divides in every epoch, each network for the other; augmentations, a second loss for "
            "those without a label, and a prior",
        ),
    ),
)
