"""Combination of scores by a cross-fitted logistic regression, which is shown the truth."""

from __future__ import annotations

import numpy as np

from genkl.checks import to_numpy


def combination(
    scores: np.ndarray,
    is_nc: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    folds: int = 5,
    strength: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """Out-of-fold scores of a logistic regression on several detectors' scores.

    This is no detector: it learns from the truth how to weigh the scores. It answers whether one
    detector knows something that another doesn't: if D added nothing to entropy, the combination
    of both would rank no better than that of entropy alone, passed through here as well (not than
    the raw score: folds get slightly different regressions, which costs a little).

    Each score is first replaced by its rank, scaled to (0, 1), ties averaged; that is monotone, so
    a single detector's order is kept within a fold, and looks at no truth. Every instance is
    scored by a regression that saw neither it nor its group.

    Args:
        scores: shape (N, detectors), or (N,) for one.
        is_nc: whether each is non-conforming, boolean, shape (N,); leave out instances of which
            nobody knows.
        groups: instances with the same entry, such as images of one sender, stay in one fold;
            shape (N,).
        folds: at least 2; no more than there are instances (or groups) on either side.
        strength: inverse of the penalty on the weights.
        seed: of the division into folds.

    Returns:
        Shape (N,), float64, estimated probabilities of being non-conforming.

    Raises:
        ValueError: shapes that don't fit, NaN, too few instances or groups of a kind, or folds
            that end up with one kind only.
    """
    from scipy.stats import rankdata
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    scores, is_nc = to_numpy(scores), to_numpy(is_nc).astype(bool)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if scores.ndim != 2 or is_nc.shape != scores.shape[:1]:
        raise ValueError(
            f"scores has shape {scores.shape} and is_nc {is_nc.shape}; pass (N, detectors) and (N,)"
        )
    if np.isnan(scores).any():
        raise ValueError("scores contains NaN; leave out detectors that can't score everything")
    if folds < 2:
        raise ValueError(f"folds is {folds}; cross-fitting needs at least 2")
    units = np.arange(len(is_nc)) if groups is None else to_numpy(groups)
    if units.shape != is_nc.shape:
        raise ValueError(f"groups has shape {units.shape}; pass one for each of {is_nc.shape}")
    fewest = min(len(np.unique(units[is_nc])), len(np.unique(units[~is_nc])))
    if fewest < folds:
        raise ValueError(
            f"folds is {folds}, and there are instances of only {fewest} "
            f"{'rows' if groups is None else 'groups'} on one side; ask for fewer folds"
        )
    ranks = (rankdata(scores, axis=0) - 0.5) / len(scores)
    division = StratifiedKFold if groups is None else StratifiedGroupKFold
    parts = division(folds, shuffle=True, random_state=seed).split(
        ranks, is_nc, None if groups is None else units
    )
    mixed = np.empty(len(ranks))
    for fitted, held_out in parts:
        if is_nc[fitted].all() or not is_nc[fitted].any():
            raise ValueError("a fold leaves one kind only to learn from; ask for fewer folds")
        scaler = StandardScaler().fit(ranks[fitted])
        model = LogisticRegression(C=strength).fit(scaler.transform(ranks[fitted]), is_nc[fitted])
        mixed[held_out] = model.predict_proba(scaler.transform(ranks[held_out]))[:, 1]
    return mixed
