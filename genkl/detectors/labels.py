"""Detectors that hold a prediction against the given label: cleanlab, Jo-SRC, DSOS, DivideMix.

All but Jo-SRC were made to find wrong labels. A mislabelled instance of a known class conforms,
and they can't tell it from one of no class.
"""

from __future__ import annotations

import math
import warnings

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


@detector("given label", needs=LABELLED, source="kuan2022model", family="label")
def given_label(evidence: Evidence) -> np.ndarray:
    """1 less the probability of the given label."""
    return 1 - _of_label(evidence)


# -- cleanlab -----------------------------------------------------------------------------------

CLEANLAB_NAMES = {
    "self_confidence": "cleanlab self-confidence",
    "normalized_margin": "cleanlab margin",
    "confidence_weighted_entropy": "cleanlab weighted entropy",
}
"""Names in tables of cleanlab's methods."""


def cleanlab_detector(method: str) -> Detector:
    """One less a label-quality score of cleanlab.

    ``self_confidence`` is the probability of the given label, so this is the detector "given
    label" once more, through the library. Its threshold and that of ``normalized_margin`` are
    cleanlab's filters ``low_self_confidence`` and ``low_normalized_margin``: they flag the lowest
    scores, as many as confident learning counts label issues. ``confidence_weighted_entropy`` has
    no filter, and no threshold; it is shown predictions with no entry below `CLEANLAB_FLOOR`.

    Args:
        method: "self_confidence", "normalized_margin" or "confidence_weighted_entropy".

    Raises:
        ValueError: another method.
        ModuleNotFoundError: at the first use, without the extra ``benchmark``.

    Source: :cite:t:`kuan2022model`; the count from :cite:t:`northcutt2021confident`.
    """
    check_choice("method", method, CLEANLAB_NAMES)

    def rule(evidence: Evidence) -> np.ndarray:
        rank, probs = import_extra("cleanlab.rank"), _bounded(evidence)
        if method == "confidence_weighted_entropy":
            probs = np.maximum(probs, CLEANLAB_FLOOR)
            probs /= probs.sum(axis=1, keepdims=True)
        return 1 - rank.get_label_quality_scores(
            evidence.given_labels, probs, method=method, adjust_pred_probs=False
        )

    def threshold(evidence: Evidence) -> float:
        count = import_extra("cleanlab.count")
        issues = int(count.num_label_issues(evidence.given_labels, _bounded(evidence)))
        return float(np.sort(rule(evidence))[-issues]) if issues else math.inf

    return Detector(
        CLEANLAB_NAMES[method],
        needs=LABELLED,
        rule=rule,
        source="kuan2022model",
        family="label",
        threshold=None if method == "confidence_weighted_entropy" else threshold,
    )


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
    r"""Collision entropy :math:`-\log \sum_j m_j^2` of :math:`m = \tfrac12 (q + y)`, in nats.

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
    """Posterior of the component with the higher mean, of two that are fitted to the losses.

    The loss is the cross-entropy of the averaged prediction with the given label, scaled so that
    it runs from 0 to 1 over the instances that the mixture is fitted to. (The source has two
    networks that judge for each other.) Equal losses are all scored 0. The posterior of a wide
    component can rise again at the lowest losses, and reaches 1 exactly at high ones.
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


LABEL_DETECTORS = (
    given_label,
    cleanlab_detector("self_confidence"),
    cleanlab_detector("normalized_margin"),
    cleanlab_detector("confidence_weighted_entropy"),
    jo_src_detector(),
    jo_src_detector(soft=True),
    DSOS,
    loss_mixture,
)
