"""Detectors that hold something against the given label: cleanlab, Jo-SRC, DSOS, AUM, SimiFeat.

All but Jo-SRC and DSOS were made to find wrong labels. A mislabelled instance of a known class
conforms, and they can't tell it from one of no class.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy.special import xlogy

from genkl.checks import check_choice
from genkl.detectors.evidence import Detector, Evidence, detector, import_extra

SMALLEST_PROBABILITY = 1e-12
"""Of the given label, for its logarithm: a loss is at most 27.6."""

CLEANLAB_FLOOR = 1e-5
"""Least probability that cleanlab's weighted entropy is shown. Closer to 0 its clipping turns the
score around: a certain prediction of the given label would get the worst quality there is."""

LABELLED = ("pred_probs", "given_labels")


def _of_label(evidence: Evidence) -> np.ndarray:
    rows = np.arange(len(evidence))
    return evidence.pred_probs[rows, evidence.given_labels].astype(np.float64)


def _issues(rule: Callable[..., np.ndarray]) -> Callable[[Evidence], float]:
    """cleanlab's filter: the threshold above which as many are as it counts label issues."""

    def threshold(evidence: Evidence) -> float:
        count = import_extra("cleanlab.count")
        issues = int(count.num_label_issues(evidence.given_labels, _bounded(evidence)))
        return float(np.sort(rule(evidence))[-issues]) if issues else math.inf

    return threshold


def _given_label(evidence: Evidence) -> np.ndarray:
    r"""1 less the probability of the given label, which cleanlab calls self-confidence.

    Formula: :math:`1 - q_y`.

    Differs: nothing; cleanlab computes the same, of models that never saw the instance, as ours
    didn't. Its threshold is cleanlab's filter ``low_self_confidence``.
    """
    return 1 - _of_label(evidence)


given_label = Detector(
    "given label", LABELLED, _given_label, "kuan2022model", "label", _issues(_given_label)
)

# -- cleanlab -----------------------------------------------------------------------------------

CLEANLAB = {
    "self_confidence": ("given label", ""),
    "normalized_margin": (
        "cleanlab margin",
        r"""Formula: :math:`1 - (q_y - \max_{j \ne y} q_j + 1) / 2`.

        Differs: nothing; the threshold is cleanlab's filter ``low_normalized_margin``.""",
    ),
    "confidence_weighted_entropy": (
        "cleanlab weighted entropy",
        r"""Formula: :math:`1 - \log(1 + r) / r`, :math:`r = H(q) / (q_y \log k)`.

        Differs: no probability below .00001 is shown to it; there its clipping turns it around.""",
    ),
}
"""cleanlab's methods: names in tables, and cards."""


def cleanlab_detector(method: str) -> Detector:
    """One less a label-quality score of cleanlab.

    ``self_confidence`` is the probability of the given label, that is, the detector "given label".
    Thresholds are cleanlab's filters: they flag the lowest scores, as many as confident learning
    counts label issues. ``confidence_weighted_entropy`` has no filter, and no threshold; it is
    shown predictions with no entry below `CLEANLAB_FLOOR`.

    Args:
        method: "self_confidence", "normalized_margin" or "confidence_weighted_entropy".

    Raises:
        ValueError: another method.
        ModuleNotFoundError: at the first use, without the extra ``benchmark``.

    Source: :cite:t:`kuan2022model`; the count from :cite:t:`northcutt2021confident`.
    """
    check_choice("method", method, CLEANLAB)
    if method == "self_confidence":
        return given_label
    is_margin, (name, card) = method == "normalized_margin", CLEANLAB[method]

    def rule(evidence: Evidence) -> np.ndarray:
        rank, probs = import_extra("cleanlab.rank"), _bounded(evidence)
        if not is_margin:
            probs = np.maximum(probs, CLEANLAB_FLOOR)
            probs /= probs.sum(axis=1, keepdims=True)
        return 1 - rank.get_label_quality_scores(
            evidence.given_labels, probs, method=method, adjust_pred_probs=False
        )

    rule.__doc__ = card
    threshold = _issues(rule) if is_margin else None
    return Detector(name, LABELLED, rule, "kuan2022model", "label", threshold)


def _bounded(evidence: Evidence) -> np.ndarray:
    """Rounding may lift a probability above 1, which cleanlab refuses."""
    return np.clip(evidence.pred_probs.astype(np.float64), 0, 1)


# -- Jo-SRC -------------------------------------------------------------------------------------


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    r"""Jensen-Shannon divergence :math:`\tfrac12 KL(p\|m) + \tfrac12 KL(q\|m)`,
    :math:`m = \tfrac12 (p + q)`, in bits.

    Args:
        p: probability vectors, shape (N, k).
        q: the same.

    Returns:
        Shape (N,), float64, in [0, 1].
    """
    p, q = p.astype(np.float64), q.astype(np.float64)
    middle = (p + q) / 2
    terms = xlogy(p, p) + xlogy(q, q) - 2 * xlogy(middle, middle)
    return np.clip(terms.sum(axis=1) / (2 * math.log(2)), 0, 1)


def jo_src_detector(
    tau_clean: float = 0.75, *, soft: bool = False, name: str | None = None
) -> Detector:
    r"""Jo-SRC: unclean, and inconsistent between two views.

    With JS from `jensen_shannon`, q the averaged prediction, v that of the second view and y the
    given label as a one-hot vector, an instance is *unclean* where its likelihood of being clean
    :math:`1 - JS(q, y)` is below :math:`\tau`, and *out of distribution* where it is unclean and
    :math:`\arg\max q \ne \arg\max v`. The published rule is a mask; two scores rank as it does:

    - :math:`s = JS(q, y) + [\arg\max q \ne \arg\max v]`. For every :math:`\tau \ge 0`,
      :math:`s > 2 - \tau` is the published mask. All inconsistent instances come first, the least
      clean of them at the top.
    - ``soft``: :math:`s = \sqrt{JS(q, y)\, JS(q, v)}`, both at once, by degrees. It has no
      published threshold.

    Differences from the paper, which trains with its own selections: here q and v are given; y is
    not smoothed (the authors' networks are trained on labels with as little as .3 on the given
    class, ours aren't).

    Args:
        tau_clean: :math:`\tau` in [0, 1]. The authors' settings start from .75 for CIFAR-100 and
            Food-101N and from .9 for Clothing1M, and rise to .95 in the course of training.
        soft: the second score.
        name: in tables; None for "Jo-SRC" or "Jo-SRC soft".

    Raises:
        ValueError: tau_clean outside [0, 1].

    Source: :cite:t:`yao2021josrc`.
    """
    if not 0 <= tau_clean <= 1:
        raise ValueError(f"tau_clean is {tau_clean}; state a likelihood between 0 and 1")

    def rule(evidence: Evidence) -> np.ndarray:
        r"""Unclean, and inconsistent.

        Formula: :math:`JS(q, y) + [\arg\max q \ne \arg\max v]`; soft:
        :math:`\sqrt{JS(q, y)\, JS(q, v)}`.

        Differs: the source judges by its two networks in training, with smoothed labels and a
        threshold that rises; here q and v are given, y is not smoothed. The soft score is ours.
        """
        one_hot = np.eye(evidence.num_classes)[evidence.given_labels]
        unclean = jensen_shannon(evidence.pred_probs, one_hot)
        if soft:
            return np.sqrt(unclean * jensen_shannon(evidence.pred_probs, evidence.view_probs))
        views = evidence.pred_probs.argmax(axis=1), evidence.view_probs.argmax(axis=1)
        return unclean + (views[0] != views[1])

    return Detector(
        name or ("Jo-SRC soft" if soft else "Jo-SRC"),
        needs=(*LABELLED, "view_probs"),
        rule=rule,
        source="yao2021josrc",
        family="label",
        threshold=None if soft else float(np.nextafter(2 - tau_clean, math.inf)),
    )


# -- DSOS ---------------------------------------------------------------------------------------


@detector("DSOS", needs=LABELLED, source="albert2022addressing", family="label")
def DSOS(evidence: Evidence) -> np.ndarray:
    r"""Collision entropy of half prediction, half label, in nats.

    Formula: :math:`-\log \sum_j m_j^2`, :math:`m = \tfrac12 (q + y)`.

    Differs: this is its metric alone. The source fits two Beta distributions to it, changes labels
    where the posterior of a wrong one in distribution exceeds .9, and softens them by degrees.

    0 for a sure prediction of the given label, log 2 for a sure one of another class, up to
    almost log 4 for a prediction spread over many classes. The source calls "noisy" what is at or
    above log 2, wrong labels and OOD alike, then tells those two apart by degrees with a mixture
    of two Beta distributions: it has no threshold for OOD alone.
    """
    middle = evidence.pred_probs / 2.0
    middle[np.arange(len(evidence)), evidence.given_labels] += 0.5
    return -np.log(np.square(middle).sum(axis=1))


# -- DivideMix ----------------------------------------------------------------------------------


def _loss(evidence: Evidence) -> np.ndarray:
    return -np.log(np.maximum(_of_label(evidence), SMALLEST_PROBABILITY))


@detector(
    "GMM on loss", LABELLED, source="li2020dividemix", family="label", threshold=0.5, relative=True
)
def loss_mixture(evidence: Evidence, among: Evidence) -> np.ndarray:
    r"""Posterior of the component with the higher mean, of two that are fitted to the losses.

    Formula: :math:`P(\text{high} \mid -\log q_y)` under two normal distributions.

    Differs: the source has two networks that judge for each other while they train on what is left.

    The loss is the cross-entropy of the averaged prediction with the given label, scaled so that
    it runs from 0 to 1 over the instances that the mixture is fitted to. Equal losses are all
    scored 0. The posterior of a wide component can rise again at the lowest losses, and reaches 1
    exactly at high ones.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    fitted = np.sort(_loss(among))  # sorted, so that the result doesn't depend on the order
    low, high = fitted[0], fitted[-1]
    if not high > low:
        return np.zeros(len(evidence))
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
    with warnings.catch_warnings():  # the source stops after 10 steps, converged or not
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(((fitted - low) / (high - low))[:, None])
    posterior = mixture.predict_proba(((_loss(evidence) - low) / (high - low))[:, None])
    return posterior[:, mixture.means_[:, 0].argmax()]


# -- AUM and SimiFeat ---------------------------------------------------------------------------


@detector(
    "AUM", ("training_logits", "given_labels"), source="pleiss2020identifying", family="label"
)
def average_margin(evidence: Evidence) -> np.ndarray:
    r"""Minus the area under the margin: how far the given label's logit led while it was learned.

    Formula: :math:`-\frac1T \sum_t (z^t_y - \max_{j \ne y} z^t_j)`.

    Differs: logits come from one pass after each epoch, the source's from the batches of the epoch
    themselves; its threshold, from samples under a class that isn't there, is left out.
    """
    logits = evidence.training_logits.astype(np.float64)
    given = np.arange(evidence.num_classes) == evidence.given_labels[:, None]
    rival = np.where(given, -np.inf, logits).max(axis=-1)
    return (rival - np.where(given, logits, -np.inf).max(axis=-1)).mean(axis=0)


VOTERS = 10
"""Nearest instances whose given labels vote, one's own among them."""


@detector(
    "SimiFeat",
    ("features", "given_labels"),
    source="zhu2022detecting",
    family="label",
    relative=True,
)
def neighbor_votes(evidence: Evidence, among: Evidence) -> np.ndarray:
    r"""1 less the cosine between the given label and the votes of the nearest instances.

    Formula: :math:`1 - v_y / \lVert v \rVert_2`, :math:`v_c = \sum_i (1 - d_i) [y_i = c]` over the
    10 nearest by cosine distance d, oneself (at :math:`2 d_1 - d_2`) among them.

    Differs: one pass over the features as they are; the source votes over rounds of augmented
    images, and flags by majority or at a noise rate that it estimates for each class.
    """
    from sklearn.neighbors import NearestNeighbors

    itself = evidence is among
    count = min(VOTERS - 1, len(among) - itself)
    if count < 2:
        return np.zeros(len(evidence))
    search = NearestNeighbors(n_neighbors=count, metric="cosine").fit(among.features)
    distance, rows = search.kneighbors(None if itself else evidence.features)
    own = 1 - (2 * distance[:, 0] - distance[:, 1])
    votes = own[:, None] * np.eye(evidence.num_classes)[evidence.given_labels]
    for nearness, labels in zip((1 - distance).T, among.given_labels[rows].T, strict=True):
        votes[np.arange(len(votes)), labels] += nearness
    length = np.linalg.norm(votes, axis=1)
    return 1 - votes[np.arange(len(votes)), evidence.given_labels] / np.maximum(length, 1e-12)


LABEL_DETECTORS = (
    given_label,
    cleanlab_detector("normalized_margin"),
    cleanlab_detector("confidence_weighted_entropy"),
    jo_src_detector(),
    jo_src_detector(soft=True),
    DSOS,
    loss_mixture,
    average_margin,
    neighbor_votes,
)
