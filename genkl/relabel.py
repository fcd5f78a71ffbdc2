"""Relabelling: a target vector and a role for each instance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from genkl.checks import Array, as_arrays, as_float64, check_labels, check_probabilities, to_numpy
from genkl.posterior import estimate_transition, posterior_targets
from genkl.published import Published, check_published

PUBLISHED_RELABELLING = (
    Published.NC_KEEPS_PREDICTION | Published.RATIO_OVER_ROW | Published.MIXUP_KEEPS_OWN_RATIO
)
"""The switches that `relabel_instances` implements."""


class Role(IntEnum):
    """How an instance enters the loss. The values index the three terms."""

    CLEAN = 0
    NON_NC = 1
    NC = 2


@dataclass(frozen=True)
class Relabelled:
    """Targets and roles of N instances.

    Attributes:
        targets: shape (N, k); one-hot for CLEAN, double-hot for NON_NC, uniform for NC.
        roles: shape (N,), integers, see `Role`.
        kept_part: the part of each target that stays with its row when mixup lends the target to
            another row, shape (N, k); None where the whole target is lent. See
            `Published.MIXUP_KEEPS_OWN_RATIO`.
    """

    targets: Array
    roles: Array
    kept_part: Array | None = None


def reverse_class_ratio(class_counts: Array) -> Array:
    r"""Normalised reverse class ratio :math:`w_i = (1/n_i) / \sum_l (1/n_l)`.

    Rare classes weigh more.

    Args:
        class_counts: number of instances n_i of each class, shape (k,), each greater than 0.

    Returns:
        Shape (k,), float64, sums to 1; the same kind of array as class_counts.

    Raises:
        ValueError: an empty class (its weight would be infinite), a count that is negative or not
            finite, fewer than 2 classes.

    Source: relabelling in arXiv 2307.09810, equation :eq:`eq-class-ratio`.

    Example:
        >>> import numpy as np
        >>> reverse_class_ratio(np.array([10, 40])).tolist()
        [0.8, 0.2]
    """
    xp, (class_counts,) = as_arrays(class_counts)
    if class_counts.ndim != 1 or class_counts.shape[0] < 2:
        raise ValueError(
            f"class_counts has shape {tuple(class_counts.shape)}; expected (k,) with k >= 2"
        )
    counts = as_float64(xp, class_counts)
    bad = ~(xp.isfinite(counts) & (counts > 0))
    if bool(xp.any(bad)):
        index = int(xp.argmax(xp.astype(bad, xp.uint8)))
        raise ValueError(
            f"class_counts[{index}] is {float(counts[index]):g}; every class needs at least one "
            "instance: drop or merge the class, or count over a larger part of the data"
        )
    inverse = 1 / counts
    return inverse / xp.sum(inverse)


def double_hot(pred_probs: Array, given_labels: Array, class_ratio: Array) -> Array:
    r"""Double-hot targets :math:`w_y e_y + m e_c`.

    Here :math:`c = \arg\max_j q_j` and :math:`m = q_c`: the given label y gets its reverse class
    ratio, the predicted class c its probability; where they agree the two add up. The vector is
    not normalised: only the mass it puts under the network's softmax matters to the loss (see
    `double_hot_loss`).

    Args:
        pred_probs: averaged predictions q, shape (N, k).
        given_labels: y, integers in 0..k-1, shape (N,).
        class_ratio: w, shape (k,); see `reverse_class_ratio`.

    Returns:
        Shape (N, k), float64; the same kind of array as pred_probs.

    Raises:
        ValueError: pred_probs not probability vectors, labels out of range, class_ratio of
            another shape.

    Source: relabelling in arXiv 2307.09810, equation :eq:`eq-double-hot`.

    Example:
        >>> import numpy as np
        >>> double_hot(np.array([[0.1, 0.7, 0.2]]), np.array([2]), np.array([0.2, 0.3, 0.5]))
        array([[0. , 0.7, 0.5]])
    """
    xp, (pred_probs, given_labels, class_ratio) = as_arrays(pred_probs, given_labels, class_ratio)
    check_probabilities("pred_probs", pred_probs, ndim=2)
    num_rows, num_classes = pred_probs.shape
    check_labels("given_labels", given_labels, num_classes, num_rows)
    if tuple(class_ratio.shape) != (num_classes,):
        raise ValueError(
            f"class_ratio has shape {tuple(class_ratio.shape)}; expected ({num_classes},), one "
            "weight per class (a column of weights would be broadcast over the wrong axis)"
        )
    probs = as_float64(xp, pred_probs)
    classes = xp.arange(num_classes, device=probs.device)
    given = classes[None, :] == given_labels[:, None]
    predicted = classes[None, :] == xp.argmax(probs, axis=1)[:, None]
    zeros = xp.zeros_like(probs)
    prior = xp.where(given, as_float64(xp, class_ratio)[None, :], zeros)
    return prior + xp.where(predicted, probs, zeros)


def uniform_targets(pred_probs: Array) -> Array:
    """The uniform vector 1/k for every row of pred_probs; shape (N, k), float64, same kind."""
    xp, (pred_probs,) = as_arrays(pred_probs)
    probs = as_float64(xp, pred_probs)
    return xp.full_like(probs, 1 / probs.shape[1])


def relabel_instances(
    pred_probs: Array,
    given_labels: Array,
    is_nc: Array,
    class_ratio: Array,
    *,
    published_behaviour: Published = Published.NONE,
) -> Relabelled:
    """Give each noisy instance its target and role: uniform if NC, double-hot otherwise.

    Args:
        pred_probs: averaged predictions, shape (N, k).
        given_labels: integers in 0..k-1, shape (N,).
        is_nc: boolean mask, shape (N,); see `identify_nc`. All or none of it may be True.
        class_ratio: shape (k,); see `reverse_class_ratio`.
        published_behaviour: of `PUBLISHED_RELABELLING`, what to do as the published scripts do:
            leave an NC instance its averaged prediction, spread w_y over the whole row, keep the
            given label's part where it is in mixup.

    Returns:
        Targets (N, k) and roles (N,), the same kind of arrays as pred_probs.

    Raises:
        ValueError: as `double_hot`, for a mask of another shape, and for published behaviour
            that has nothing to do with relabelling.
        TypeError: for a mask that is not boolean.

    Source: relabelling in arXiv 2307.09810, equations :eq:`eq-double-hot` and
    :eq:`eq-uniform-target`.
    """
    check_published("relabel_instances", published_behaviour, PUBLISHED_RELABELLING)
    hot = double_hot(pred_probs, given_labels, class_ratio)
    xp, (hot, is_nc, pred_probs) = as_arrays(hot, is_nc, pred_probs)
    if tuple(is_nc.shape) != (hot.shape[0],):
        raise ValueError(f"is_nc has shape {tuple(is_nc.shape)}; expected ({hot.shape[0]},)")
    if not xp.isdtype(is_nc.dtype, "bool"):
        raise TypeError(f"is_nc has dtype {is_nc.dtype}; expected a boolean mask")
    nc_targets, kept_part = uniform_targets(hot), None
    if published_behaviour:
        nothing = xp.zeros_like(hot)
        predicted_part = double_hot(pred_probs, given_labels, xp.sum(nothing, axis=0))
        given_part = hot - predicted_part
        if Published.NC_KEEPS_PREDICTION in published_behaviour:
            nc_targets = as_float64(xp, pred_probs)
        if Published.RATIO_OVER_ROW in published_behaviour:
            given_part = nothing + xp.sum(given_part, axis=1, keepdims=True)
            hot = given_part + predicted_part
        if Published.MIXUP_KEEPS_OWN_RATIO in published_behaviour:
            kept_part = xp.where(is_nc[:, None], nothing, given_part)
    targets = xp.where(is_nc[:, None], nc_targets, hot)
    roles = xp.zeros(hot.shape[0], dtype=xp.int64, device=hot.device) + int(Role.NON_NC)
    roles = xp.where(is_nc, xp.full_like(roles, int(Role.NC)), roles)
    return Relabelled(targets, roles, kept_part)


def verified(labels: Array, num_classes: int) -> Relabelled:
    """One-hot targets and the role CLEAN for verified labels; shapes (N, k) and (N,).

    Raises:
        ValueError: labels out of range.
    """
    xp, (labels,) = as_arrays(labels)
    check_labels("labels", labels, num_classes)
    classes = xp.arange(num_classes, device=labels.device)
    targets = xp.astype(classes[None, :] == labels[:, None], xp.float64)
    return Relabelled(targets, xp.full_like(xp.astype(labels, xp.int64), int(Role.CLEAN)))


def relabel_by_posterior(
    pred_probs: Array, given_labels: Array, is_nc: Array, class_ratio: Array
) -> Relabelled:
    """`posterior_targets` in place of double-hot ones: a ``relabel`` of `genkl.run_genkl`.

    The averaged prediction is the only voice, T is estimated from it, and what is flagged conforms
    to none of the classes for certain: its target is uniform, as the paper has it.

    Args:
        pred_probs, given_labels, is_nc, class_ratio: see `genkl.relabel_instances`.

    Returns:
        Targets (N, k) and roles (N,).

    Raises:
        ValueError: as `class_posterior`.
    """
    nones = to_numpy(is_nc).astype(np.float64)
    transition = estimate_transition(pred_probs, given_labels, nones)
    targets = posterior_targets(pred_probs, given_labels, transition, nones, class_ratio)
    return Relabelled(targets, np.where(to_numpy(is_nc), Role.NC, Role.NON_NC).astype(np.int64))
