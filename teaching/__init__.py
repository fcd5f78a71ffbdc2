"""How is the method taught? Homework for each student, and checks that answer with a hint.

In a notebook, a check says whether an answer agrees, or where to look; it never gives marks::

    import teaching

    task = teaching.homework_task(seed=7)
    teaching.check(task, "1.1", 1 / task.num_classes)   # "1.1: that is the uniform ..."

`write_homework` gives each student of a roster a notebook with numbers of their own, and the
instructor a key; `write_labs` gives out the labs. Solutions stay in the instructor's copies.
"""

from teaching.catalogue import QUESTIONS, check, homework_task
from teaching.handout import read_roster, student_seed, write_homework, write_labs
from teaching.questions import Example, Mistake, Question, hint_for
from teaching.task import Task

__all__ = [
    "QUESTIONS",
    "Example",
    "Mistake",
    "Question",
    "Task",
    "check",
    "hint_for",
    "homework_task",
    "read_roster",
    "student_seed",
    "write_homework",
    "write_labs",
]
