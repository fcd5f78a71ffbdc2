"""Loss correction: transition matrices of labels, and the targets that go with them."""

from __future__ import annotations

import numpy as np

from genkl.baselines.groundwork import Groundwork
from genkl.baselines.method import RATES, Card, Method, Settings, number, with_targets
from genkl.checks import check_labels, check_probabilities
from genkl.learn import Lesson
from genkl.losses import double_hot_loss
from genkl.relabel import Role

PUBLISHED_QUANTILE = 0.97
"""Of Patrini et al. for data sets with few classes; outliers don't become anchors."""


def average_transition(clean_probs: np.ndarray, true_labels: np.ndarray) -> np.ndarray:
    """The transition matrix seen on verified instances: mean predictions of each true class.

    Args:
        clean_probs: predictions of the *given* label for m instances that the predictor did not
            learn from, shape (m, k).
        true_labels: their true classes, shape (m,).

    Returns:
        T, shape (k, k): T[i, j] is the estimated chance that an instance of class i is given the
        label j. Rows sum to 1; a class without an instance has the row of an unconfused one.

    Raises:
        ValueError: predictions that aren't probability vectors, labels out of range.

    Source: :cite:t:`hendrycks2018using`, "gold loss correction".
    """
    check_probabilities("clean_probs", clean_probs, ndim=2)
    num_classes = clean_probs.shape[1]
    check_labels("true_labels", true_labels, num_classes, len(clean_probs))
    transition = np.eye(num_classes)
    for label in np.unique(true_labels):
        transition[label] = clean_probs[true_labels == label].mean(axis=0)
    return transition / transition.sum(axis=1, keepdims=True)


def anchor_transition(pred_probs: np.ndarray, quantile: float = PUBLISHED_QUANTILE) -> np.ndarray:
    """The transition matrix seen where a predictor of given labels is surest.

    Row i is the prediction for the instance whose probability of the label i is at this quantile of
    all: the anchor of class i, taken to be truly of that class.

    Args:
        pred_probs: predictions of the *given* label, shape (N, k).
        quantile: in (0, 1]; 1 takes the surest instance.

    Returns:
        T, shape (k, k), rows sum to 1; see `average_transition`.

    Raises:
        ValueError: predictions that aren't probability vectors.

    Source: :cite:t:`patrini2017making`, equation 12 there.
    """
    check_probabilities("pred_probs", pred_probs, ndim=2)
    reached = np.quantile(pred_probs, quantile, axis=0, method="higher")
    anchors = np.argmin(np.where(pred_probs >= reached, pred_probs, np.inf), axis=0)
    transition = pred_probs[anchors]
    return transition / transition.sum(axis=1, keepdims=True)


def forward_targets(given_labels: np.ndarray, transition: np.ndarray) -> np.ndarray:
    r"""Targets that make `double_hot_loss` the forward-corrected cross-entropy.

    The corrected loss of an instance with the given label y is
    :math:`-\log \sum_j \sigma(z)_j T_{jy}`: minus the logarithm of the mass that the softmax puts
    on column y of T. So it is the loss that GenKL has for double-hot targets, with another target.

    Args:
        given_labels: y, shape (N,).
        transition: T, shape (k, k), see `average_transition`.

    Returns:
        Shape (N, k), float64: for each instance column y of T. With T the identity, one-hot.

    Raises:
        ValueError: a matrix whose rows aren't probability vectors, a label that no class is
            ever given, labels out of range.

    Source: :cite:t:`patrini2017making`, theorem 2 there.
    """
    check_probabilities("transition", transition, ndim=2)
    num_classes = len(transition)
    check_labels("given_labels", given_labels, num_classes)
    used = np.unique(given_labels)
    never = used[transition[:, used].max(axis=0) <= 0]
    if len(never):
        raise ValueError(
            f"transition gives the label {never[0]} to no class, and an instance has it; add a "
            "small probability to that column"
        )
    return transition.T[np.asarray(given_labels)]


def gold_corrected(work: Groundwork, settings: Settings) -> Lesson:
    """Given labels through the matrix that verified instances show; verified ones as they are."""
    labels = work.dataset.clean.labels.numpy()
    return _through(work, average_transition(work.given_label_probs(), labels))


def forward_corrected(work: Groundwork, settings: Settings) -> Lesson:
    """Given labels through the matrix that anchors show; verified ones as they are."""
    return _through(work, anchor_transition(work.held_out_probs(), settings["quantile"]))


def _through(work: Groundwork, transition: np.ndarray) -> Lesson:
    targets = forward_targets(work.dataset.noisy.labels.numpy(), transition)
    examples = work.setup.clean + with_targets(work.setup.as_given, targets)
    facts = {"label kept": float(np.diag(transition).mean())}
    return Lesson(examples, dict.fromkeys(Role, double_hot_loss), facts=facts)


METHODS = (
    Method(
        "gold loss correction",
        "loss",
        "hendrycks2018using",
        card=Card(
            r"$-\log\sum_j p_j T_{jy}$, $T_i$ the mean $q$ of class $i$", "does no fine-tuning"
        ),
        grid=RATES,
        teach=gold_corrected,
        needs_clean=True,
    ),
    Method(
        "forward correction",
        "loss",
        "patrini2017making",
        {"quantile": PUBLISHED_QUANTILE},
        RATES,
        forward_corrected,
        card=Card(
            r"$-\log\sum_j p_j T_{jy}$, $T_i$ the prediction at the anchor of class $i$",
            "seeks anchors among images that were learned; knows no verified labels",
        ),
        checks={"quantile": number(lambda x: 0 < x <= 1, "a quantile in (0, 1]")},
    ),
)
