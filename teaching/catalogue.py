"""Which questions are asked? Those of the homework and the labs, with the usual mistakes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from genkl.relabel import double_hot, reverse_class_ratio
from genkl.rule.conformal import threshold_for_budget
from genkl.rule.divergence import entropy, generalized_kl
from genkl.rule.identify import entropy_score, identify_nc, nc_score
from teaching.questions import Example, Mistake, Question, hint_for, tells_apart
from teaching.task import ROWS, Task, draw_task


def _dominant(task: Task) -> np.ndarray:
    return task.pred_probs >= task.tau


def _cost(task: Task, counted: np.ndarray) -> np.ndarray:
    """The sum of -p log q over the counted entries, for p = u."""
    return -(task.uniform * np.log(task.pred_probs) * counted).sum(axis=1)


def _divergence(task: Task) -> np.ndarray:
    return generalized_kl(task.uniform, task.pred_probs, task.alpha, task.beta)


def _swapped(task: Task) -> np.ndarray:
    log_u = math.log(task.num_classes)
    dominant_mass = (task.pred_probs * _dominant(task)).sum(axis=1)
    return dominant_mass * log_u - task.alpha * entropy(task.pred_probs)


def _flagged(task: Task) -> np.ndarray:
    return identify_nc(task.pred_probs, task.alpha, task.beta, task.uniform[None])


def _critical(task: Task) -> np.ndarray:
    return nc_score(task.pred_probs, task.beta, task.uniform[None])


def _rank(task: Task) -> int:
    """The rank behind the threshold, read off from scores 1, 2, ..., m."""
    scores = np.arange(1.0, task.num_conforming + 1)
    threshold = threshold_for_budget(scores, task.max_flag_rate)
    return task.num_conforming + 1 if math.isinf(threshold) else math.floor(threshold)


def _ratio(task: Task) -> np.ndarray:
    return reverse_class_ratio(task.class_counts)


def _targets(task: Task) -> np.ndarray:
    return double_hot(task.pred_probs, task.given_labels, _ratio(task))


def _targets_with(task: Task, given: np.ndarray) -> np.ndarray:
    """Double-hot targets with other weights of the given labels, shape (6,)."""
    made = np.zeros_like(task.pred_probs)
    rows, predicted = np.arange(ROWS), task.pred_probs.argmax(axis=1)
    made[rows, task.given_labels] += given
    made[rows, predicted] += task.pred_probs.max(axis=1)
    return made


def _overwritten(task: Task) -> np.ndarray:
    made = _targets(task)
    predicted = task.pred_probs.argmax(axis=1)
    made[np.arange(ROWS), predicted] = task.pred_probs.max(axis=1)
    return made


def _softmax(task: Task) -> np.ndarray:
    powers = np.exp(task.logits)
    return powers / powers.sum(axis=1, keepdims=True)


def _mass(task: Task, targets: np.ndarray) -> np.ndarray:
    return (_softmax(task) * targets).sum(axis=1)


def _loss(task: Task) -> np.ndarray:
    return -np.log(_mass(task, _targets(task)))


def _normalized(targets: np.ndarray) -> np.ndarray:
    return targets / targets.sum(axis=1, keepdims=True)


def _two_halves(task: Task) -> np.ndarray:
    """Each half of the classes, evenly: neither is flagged, and their average nearly is uniform."""
    made = np.zeros((2, task.num_classes))
    half = task.num_classes // 2
    made[0, :half], made[1, half:] = 1 / half, 1 / (task.num_classes - half)
    return made


def _judge_average(task: Task, pair: np.ndarray) -> str:
    if (pair < 0).any() or not np.allclose(pair.sum(axis=1), 1, atol=5e-3):
        return "both must be probabilities: not negative, and each adding up to 1."
    pair = pair / pair.sum(axis=1, keepdims=True)  # thirds of a few digits
    flagged = identify_nc(pair, task.alpha, task.beta, task.uniform[None])
    if flagged.any():
        which = "both are" if flagged.all() else f"the {('first', 'second')[int(flagged[1])]} is"
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


_ROW_NUMBERS = "one number for each of the six instances"

QUESTIONS: dict[str, Question | Example] = {
    one.name: one
    for one in (
        Question(
            "1.1",
            "The dominance threshold tau.",
            "one number",
            lambda task: task.tau,
            (
                Mistake(
                    lambda task: 1 / task.num_classes,
                    "that is the uniform probability itself. beta says how far *below* it an entry "
                    "may lie.",
                ),
                Mistake(
                    lambda task: 1 / task.num_classes + task.beta,
                    "beta lowers the threshold; you have raised it.",
                ),
                Mistake(
                    lambda task: task.beta,
                    "beta is a distance from 1/k, not the threshold.",
                ),
            ),
            "tau needs two numbers only: the number of classes and beta.",
        ),
        Question(
            "1.2",
            "How many entries of each prediction are dominant?",
            _ROW_NUMBERS,
            lambda task: _dominant(task).sum(axis=1),
            (
                Mistake(
                    lambda task: (task.pred_probs >= 1 / task.num_classes).sum(axis=1),
                    "you counted the entries above 1/k. An entry a little below it is dominant as "
                    "well: compare with tau.",
                ),
                Mistake(
                    lambda task: (~_dominant(task)).sum(axis=1),
                    "these are the entries that are *not* dominant.",
                ),
            ),
            "dominant are the entries at or above tau. Take one row and mark them.",
        ),
        Question(
            "1.3",
            "The divergence D between the uniform vector u and each prediction.",
            _ROW_NUMBERS,
            _divergence,
            (
                Mistake(
                    lambda task: _divergence(task) / math.log(2),
                    "the ratio to ours is the same in every row, 1.44: your logarithm has base 2. "
                    "The sign of D does not depend on the base, its value does.",
                ),
                Mistake(
                    lambda task: _divergence(task) / math.log(10),
                    "the ratio to ours is the same in every row, 0.43: your logarithm has base 10.",
                ),
                Mistake(
                    lambda task: _cost(task, _dominant(task)) - math.log(task.num_classes),
                    "you left out alpha. It weighs the entropy of p.",
                ),
                Mistake(
                    lambda task: (
                        task.alpha * (_cost(task, _dominant(task)) - math.log(task.num_classes))
                    ),
                    "alpha weighs the first sum only, not the costs.",
                ),
                Mistake(
                    lambda task: (
                        _cost(task, np.ones_like(task.pred_probs))
                        - task.alpha * math.log(task.num_classes)
                    ),
                    "you counted every entry. The second sum skips those below tau; without that "
                    "it is nearly the KL divergence, which flags certainty first.",
                ),
                Mistake(
                    lambda task: (
                        _cost(task, ~_dominant(task)) - task.alpha * math.log(task.num_classes)
                    ),
                    "you counted the entries below tau and skipped the others: it is the other way "
                    "round.",
                ),
                Mistake(
                    lambda task: -_divergence(task),
                    "only the sign is wrong: p log p is negative, and - p log q is positive.",
                ),
                Mistake(
                    _swapped,
                    "you exchanged the arguments: p is the uniform vector, whose entries weigh, "
                    "and q the prediction, whose logarithms are taken.",
                ),
            ),
            "write the two sums down for one row: alpha times the sum of p log p, less the sum of "
            "p log q over the dominant entries. Which of the two is off?",
        ),
        Question(
            "1.4",
            "Which predictions are flagged, with u alone? True or False for each.",
            "True or False for each of the six instances",
            _flagged,
            (
                Mistake(
                    lambda task: ~_flagged(task),
                    "exactly the other ones: D >= 0 means flagged.",
                ),
                Mistake(
                    lambda task: entropy_score(task.pred_probs) >= 0.9,
                    "these are the predictions of high entropy. The divergence flags others: "
                    "compare each D with 0.",
                ),
            ),
            "compare each D of 1.3 with 0.",
        ),
        Question(
            "1.5",
            "The critical alpha of each prediction, with u alone.",
            _ROW_NUMBERS,
            _critical,
            (
                Mistake(
                    lambda task: _cost(task, _dominant(task)),
                    "this is the sum of the costs. At which alpha does alpha * H(p) outgrow it?",
                ),
                Mistake(
                    lambda task: _cost(task, _dominant(task)) / entropy(task.pred_probs),
                    "you divided by the entropy of the prediction. In D it is the entropy of p, "
                    "here of u, that alpha weighs.",
                ),
                Mistake(
                    _divergence,
                    "this is D itself, which depends on alpha. Solve D = 0 for alpha.",
                ),
                Mistake(
                    lambda task: entropy_score(task.pred_probs),
                    "this is the normalised entropy. It knows nothing of tau.",
                ),
            ),
            "solve D = 0 for alpha, row by row.",
        ),
        Question(
            "1.6",
            "The rank r of the score above which the threshold for your budget lies.",
            "one whole number",
            _rank,
            (
                Mistake(
                    lambda task: _rank(task) - 1,
                    "one too small, which flags more than the budget allows. Count the new "
                    "instance, too, as one of m + 1 scores, and round up.",
                ),
                Mistake(
                    lambda task: math.ceil((task.num_conforming + 1) * task.max_flag_rate - 1e-9),
                    "that is how many may lie above. The rank counts from the smallest.",
                ),
            ),
            "r = ceil((m + 1)(1 - epsilon)); epsilon is the share that may be flagged.",
        ),
        Question(
            "2.1",
            "The normalised reverse class ratio w.",
            "one number for each class",
            _ratio,
            (
                Mistake(
                    lambda task: task.class_counts / task.class_counts.sum(),
                    "this is the share of each class. The *reverse* ratio trusts rare labels more.",
                ),
                Mistake(
                    lambda task: (1 / task.class_counts) / (1 / task.class_counts).max(),
                    "you divided by the largest. Divide by the sum, so that they add up to 1.",
                ),
                Mistake(
                    lambda task: 1 - task.class_counts / task.class_counts.sum(),
                    "one minus the share also falls with the count, but it is not 1/n, and does "
                    "not add up to 1.",
                ),
            ),
            "w is proportional to 1/n, and adds up to 1.",
        ),
        Question(
            "2.2",
            "The double-hot targets of all six instances.",
            "one row for each of the six instances, with a number for each class",
            _targets,
            (
                Mistake(
                    lambda task: _normalized(_targets(task)),
                    "you normalised the rows. A double-hot target need not add up to 1: its loss "
                    "only asks for the mass on its entries.",
                ),
                Mistake(
                    _overwritten,
                    "right, but for the row where given and predicted class agree: there the two "
                    "parts add up.",
                ),
                Mistake(
                    lambda task: _targets_with(task, 1 - task.pred_probs.max(axis=1)),
                    "the given label does not get what the prediction leaves. It gets its class "
                    "ratio, whatever the network believes.",
                ),
                Mistake(
                    lambda task: _targets_with(
                        task, task.pred_probs[np.arange(ROWS), task.given_labels]
                    ),
                    "you gave the given label its predicted probability. It gets its class ratio.",
                ),
                Mistake(
                    lambda task: _targets_with(task, np.ones(ROWS)),
                    "the given label weighs as much as its class ratio, not 1.",
                ),
                Mistake(
                    lambda task: np.eye(task.num_classes)[task.given_labels],
                    "these are one-hot: where is the class that the ensemble predicts?",
                ),
            ),
            "each row has at most two entries: the class ratio at the given label, and the largest "
            "probability at the predicted class.",
        ),
        Question(
            "2.3",
            "The non-NC loss of each instance, for your targets and the logits z.",
            _ROW_NUMBERS,
            _loss,
            (
                Mistake(
                    lambda task: -(_targets(task) * np.log(_softmax(task))).sum(axis=1),
                    "this is cross-entropy: the logarithm stands inside the sum. Here it is taken "
                    "of the sum.",
                ),
                Mistake(
                    lambda task: -np.log(_mass(task, _normalized(_targets(task)))),
                    "you normalised the targets first. Leave them as they are: the loss shifts by "
                    "a constant for each row, which shows here.",
                ),
                Mistake(
                    lambda task: np.log(_mass(task, _targets(task))),
                    "only the sign is wrong.",
                ),
                Mistake(
                    lambda task: _mass(task, _targets(task)),
                    "this is the mass on the target. The loss is minus its logarithm.",
                ),
            ),
            "first the softmax of the logits, then the mass it puts on the target, then minus the "
            "logarithm.",
        ),
        Example(
            "3.1",
            "Two predictions that are spared, and whose average is flagged.",
            "two rows with a probability for each class",
            _two_halves,
            _judge_average,
        ),
    )
}
"""Name -> question, in order."""


def homework_task(seed: int) -> Task:
    """The numbers of a homework: such as tell every mistake from every other.

    Args:
        seed: of the student; the same seed gives the same task.

    Returns:
        The first draw of the seed on which no mistake leads to the right answer.

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
