"""What went wrong? An answer is held against the right one and against well-known mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from teaching.task import Task

ATOL, RTOL = 4e-3, 4e-3
"""How far an answer may be from ours: as far as two or three digits by hand."""

AGREES = "this agrees with ours."
MISSING = "no answer yet. Put yours in the place of the three dots."


@dataclass(frozen=True)
class Mistake:
    """A well-known way to be wrong: what it leads to, and the hint that leads back."""

    answer: Callable[[Task], Any]
    hint: str


@dataclass(frozen=True)
class Question:
    """A question with one right answer.

    Attributes:
        name: such as ``1.3``.
        asks: for what, in one sentence.
        form: the form of the answer, in words.
        solve: computes the answer.
        mistakes: in the order in which they are looked for.
        hint: for an answer that is none of these.
    """

    name: str
    asks: str
    form: str
    solve: Callable[[Task], Any]
    mistakes: tuple[Mistake, ...]
    hint: str


@dataclass(frozen=True)
class Example:
    """A question with many right answers: something with a property is to be found.

    ``judge`` returns the hint for an answer, or an empty text if it has the property.
    """

    name: str
    asks: str
    form: str
    solve: Callable[[Task], Any]
    judge: Callable[[Task, np.ndarray], str]


def hint_for(question: Question | Example, task: Task, answer: Any) -> str:
    """What to say to an answer.

    Args:
        question: what was asked.
        task: the numbers it was asked of.
        answer: numbers, nested lists or an array; ``...`` for none.

    Returns:
        `AGREES`, `MISSING`, or a hint.
    """
    if any(one is None or one is Ellipsis for one in np.ravel(np.array(answer, dtype=object))):
        return MISSING
    try:
        given = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        return f"give {question.form}; this is {type(answer).__name__}."
    right = np.asarray(question.solve(task))
    if given.shape != right.shape:
        return f"give {question.form}: shape {right.shape}, not {given.shape}."
    if isinstance(question, Example):
        return question.judge(task, given) or AGREES
    if agree(given, right):
        return AGREES
    for mistake in question.mistakes:
        if agree(given, np.asarray(mistake.answer(task))):
            return mistake.hint
    return question.hint


def agree(given: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether two answers are equal, as far as digits by hand go; counts and votes exactly."""
    if given.shape != wanted.shape:
        return False
    if wanted.dtype.kind in "biu":
        return bool((given == wanted).all())
    return bool(np.allclose(given, wanted, rtol=RTOL, atol=ATOL))


def tells_apart(question: Question | Example, task: Task) -> bool:
    """Whether no mistake leads to the right answer or to that of another mistake, by far."""
    if isinstance(question, Example):
        return True
    answers = [np.asarray(question.solve(task))]
    answers += [np.asarray(mistake.answer(task)) for mistake in question.mistakes]
    return not any(
        _near(one, other) for at, one in enumerate(answers) for other in answers[:at]
    ) and all(np.isfinite(answer.astype(float)).all() for answer in answers)


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind in "biu" and other.dtype.kind in "biu":
        return bool((one == other).all())
    return bool(np.allclose(one, other, rtol=4 * RTOL, atol=4 * ATOL))
