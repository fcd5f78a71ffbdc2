"""Detectors that read features: KNN, Mahalanobis, ViM (fitted on the reference), and SelfClean."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.linalg import cho_factor, solve_triangular
from scipy.spatial.distance import squareform
from scipy.special import logsumexp

from genkl.detectors.evidence import Detector, Evidence, detector
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
        r"""Distance to a neighbour.

        Formula: :math:`1 - \cos(x, x_{(5)})`, the 5th nearest instance of the reference.

        Differs: the source's reference is its whole training set, its neighbour the 50th to the
        1000th, its network trained on the classes; our references are small, our network frozen.
        """
        reference = evidence.reference.features
        return neighbor_distance(evidence.features, reference, min(neighbors, len(reference)))

    return Detector(name, needs=FITTED, rule=rule, source="sun2022knn", family="features")


@detector(
    "Mahalanobis", (*FITTED, "reference.given_labels"), source="lee2018simple", family="features"
)
def mahalanobis(evidence: Evidence) -> np.ndarray:
    r"""Squared distance to the nearest class mean.

    Formula: :math:`\min_c (x - \mu_c)^T \Sigma^{-1} (x - \mu_c)`.

    Differs: the source perturbs the input and sums over layers with weights fitted on outliers;
    here there is one layer, and its covariance is shrunk.

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
    r"""Virtual-logit matching.

    r(x) is what is left of x - u outside the reference's leading principal directions, and
    :math:`\alpha` the ratio of the mean largest logit and the mean length of r over the reference
    (0 where that ratio is negative or undefined; then this is the energy). W and b are those of
    ``reference.head``, :math:`\bar z = W x + b`, and :math:`u = -W^{+} b`: the linear head behind
    the predictions, or the mean of several, whose logits are the averaged ones. Where the
    predictions come from no linear head on these features there is no such score.

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
        r"""A residual, matched to the logits.

        Formula: :math:`\alpha \lVert r(x) \rVert - \log \sum_j e^{\bar z_j}`, r the part of
        :math:`x + W^{+} b` outside the principal directions.

        Differs: principal directions come from the small reference, the source's from its
        training set; so at most half as many are kept as there are instances.
        """
        reference = evidence.reference.features.astype(np.float64)
        count, num_features = reference.shape
        keep = principal_dimensions(count, num_features) if dimensions is None else dimensions
        if keep >= num_features:
            raise ValueError(
                f"dimensions is {keep} and there are {num_features} features; keep fewer, so that "
                "something is left over"
            )
        head = evidence.reference.head.astype(np.float64)
        weights, bias = head[:, :-1], head[:, -1]
        origin = -np.linalg.pinv(weights, rcond=1e-8) @ bias
        _, _, directions = np.linalg.svd(reference - origin, full_matrices=False)
        principal = directions[:keep]

        def left_over(features: np.ndarray) -> np.ndarray:
            centred = features - origin
            return np.linalg.norm(centred - centred @ principal.T @ principal, axis=1)

        length = left_over(reference).mean()
        largest = (reference @ weights.T + bias).max(axis=1).mean()
        alpha = max(0.0, largest / length) if length > 0 else 0.0
        features = evidence.features.astype(np.float64)
        return alpha * left_over(features) - logsumexp(features @ weights.T + bias, axis=1)

    needs = (*FITTED, "reference.head")
    return Detector(name, needs=needs, rule=rule, source="wang2022vim", family="features")


@detector(
    "SelfClean", ("features",), source="groger2024selfclean", family="features", relative=True
)
def off_topic(evidence: Evidence, among: Evidence) -> np.ndarray:
    r"""How early an instance is left behind when clusters are divided, the smaller part first.

    Formula: :math:`1 - \text{place} / N` in the dendrogram of single linkage by cosine distance,
    read from the top, the smaller branch first (of two of one size, either half of the time).

    Differs: the source adds up areas along the same order, so that only the distances of its
    scores are others; it reads a network that learned the images by self-supervision.
    """
    itself = evidence is among
    rows = among.features if itself else np.concatenate([among.features, evidence.features])
    rows = rows.astype(np.float64)
    count = len(rows)
    if count < 2:
        return np.zeros(len(evidence))
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    distance = np.maximum(1 - rows @ rows.T, 0)
    merged = linkage(squareform(distance, checks=False), "single")
    sizes, place = np.append(np.ones(count), merged[:, 3]), np.zeros(2 * count - 1)
    for node in range(2 * count - 2, count - 1, -1):
        branches = merged[node - count, :2].astype(int)
        others = sizes[branches[::-1]]  # come first if they are fewer, half of the time if as many
        place[branches] = place[node] + others * (1 + np.sign(sizes[branches] - others)) / 2
    return 1 - place[0 if itself else len(among) : count] / count


FEATURE_DETECTORS = (knn_detector(), mahalanobis, vim_detector(), off_topic)
