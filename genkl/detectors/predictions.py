"""Detectors that read predictions: divergence, entropy, margin, logits, energy, disagreement."""

from __future__ import annotations

import numpy as np
from scipy.special import entr, softmax

from genkl.checks import check_positive
from genkl.detectors.evidence import Detector, Evidence, detector, import_extra
from genkl.rule.divergence import uniform_like_vectors
from genkl.rule.identify import entropy_score, nc_score

BETA_SHARE = 0.5
"""Default beta as a share of 1/k. The paper's three presets have .42, .75 and .81."""

CLOTHING1M_ALPHA = 1.05
"""The paper's alpha for Clothing1M, on which it measures identification."""


def genkl_detector(
    beta: float | None = None,
    sigma: float = 0.05,
    num_vectors: int = 20,
    seed: int = 0,
    permutation_invariant: bool = False,
    alpha: float | None = None,
    *,
    name: str | None = None,
) -> Detector:
    """The generalized KL divergence: the score is the critical alpha, the threshold alpha.

    Args:
        beta: in [0, 1/k); None for ``0.5/k``, whatever k is.
        sigma: of the uniform-like vectors.
        num_vectors: n.
        seed: of the uniform-like vectors.
        permutation_invariant: see `nc_score`.
        alpha: the threshold; None leaves it to be chosen. Nobody published one for beta 0.5/k:
            `DETECTORS` has 1.05, Clothing1M's, for the sampled rule, and none for the
            permutation-invariant one, whose level is another.
        name: in tables; None for "GenKL" or "GenKL invariant".

    Raises:
        ValueError: alpha not greater than 0; bad settings of the vectors.

    Source: `nc_score`, equations :eq:`eq-critical-alpha` and :eq:`eq-permutation-invariant`.
    """
    if alpha is not None:
        check_positive("alpha", alpha)
    uniform_like_vectors(2, num_vectors, sigma, seed)  # refuses what it can't draw from

    def rule(evidence: Evidence) -> np.ndarray:
        k = evidence.num_classes
        return nc_score(
            evidence.pred_probs,
            BETA_SHARE / k if beta is None else beta,
            uniform_like_vectors(k, num_vectors, sigma, seed),
            permutation_invariant=permutation_invariant,
        )

    return Detector(
        name=name or ("GenKL invariant" if permutation_invariant else "GenKL"),
        needs=("pred_probs",),
        rule=rule,
        source="huang2023genkl",
        family="divergence",
        threshold=alpha,
    )


@detector("entropy", needs=("pred_probs",), source="huang2023genkl", family="softmax")
def entropy(evidence: Evidence) -> np.ndarray:
    """Normalised entropy of the averaged prediction."""
    return entropy_score(evidence.pred_probs)


@detector("max softmax", needs=("pred_probs",), source="hendrycks2017baseline", family="softmax")
def max_softmax(evidence: Evidence) -> np.ndarray:
    """1 less the largest probability."""
    return 1 - evidence.pred_probs.max(axis=1).astype(np.float64)


@detector("margin", needs=("pred_probs",), source="scheffer2001active", family="softmax")
def margin(evidence: Evidence) -> np.ndarray:
    """1 less the distance between the two largest probabilities."""
    largest = np.partition(evidence.pred_probs.astype(np.float64), -2, axis=1)[:, -2:]
    return 1 - (largest[:, 1] - largest[:, 0])


def mean_logits(evidence: Evidence) -> np.ndarray:
    """The M models' logits, averaged; shape (N, k), float64.

    The sources know one network. Of several, logits are averaged first and scored then, so that a
    constant c that a model adds to all its logits moves every score by c/M and no order.
    """
    return evidence.member_logits.astype(np.float64).mean(axis=0)


@detector("max logit", needs=("member_logits",), source="hendrycks2022scaling", family="logits")
def max_logit(evidence: Evidence) -> np.ndarray:
    """Minus the largest of the averaged logits, computed by pytorch-ood."""
    import torch

    ood = import_extra("pytorch_ood.detector")
    return ood.MaxLogit.score(torch.from_numpy(mean_logits(evidence))).numpy()


def energy_detector(temperature: float = 1.0, *, name: str = "energy") -> Detector:
    r"""Energy of the averaged logits, :math:`-T \log \sum_j \exp(\bar z_j / T)`.

    Args:
        temperature: T, greater than 0; the source recommends 1.
        name: in tables.

    Raises:
        ValueError: temperature not greater than 0.

    Source: :cite:t:`liu2020energy`, computed by pytorch-ood.
    """
    check_positive("temperature", temperature)

    def rule(evidence: Evidence) -> np.ndarray:
        import torch

        ood = import_extra("pytorch_ood.detector")
        logits = torch.from_numpy(mean_logits(evidence))
        return ood.EnergyBased.score(logits, t=temperature).numpy()

    return Detector(
        name, needs=("member_logits",), rule=rule, source="liu2020energy", family="logits"
    )


def _members(evidence: Evidence, name: str) -> np.ndarray:
    if len(evidence.member_logits) < 2:
        raise ValueError(
            f"member_logits has shape {evidence.member_logits.shape}; {name} compares models, "
            "pass at least 2"
        )
    return evidence.member_logits.astype(np.float64)


@detector(
    "mutual information", needs=("member_logits",), source="houlsby2011bayesian", family="ensemble"
)
def mutual_information(evidence: Evidence) -> np.ndarray:
    """Entropy of the mean less mean of the entropies, in nats."""
    probs = softmax(_members(evidence, "mutual information"), axis=-1)
    gain = entr(probs.mean(axis=0)).sum(axis=-1) - entr(probs).sum(axis=-1).mean(axis=0)
    return np.maximum(gain, 0)  # negative by rounding only


@detector("disagreement", needs=("member_logits",), source="beluch2018power", family="ensemble")
def disagreement(evidence: Evidence) -> np.ndarray:
    """Share of the models that don't predict what most of them do."""
    logits = _members(evidence, "disagreement")
    votes = logits.argmax(axis=-1)
    counts = (votes[..., None] == np.arange(evidence.num_classes)).sum(axis=0)
    return 1 - counts.max(axis=-1) / len(votes)


PREDICTION_DETECTORS = (
    genkl_detector(alpha=CLOTHING1M_ALPHA),
    genkl_detector(permutation_invariant=True),
    entropy,
    max_softmax,
    margin,
    max_logit,
    energy_detector(),
    mutual_information,
    disagreement,
)
