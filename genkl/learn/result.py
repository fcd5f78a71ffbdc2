"""Records of runs: what a round did, what a run did, and both as plain values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from genkl.learn.config import GenKLConfig
from genkl.published import Published


@dataclass(frozen=True)
class FitResult:
    """What happened in `fit`.

    Attributes:
        best_step: the step whose weights the model holds now; 0 is the state it came with.
        val_accuracy: validation accuracy at that step.
        val_loss: validation cross-entropy at that step, in nats.
        history: one entry per evaluation: step, val_accuracy, val_loss, learning_rate, and the
            mean training loss of each role since the last evaluation (NaN for a role with no
            rows).
    """

    best_step: int
    val_accuracy: float
    val_loss: float
    history: list[dict[str, float]] = field(repr=False)


@dataclass(frozen=True)
class Round:
    """What one round did. Accuracies are means over the round's models.

    Attributes:
        index: 1 for the first round.
        predictor_val_accuracy: of the averaged prediction that this round relabelled with.
        threshold: score at or above which instances were flagged.
        flagged: share of the noisy split that was.
        role_counts: instances per role, clean set included.
        val_accuracy: chooses the round.
        test_accuracy: reported only.
        ensemble_val_accuracy: of the models' averaged prediction.
        ensemble_test_accuracy: the same on the test split.
        best_steps: the step each model was kept at.
        role_losses: last recorded mean training loss of each role, over models.
        seconds: wall-clock time of the round, by the process that finished it.
        pred_probs: the averaged prediction on the noisy split, shape (N, k); not saved.
        scores: the rule's scores, shape (N,); not saved.
        is_nc: the mask, shape (N,); not saved.
        history: of the first model's training phase, see `FitResult`; not saved.
    """

    index: int
    predictor_val_accuracy: float
    threshold: float
    flagged: float
    role_counts: dict[str, int]
    val_accuracy: float
    test_accuracy: float
    ensemble_val_accuracy: float
    ensemble_test_accuracy: float
    best_steps: tuple[int, ...]
    role_losses: dict[str, float]
    seconds: float
    pred_probs: np.ndarray | None = field(default=None, repr=False)
    scores: np.ndarray | None = field(default=None, repr=False)
    is_nc: np.ndarray | None = field(default=None, repr=False)
    history: list[dict[str, float]] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Run:
    """One method, one data set, one seed.

    Attributes:
        method: its name in tables and figures.
        dataset: name of the data set.
        seed: of everything random in training (the data's own seed is its loader's).
        config: the settings.
        clean_labels: how many verified training labels it used.
        rounds: every round, in order; a baseline has one.
        models: the models of the chosen round; not saved.
        published_behaviour: what it did as the published scripts do.
        features: name of the frozen backbone whose features it learned from; None for inputs as
            the data set has them.
        settings: the method's own, and what was changed in the configuration for it.
        facts: what the method did to the given labels before training, as figures.
    """

    method: str
    dataset: str
    seed: int
    config: GenKLConfig
    clean_labels: int
    rounds: tuple[Round, ...]
    models: tuple[nn.Module, ...] = field(default=(), repr=False)
    published_behaviour: Published = Published.NONE
    features: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> Round:
        """The round with the highest validation accuracy (the earlier one on a tie)."""
        return max(
            self.rounds, key=lambda r: (choosing_accuracy(r, self.published_behaviour), -r.index)
        )


def choosing_accuracy(done: Round, published: Published) -> float:
    """The accuracy that chooses among rounds: validation, unless a switch says test."""
    return done.test_accuracy if Published.SELECTION_ON_TEST in published else done.val_accuracy


def round_to_dict(done: Round) -> dict[str, Any]:
    """The saved fields of a round: everything but arrays and histories."""
    unsaved = {"pred_probs", "scores", "is_nc", "history"}
    saved = [field.name for field in dataclasses.fields(done) if field.name not in unsaved]
    return {name: getattr(done, name) for name in saved}


def run_to_dict(run: Run) -> dict[str, Any]:
    """A run as plain values: settings, seed, and every round."""
    return {
        "method": run.method,
        "dataset": run.dataset,
        "seed": run.seed,
        "clean_labels": run.clean_labels,
        "features": run.features,
        "settings": run.settings,
        "facts": run.facts,
        "config": dataclasses.asdict(run.config),
        "published_behaviour": [switch.name for switch in run.published_behaviour],
        "best_round": run.best.index,
        "rounds": [round_to_dict(done) for done in run.rounds],
    }
