"""Choosing alpha: every alpha in one pass, and a diagnosis of what a choice would do."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genkl.checks import Array, check_positive, to_numpy
from genkl.rule.divergence import dominance_threshold
from genkl.rule.evaluation import check_rows
from genkl.rule.identify import flag_above, identify_nc, nc_score

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class AlphaPath:
    """The NC set at every alpha, from one pass over the predictions.

    Attributes:
        scores: critical alpha of each instance, shape (N,), see `nc_score`.
        ordered: the same in ascending order.
    """

    scores: np.ndarray
    ordered: np.ndarray

    def flagged(self, alpha: float | np.ndarray) -> np.ndarray:
        """Share of the instances that is flagged at each alpha; the shape of alpha."""
        count = len(self.ordered)
        return (count - np.searchsorted(self.ordered, alpha, side="left")) / max(1, count)

    def mask(self, alpha: float) -> np.ndarray:
        """The NC set at an alpha, boolean, shape (N,)."""
        return flag_above(self.scores, alpha)

    def alpha_for(self, share: float) -> float:
        """The lowest alpha that flags at most this share of the instances, ties left out.

        Raises:
            ValueError: share outside [0, 1].
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; state a share between 0 and 1")
        spared = len(self.ordered) - int(share * len(self.ordered) + 1e-9)
        if spared == 0:
            return 0.0
        return float(np.nextafter(self.ordered[spared - 1], np.inf))


def alpha_path(
    pred_probs: Array,
    beta: float,
    uniform_like: Array,
    *,
    permutation_invariant: bool = False,
    num_threads: int | None = None,
) -> AlphaPath:
    """Evaluate the rule for every alpha at once.

    Args:
        pred_probs: averaged predictions, shape (N, k).
        beta: in [0, 1/k).
        uniform_like: the vectors P, shape (n, k).
        permutation_invariant: see `nc_score`.
        num_threads: see `nc_score`.

    Returns:
        Scores, and what they say about any alpha.

    Raises:
        ValueError: as `nc_score`.

    Source: equation :eq:`eq-critical-alpha`.

    Example:
        >>> probs = np.array([[0.97, 0.01, 0.01, 0.01], [0.4, 0.3, 0.2, 0.1]])
        >>> alpha_path(probs, 0.05, uniform_like_vectors(4)).flagged(np.array([0.001, 0.5, 0.9]))
        array([1. , 0.5, 0. ])
    """
    options = {"permutation_invariant": permutation_invariant, "num_threads": num_threads}
    scores = to_numpy(nc_score(pred_probs, beta, uniform_like, **options))
    return AlphaPath(scores, np.sort(scores))


@dataclass(frozen=True)
class Diagnosis:
    """What a choice of alpha and beta does to predictions; no label was used.

    Attributes:
        flagged: share of all instances.
        by_class: one row per class, columns ``instances`` (that are predicted as it) and
            ``flagged`` (share of those).
        peaks: quartiles of the largest entry, of flagged and of spared instances.
        dominant_entries: for each number of dominant entries, ``instances`` and ``flagged``.
        nearby: share flagged at alpha 10 % and 5 % lower and higher.
        uniform_is_flagged: whether the exactly uniform prediction would be.
        renaming_agreement: Jaccard overlap of the NC set with those after renaming the classes,
            mean of 5 renamings; 1 for a permutation-invariant rule, NaN where nothing is flagged.
    """

    flagged: float
    by_class: pd.DataFrame
    peaks: pd.DataFrame
    dominant_entries: pd.DataFrame
    nearby: pd.DataFrame
    uniform_is_flagged: bool
    renaming_agreement: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """What deserves a second look, in words."""
        return self.warn()

    def warn(
        self,
        flag_more: str = "see nearby, or alpha='auto'",
        invariant: str = "permutation_invariant=True",
    ) -> tuple[str, ...]:
        """`warnings` in the words of another caller, for what flags more, and for invariance."""
        if self.flagged == 0:
            return (f"nothing is flagged; alpha is above every critical alpha: {flag_more}",)
        classes = self.by_class[(self.by_class["flagged"] > 0.8) & (self.by_class["instances"] > 0)]
        names = ", ".join(str(name) for name in classes.index)
        _, lower, _, higher, _ = self.nearby["flagged"]
        findings = {
            f"{self.flagged:.0%} of all instances are flagged; training on so many uniform targets "
            "flattens the network: raise alpha": self.flagged > 0.5,
            f"over 80 % of the instances predicted as class {names} are flagged": (
                len(classes) > 0 and self.flagged <= 0.8
            ),
            f"alpha stands on a cliff: 5 % lower flags {lower:.2%}, 5 % higher {higher:.2%}": (
                lower > 2 * higher
            ),
            f"renaming the classes keeps only {self.renaming_agreement:.0%} of the NC set; use "
            f"{invariant}": self.renaming_agreement < 0.8,
            "an exactly uniform prediction is not flagged": not self.uniform_is_flagged,
        }
        return tuple(text for text, holds in findings.items() if holds)

    def __str__(self) -> str:
        lines = [
            f"flagged: {self.flagged:.2%}",
            f"agreement after renaming classes: {self.renaming_agreement:.2f}",
            f"uniform prediction flagged: {'yes' if self.uniform_is_flagged else 'no'}",
        ]
        notes = (textwrap.fill(f"! {text}", 72, subsequent_indent="  ") for text in self.warnings)
        return "\n".join([*lines, *notes])


def diagnose(
    pred_probs: Array,
    alpha: float,
    beta: float,
    uniform_like: Array,
    *,
    permutation_invariant: bool = False,
    seed: int = 0,
    scores: Array | None = None,
) -> Diagnosis:
    """Show what alpha and beta would do to these predictions, before anything is trained on it.

    Args:
        pred_probs: averaged predictions, shape (N, k), at least one row.
        alpha: greater than 0; `math.inf` flags nothing.
        beta: in [0, 1/k).
        uniform_like: the vectors P, shape (n, k).
        permutation_invariant: see `nc_score`.
        seed: of the renamings.
        scores: `nc_score` of these predictions, if you have them.

    Returns:
        Shares, tables, and warnings in words.

    Raises:
        ValueError: as `identify_nc`; no predictions.
    """
    import pandas as pd

    num_classes = check_rows(pred_probs)
    if len(pred_probs) == 0:
        raise ValueError("pred_probs has no rows; there is nothing to diagnose")
    if alpha != np.inf:
        check_positive("alpha", alpha)
    probs, vectors = to_numpy(pred_probs), to_numpy(uniform_like)
    options = {"permutation_invariant": permutation_invariant}
    if scores is None:
        path = alpha_path(probs, beta, vectors, **options)
    else:
        path = AlphaPath(to_numpy(scores), np.sort(to_numpy(scores)))
    mask = path.mask(alpha)
    near = alpha * np.array([0.9, 0.95, 1.0, 1.05, 1.1])
    dominant = (probs >= dominance_threshold(num_classes, beta)).sum(axis=1)
    by_class = _shares(probs.argmax(axis=1), mask, "predicted class").reindex(range(num_classes))
    uniform = np.full((1, num_classes), 1 / num_classes)
    return Diagnosis(
        flagged=float(mask.mean()),
        by_class=by_class.assign(instances=by_class["instances"].fillna(0).astype(int)),
        peaks=_quartiles(probs.max(axis=1), mask),
        dominant_entries=_shares(dominant, mask, "dominant"),
        nearby=pd.DataFrame({"alpha": near, "flagged": path.flagged(near)}),
        uniform_is_flagged=bool(
            alpha != np.inf and identify_nc(uniform, alpha, beta, vectors, **options)[0]
        ),
        renaming_agreement=_renaming_agreement(probs, mask, alpha, beta, vectors, options, seed),
    )


def jaccard(mask: np.ndarray, other_mask: np.ndarray) -> float:
    """Overlap of two sets given as masks, intersection over union; NaN if both are empty."""
    union = (mask | other_mask).sum()
    return float((mask & other_mask).sum() / union) if union else float("nan")


def _renaming_agreement(probs, mask, alpha, beta, vectors, options, seed: int) -> float:
    if not mask.any():
        return float("nan")
    rng = np.random.default_rng(seed)
    renamed = (vectors[:, rng.permutation(vectors.shape[1])] for _ in range(5))
    return float(
        np.mean([jaccard(mask, nc_score(probs, beta, p, **options) >= alpha) for p in renamed])
    )


def _shares(values: np.ndarray, mask: np.ndarray, name: str) -> pd.DataFrame:
    """Number of instances that have each value, and the share of them that is flagged."""
    import pandas as pd

    groups = pd.Series(mask).groupby(values)
    return pd.DataFrame({"instances": groups.size(), "flagged": groups.mean()}).rename_axis(name)


def _quartiles(peaks: np.ndarray, mask: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    rows = {
        name: np.quantile(peaks[group], shares) if group.any() else np.full(5, np.nan)
        for name, group in (("flagged", mask), ("spared", ~mask))
    }
    columns = ["lowest", "lower quartile", "median", "upper quartile", "highest"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
