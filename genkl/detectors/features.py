"""Detectors that read features and are fitted on the reference: KNN, Mahalanobis, ViM."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, solve_triangular
from scipy.special import logsumexp

from genkl.detectors.evidence import Detector, Evidence, detector
from genkl.detectors.predictions import mean_logits
from genkl.rule.neighbors import neighbor_distance

FITTED = ("features", "reference", "reference.features")


def knn_detector(neighbors: int = 5, *, name: str = "KNN") -> Detector:
    """Cosine distance to the so-many-th nearest reference instance.

    The source chooses its threshold so that 95 % of conforming instances pass; that is
    `threshold_for_budget` on `Detector.conforming_scores`, not a threshold of its own.

    Args:
        neighbors: at least 1; a smaller reference is used whole. The source takes 50 for CIFAR-10
            and 1000 for ImageNet, out of references that are far larger than ours.
        name: in tables.

    Raises:
        ValueError: neighbors less than 1.

    Source: :cite:t:`sun2022knn`.
    """
    if neighbors < 1:
        raise ValueError(f"neighbors is {neighbors}; the nearest is 1")

    def rule(evidence: Evidence) -> np.ndarray:
        reference = evidence.reference.features
        return neighbor_distance(evidence.features, reference, min(neighbors, len(reference)))

    return Detector(name, needs=FITTED, rule=rule, source="sun2022knn", family="features")


@detector(
    "Mahalanobis", (*FITTED, "reference.given_labels"), source="lee2018simple", family="features"
)
def mahalanobis(evidence: Evidence) -> np.ndarray:
    r"""Squared distance to the nearest class mean,
    :math:`\min_c (x - \mu_c)^T \Sigma^{-1} (x - \mu_c)`.

    Means and the covariance that all classes share come from the reference and its verified
    labels; classes that it lacks have no mean. The covariance is shrunk towards a multiple of the
    identity by the amount of Ledoit and Wolf, since the reference may hold fewer instances than
    there are features, and no direction's variance is less than a millionth of the average one.
    """
    from sklearn.covariance import ledoit_wolf

    reference = evidence.reference.features.astype(np.float64)
    classes, labels = np.unique(evidence.reference.given_labels, return_inverse=True)
    means = np.stack([reference[labels == c].mean(axis=0) for c in range(len(classes))])
    covariance, _ = ledoit_wolf(reference - means[labels], assume_centered=True)
    average = np.trace(covariance) / len(covariance)
    covariance[np.diag_indices_from(covariance)] += 1e-6 * average if average > 0 else 1.0
    factor, _ = cho_factor(covariance, lower=True)

    def whiten(rows: np.ndarray) -> np.ndarray:
        return solve_triangular(factor, rows.T, lower=True).T

    white, centres = whiten(evidence.features.astype(np.float64)), whiten(means)
    return np.min([np.square(white - centre).sum(axis=1) for centre in centres], axis=0)


def principal_dimensions(count: int, num_features: int) -> int:
    """The source's 1000 of 2048 features or more and 512 of fewer, but at most half of them and
    half of the reference, so that something is left over."""
    published = 1000 if num_features >= 2048 else 512
    return min(published, num_features // 2, count // 2)


def vim_detector(dimensions: int | None = None, *, name: str = "ViM") -> Detector:
    r"""Virtual-logit matching, :math:`\alpha \lVert r(x) \rVert - \log \sum_j e^{\bar z_j}`.

    r(x) is what is left of x - u outside the reference's leading principal directions, and
    :math:`\alpha` the ratio of the mean largest logit and the mean length of r over the reference
    (0 where that ratio is negative or undefined; then this is the energy). Logits are those of
    the models, averaged. The origin :math:`u = -W^{+} b` belongs to a linear head z = Wx + b. We
    have several heads, or networks whose features these aren't: W and b are the least-squares fit
    of the averaged logits on the reference, the one of least norm where the reference is smaller
    than the number of features. For one linear head and a large enough reference that fit is
    exact, and so is this score.

    Args:
        dimensions: principal ones; None for `principal_dimensions`.
        name: in tables.

    Raises:
        ValueError: dimensions less than 0; at the first use, as many as features or more.

    Source: :cite:t:`wang2022vim`.
    """
    if dimensions is not None and dimensions < 0:
        raise ValueError(f"dimensions is {dimensions}; keep 0 or more principal directions")

    def rule(evidence: Evidence) -> np.ndarray:
        reference = evidence.reference.features.astype(np.float64)
        count, num_features = reference.shape
        keep = principal_dimensions(count, num_features) if dimensions is None else dimensions
        if keep >= num_features:
            raise ValueError(
                f"dimensions is {keep} and there are {num_features} features; keep fewer, so that "
                "something is left over"
            )
        logits = mean_logits(evidence.reference)
        origin = _origin(reference, logits)
        _, _, directions = np.linalg.svd(reference - origin, full_matrices=False)
        principal = directions[:keep]

        def left_over(features: np.ndarray) -> np.ndarray:
            centred = features - origin
            return np.linalg.norm(centred - centred @ principal.T @ principal, axis=1)

        length = left_over(reference).mean()
        alpha = max(0.0, logits.max(axis=1).mean() / length) if length > 0 else 0.0
        residual = left_over(evidence.features.astype(np.float64))
        return alpha * residual - logsumexp(mean_logits(evidence), axis=1)

    return Detector(
        name,
        needs=(*FITTED, "member_logits", "reference.member_logits"),
        rule=rule,
        source="wang2022vim",
        family="features",
    )


def _origin(features: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The point nearest to 0 where the fitted head's logits vanish, shape (d,)."""
    centre, level = features.mean(axis=0), logits.mean(axis=0)
    weights = np.linalg.lstsq(features - centre, logits - level, rcond=1e-8)[0].T
    bias = level - weights @ centre
    return -np.linalg.pinv(weights, rcond=1e-8) @ bias


FEATURE_DETECTORS = (knn_detector(), mahalanobis, vim_detector())
