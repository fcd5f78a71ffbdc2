"""From double-hot targets to the posterior of the class, one step at a time, and around it.

All learn one lesson as "GenKL calibrated" does: no rounds, no mixup, no NC stage. What changes is
the target of a noisy instance, or the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.studies import config_of, groundwork, load, summary
from genkl.baselines import Groundwork
from genkl.baselines.method import FACTOR, with_targets
from genkl.baselines.rounds import known_before
from genkl.baselines.transitions import forward_targets
from genkl.learn import Lesson
from genkl.learn.iteration import Setup
from genkl.learn.run import RunOptions, launch, lesson_course
from genkl.losses import double_hot_loss, soft_cross_entropy
from genkl.posterior import estimate_transition, posterior_targets
from genkl.relabel import Role, double_hot, reverse_class_ratio

STEPS = (
    "double-hot",
    "posterior",
    "two voices",
    "none",
    "cross-entropy",
    "label alone",
    "voices alone",
)
"""The first four lead to the method; each of the others changes one thing of it."""


def targets_of(step: str, work: Groundwork) -> np.ndarray:
    """What a noisy instance is taught, shape (N, k).

    Args:
        step: of `STEPS`.
        work: with the predictions.
    """
    q, given = work.noisy_probs(), work.dataset.noisy.labels.numpy()
    if step == "double-hot":
        return double_hot(q, given, reverse_class_ratio(np.bincount(work.dataset.clean.labels)))
    if step == "posterior":
        return posterior_targets(q, given, estimate_transition(q, given))
    probs, nones = known_before(work)
    if step == "voices alone":
        return probs
    if step == "two voices":
        return posterior_targets(probs, given, estimate_transition(probs, given))
    transition = estimate_transition(probs, given, nones)
    if step == "label alone":
        return forward_targets(given, transition)
    return posterior_targets(probs, given, transition, nones)


def run_step(data: str, seed: int, step: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """One run; ``settings`` are those of "GenKL calibrated"."""
    _, truth = load(data, seed)
    work, loss = groundwork(data, seed), double_hot_loss
    if step == "cross-entropy":
        loss = soft_cross_entropy
    targets = targets_of(step, work)

    def teach(setup: Setup) -> Lesson:
        examples = setup.clean + with_targets(setup.as_given, targets)
        return Lesson(examples, dict.fromkeys(Role, loss))

    config = config_of(data, {FACTOR: settings[FACTOR]})
    course = lesson_course(step, config, work.dataset, teach, settings=settings)
    options = RunOptions(backbone=None, engine="cpu", progress=False)
    return summary(launch(course, work.dataset, seed, options), work.dataset.test, truth)
