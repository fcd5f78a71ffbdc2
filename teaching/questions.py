"""Questions with usual mistakes, and the hint for an answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from teaching.task import Task

ATOL, RTOL = 4e-3, 4e-3
"""How far an answer may be from ours: as far as two or three digits by hand."""

AGREES = "this agrees with ours."
MISSING = "no answer yet. Put yours in the place of the three dots."

Solve = Callable[[Task], Any]
Judge = Callable[[Task, np.ndarray], str]


@dataclass
class Question:
    """A question with one right answer or, with a judge, with many.

    Attributes:
        name: such as ``1.3``.
        form: the form of the answer, in words.
        solve: computes the answer; its docstring is the hint for an answer that is no usual one.
        mistakes: usual ways to be wrong, in the order in which they are looked for: each computes
            what it leads to, and its docstring is the hint that leads back.
        judge: returns the hint for an answer, or an empty text if it has what was asked for.
    """

    name: str
    form: str
    solve: Solve
    mistakes: list[Solve] = field(default_factory=list)
    judge: Judge | None = None

    def mistake(self, answer: Solve) -> Solve:
        """Add a mistake; a decorator."""
        self.mistakes.append(answer)
        return answer

    def judged_by(self, judge: Judge) -> Judge:
        """Set the judge of a question with many right answers; a decorator."""
        self.judge = judge
        return judge


def hint_of(solve: Solve) -> str:
    """The hint that a question's or a mistake's docstring gives, on one line."""
    return " ".join((inspect.getdoc(solve) or "").split())


def hint_for(question: Question, task: Task, answer: Any) -> str:
    """What to say to an answer.

    Args:
        question: what was asked.
        task: the numbers it was asked of.
        answer: numbers, nested lists or an array; ``...`` for none.

    Returns:
        `AGREES`, `MISSING`, or a hint.
    """
    if any(part is None or part is Ellipsis for part in np.ravel(np.array(answer, dtype=object))):
        return MISSING
    try:
        given = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        return f"give {question.form}; this is {type(answer).__name__}."
    right = np.asarray(question.solve(task))
    if given.shape != right.shape:
        return f"give {question.form}: shape {right.shape}, not {given.shape}."
    if question.judge:
        return question.judge(task, given) or AGREES
    if agree(given, right):
        return AGREES
    for mistake in question.mistakes:
        if agree(given, np.asarray(mistake(task))):
            return hint_of(mistake)
    return hint_of(question.solve)


def agree(given: np.ndarray, wanted: np.ndarray, digits: float = 1.0) -> bool:
    """Whether two answers are equal, as far as digits by hand go; counts and votes exactly."""
    if given.shape != wanted.shape:
        return False
    if wanted.dtype.kind in "biu":
        return bool((given == wanted).all())
    return bool(np.allclose(given, wanted, rtol=digits * RTOL, atol=digits * ATOL))


def tells_apart(question: Question, task: Task) -> bool:
    """Whether no mistake leads to the right answer or to that of another mistake, by far."""
    answers = [np.asarray(solve(task)) for solve in (question.solve, *question.mistakes)]
    near = (agree(now, before, 4) for at, now in enumerate(answers) for before in answers[:at])
    return not any(near) and all(np.isfinite(answer.astype(float)).all() for answer in answers)
