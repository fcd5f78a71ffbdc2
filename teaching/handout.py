"""Who gets what? A notebook for each student, and the key for the instructor alone."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from book.machine.audience import student_notebook
from book.machine.parameters import PARAMETERS, tags_of, with_parameters
from teaching.catalogue import QUESTIONS, homework_task

TEMPLATES = Path(__file__).parent
"""Where the homework and the labs lie, with their solutions."""

_FILE_NAME = re.compile(r"[\w.@+-]+")


def read_roster(path: str | Path) -> list[str]:
    """The students of a roster, a CSV file with a column ``student``.

    Args:
        path: the file. What stands in the column becomes a file name.

    Returns:
        The students in the file's order.

    Raises:
        ValueError: no such column, nobody in it, somebody twice, or a name that is none of a file.
        FileNotFoundError: there is no such file.
        OSError: it can't be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"students is {str(path)!r}, and there is no such file; name a CSV file with a column "
            "'student', a line for each"
        )
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "student" not in (rows.fieldnames or []):
            found = ", ".join(rows.fieldnames or []) or "none"
            raise ValueError(f"{path} has no column 'student'; its columns: {found}")
        students = [str(row["student"] or "").strip() for row in rows]
    if not students:
        raise ValueError(f"{path} names no student")
    for line, student in enumerate(students, 2):
        if not _FILE_NAME.fullmatch(student) or student.startswith("."):
            raise ValueError(
                f"{path}, line {line}: {student!r} can't name a file; write letters, digits, . - _"
            )
    folded = [student.casefold() for student in students]
    if twice := sorted({one for one in students if folded.count(one.casefold()) > 1}):
        raise ValueError(f"{path} names {', '.join(twice)} more than once")
    return students


def student_seed(student: str, term: str) -> int:
    """A student's seed: the same for the same name and term, whoever else is on the roster."""
    digest = hashlib.sha256(f"{term}\n{student}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def write_homework(
    students: Sequence[str],
    folder: str | Path,
    *,
    term: str,
    overwrite: bool = False,
    templates: str | Path = TEMPLATES,
) -> list[Path]:
    """Write each student's notebook, and the key with all answers.

    Args:
        students: from `read_roster`.
        folder: gets ``students/<name>.ipynb``, ``instructor/<name>.ipynb`` with the solutions, and
            ``instructor/key.csv``.
        term: such as ``2027-spring``: another term, other numbers.
        overwrite: replace what is there.
        templates: the folder with ``homework.ipynb``.

    Returns:
        The students' notebooks.

    Raises:
        FileExistsError: something is there and overwrite is False; nothing was written.
        FileNotFoundError: there is no template.
    """
    template = _read_template(Path(templates) / "homework.ipynb")
    notebooks, key = {}, []
    for student in students:
        seed = student_seed(student, term)
        made = _with_parameters(template, {"student": student, "seed": seed})
        notebooks[Path("students", f"{student}.ipynb")] = _as_text(student_notebook(made))
        notebooks[Path("instructor", f"{student}.ipynb")] = _as_text(made)
        key += _answers(student, seed)
    _write({Path("instructor", "key.csv"): _as_csv(key), **notebooks}, Path(folder), overwrite)
    return [Path(folder, name) for name in notebooks if name.parts[0] == "students"]


def write_labs(
    folder: str | Path, *, overwrite: bool = False, templates: str | Path = TEMPLATES
) -> list[Path]:
    """Write the labs for students, without their solutions.

    Args:
        folder: gets ``lab_1.ipynb`` and so on.
        overwrite: replace what is there.
        templates: the folder with the labs and their solutions.

    Returns:
        The notebooks.

    Raises:
        FileExistsError: something is there and overwrite is False; nothing was written.
        FileNotFoundError: there is no lab.
    """
    labs = sorted(Path(templates).glob("lab_*.ipynb"))
    if not labs:
        raise FileNotFoundError(f"no lab_*.ipynb in {templates}: run this in the book's checkout")
    texts = {Path(path.name): _as_text(student_notebook(_read_template(path))) for path in labs}
    _write(texts, Path(folder), overwrite)
    return [Path(folder, name) for name in texts]


def _read_template(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"no {path}: run this in the book's checkout")
    notebook: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return notebook


def _with_parameters(notebook: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    cells = [
        {**cell, "source": with_parameters("".join(cell["source"]), values)}
        if PARAMETERS in tags_of(cell)
        else cell
        for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells}


def _answers(student: str, seed: int) -> list[list[Any]]:
    task = homework_task(seed)
    return [
        [student, seed, name, _rounded(question.solve(task))]
        for name, question in QUESTIONS.items()
    ]


def _rounded(answer: Any) -> str:
    numbers = np.asarray(answer)
    return json.dumps((numbers.round(4) if numbers.dtype.kind == "f" else numbers).tolist())


def _as_csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["student", "seed", "question", "answer"])
    writer.writerows(rows)
    return text.getvalue()


def _as_text(notebook: Mapping[str, Any]) -> str:
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _write(texts: Mapping[Path, str], folder: Path, overwrite: bool) -> None:
    existing = [folder / name for name in texts if (folder / name).exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{existing[0]} exists; nothing was written. Name another folder, or say --overwrite"
        )
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", newline="")
