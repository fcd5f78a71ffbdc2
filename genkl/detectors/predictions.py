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
        r"""Critical alpha.

        Formula: :math:`\max_p \sum_{q_j \ge \tau} p_j \log(1/q_j) / H(p)`,
        :math:`\tau = 1/k - \beta`, over n uniform-like p ("invariant": over every order of each).

        Differs: the source flags where this reaches its alpha, at a beta of its own for each data
        set; here it ranks, at beta 0.5/k. The orders of p are ours.
        """
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
    r"""Normalised entropy of the averaged prediction.

    Formula: :math:`-\sum_j q_j \log q_j / \log k`.

    Differs: nothing; this is the source's foil, which flags near 1.
    """
    return entropy_score(evidence.pred_probs)


@detector("max softmax", needs=("pred_probs",), source="hendrycks2017baseline", family="softmax")
def max_softmax(evidence: Evidence) -> np.ndarray:
    r"""1 less the largest probability.

    Formula: :math:`1 - \max_j q_j`.

    Differs: of several models the source knows nothing; q is their averaged prediction.
    """
    return 1 - evidence.pred_probs.max(axis=1).astype(np.float64)


@detector("margin", needs=("pred_probs",), source="scheffer2001active", family="softmax")
def margin(evidence: Evidence) -> np.ndarray:
    r"""1 less the distance between the two largest probabilities.

    Formula: :math:`1 - (q_{(1)} - q_{(2)})`.

    Differs: the source asks for labels where the margin is small; here it flags.
    """
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
    r"""Minus the largest of the averaged logits, computed by pytorch-ood.

    Formula: :math:`-\max_j \bar z_j`.

    Differs: logits of several models are averaged first.
    """
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
        r"""Energy.

        Formula: :math:`-T \log \sum_j \exp(\bar z_j / T)`, T = 1.

        Differs: logits of several models are averaged first; no fine-tuning on outliers.
        """
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
    r"""Entropy of the mean less mean of the entropies, in nats.

    Formula: :math:`H(\bar q) - \frac1M \sum_m H(q^m)`.

    Differs: the source samples a Gaussian process's posterior to choose what to label; here M
    trained models stand for it.
    """
    probs = softmax(_members(evidence, "mutual information"), axis=-1)
    gain = entr(probs.mean(axis=0)).sum(axis=-1) - entr(probs).sum(axis=-1).mean(axis=0)
    return np.maximum(gain, 0)  # negative by rounding only


@detector("disagreement", needs=("member_logits",), source="beluch2018power", family="ensemble")
def disagreement(evidence: Evidence) -> np.ndarray:
    r"""Share of the models that don't predict what most of them do.

    Formula: :math:`1 - \max_c \#\{m: \arg\max_j q^m_j = c\} / M`.

    Differs: the source chooses what to label by this variation ratio; here it flags.
    """
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
