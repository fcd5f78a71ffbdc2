"""The published formulation, written from its formula: what `genkl.identify_nc` is held against.

Vectors, predictions and classes span an (n, N, k) array in double precision, as section "speed" of
the book says. The test of the package compares votes with it bit for bit; the benchmark compares
time and memory.
"""

from __future__ import annotations

import numpy as np


def divergences(
    pred_probs: np.ndarray, alpha: float, beta: float, uniform_like: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The two sides of D >= 0 in bits: alpha sum p log p, shape (n, 1), and the cross term, (n, N).

    Dominance and logarithms are in the precision of the predictions, as in the scripts.
    """
    tau = 1.0 / pred_probs.shape[1] - beta
    left = alpha * np.sum(uniform_like * np.log2(uniform_like), axis=1)
    kept = pred_probs.copy()
    kept[kept < tau] = 0
    with np.errstate(divide="ignore"):
        logs = np.log2(kept)
    logs[np.isneginf(logs)] = 0
    return left[:, None], np.sum(uniform_like[:, None, :] * logs, axis=-1)


def identify_nc(
    pred_probs: np.ndarray, alpha: float, beta: float, uniform_like: np.ndarray
) -> np.ndarray:
    """NC where any vector votes D >= 0; shape (N,), boolean."""
    left, right = divergences(pred_probs, alpha, beta, uniform_like)
    return np.any(left >= right, axis=0)
