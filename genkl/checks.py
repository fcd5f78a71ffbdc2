"""Checks at the door: every public function states what it was given and what to do instead.

Arrays may be NumPy arrays or torch tensors; the functions here decide which library computes
(`namespace`) and refuse input that would give a wrong number later.
"""

from __future__ import annotations

import math
import numbers
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

    Array: TypeAlias = np.ndarray | torch.Tensor
else:
    Array: TypeAlias = Any

SUM_TOLERANCE = 1e-3
"""How far from 1 a probability vector's sum may be: half-precision softmax outputs pass,
logits and percentages do not."""


class TableError(ValueError):
    """What is wrong with something that has rows, such as an array or a file; worded here alone.

    Attributes:
        argument: what the user calls it, with the path of a file.
        problem: what is wrong with it, as its predicate.
        remedy: what to do.
        row: which, counted from 0 in the whole array or file; None where no single one is meant.
        column: its name; None where it has none, or no single one is meant.
        value: what stands there.
        line: of a text file, counted from 1.
    """

    def __init__(
        self,
        argument: str,
        problem: str,
        remedy: str,
        row: int | None = None,
        column: str | None = None,
        value: Any = None,
        line: int | None = None,
    ) -> None:
        super().__init__(argument, problem, remedy, row, column, value, line)
        self.argument, self.problem, self.remedy = argument, problem, remedy
        self.row, self.column, self.value, self.line = row, column, value, line

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.argument}:{self.line}: {self.problem}; {self.remedy}"
        column = None if self.column is None else f"column {self.column!r}"
        row = None if self.row is None else f"row {self.row}"
        place = ", ".join(filter(None, (column, row)))
        return f"{self.argument} {self.problem}{place and ' in ' + place}; {self.remedy}"


def as_arrays(*arrays: Any) -> tuple[ModuleType, list[Array]]:
    """Bring arrays to one library: torch (on the first tensor's device) if any is a tensor.

    Returns:
        The array-API namespace, and the arrays in their order.
    """
    torch = sys.modules.get("torch")  # where nobody has imported it, nothing is a tensor
    devices = [a.device for a in arrays if torch and isinstance(a, torch.Tensor)]
    if not devices:
        return np, [np.asarray(a) for a in arrays]
    converted = [torch.as_tensor(a, device=devices[0]) for a in arrays]
    return namespace(converted[0]), converted


def namespace(array: Array) -> ModuleType:
    """The array-API functions for an array: NumPy's own, or those for torch."""
    if isinstance(array, np.ndarray):
        return np
    import array_api_compat  # needed for tensors only

    return array_api_compat.array_namespace(array)


def as_own_floats(xp: ModuleType, array: Array) -> Array:
    """The array in its own precision, but at least single; integers become double."""
    if array.dtype in (xp.float32, xp.float64):
        return array
    small = xp.isdtype(array.dtype, "real floating") and array.dtype.itemsize < 4
    return xp.astype(array, xp.float32 if small else xp.float64)


def as_float64(xp: ModuleType, array: Array) -> Array:
    """The array in double precision (gradients, if any, flow through the cast)."""
    return xp.astype(array, xp.float64, copy=False)


def to_numpy(array: Any) -> np.ndarray:
    """The array on the CPU, as a NumPy array, without gradients."""
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


def aligned(name: str, values: Array, count: int, most: float = math.inf) -> np.ndarray:
    """Numbers from 0 to `most` as an array, for each of so many instances or classes."""
    found = to_numpy(values)
    if found.shape != (count,):
        raise ValueError(f"{name} has shape {found.shape}; expected ({count},)")
    if not (np.isfinite(found) & (found >= 0) & (found <= most)).all():
        limits = "at least 0" if most == math.inf else f"between 0 and {most}"
        raise ValueError(f"{name} must be finite and {limits}; the lowest is {found.min()}")
    return found


def check_shape(name: str, probs: Array, *, min_ndim: int = 1, ndim: int | None = None) -> None:
    """Refuse a shape that can't be one of probability vectors along the last axis.

    Raises:
        ValueError: wrong number of axes, or fewer than 2 classes.
    """
    shape = tuple(probs.shape)
    if ndim is not None and len(shape) != ndim:
        raise ValueError(
            f"{name} has shape {shape}; expected {ndim} axes"
            + (" (instances, classes)" if ndim == 2 else "")
        )
    if len(shape) < min_ndim or shape[-1] < 2:
        raise ValueError(
            f"{name} has shape {shape}; the last axis must hold the classes, at least 2 of them"
        )


def check_probabilities(
    name: str, probs: Array, *, min_ndim: int = 1, ndim: int | None = None, first_row: int = 0
) -> None:
    """Refuse anything that is not an array of probability vectors along the last axis.

    Args:
        name: of the argument, for the message.
        probs: shape (..., k).
        min_ndim: least number of axes.
        ndim: exact number of axes.
        first_row: index of the first row given within the array that the user knows.

    Raises:
        ValueError: wrong number of axes, or fewer than 2 classes.
        TableError: NaN, negative entries, or a row whose sum is not 1 within `SUM_TOLERANCE`. It
            names the first bad row.
    """
    xp = namespace(probs)
    check_shape(name, probs, min_ndim=min_ndim, ndim=ndim)
    shape = tuple(probs.shape)
    if math.prod(shape) == 0:
        return
    probs = probs.detach() if hasattr(probs, "detach") else probs
    smallest = float(xp.min(probs))  # NaN anywhere makes this NaN
    sums = xp.sum(as_float64(xp, probs), axis=-1)
    off = xp.abs(sums - 1.0) > SUM_TOLERANCE
    if smallest >= 0 and not bool(xp.any(off)):
        return
    rows = xp.reshape(probs, (-1, shape[-1]))
    if math.isnan(smallest):
        problem, value, bad = "contains NaN", smallest, xp.any(xp.isnan(rows), axis=-1)
        remedy = "find where the model's output became NaN before it was saved"
    elif smallest < 0:
        problem, value = f"contains a negative entry ({smallest:.4g})", smallest
        bad = xp.any(rows < 0, axis=-1)
        remedy = "pass probabilities, not logits: apply softmax first"
    else:
        bad = xp.reshape(off, (-1,))
        value = float(xp.reshape(sums, (-1,))[int(xp.argmax(xp.astype(bad, xp.uint8)))])
        problem = f"sums to {value:.4g}, not to 1,"
        remedy = "divide each row by its sum, or apply softmax to logits"
    row = first_row + int(xp.argmax(xp.astype(bad, xp.uint8)))
    raise TableError(name, problem, remedy, row, value=value)


def check_labels(name: str, labels: Array, num_classes: int, num_rows: int | None = None) -> None:
    """Refuse labels that are not integers in 0..num_classes-1, one per row.

    Raises:
        ValueError: wrong shape, a label out of range (the first one is named).
        TypeError: labels that are not integers.
    """
    xp = namespace(labels)
    shape = tuple(labels.shape)
    if len(shape) != 1 or (num_rows is not None and shape[0] != num_rows):
        expected = f"({num_rows},)" if num_rows is not None else "(N,)"
        raise ValueError(f"{name} has shape {shape}; expected {expected}, one label per instance")
    if not xp.isdtype(labels.dtype, "integral"):
        raise TypeError(
            f"{name} has dtype {labels.dtype}; expected integers in 0..{num_classes - 1}"
        )
    bad = (labels < 0) | (labels >= num_classes)
    if bool(xp.any(bad)):
        row = int(xp.argmax(xp.astype(bad, xp.uint8)))
        raise ValueError(
            f"{name}[{row}] is {int(labels[row])}, outside 0..{num_classes - 1}; "
            "map class names to consecutive integers and drop instances of other classes"
        )


def check_positive(name: str, value: float, remedy: str = "") -> None:
    """Refuse a number that is not finite and greater than 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; it must be a finite number greater than 0" + remedy)


def check_whole(name: str, value: object, least: int, remedy: str = "") -> None:
    """Refuse what is no whole number of at least so many."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} is {value}; it must be a whole number, at least {least}{remedy}")


def check_beta(beta: float, num_classes: int, name: str = "beta") -> None:
    """Refuse a beta outside [0, 1/k), for which there is no truncation threshold tau > 0."""
    if not 0 <= beta < 1 / num_classes:
        raise ValueError(
            f"{name} is {beta}; identification needs 0 <= beta < 1/k = {1 / num_classes:.6g} for "
            f"k = {num_classes} classes, so that tau = 1/k - beta is positive"
        )


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse a value that is not one of the known ones, and list those."""
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices)
        raise ValueError(f"unknown {name} {value!r}; choose one of: {known}")
