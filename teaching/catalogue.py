"""Questions of the homework and the labs, their usual mistakes, and the hints.

A question is a function that solves it; its docstring is the hint for an answer that nobody
foresaw. A mistake is a function that makes it; its docstring is the hint that leads back.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from genkl.relabel import double_hot, reverse_class_ratio
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import entropy, generalized_kl
from genkl.rule.identify import entropy_score, identify_nc, nc_score
from teaching.questions import Question, hint_for, tells_apart
from teaching.task import ROWS, Task, draw_task

QUESTIONS: dict[str, Question] = {}
"""Name -> question, in order."""


def question(name: str, form: str) -> Any:
    """Make a question of the function that solves it."""

    def add(solve: Any) -> Question:
        QUESTIONS[name] = Question(name, form, solve)
        return QUESTIONS[name]

    return add


ROW_NUMBERS = "one number for each of the six instances"


# --- 1. Does it conform? -------------------------------------------------------------------------


@question("1.1", "one number")
def dominance_threshold(task: Task) -> float:
    """tau needs two numbers only: the number of classes and beta."""
    return task.tau


@dominance_threshold.mistake
def _(task: Task) -> float:
    """that is the uniform probability itself. beta says how far *below* it an entry may lie."""
    return 1 / task.num_classes


@dominance_threshold.mistake
def _(task: Task) -> float:
    """beta lowers the threshold; you have raised it."""
    return 1 / task.num_classes + task.beta


@dominance_threshold.mistake
def _(task: Task) -> float:
    """beta is a distance from 1/k, not the threshold."""
    return task.beta


def _dominant(task: Task) -> np.ndarray:
    return task.pred_probs >= task.tau


@question("1.2", ROW_NUMBERS)
def dominant_entries(task: Task) -> np.ndarray:
    """dominant are the entries at or above tau. Take one row and mark them."""
    return _dominant(task).sum(axis=1)


@dominant_entries.mistake
def _(task: Task) -> np.ndarray:
    """you counted the entries above 1/k. An entry a little below it is dominant as well: compare
    with tau."""
    return (task.pred_probs >= 1 / task.num_classes).sum(axis=1)


@dominant_entries.mistake
def _(task: Task) -> np.ndarray:
    """these are the entries that are *not* dominant."""
    return (~_dominant(task)).sum(axis=1)


def _divergence(task: Task) -> np.ndarray:
    return generalized_kl(task.uniform, task.pred_probs, task.alpha, task.beta)


def _cost(task: Task, counted: np.ndarray) -> np.ndarray:
    """The sum of -p log q over the counted entries, for p = u."""
    return -(task.uniform * np.log(task.pred_probs) * counted).sum(axis=1)


def _log_k(task: Task) -> float:
    """The entropy of u."""
    return math.log(task.num_classes)


@question("1.3", ROW_NUMBERS)
def divergence(task: Task) -> np.ndarray:
    """write the two sums down for one row: alpha times the sum of p log p, less the sum of p log q
    over the dominant entries. Which of the two is off?"""
    return _divergence(task)


@divergence.mistake
def _(task: Task) -> np.ndarray:
    """the ratio to ours is the same in every row, 1.44: your logarithm has base 2. The sign of D
    does not depend on the base, its value does."""
    return _divergence(task) / math.log(2)


@divergence.mistake
def _(task: Task) -> np.ndarray:
    """the ratio to ours is the same in every row, 0.43: your logarithm has base 10."""
    return _divergence(task) / math.log(10)


@divergence.mistake
def _(task: Task) -> np.ndarray:
    """you left out alpha. It weighs the entropy of p."""
    return _cost(task, _dominant(task)) - _log_k(task)


@divergence.mistake
def _(task: Task) -> np.ndarray:
    """alpha weighs the first sum only, not the costs."""
    return task.alpha * (_cost(task, _dominant(task)) - _log_k(task))


@divergence.mistake
def _(task: Task) -> np.ndarray:
    """you counted every entry. The second sum skips those below tau; without that it is nearly the
    KL divergence, which flags certainty first."""
    return _cost(task, np.ones_like(task.pred_probs)) - task.alpha * _log_k(task)


@divergence.mistake
def _(task: Task) -> np.ndarray:
    """you counted the entries below tau and skipped the others: it is the other way round."""
    return _cost(task, ~_dominant(task)) - task.alpha * _log_k(task)


@divergence.mistake
def _(task: Task) -> np.ndarray:
    """only the sign is wrong: p log p is negative, and - p log q is positive."""
    return -_divergence(task)


@divergence.mistake
def _(task: Task) -> np.ndarray:
    """you exchanged the arguments: p is the uniform vector, whose entries weigh, and q the
    prediction, whose logarithms are taken."""
    dominant_mass = (task.pred_probs * _dominant(task)).sum(axis=1)
    return dominant_mass * _log_k(task) - task.alpha * entropy(task.pred_probs)


@question("1.4", "True or False for each of the six instances")
def flagged(task: Task) -> np.ndarray:
    """compare each D of 1.3 with 0."""
    return identify_nc(task.pred_probs, task.alpha, task.beta, task.uniform[None])


@flagged.mistake
def _(task: Task) -> np.ndarray:
    """exactly the other ones: D >= 0 means flagged."""
    return ~flagged.solve(task)


@flagged.mistake
def _(task: Task) -> np.ndarray:
    """these are the predictions of high entropy. The divergence flags others: compare each D with
    0."""
    return entropy_score(task.pred_probs) >= 0.9


@question("1.5", ROW_NUMBERS)
def critical_alpha(task: Task) -> np.ndarray:
    """solve D = 0 for alpha, row by row."""
    return nc_score(task.pred_probs, task.beta, task.uniform[None])


@critical_alpha.mistake
def _(task: Task) -> np.ndarray:
    """this is the sum of the costs. At which alpha does alpha * H(p) outgrow it?"""
    return _cost(task, _dominant(task))


@critical_alpha.mistake
def _(task: Task) -> np.ndarray:
    """you divided by the entropy of the prediction. In D it is the entropy of p, here of u, that
    alpha weighs."""
    return _cost(task, _dominant(task)) / entropy(task.pred_probs)


@critical_alpha.mistake
def _(task: Task) -> np.ndarray:
    """this is D itself, which depends on alpha. Solve D = 0 for alpha."""
    return _divergence(task)


@critical_alpha.mistake
def _(task: Task) -> np.ndarray:
    """this is the normalised entropy. It knows nothing of tau."""
    return entropy_score(task.pred_probs)


@question("1.6", "one whole number")
def rank(task: Task) -> int:
    """r = ceil((m + 1)(1 - epsilon)); epsilon is the share that may be flagged."""
    scores = np.arange(1.0, task.num_conforming + 1)  # the threshold is then a rank
    threshold = threshold_for_budget(scores, task.max_flag_rate)
    return task.num_conforming + 1 if math.isinf(threshold) else math.floor(threshold)


@rank.mistake
def _(task: Task) -> int:
    """one too small, which flags more than the budget allows. Count the new instance, too, as one
    of m + 1 scores, and round up."""
    return int(rank.solve(task)) - 1


@rank.mistake
def _(task: Task) -> int:
    """that is how many may lie above. The rank counts from the smallest."""
    return math.ceil((task.num_conforming + 1) * task.max_flag_rate - 1e-9)


# --- 2. What is it taught as? --------------------------------------------------------------------


@question("2.1", "one number for each class")
def class_ratio(task: Task) -> np.ndarray:
    """w is proportional to 1/n, and adds up to 1."""
    return reverse_class_ratio(task.class_counts)


@class_ratio.mistake
def _(task: Task) -> np.ndarray:
    """this is the share of each class. The *reverse* ratio trusts rare labels more."""
    return task.class_counts / task.class_counts.sum()


@class_ratio.mistake
def _(task: Task) -> np.ndarray:
    """you divided by the largest. Divide by the sum, so that they add up to 1."""
    return (1 / task.class_counts) / (1 / task.class_counts).max()


@class_ratio.mistake
def _(task: Task) -> np.ndarray:
    """one minus the share also falls with the count, but it is not 1/n, and does not add up to
    1."""
    return 1 - task.class_counts / task.class_counts.sum()


def _targets(task: Task) -> np.ndarray:
    return double_hot(task.pred_probs, task.given_labels, reverse_class_ratio(task.class_counts))


def _targets_with(task: Task, given: np.ndarray) -> np.ndarray:
    """Double-hot targets with other weights of the given labels, shape (6,)."""
    made = np.zeros_like(task.pred_probs)
    rows, predicted = np.arange(ROWS), task.pred_probs.argmax(axis=1)
    made[rows, task.given_labels] += given
    made[rows, predicted] += task.pred_probs.max(axis=1)
    return made


def _normalized(targets: np.ndarray) -> np.ndarray:
    return targets / targets.sum(axis=1, keepdims=True)


@question("2.2", "one row for each of the six instances, with a number for each class")
def targets(task: Task) -> np.ndarray:
    """each row has at most two entries: the class ratio at the given label, and the largest
    probability at the predicted class."""
    return _targets(task)


@targets.mistake
def _(task: Task) -> np.ndarray:
    """you normalised the rows. A double-hot target need not add up to 1: its loss only asks for
    the mass on its entries."""
    return _normalized(_targets(task))


@targets.mistake
def _(task: Task) -> np.ndarray:
    """right, but for the row where given and predicted class agree: there the two parts add up."""
    made = _targets(task)
    made[np.arange(ROWS), task.pred_probs.argmax(axis=1)] = task.pred_probs.max(axis=1)
    return made


@targets.mistake
def _(task: Task) -> np.ndarray:
    """the given label does not get what the prediction leaves. It gets its class ratio, whatever
    the network believes."""
    return _targets_with(task, 1 - task.pred_probs.max(axis=1))


@targets.mistake
def _(task: Task) -> np.ndarray:
    """you gave the given label its predicted probability. It gets its class ratio."""
    return _targets_with(task, task.pred_probs[np.arange(ROWS), task.given_labels])


@targets.mistake
def _(task: Task) -> np.ndarray:
    """the given label weighs as much as its class ratio, not 1."""
    return _targets_with(task, np.ones(ROWS))


@targets.mistake
def _(task: Task) -> np.ndarray:
    """these are one-hot: where is the class that the ensemble predicts?"""
    return np.eye(task.num_classes)[task.given_labels]


def _softmax(task: Task) -> np.ndarray:
    powers = np.exp(task.logits)
    return powers / powers.sum(axis=1, keepdims=True)


def _mass(task: Task, targets: np.ndarray) -> np.ndarray:
    return (_softmax(task) * targets).sum(axis=1)


@question("2.3", ROW_NUMBERS)
def loss(task: Task) -> np.ndarray:
    """first the softmax of the logits, then the mass it puts on the target, then minus the
    logarithm."""
    return -np.log(_mass(task, _targets(task)))


@loss.mistake
def _(task: Task) -> np.ndarray:
    """this is cross-entropy: the logarithm stands inside the sum. Here it is taken of the sum."""
    return -(_targets(task) * np.log(_softmax(task))).sum(axis=1)


@loss.mistake
def _(task: Task) -> np.ndarray:
    """you normalised the targets first. Leave them as they are: the loss shifts by a constant for
    each row, which shows here."""
    return -np.log(_mass(task, _normalized(_targets(task))))


@loss.mistake
def _(task: Task) -> np.ndarray:
    """only the sign is wrong."""
    return np.log(_mass(task, _targets(task)))


@loss.mistake
def _(task: Task) -> np.ndarray:
    """this is the mass on the target. The loss is minus its logarithm."""
    return _mass(task, _targets(task))


# --- 3. What averaging does ----------------------------------------------------------------------


@question("3.1", "two rows with a probability for each class")
def two_halves(task: Task) -> np.ndarray:
    """Each half of the classes, evenly: neither is flagged, and their average nearly is uniform."""
    made = np.zeros((2, task.num_classes))
    half = task.num_classes // 2
    made[0, :half], made[1, half:] = 1 / half, 1 / (task.num_classes - half)
    return made


@two_halves.judged_by
def judge_average(task: Task, pair: np.ndarray) -> str:
    """The hint for two predictions; empty if they are spared, and their average is flagged."""
    if (pair < 0).any() or not np.allclose(pair.sum(axis=1), 1, atol=5e-3):
        return "both must be probabilities: not negative, and each adding up to 1."
    pair = pair / pair.sum(axis=1, keepdims=True)  # thirds of a few digits
    is_flagged = identify_nc(pair, task.alpha, task.beta, task.uniform[None])
    if is_flagged.any():
        which = (
            "both are" if is_flagged.all() else "the first is" if is_flagged[0] else "the second is"
        )
        return (
            f"{which} flagged already. Begin with predictions that are spared: certain ones, or "
            "such as give up many classes."
        )
    average = pair.mean(axis=0)
    if not identify_nc(average[None], task.alpha, task.beta, task.uniform[None])[0]:
        count = int((average >= task.tau).sum())
        return (
            f"the average is spared as well: {count} of its {task.num_classes} entries are "
            "dominant. D is convex only on a fixed set of dominant entries, so look at which "
            "entries cross tau when you average."
        )
    return ""


# --- Numbers of one's own, and checks ------------------------------------------------------------


def homework_task(seed: int) -> Task:
    """The numbers of a homework: such as tell every mistake from every other.

    Args:
        seed: of the student; the same seed gives the same task.

    Returns:
        The first draw of the seed that has instances of both kinds to identify, and on which no
        mistake leads to the right answer.

    Raises:
        ValueError: a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; pass a whole number that is not negative")
    draws = (draw_task(seed, attempt) for attempt in itertools.count())
    return next(
        task
        for task in draws
        if (abs(task.pred_probs - task.tau) > 0.002).all()
        and (abs(_divergence(task)) > 0.02).all()
        and 0 < np.count_nonzero(QUESTIONS["1.4"].solve(task)) < len(task.pred_probs)
        and all(tells_apart(question, task) for question in QUESTIONS.values())
    )


def check(task: Task, name: str, answer: Any) -> None:
    """Print whether an answer agrees, or a hint. Nothing is marked, and nothing is kept.

    Args:
        task: the numbers.
        name: of a question, such as ``1.3``.
        answer: yours; ``...`` while there is none.

    Raises:
        ValueError: no such question.
    """
    if name not in QUESTIONS:
        raise ValueError(f"no question {name!r}; there are {', '.join(QUESTIONS)}")
    print(f"{name}: {hint_for(QUESTIONS[name], task, answer)}")
