"""Numbers of a homework, drawn from a seed and small enough for paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROWS = 6


@dataclass(frozen=True)
class Task:
    """The numbers of one homework.

    Attributes:
        seed: what they were drawn from.
        alpha: weight of the entropy of p.
        beta: how far below 1/k an entry may lie and still be dominant.
        pred_probs: predictions of six noisy instances, shape (6, k).
        given_labels: their given labels, shape (6,).
        logits: what a network says of the same instances while it is trained, shape (6, k).
        class_counts: images of each class, shape (k,).
        num_conforming: how many held-out scores are known to conform, m.
        max_flag_rate: the share of conforming instances that may be flagged.
    """

    seed: int
    alpha: float
    beta: float
    pred_probs: np.ndarray = field(repr=False)
    given_labels: np.ndarray = field(repr=False)
    logits: np.ndarray = field(repr=False)
    class_counts: np.ndarray = field(repr=False)
    num_conforming: int
    max_flag_rate: float

    @property
    def num_classes(self) -> int:
        """k."""
        return self.pred_probs.shape[1]

    @property
    def tau(self) -> float:
        """The dominance threshold."""
        return 1 / self.num_classes - self.beta

    @property
    def uniform(self) -> np.ndarray:
        """The exactly uniform vector u, shape (k,)."""
        return np.full(self.num_classes, 1 / self.num_classes)

    def tables(self) -> tuple[Any, Any]:
        """The instances, a row each, and the class counts, for a notebook to show."""
        classes = range(self.num_classes)
        head = ["given label", *(f"q{j}" for j in classes), *(f"z{j}" for j in classes)]
        rows = zip(self.given_labels, self.pred_probs, self.logits, strict=True)
        instances = [[number, label, *q, *z] for number, (label, q, z) in enumerate(rows)]
        counts = [["images", *self.class_counts]]
        return _shown(["instance", *head], instances), _shown(["class", *classes], counts)


def _shown(head: list[Any], rows: list[list[Any]]) -> Any:
    """A table that a notebook shows."""
    from IPython.display import Markdown

    lines = [head, ["---"] * len(head), *rows]
    return Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


def draw_task(seed: int, attempt: int = 0) -> Task:
    """Draw the numbers of a task.

    Args:
        seed: not negative.
        attempt: counts the draws of one seed, until one tells mistakes apart.

    Returns:
        A task of 4 to 7 classes. Its instances are one certain, one torn between two classes, one
        almost uniform, and three in between; one of the given labels agrees with the prediction.
    """
    rng = np.random.default_rng([seed, attempt])
    k = int(rng.integers(4, 8))
    pred_probs = _predictions(rng, k)
    given_labels = rng.integers(0, k, ROWS)
    given_labels[rng.integers(ROWS)] = -1
    agreeing = given_labels < 0
    given_labels[agreeing] = pred_probs[agreeing].argmax(axis=1)
    return Task(
        seed=seed,
        alpha=round(float(rng.choice(np.arange(0.75, 0.96, 0.05))), 2),
        beta=round(float(rng.uniform(0.25, 0.7)) / k, 3),
        pred_probs=pred_probs,
        given_labels=given_labels,
        logits=rng.normal(0, 1.5, (ROWS, k)).round(1),
        class_counts=rng.choice(np.arange(2, 60) * 10, k, replace=False),
        num_conforming=int(rng.integers(20, 120)),
        max_flag_rate=float(rng.choice([0.05, 0.1, 0.15, 0.2])),
    )


def _predictions(rng: np.random.Generator, k: int) -> np.ndarray:
    """Six predictions of three digits, none of them zero, that sum to one."""
    certain = rng.dirichlet(np.full(k, 0.03))
    torn = np.zeros(k)
    torn[rng.choice(k, 2, replace=False)] = 0.5
    torn = 0.9 * torn + 0.1 * rng.dirichlet(np.full(k, 1.0))
    nearly_uniform = rng.dirichlet(np.full(k, 60.0))
    others = rng.dirichlet(np.full(k, 1.0), 3)
    rows = rng.permutation(np.vstack([certain, torn, nearly_uniform, others]))
    rows = np.maximum(rows, 0.001).round(3)
    largest = rows.argmax(axis=1)
    rows[np.arange(ROWS), largest] += 1 - rows.sum(axis=1)
    return rows.round(3)
