"""Evidence about instances, and detectors: scores of how little each instance conforms."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from types import ModuleType
from typing import Any

import numpy as np

from genkl.checks import check_choice, check_labels, check_probabilities, to_numpy

FAMILIES = ("divergence", "softmax", "logits", "label", "ensemble", "features")
"""What a detector reads first of all."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about N instances without knowing which of them conform.

    There is no place for the truth: a detector that is given this can't read it. Arrays may be
    NumPy arrays or tensors; they are kept as NumPy arrays.

    Attributes:
        pred_probs: averaged predictions q, shape (N, k).
        member_logits: of the M models behind them, shape (M, N, k).
        features: shape (N, d), such as a frozen network's.
        given_labels: integers in 0..k-1, shape (N,); some may be wrong.
        view_probs: averaged predictions for a second view of each instance, such as its mirror
            image, shape (N, k).
        reference: the same about held-out instances that conform, whose given labels are
            verified and which no model was trained on. Detectors that need to be fitted are
            fitted on it, and thresholds are chosen on it.
        training_logits: of one model while it learned these instances under their given labels,
            such as after each epoch; T moments, shape (T, N, k).
        head: the linear head behind the predictions, where there is one on these features: its
            weights, and its bias as the last column, shape (k, d + 1); of several, their mean.

    Raises:
        ValueError: shapes that don't fit each other, rows that aren't probability vectors, NaN or
            infinity, labels out of range, or a reference that has a reference itself.
        TypeError: labels that aren't integers.
    """

    pred_probs: np.ndarray
    member_logits: np.ndarray | None = None
    features: np.ndarray | None = None
    given_labels: np.ndarray | None = None
    view_probs: np.ndarray | None = None
    reference: Evidence | None = None
    training_logits: np.ndarray | None = None
    head: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in (*ARRAYS, "head"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, to_numpy(getattr(self, name)))
        check_probabilities("pred_probs", self.pred_probs, ndim=2)
        count, num_classes = self.pred_probs.shape
        if self.view_probs is not None:
            check_probabilities("view_probs", self.view_probs, ndim=2)
            _check_shape("view_probs", self.view_probs, (count, num_classes), "as pred_probs")
        for name in STACKED:
            if (logits := getattr(self, name)) is not None:
                axes = "(models or moments, instances, classes), the last two as pred_probs"
                _check_shape(name, logits, (None, count, num_classes), axes)
                _check_finite(name, logits)
        if self.head is not None:
            width = None if self.features is None else self.features.shape[1] + 1
            _check_shape("head", self.head, (num_classes, width), "weights, and a column of biases")
            _check_finite("head", self.head)
        if self.features is not None:
            _check_shape("features", self.features, (count, None), "a row for each of pred_probs")
            _check_finite("features", self.features)
        if self.given_labels is not None:
            check_labels("given_labels", self.given_labels, num_classes, count)
        if self.reference is not None:
            self._check_reference(self.reference)

    def _check_reference(self, reference: Evidence) -> None:
        if reference.reference is not None:
            raise ValueError("the reference has a reference itself; pass it with reference=None")
        if reference.num_classes != self.num_classes:
            raise ValueError(
                f"the reference has {reference.num_classes} classes and pred_probs has "
                f"{self.num_classes}; pass predictions of the same models"
            )
        if self.features is None or reference.features is None:
            return
        if self.features.shape[1] != reference.features.shape[1]:
            raise ValueError(
                f"features has {self.features.shape[1]} columns and the reference's has "
                f"{reference.features.shape[1]}; pass features of the same network"
            )

    def __len__(self) -> int:
        return len(self.pred_probs)

    @property
    def num_classes(self) -> int:
        """k."""
        return self.pred_probs.shape[1]

    def missing(self, needs: Sequence[str]) -> tuple[str, ...]:
        """Those of the named fields that aren't there.

        Args:
            needs: names of fields; ``reference.features`` is a field of the reference.

        Raises:
            ValueError: a name that is no field.
        """
        for name in needs:
            check_choice("field of evidence", name, FIELDS)
        return tuple(name for name in needs if _field(self, name) is None)

    def take(self, rows: np.ndarray) -> Evidence:
        """The instances at these positions, in this order; the reference stays whole."""
        chosen = {
            name: getattr(self, name)[(slice(None), rows) if name in STACKED else rows]
            for name in ARRAYS
            if getattr(self, name) is not None
        }
        return replace(self, **chosen)


STACKED = ("member_logits", "training_logits")
"""Arrays whose second axis is that of the instances."""

ARRAYS = tuple(f.name for f in fields(Evidence) if f.name not in ("head", "reference"))
FIELDS = (*ARRAYS, "head", "reference", *(f"reference.{name}" for name in (*ARRAYS, "head")))


@dataclass(frozen=True)
class Detector:
    r"""A way to score instances by how little they conform.

    Its card is read from the docstring of its rule, so that what the book shows is what stands
    beside the code: a paragraph that begins with "Formula:", and one with "Differs:", which says
    what its source does otherwise.

    Attributes:
        name: in tables and figures.
        needs: fields of `Evidence` that it reads, and no others; the names that begin with
            ``reference`` say that it is fitted there.
        rule: from evidence to a score per instance, higher for less conforming. Where ``relative``
            is set, it is called with a second argument, see `score`.
        source: key in the book's bibliography.
        family: one of `FAMILIES`.
        threshold: the method's own, for ``score >= threshold``: a number, or a function of the
            evidence; None where its source has none.
        relative: whether an instance's score depends on what else is scored.

    Raises:
        ValueError: an unknown need or family.
    """

    name: str
    needs: tuple[str, ...]
    rule: Callable[..., np.ndarray]
    source: str
    family: str
    threshold: float | Callable[[Evidence], float] | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        check_choice("family", self.family, FAMILIES)
        for name in self.needs:
            check_choice("field of evidence", name, FIELDS)

    @property
    def card(self) -> dict[str, str]:
        """Its ``formula``, in LaTeX between dollars, its ``source`` and how it ``differs``.

        Raises:
            ValueError: the rule's docstring lacks a paragraph.
        """
        paragraphs = (inspect.getdoc(self.rule) or "").split("\n\n")
        found = {"source": self.source}
        for key in ("formula", "differs"):
            start = f"{key.capitalize()}: "
            text = next((part[len(start) :] for part in paragraphs if part.startswith(start)), None)
            if text is None:
                raise ValueError(f"the docstring of {self.name}'s rule has no paragraph {start!r}")
            found[key] = re.sub(r":math:`(.*?)`", r"$\1$", " ".join(text.split()))
        return found

    @property
    def is_fitted(self) -> bool:
        """Whether it is fitted on the reference."""
        return any(name.partition(".")[0] == "reference" for name in self.needs)

    def score(self, evidence: Evidence, *, among: Evidence | None = None) -> np.ndarray:
        """Score every instance.

        Args:
            evidence: of N instances.
            among: for a detector that is ``relative``, the instances that it is fitted to; None
                for the scored ones themselves. Others ignore it.

        Returns:
            Shape (N,), float64, finite; higher is less conforming.

        Raises:
            ValueError: the evidence lacks something (all of it is named), or the rule returns
                another shape or something that isn't finite.
        """
        fitted_to = (evidence if among is None else among,) if self.relative else ()
        for given in (evidence, *fitted_to):
            if missing := given.missing(self.needs):
                raise ValueError(
                    f"{self.name} needs {', '.join(missing)}, which the evidence lacks; pass it, "
                    "or choose among the detectors whose needs are met: evidence.missing(needs)"
                )
        scores = np.asarray(self.rule(evidence, *fitted_to), dtype=np.float64)
        if scores.shape != (len(evidence),):
            raise ValueError(
                f"{self.name} returned shape {scores.shape}; a rule returns ({len(evidence)},), "
                "one score per instance"
            )
        if not np.isfinite(scores).all():
            row = int(np.argmin(np.isfinite(scores)))
            raise ValueError(
                f"{self.name} scored row {row} with {scores[row]}; a rule returns finite scores"
            )
        return scores

    def published_threshold(self, evidence: Evidence) -> float | None:
        """The method's own threshold for this evidence; None where its source has none."""
        return self.threshold(evidence) if callable(self.threshold) else self.threshold

    def conforming_scores(self, evidence: Evidence, *, folds: int = 5, seed: int = 0) -> np.ndarray:
        """Scores of the reference's instances, as if each had been among the scored ones.

        This is what `threshold_for_budget` wants to be given. A detector that is fitted on the
        reference scores each fold of it after it was fitted on the others (with a little less data
        than in `score`, so thresholds come out a little high, on the safe side). One that is
        ``relative`` is fitted on the evidence and scores the reference.

        Args:
            evidence: with a reference of m instances.
            folds: at least 2; no more than m are used.
            seed: of the division into folds, which spreads every class over them if the
                reference has labels.

        Returns:
            Shape (m,), float64, in the reference's order.

        Raises:
            ValueError: no reference, fewer than 2 instances to divide, fewer than 2 folds, and as
                `score`.
        """
        reference = evidence.reference
        if reference is None:
            raise ValueError(
                "the evidence has no reference; pass held-out instances that are known to conform"
            )
        if not self.is_fitted:
            return self.score(reference, among=evidence)
        count = len(reference)
        if folds < 2 or count < 2:
            raise ValueError(
                f"folds is {folds} and the reference has {count} instances; {self.name} is fitted "
                "on one part to score another: pass at least 2 of each"
            )
        order = np.random.default_rng(seed).permutation(count)
        if reference.given_labels is not None:
            order = order[np.argsort(reference.given_labels[order], kind="stable")]
        fold = np.empty(count, dtype=np.int64)
        fold[order] = np.arange(count) % folds
        scores = np.empty(count)
        for part in range(min(folds, count)):
            held_out = fold == part
            fitted = replace(
                reference.take(np.flatnonzero(held_out)),
                reference=reference.take(np.flatnonzero(~held_out)),
            )
            scores[held_out] = self.score(fitted)
        return scores


def detector(
    name: str, needs: tuple[str, ...], source: str, family: str, **options: Any
) -> Callable[[Callable[..., np.ndarray]], Detector]:
    """Make a rule a detector where it is defined; arguments as `Detector`'s."""
    return lambda rule: Detector(name, needs, rule, source, family, **options)


def import_extra(module: str) -> ModuleType:
    """A module of the extra ``benchmark``, when it is needed.

    Raises:
        ModuleNotFoundError: it isn't installed; the message says what to install.
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is there, and something that it needs isn't
            raise
        raise ModuleNotFoundError(
            f"{package.replace('_', '-')} is not installed; pip install 'genkl[benchmark]'",
            name=package,
        ) from None
    return importlib.import_module(module)


def _field(evidence: Evidence, name: str) -> object:
    first, _, rest = name.partition(".")
    value = getattr(evidence, first)
    return getattr(value, rest) if rest and value is not None else value


def _check_shape(
    name: str, array: np.ndarray, expected: tuple[int | None, ...], words: str
) -> None:
    fits = array.ndim == len(expected) and all(
        want is None or have == want for have, want in zip(array.shape, expected, strict=True)
    )
    if not fits or 0 in array.shape[: array.ndim - 2]:
        wanted = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(f"{name} has shape {array.shape}; expected ({wanted}): {words}")


def _check_finite(name: str, array: np.ndarray) -> None:
    rows = np.moveaxis(np.isfinite(array), -2, 0).reshape(array.shape[-2], -1).all(axis=1)
    if not rows.all():
        row = int(np.argmin(rows))
        raise ValueError(
            f"{name} contains NaN or infinity in row {row}; find where the network's output "
            "stopped being a number before it was saved"
        )
