"""Homework for each student, and checks that answer with a hint.

In a notebook, a check says whether an answer agrees, or where to look; it never gives marks::

    import teaching

    task = teaching.homework_task(seed=7)
    teaching.check(task, "1.1", 1 / task.num_classes)   # "1.1: that is the uniform ..."

This much is handed out with the notebooks. What makes them is in `teaching.handout`, and
``python -m teaching`` is the command line.
"""

from teaching.catalogue import QUESTIONS, check, homework_task
from teaching.questions import Question, hint_for
from teaching.task import Task

__all__ = ["QUESTIONS", "Question", "Task", "check", "hint_for", "homework_task"]
