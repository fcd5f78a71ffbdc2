"""The posterior of an instance's true class, "none" among them, and targets made of it.

The model of a web label: an instance of class c, with probability :math:`q_c`, is given the label
y with probability :math:`T_{cy}`; an instance of none of the classes, with probability :math:`n`,
is given any label, y with probability :math:`r_y`. Double-hot and uniform targets, the class ratio
and the NC vote are special cases, limits or approximations of what follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genkl.checks import Array, aligned, check_labels, check_probabilities, to_numpy

SMALLEST = 1e-12
"""Probabilities below count as this before their logarithm is taken."""


# -- what predictions say of the class -------------------------------------------------------------


def fit_pool(voices: Sequence[Array], labels: Array) -> np.ndarray:
    r"""Exponents of a logarithmic opinion pool, by maximum likelihood.

    The pool of predictions :math:`q^{(v)}` is :math:`\propto \prod_v (q^{(v)}_c)^{a_v}`. With one
    voice :math:`1/a` is the temperature that calibrates it. Several voices with :math:`a_v = 1` are
    those that err independently, given the class; voices that know the same get less.

    Args:
        voices: predictions of each for m held-out instances, shapes (m, k).
        labels: verified labels of those, shape (m,).

    Returns:
        One exponent of at least 0 for each voice.

    Raises:
        ValueError: no voice, predictions that aren't probability vectors, labels out of range.

    Source: temperature :cite:p:`guo2017calibration`; pool :cite:p:`heskes1998selecting`; equation
    :eq:`eq-pool`.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    logs, labels = _logs(voices), to_numpy(labels)
    check_labels("labels", labels, logs.shape[2], logs.shape[1])
    of_label = logs[:, np.arange(len(labels)), labels]

    def surprise(exponents: np.ndarray) -> float:
        pooled = np.tensordot(exponents, logs, 1)
        return (logsumexp(pooled, axis=1) - exponents @ of_label).mean()

    return minimize(surprise, np.ones(len(logs)), bounds=[(0, None)] * len(logs)).x


def pool(voices: Sequence[Array], exponents: Array) -> np.ndarray:
    """Several predictions as one, see `fit_pool`.

    Args:
        voices: shapes (N, k).
        exponents: one for each.

    Returns:
        Shape (N, k), rows sum to 1.

    Raises:
        ValueError: no voice, predictions that aren't probability vectors.
    """
    from scipy.special import softmax

    return softmax(np.tensordot(to_numpy(exponents), _logs(voices), 1), axis=1)


def _logs(voices: Sequence[Array]) -> np.ndarray:
    """Logarithms, shape (V, N, k)."""
    if not len(voices):
        raise ValueError("voices is empty; pass at least one prediction")
    told = np.stack([to_numpy(voice).astype(np.float64) for voice in voices])
    check_probabilities("voices", told)
    return np.log(np.maximum(told, SMALLEST))


def none_probs(scores: Array, conforming_scores: Array) -> np.ndarray:
    r"""The probability that an instance conforms to none of the classes, of its score.

    Held-out conforming scores turn each score into a conformal p-value, which is uniform for an
    instance that conforms. Where p-values are higher than 1/2 all are taken to conform, which
    gives the share :math:`\pi` that does; the density f of all p-values is the decreasing one that
    fits them best. The chance that an instance conforms is then :math:`\pi / f(p)`, at most 1.

    Args:
        scores: the larger the less conforming, shape (N,).
        conforming_scores: of held-out instances known to conform, shape (m,).

    Returns:
        Shape (N,), in [0, 1); never falls as the score grows.

    Raises:
        ValueError: an empty array, or NaN.

    Source: share :cite:p:`storey2002direct`, density :cite:p:`grenander1956theory`, their ratio is
    the local false discovery rate :cite:p:`strimmer2008unified`; equation :eq:`eq-none`.
    """
    from scipy.optimize import isotonic_regression

    scores, known = to_numpy(scores), np.sort(to_numpy(conforming_scores))
    for name, values in {"scores": scores, "conforming_scores": known}.items():
        if values.ndim != 1 or not len(values) or np.isnan(values).any():
            raise ValueError(f"{name} has shape {values.shape}; pass numbers, at least one")
    above = len(known) - np.searchsorted(known, scores)
    p_values = (1 + above) / (1 + len(known))
    found, which, counts = np.unique(p_values, return_inverse=True, return_counts=True)
    widths = np.diff(found, prepend=0)
    heights = counts / len(scores) / widths
    density = isotonic_regression(heights, weights=widths, increasing=False).x
    conforming = min(1, 2 * (1 + (p_values > 0.5).sum()) / len(scores))
    return (1 - np.minimum(1, conforming / density))[which]


# -- what the given label says ---------------------------------------------------------------------


def estimate_transition(
    class_probs: Array, given_labels: Array, nones: Array | None = None, *, steps: int = 31
) -> np.ndarray:
    r"""The matrix T under which the given labels are likeliest, by EM.

    One given label for each class, spread evenly, is added to what is counted. The first step
    counts with `class_probs` (the soft confusion matrix), later ones with the posterior.

    Args:
        class_probs: q, shape (N, k), of models that did not learn the label that they are
            compared with.
        given_labels: y, shape (N,).
        nones: n, shape (N,); None is 0.
        steps: of EM.

    Returns:
        Shape (k, k), rows sum to 1; entry (c, y) is the chance that class c is given the label y.

    Raises:
        ValueError: as `class_posterior`.

    Source: :cite:t:`dawid1979maximum`, with one observer; equation :eq:`eq-transition`.
    """
    belief = to_numpy(class_probs).astype(np.float64)
    given, k = to_numpy(given_labels), belief.shape[-1]
    transition = np.full((k, k), 1 / k)  # says nothing yet
    for _ in range(steps):
        counted = class_posterior(belief, given, transition, nones)[:, :k]
        transition = _normalized(1 / k + counted.T @ np.eye(k)[given])
    return transition


def class_posterior(
    class_probs: Array,
    given_labels: Array,
    transition: Array,
    nones: Array | None = None,
    label_shares: Array | None = None,
) -> np.ndarray:
    r"""What the true class is, after the given label: classes 1 to k, then "none".

    By Bayes' rule :math:`P(c) \propto (1-n)\, q_c\, T_{cy}` and
    :math:`P(\text{none}) \propto n\, r_y`.

    Args:
        class_probs: q, shape (N, k).
        given_labels: y, integers in 0..k-1, shape (N,).
        transition: T, shape (k, k), rows sum to 1; see `estimate_transition`.
        nones: n, shape (N,), in [0, 1]; see `none_probs`. None is 0.
        label_shares: proportional to r, shape (k,), such as the class ratio; None takes the counts
            of the given labels.

    Returns:
        Shape (N, k + 1), rows sum to 1. Where nothing could give the label, the label says nothing.

    Raises:
        ValueError: probabilities that aren't, labels out of range, shapes that don't fit.

    Source: equation :eq:`eq-posterior`.

    Example:
        >>> q, T = np.array([[0.7, 0.3]]), np.array([[0.8, 0.2], [0.2, 0.8]])
        >>> class_posterior(q, np.array([1]), T).round(3).tolist()
        [[0.368, 0.632, 0.0]]
    """
    probs, given = to_numpy(class_probs).astype(np.float64), to_numpy(given_labels)
    transition = to_numpy(transition)
    check_probabilities("class_probs", probs, ndim=2)
    check_probabilities("transition", transition, ndim=2)
    count, k = probs.shape
    check_labels("given_labels", given, k, count)
    if transition.shape != (k, k):
        raise ValueError(f"transition has shape {transition.shape}; expected {(k, k)}")
    none = np.zeros(count) if nones is None else aligned("nones", nones, count, 1)
    shares = np.bincount(given, minlength=k) if label_shares is None else label_shares
    shares = _normalized(aligned("label_shares", shares, k)[None])
    prior = np.column_stack([(1 - none)[:, None] * probs, none])
    joint = prior * np.vstack([transition, shares]).T[given]
    return _normalized(np.where(joint.any(axis=1, keepdims=True), joint, prior))


def _normalized(rows: np.ndarray) -> np.ndarray:
    return rows / rows.sum(axis=1, keepdims=True)


def posterior_targets(*arguments: Array | None, **named: Array | None) -> np.ndarray:
    """The `class_posterior` as targets: what is left for "none" is spread over the classes.

    Args:
        arguments, named: see `class_posterior`.

    Returns:
        Shape (N, k), rows sum to 1.

    Source: equation :eq:`eq-posterior-target`.
    """
    found = class_posterior(*arguments, **named)
    return found[:, :-1] + found[:, -1:] / (found.shape[1] - 1)
