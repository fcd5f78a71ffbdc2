"""Notebooks for students without solutions, the key for the instructor, and returned notebooks.

Beside its notebooks a handed-out folder holds the modules that they import, so that they need no
checkout: `genkl` is enough for the homework, and ``genkl[train,plots]`` for the labs.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from book.machine.audience import student_notebook
from book.machine.parameters import PARAMETERS, read_parameters, tags_of, with_parameters
from book.machine.project import need, read_notebook, search_path
from genkl.data.tables import read_texts
from genkl.storage import write_together
from teaching.catalogue import QUESTIONS, homework_task

TEMPLATES = Path(__file__).parent
"""Where the homework and the labs lie, with their solutions."""

CHECKS = ("__init__.py", "catalogue.py", "questions.py", "task.py")
"""The modules of this package that check answers."""

_FILE_NAME = re.compile(r"[\w@+-][\w.@+'-]*(,? [\w.@+'-]+)*")
_SAID = re.compile(rf"^({'|'.join(map(re.escape, QUESTIONS))}): (.*)", re.MULTILINE)


def read_roster(path: str | Path) -> list[str]:
    """The students of a roster, a CSV file (UTF-8 or UTF-16) with a column ``student``.

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
    table = read_texts(path, ["student"])
    students = table.texts("student").to_pylist()
    for row, student in enumerate(students):
        if not _FILE_NAME.fullmatch(student):
            problem = f"{student!r} can't name a file"
            raise table.error(problem, "write letters, digits, spaces, . - _", row)
    folded = [student.casefold() for student in students]
    if twice := sorted({name for name in students if folded.count(name.casefold()) > 1}):
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
    read: Iterable[str | Path] = (),
) -> list[Path]:
    """Write each student's notebook, and the key with all answers.

    Args:
        students: from `read_roster`.
        folder: gets ``students/<name>.ipynb`` and ``students/teaching/``, which they import;
            ``instructor/<name>.ipynb`` with the solutions; and ``instructor/key.csv``.
        term: such as ``2027-spring``: another term, other numbers.
        overwrite: replace what is there.
        templates: the folder with ``homework.ipynb``.
        read: files that are never replaced, such as the roster.

    Returns:
        The students' notebooks.

    Raises:
        FileExistsError: something is there and overwrite is False, or it is one of the files to
            read from; nothing was written.
        FileNotFoundError: there is no template.
        OSError: no space; what was there stays as a whole.
    """
    template = _read_template(Path(templates) / "homework.ipynb")
    notebooks, key = {}, []
    for student in students:
        seed = student_seed(student, term)
        made = _with_parameters(template, {"student": student, "seed": seed})
        notebooks[Path("students", f"{student}.ipynb")] = _as_text(student_notebook(made))
        notebooks[Path("instructor", f"{student}.ipynb")] = _as_text(made)
        key += _answers(student, seed)
    checks = {Path("students", "teaching", name): _text(TEMPLATES / name) for name in CHECKS}
    texts = {Path("instructor", "key.csv"): _as_csv(key), **notebooks, **checks}
    _write(texts, Path(folder), overwrite, [*read, Path(templates) / "homework.ipynb"])
    return [Path(folder, name) for name in notebooks if name.parts[0] == "students"]


def write_labs(
    folder: str | Path, *, overwrite: bool = False, templates: str | Path = TEMPLATES
) -> list[Path]:
    """Write the labs for students, without their solutions.

    Args:
        folder: gets ``lab_1.ipynb`` and so on, and ``teaching/``, which they import.
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
    modules = {Path("teaching", name): _text(TEMPLATES / name) for name in CHECKS}
    _write({**texts, **modules}, Path(folder), overwrite, labs)
    return [Path(folder, name) for name in texts]


def read_answers(path: str | Path) -> dict[str, str]:
    """What the checks of a returned notebook say when it is executed.

    It is executed in an empty folder, with this checkout's checks in the place of the student's,
    and to its end, whatever fails on the way. The file stays as it is.

    Args:
        path: a student's notebook. Its code runs on this machine.

    Returns:
        Question -> what was said of the answer; of several checks, of the last one.

    Raises:
        ValueError: it is no notebook, or checks nothing.
        FileNotFoundError: there is no such file.
    """
    need("nbclient", "ipykernel")
    import nbformat
    from nbclient import NotebookClient

    try:
        notebook = nbformat.reads(_text(path), as_version=4)
    except nbformat.reader.NotJSONError:
        raise ValueError(f"{path} is no notebook") from None
    with tempfile.TemporaryDirectory() as folder, _importable(TEMPLATES.parent):
        client = NotebookClient(notebook, kernel_name="python3", allow_errors=True)
        client.resources = {"metadata": {"path": folder}}
        client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "\n".join(output.text for output in outputs if output.output_type == "stream")
    answers = dict(_SAID.findall(said))
    if not answers:
        raise ValueError(f"{path} checks nothing: no cell calls teaching.check")
    return answers


def require_own_numbers(path: str | Path, term: str) -> None:
    """Raise if a returned notebook's seed is not that of its student and the term.

    Raises:
        ValueError: it is not, or the notebook names none.
    """
    values = {key: value.default for key, value in read_parameters(Path(path)).items()}
    student, seed = str(values.get("student")), values.get("seed")
    if seed != (own := student_seed(student, term)):
        raise ValueError(
            f"{path} has the numbers of seed {seed}; those of {student} in {term} have {own}"
        )


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the processes that are started meanwhile import from a folder."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = search_path(folder)
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def _text(path: str | Path) -> str:
    return Path(path).read_text("utf-8")


def _read_template(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"no {path}: run this in the book's checkout")
    return read_notebook(path)


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


def _write(texts: Mapping[Path, str], folder: Path, overwrite: bool, read: Iterable[Any]) -> None:
    existing = [folder / name for name in texts if (folder / name).exists()]
    for path, source in itertools.product(existing, (*read, *TEMPLATES.glob("*.*"))):
        if path.samefile(source):
            raise FileExistsError(f"{path} is a file to read from; name another folder")
    if existing and not overwrite:
        raise FileExistsError(
            f"{existing[0]} exists; nothing was written. Name another folder, or say --overwrite"
        )
    write_together({folder / name: text.encode() for name, text in texts.items()})
