"""Assessment of instances: conforming or not, label likely wrong or not, by movable thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from genkl.checks import check_beta, check_labels, check_probabilities
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import dominance_threshold, entropy, uniform_like_vectors
from genkl.rule.identify import flag_above, nc_score
from genkl.rule.kinds import looks_ambiguous, nc_evidence
from genkl.rule.neighbors import neighbor_distance

KINDS = ("looks ambiguous", "looks out of distribution", "label likely wrong", "looks fine")
"""What an instance may look like. The first two are the non-conforming ones."""

AMBIGUOUS, OOD, WRONG, FINE = range(len(KINDS))

TOP_CLASSES = 3
NEIGHBORS = 5
TIE = 1e-6
"""Another class that has no more than this more probability is no evidence against a label: single
precision rounds about as much."""
SUSPICIOUS = 0.01
"""Verified images are no fair draw if they would score like this by chance with less."""
MOST_REFERENCES = 5000
"""Instances that distances are measured to; more change little and take time."""


@dataclass(frozen=True)
class Criteria:
    """How instances are judged.

    Attributes:
        alpha: greater than 0. None keeps within the budget: at most ``max_flag_rate`` of the
            conforming instances are flagged; where too few are known to conform, or the verified
            ones score higher than the others (suspects, not a fair draw), that share of all.
        beta: in [0, 1/k); None is 0.5/k.
        sigma: spread of the uniform-like vectors.
        num_vectors: their number.
        seed: of the vectors, and of the sample that distances are measured to.
        permutation_invariant: use every permutation of every vector.
        max_flag_rate: the budget, in (0, 1).
        min_gap: see `Thresholds`, in [0, 1]. None calls as many labels of conforming instances
            wrong as are confidently of another class, see `confidently_wrong`.
        min_top_two_mass: see `Thresholds`, in (0, 1].
        max_distance: see `Thresholds`; None is the median distance of conforming instances.

    Raises:
        ValueError: naming the criterion that is out of range.
    """

    alpha: float | None = None
    beta: float | None = None
    sigma: float = 0.05
    num_vectors: int = 20
    seed: int = 0
    permutation_invariant: bool = False
    max_flag_rate: float = 0.05
    min_gap: float | None = None
    min_top_two_mass: float = 0.9
    max_distance: float | None = None

    def __post_init__(self) -> None:
        gap, distance = self.min_gap, self.max_distance
        if self.alpha is not None and not 0 < self.alpha < math.inf:
            raise ValueError(
                f"alpha is {self.alpha}; state a number greater than 0, or None for the budget"
            )
        if not 0 < self.max_flag_rate < 1:
            raise ValueError(
                f"max_flag_rate is {self.max_flag_rate}; state a share between 0 and 1"
            )
        if gap is not None and not 0 <= gap <= 1:
            raise ValueError(
                f"min_gap is {gap}; it is a difference of probabilities, between 0 and 1"
            )
        if not 0 < self.min_top_two_mass <= 1:
            raise ValueError(
                f"min_top_two_mass is {self.min_top_two_mass}; state a share in (0, 1]"
            )
        if distance is not None and not 0 <= distance <= 2:
            raise ValueError(f"max_distance is {distance}; cosine distances lie between 0 and 2")

    def rule(self, num_classes: int) -> tuple[float, np.ndarray]:
        """Beta and the uniform-like vectors for k classes.

        Raises:
            ValueError: beta, sigma or num_vectors out of range.
        """
        beta = 0.5 / num_classes if self.beta is None else self.beta
        check_beta(beta, num_classes)
        return beta, uniform_like_vectors(num_classes, self.num_vectors, self.sigma, self.seed)


@dataclass(frozen=True)
class Thresholds:
    """Where the kinds part.

    Attributes:
        alpha: an instance is non-conforming if its critical alpha is at least this.
        max_distance: a non-conforming instance is ambiguous if it is this close to conforming ones,
            else out of distribution. None where there are no features; then the next decides.
        min_top_two_mass: ambiguous if two classes hold at least this much of the probability.
        min_gap: the label of a conforming instance is likely wrong if the predicted class has this
            much more probability than the given one.
    """

    alpha: float
    max_distance: float | None = None
    min_top_two_mass: float = 0.9
    min_gap: float = 0.5


@dataclass(frozen=True)
class Assessment:
    """What was found about N instances.

    Attributes:
        table: one row per instance: ``image`` (its name), ``given`` and ``predicted`` (class
            numbers, -1 without a label), ``predicted_prob``, ``given_prob``, ``gap`` (the
            difference; -1 without a label), ``score`` (critical alpha), ``entropy`` (nats),
            ``dominant_entries``, ``top_two_mass``, ``distance`` (if there are features),
            ``verified`` (class number, -1 where nobody looked), ``is_nc`` (verified to be of
            no class), and of a folder ``copy_of``, see `genkl.report.to_frame`.
        class_names: k names.
        thresholds: the ones to begin with.
        top_classes: the most probable classes, shape (N, 3) or fewer columns.
        top_probs: their probabilities.
        facts: how it was made, in words, for the page.
        left_out: names of images that could not be read, with the reason.
    """

    table: pd.DataFrame
    class_names: tuple[str, ...]
    thresholds: Thresholds
    top_classes: np.ndarray
    top_probs: np.ndarray
    facts: dict[str, str]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        """N."""
        return len(self.table)

    def kinds(self, thresholds: Thresholds | None = None) -> np.ndarray:
        """What each instance looks like, as positions in `KINDS`, shape (N,).

        Args:
            thresholds: others than those to begin with.
        """
        at = self.thresholds if thresholds is None else thresholds
        found = np.full(len(self), FINE)
        wrong = (self.table["given"] >= 0) & (self.table["gap"] >= at.min_gap)
        found[wrong & (self.table["predicted"] != self.table["given"])] = WRONG
        flagged = flag_above(self.table["score"].to_numpy(), at.alpha)
        ambiguous = looks_ambiguous(
            self.table, min_top_two_mass=at.min_top_two_mass, max_distance=at.max_distance
        )
        found[flagged] = np.where(ambiguous, AMBIGUOUS, OOD)[flagged]
        return found


def assess(
    pred_probs: np.ndarray,
    given_labels: np.ndarray | None = None,
    *,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    features: np.ndarray | None = None,
    verified_labels: np.ndarray | None = None,
    is_nc: np.ndarray | None = None,
    conforming_probs: np.ndarray | None = None,
    **criteria: Any,
) -> Assessment:
    r"""Say of every instance whether it conforms, and whether its label does.

    Args:
        pred_probs: averaged predictions of models that did not learn from the very label of the
            instance they predict, shape (N, k).
        given_labels: shape (N,), -1 where there is none; None if nothing has one.
        class_names: k names; None takes numbers.
        names: of the instances, N different ones; None takes numbers.
        features: shape (N, d), from whatever sees more than the k classes, to tell ambiguous from
            out of distribution by distance.
        verified_labels: shape (N,), labels that somebody checked, -1 where nobody did.
        is_nc: shape (N,), where somebody looked and no class fits.
        conforming_probs: predictions of other instances that are known to conform, shape (m, k).
            None takes the verified ones.
        **criteria: see `Criteria`: ``alpha``, ``beta``, ``max_flag_rate``, ``min_gap``, ...

    Returns:
        The assessment.

    Raises:
        ValueError: predictions that aren't probability vectors, labels out of range, names that
            repeat, or criteria out of range; the message names the argument.
        TypeError: no such criterion.

    Source: the rule is `nc_score`, the budget `threshold_for_budget`, the kinds of non-conforming
    instances `looks_ambiguous`, the number of wrong labels confident learning
    :cite:p:`northcutt2021confident`. What these are worth is measured in the book: the divergence
    in chapter 13, kinds in chapter 8, acting on them in chapter 16.
    """
    asked, probs = Criteria(**criteria), np.asarray(pred_probs)
    check_probabilities("pred_probs", probs, ndim=2)
    num_classes = probs.shape[1]
    beta, vectors = asked.rule(num_classes)
    table = _known(probs.shape, names, given_labels, verified_labels, is_nc)
    top_classes, top_probs = _describe(table, probs, beta)

    def score_of(predictions: np.ndarray) -> np.ndarray:
        invariant = asked.permutation_invariant
        return nc_score(predictions, beta, vectors, permutation_invariant=invariant)

    table["score"], conforming_scores = score_of(probs), None
    if conforming_probs is not None:
        conforming = np.asarray(conforming_probs)
        check_probabilities("conforming_probs", conforming, ndim=2)
        conforming_scores = score_of(conforming)
    alpha, why_alpha = _alpha(table, conforming_scores, asked)
    max_distance, why_distance = _max_distance(table, features, alpha, asked)
    min_gap, why_gap = _min_gap(table, probs, alpha, asked)
    permuted = ", every permutation of them" if asked.permutation_invariant else ""
    return Assessment(
        table=table,
        class_names=_names("class_names", class_names, num_classes),
        thresholds=Thresholds(alpha, max_distance, asked.min_top_two_mass, min_gap),
        top_classes=top_classes,
        top_probs=top_probs,
        facts={
            "Non-conforming": f"{why_alpha}; beta {beta:.4g}, tau "
            f"{dominance_threshold(num_classes, beta):.4g}, {asked.num_vectors} uniform-like "
            f"vectors of spread {asked.sigma:g}, seed {asked.seed}{permuted}",
            "Ambiguous or out of distribution": why_distance,
            "Label likely wrong": why_gap,
        },
    )


def _known(
    shape: tuple[int, int], names: Any, given_labels: Any, verified_labels: Any, is_nc: Any
) -> pd.DataFrame:
    """What is known about the instances: the table to begin with."""
    count, num_classes = shape
    is_nc = np.zeros(count, bool) if is_nc is None else np.asarray(is_nc, bool)
    if is_nc.shape != (count,):
        raise ValueError(f"is_nc has shape {is_nc.shape} and there are {count} predictions")
    return pd.DataFrame(
        {
            "image": _names("names", names, count),
            "given": _labels("given_labels", given_labels, count, num_classes),
            "verified": _labels("verified_labels", verified_labels, count, num_classes),
            "is_nc": is_nc,
        }
    )


def _describe(table: pd.DataFrame, probs: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Add what the predictions say; return the most probable classes and their probabilities."""
    given, evidence = table["given"].to_numpy(), nc_evidence(probs, beta)
    order = np.argsort(-_favouring(probs, given), axis=1, kind="stable")[:, :TOP_CLASSES]
    top = np.take_along_axis(probs, order, axis=1)
    given_prob = np.where(given >= 0, probs[np.arange(len(probs)), given], np.nan)
    table["predicted"] = order[:, 0]
    table["predicted_prob"] = top[:, 0].astype(np.float64)
    table["given_prob"] = given_prob.astype(np.float64)
    table["gap"] = np.where(given >= 0, table["predicted_prob"] - given_prob, -1.0)
    table["entropy"] = entropy(probs)
    table["dominant_entries"] = evidence["dominant_entries"]
    table["top_two_mass"] = evidence["top_two_mass"].astype(np.float64)
    return order, top.astype(np.float32)


def _favouring(probs: np.ndarray, given_labels: np.ndarray) -> np.ndarray:
    """Probabilities in which a given label wins ties."""
    return probs + TIE * (given_labels[:, None] == np.arange(probs.shape[1]))


def _alpha(
    table: pd.DataFrame, conforming_scores: np.ndarray | None, criteria: Criteria
) -> tuple[float, str]:
    """The threshold, and where it comes from."""
    alpha, budget, scores = criteria.alpha, criteria.max_flag_rate, table["score"].to_numpy()
    if alpha is not None:
        return float(alpha), f"alpha {alpha:.4g}, as asked"
    known, known_as = conforming_scores, "predictions that you passed as conforming"
    least = math.ceil(1 / budget) - 1
    remedy = f"verify {least} or more that conform, drawn at random, and it keeps a promise"
    if known is None:
        known, known_as = scores[(table["verified"] >= 0) & ~table["is_nc"]], "verified images"
        if len(known) and (bias := _bias(table)):
            known_as += f" (which score {bias} than the others, as no fair draw would)"
            if bias == "higher":
                remedy = f"verified images score like suspects, who promise nothing; {remedy}"
                known = known[:0]
    if len(known):
        found = threshold_for_budget(known, budget)
        if math.isfinite(found):
            return found, (
                f"alpha {found:.4g}, so that at most {budget:.3g} of conforming images are flagged "
                f"on average, if they are like the {len(known):,} {known_as}"
            )
    found = _upper_share(scores, budget)
    told = f"so that {budget:.3g} of all images are flagged ({remedy} about those instead)"
    return found, f"alpha {found:.4g}, {told}"


def _bias(table: pd.DataFrame) -> str:
    """Whether images that somebody looked at score "higher" or "lower" than a fair draw; or ""."""
    looked, scores = (table["verified"] >= 0) | table["is_nc"], table["score"]
    if not looked.any() or looked.all():
        return ""
    for way, side in (("higher", "greater"), ("lower", "less")):
        if mannwhitneyu(scores[looked], scores[~looked], alternative=side).pvalue < SUSPICIOUS:
            return way
    return ""


def confidently_wrong(pred_probs: np.ndarray, given_labels: np.ndarray) -> np.ndarray:
    """Whether an instance is confidently of another class than its label says.

    It is confidently of a class if that has at least the probability that instances labelled so
    have for it on average; of several such classes the most probable counts, and the given one
    where it is as probable.

    Args:
        pred_probs: predictions that did not learn the instance's own label, shape (N, k).
        given_labels: shape (N,), -1 where there is none.

    Returns:
        Boolean, shape (N,); False without a label.

    Source: the confident joint of confident learning :cite:p:`northcutt2021confident`.
    """
    labelled = given_labels >= 0
    own = pred_probs[labelled, given_labels[labelled]]
    counts = np.bincount(given_labels[labelled], minlength=pred_probs.shape[1])
    totals = np.bincount(given_labels[labelled], own, minlength=pred_probs.shape[1])
    levels = np.where(counts > 0, totals / np.maximum(counts, 1), np.inf)
    favoured = _favouring(pred_probs, given_labels)
    confident = np.where(favoured >= levels, favoured, -1.0)
    return labelled & (confident.max(axis=1) >= 0) & (confident.argmax(axis=1) != given_labels)


def _min_gap(
    table: pd.DataFrame, probs: np.ndarray, alpha: float, criteria: Criteria
) -> tuple[float, str]:
    """The threshold of doubt about a label, and where it comes from."""
    given, min_gap = table["given"].to_numpy(), criteria.min_gap
    if not (given >= 0).any():
        return 0.5 if min_gap is None else min_gap, "nothing has a label"
    if min_gap is not None:
        return float(min_gap), f"another class has {min_gap:.3g} more probability, as asked"
    conforming = (table["score"] < alpha).to_numpy()
    count = int((confidently_wrong(probs, given) & conforming).sum())
    doubted = conforming & (given >= 0) & (table["predicted"].to_numpy() != given)
    gaps = np.sort(table["gap"].to_numpy()[doubted])[::-1]
    count = min(count, len(gaps))
    found = float(gaps[count - 1]) if count else 1.0
    return found, (
        f"another class has {found:.3g} more probability; by this many labels are called wrong as "
        f"are confidently of another class ({count:,})"
    )


def _upper_share(scores: np.ndarray, share: float) -> float:
    """The threshold that flags this share of the scores, or fewer where scores tie."""
    if not len(scores):
        return 1.0
    count = max(1, math.floor(share * len(scores)))
    lowest = float(np.sort(scores)[-count])
    if (scores >= lowest).sum() > count:
        lowest = math.nextafter(lowest, math.inf)
    return lowest if math.isfinite(lowest) else 1.0


def _max_distance(
    table: pd.DataFrame, features: np.ndarray | None, alpha: float, criteria: Criteria
) -> tuple[float | None, str]:
    """The distance that parts ambiguous from out of distribution, if any, and how, in words.

    With features, the column ``distance`` is added: to conforming rows, none to itself.
    """
    if features is None:
        if criteria.max_distance is not None:
            raise ValueError(
                f"max_distance is {criteria.max_distance} and there are no features; pass them"
            )
        return None, (
            "by how much of the probability two classes hold (a weak sign without features)"
        )
    features = np.asarray(features)
    if len(features) != len(table):
        raise ValueError(
            f"features has {len(features)} rows and there are {len(table)} predictions"
        )
    reference = _conforming_rows(table, alpha, criteria.seed)
    neighbors = min(NEIGHBORS, len(reference) - 1)
    if neighbors < 1:
        raise ValueError("features of a single image have no neighbours; leave features out")
    rest = np.setdiff1d(np.arange(len(features)), reference)
    distance = np.empty(len(features))
    # The nearest of a reference row is itself.
    distance[reference] = neighbor_distance(features[reference], features[reference], neighbors + 1)
    if len(rest):
        distance[rest] = neighbor_distance(features[rest], features[reference], neighbors)
    table["distance"] = distance
    max_distance = criteria.max_distance
    if max_distance is None:
        max_distance = float(np.median(distance[reference]))
    return max_distance, (
        f"by the cosine distance to the {NEIGHBORS}th nearest of {len(reference):,} images that "
        "conform"
    )


def _conforming_rows(table: pd.DataFrame, alpha: float, seed: int) -> np.ndarray:
    """Rows that distances are measured to: verified, or not flagged with a label that agrees."""
    agrees = (table["given"] == table["predicted"]) | (table["given"] < 0)
    conforms = (table["verified"] >= 0) | ((table["score"] < alpha) & agrees)
    rows = np.flatnonzero(conforms & ~table["is_nc"])
    if len(rows) <= NEIGHBORS:  # hardly anything conforms: whatever is there is the reference
        rows = np.arange(len(table))
    if len(rows) > MOST_REFERENCES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_REFERENCES, replace=False))
    return rows


def _names(argument: str, names: Sequence[str] | None, count: int) -> Any:
    named = tuple(map(str, range(count) if names is None else names))
    if len(named) != count:
        raise ValueError(f"{argument} has {len(named)} names; there must be {count}")
    if len(set(named)) != count:
        again = next(name for name, times in pd.Series(named).value_counts().items() if times > 1)
        raise ValueError(f"{argument} has {again!r} more than once; give each a name of its own")
    return named


def _labels(argument: str, labels: Any, count: int, num_classes: int) -> np.ndarray:
    if labels is None:
        return np.full(count, -1)
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise ValueError(f"{argument} has shape {labels.shape} and there are {count} predictions")
    known = labels[labels != -1]
    if len(known):
        check_labels(argument, known, num_classes)
    return labels.astype(np.int64)
