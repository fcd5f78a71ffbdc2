"""Homework and hints: every usual mistake gets its own hint, and nobody gets a solution."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import teaching
from book.machine.audience import student_notebook
from teaching import questions
from teaching.__main__ import main
from teaching.handout import (
    TEMPLATES,
    read_roster,
    require_own_numbers,
    student_seed,
    write_homework,
    write_labs,
)

SEEDS = (0, 1, 7, 2027)
NOTEBOOKS = sorted(TEMPLATES.glob("*.ipynb"))
MISTAKES = [
    (name, number)
    for name, question in teaching.QUESTIONS.items()
    for number in range(len(question.mistakes))
]
tasks = {seed: teaching.homework_task(seed) for seed in SEEDS}

every_seed = pytest.mark.parametrize("seed", SEEDS)
every_question = pytest.mark.parametrize("name", teaching.QUESTIONS)


# --- Hints ---------------------------------------------------------------------------------------


@every_seed
@every_question
def test_the_right_answer_agrees_exactly_and_in_three_digits(name: str, seed: int) -> None:
    question, task = teaching.QUESTIONS[name], tasks[seed]
    right = np.asarray(question.solve(task))
    assert teaching.hint_for(question, task, right) == questions.AGREES
    assert teaching.hint_for(question, task, right.tolist()) == questions.AGREES
    if right.dtype.kind == "f" and name != "3.1":
        assert teaching.hint_for(question, task, right.round(3)) == questions.AGREES


@every_seed
@pytest.mark.parametrize(("name", "number"), MISTAKES)
def test_each_usual_mistake_gets_its_own_hint(name: str, number: int, seed: int) -> None:
    question, task = teaching.QUESTIONS[name], tasks[seed]
    mistake = question.mistakes[number]
    assert teaching.hint_for(question, task, mistake(task)) == questions.hint_of(mistake)


@every_question
def test_hints_differ_and_tell_no_answer(name: str) -> None:
    question, task = teaching.QUESTIONS[name], tasks[0]
    hints = [questions.hint_of(solve) for solve in (question.solve, *question.mistakes)]
    assert len(set(hints)) == len(hints)
    assert all(len(hint) > 20 for hint in hints)
    for number in np.ravel(np.asarray(question.solve(task), dtype=float)):
        if number % 1:
            assert not any(f"{abs(number):.3g}" in hint for hint in hints)


@every_question
def test_any_other_answer_gets_the_general_hint(name: str) -> None:
    question, task = teaching.QUESTIONS[name], tasks[0]
    odd = np.asarray(question.solve(task), dtype=float) + 17.3
    said = teaching.hint_for(question, task, odd)
    assert (
        ("probabilities" in said) if question.judge else (said == questions.hint_of(question.solve))
    )


@pytest.mark.parametrize("answer", [..., None, [..., ...], [1.0, None]])
def test_no_answer_is_no_mistake(answer: Any) -> None:
    assert teaching.hint_for(teaching.QUESTIONS["1.3"], tasks[0], answer) == questions.MISSING


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (0.3, "one number for each of the six instances: shape (6,), not ()"),
        ([0.3] * 5, "shape (6,), not (5,)"),
        ("many", "this is str"),
        ([[1, 2], [3]], "this is list"),
    ],
)
def test_another_form_is_named(answer: Any, said: str) -> None:
    assert said in teaching.hint_for(teaching.QUESTIONS["1.3"], tasks[0], answer)


def two(first: list[float], second: list[float], k: int) -> np.ndarray:
    made = np.zeros((2, k))
    made[0, : len(first)], made[1, : len(second)] = first, second
    return made


@every_seed
def test_the_search_for_two_predictions_is_guided(seed: int) -> None:
    task = tasks[seed]
    k, question = task.num_classes, teaching.QUESTIONS["3.1"]
    flat = np.full((2, k), 1 / k)
    certain = two([1.0], [1.0], k)
    cases = {
        "both are flagged": flat,
        "the second is flagged": np.vstack([certain[0], flat[0]]),
        "1 of its": certain,
        "probabilities": two([0.5, 0.4], [1.0], k),
    }
    for words, pair in cases.items():
        assert words in teaching.hint_for(question, task, pair)
    assert "cross tau" in teaching.hint_for(question, task, certain)


def test_check_prints_and_returns_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert teaching.check(tasks[0], "1.1", tasks[0].tau) is None
    assert capsys.readouterr().out == f"1.1: {questions.AGREES}\n"
    with pytest.raises(ValueError, match=r"no question '9'; there are 1\.1"):
        teaching.check(tasks[0], "9", 1)


# --- Numbers of one's own ------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
@example(43)  # its first draw has nothing to flag
@example(119152)
def test_a_task_is_fair(seed: int) -> None:
    task = teaching.homework_task(seed)
    again = teaching.homework_task(seed)
    assert (task.pred_probs == again.pred_probs).all()
    assert task.alpha == again.alpha
    assert np.allclose(task.pred_probs.sum(axis=1), 1)
    assert task.pred_probs.min() > 0
    assert (task.pred_probs.round(3) == task.pred_probs).all()
    assert 0 < task.tau < 1 / task.num_classes
    agreeing = task.given_labels == task.pred_probs.argmax(axis=1)
    assert agreeing.any()
    assert not agreeing.all()
    flagged = teaching.QUESTIONS["1.4"].solve(task)
    assert flagged.any()
    assert not flagged.all()
    for question in teaching.QUESTIONS.values():
        assert questions.tells_apart(question, task)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        teaching.homework_task(-1)


def test_seeds_belong_to_a_student_and_a_term() -> None:
    seeds = {student_seed(who, term) for who in ("ada", "bo") for term in ("1", "2")}
    assert len(seeds) == 4
    assert student_seed("ada", "1") in seeds
    assert all(0 <= seed < 2**32 for seed in seeds)


# --- Handing out ---------------------------------------------------------------------------------


def roster(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "roster.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nada\n", "roster.csv:1: there is no column 'student'; it has 'name'"),
        ("student\n", "has a header and no lines"),
        ("student\nada\nAda\n", "more than once"),
        ("student\n../ada\n", "roster.csv:2: '../ada' can't name a file"),
        ('student\nada\n""\n', "roster.csv:3: '' can't name a file"),
        ("student\n\nada\n\n\na/b\n", "roster.csv:6: 'a/b' can't name a file"),
    ],
)
def test_a_roster_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_roster(roster(tmp_path, text))


def test_a_roster_may_be_what_a_spreadsheet_saves(tmp_path: Path) -> None:
    """With other columns, semicolons, in UTF-16; given and family name are in a single one."""
    names = ["Ada Lovelace", "Curie, Marie", "Zoë", "O'Neil"]
    text = "group;student\r\n\r\n" + "".join(f'1;"{name}"\r\n' for name in names)
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path = tmp_path / f"{encoding}.csv"
        path.write_bytes(text.encode(encoding))
        assert read_roster(path) == names
    made = write_homework(names, tmp_path / "out", term="1")
    assert [path.stem for path in made] == names
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"utf-16\.csv:5: not UTF-8; convert it: save it as UTF-8"):
        read_roster(path)


def test_a_roster_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a CSV file with a column 'student'"):
        read_roster(tmp_path / "nobody.csv")


def written(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def sources(notebook: dict[str, Any]) -> str:
    return "\n".join("".join(cell["source"]) for cell in notebook["cells"])


def test_everyone_gets_a_notebook_and_only_the_instructor_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = roster(tmp_path, "student,group\nada,1\nbo,2\n")
    out = tmp_path / "out"
    command = ["homework", "--students", str(path), "--out", str(out), "--term", "2027"]
    assert main(command) == 0
    assert "2 notebooks in" in capsys.readouterr().out
    own = {who: written(out / "students" / f"{who}.ipynb") for who in ("ada", "bo")}
    for who, notebook in own.items():
        assert f"student: str = {who!r}" in sources(notebook).replace('"', "'")
        assert not any("solution" in c["metadata"].get("tags", []) for c in notebook["cells"])
    assert sources(own["ada"]) != sources(own["bo"])
    rows = list(csv.DictReader((out / "instructor" / "key.csv").open()))
    assert [row["student"] for row in rows] == ["ada"] * 10 + ["bo"] * 10
    for row in rows:
        task = teaching.homework_task(student_seed(row["student"], "2027"))
        answer = json.loads(row["answer"])
        question = teaching.QUESTIONS[row["question"]]
        assert teaching.hint_for(question, task, answer) == questions.AGREES

    before = (out / "students" / "ada.ipynb").read_bytes()
    (out / "students" / "bo.ipynb").write_text("mine")
    assert main(command) == 1
    assert "exists; nothing was written" in capsys.readouterr().err
    assert (out / "students" / "bo.ipynb").read_text() == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert (out / "students" / "ada.ipynb").read_bytes() == before


def test_labs_are_handed_out_without_solutions(tmp_path: Path) -> None:
    assert main(["labs", "--out", str(tmp_path / "labs")]) == 0
    made = sorted((tmp_path / "labs").glob("*.ipynb"))
    assert [path.name for path in made] == ["lab_1.ipynb", "lab_2.ipynb"]
    assert (tmp_path / "labs" / "teaching" / "catalogue.py").exists()


def test_handed_out_homework_runs_with_genkl_alone(tmp_path: Path) -> None:
    (path,) = write_homework(["ada"], tmp_path / "out", term="1")
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "genkl").symlink_to(TEMPLATES.parent / "genkl")
    cells = [cell for cell in written(path)["cells"] if cell["cell_type"] == "code"]
    script = "\n".join("".join(cell["source"]) for cell in cells)
    script += "\nimport importlib.util, teaching.catalogue as used"
    script += "\nassert importlib.util.find_spec('book') is None"
    script += "\nprint(used.__file__, instances.data.splitlines()[2])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=path.parent, env={"PYTHONPATH": str(installed)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count(questions.MISSING) == len(teaching.QUESTIONS)
    assert str(path.parent / "teaching" / "catalogue.py") in done.stdout
    task = teaching.homework_task(student_seed("ada", "1"))
    assert f"| 0 | {task.given_labels[0]} | {task.pred_probs[0, 0]} | " in done.stdout
    assert not list(path.parent.rglob("key.csv"))


@pytest.mark.book
def test_a_returned_notebook_is_checked_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = write_homework(["ada"], tmp_path / "out", term="1")
    returned = written(path)
    for cell in returned["cells"]:
        source = "".join(cell["source"])
        if source.startswith("tau = ..."):
            cell["source"] = "tau = 1 / task.num_classes - task.beta\n" + source.partition("\n")[2]
        if source.startswith("dominant = ..."):
            cell["source"] = "dominant = nonsense"
        if source.startswith("flagged = ..."):
            cell["source"] = "flagged = [True] * 5\n" + source.partition("\n")[2]
    path.write_text(json.dumps(returned))
    (path.parent / "teaching" / "__init__.py").write_text(
        "def check(*_): print('1.2: this agrees')"
    )
    before = path.read_bytes()
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr().out
    assert "ada: 1 of 9 answers agree" in said
    assert "1.1" not in said
    assert "1.2" not in said
    assert "  1.4: give True or False for each of the six instances: shape (6,), not (5,)." in said
    assert "  3.1: no answer" in said
    assert path.read_bytes() == before

    require_own_numbers(path, "1")
    with pytest.raises(ValueError, match="those of ada in 2 have"):
        require_own_numbers(path, "2")


@pytest.mark.parametrize(("text", "message"), [("no", "is no notebook"), (None, "No such file")])
def test_what_is_no_notebook_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    path = tmp_path / "returned.ipynb"
    if text:
        path.write_text(text)
    assert main(["check", str(path)]) == 1
    assert message in capsys.readouterr().err


def solution_lines(notebook: dict[str, Any]) -> set[str]:
    """Lines that only solutions hold."""
    told, kept = (
        {
            line.strip()
            for cell in notebook["cells"]
            if ("solution" in cell["metadata"].get("tags", [])) is is_solution
            for line in "".join(cell["source"]).splitlines()
            if len(line.strip()) > 5
        }
        for is_solution in (True, False)
    )
    return told - kept


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_line_of_a_solution_reaches_a_student(path: Path) -> None:
    notebook = written(path)
    secret = solution_lines(notebook)
    assert len(secret) > 10
    handed_out = student_notebook(notebook)
    shown = {line.strip() for line in sources(handed_out).splitlines()}
    assert not secret & shown
    for line in secret:
        if len(line) > 25:
            assert json.dumps(line, ensure_ascii=False)[1:-1] not in json.dumps(
                handed_out, ensure_ascii=False
            )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_teaching_notebooks_are_committed_clean(path: Path) -> None:
    for cell in written(path)["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            lines = "".join(cell["source"]).splitlines()
            assert sum(bool(line.strip()) for line in lines) <= 15


def without_runs(notebook: dict[str, Any]) -> dict[str, Any]:
    """A notebook without the cells that train for minutes and wait for no answer."""
    cells = [cell for cell in notebook["cells"] if "genkl.run_" not in "".join(cell["source"])]
    return {**notebook, "cells": cells}


@pytest.mark.book
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_run_and_agree_and_the_students_copy_asks(path: Path, tmp_path: Path) -> None:
    short = {"lab_2": ["-p", "num_seeds", "1", "-p", "train_steps", "25"]}
    folder = write_labs(tmp_path / "handed out")[0].parent  # with the checks that they import
    for name, notebook in {
        "instructor": written(path),
        "student": without_runs(student_notebook(written(path))),
    }.items():
        prepared = folder / f"{name}.ipynb"
        prepared.write_text(json.dumps(notebook))
        command = [sys.executable, "-P", "-m", "papermill", str(prepared), str(prepared)]
        command += ["--no-progress-bar", "--log-level", "ERROR", *short.get(path.stem, [])]
        subprocess.run(command, check=True, cwd=folder)
        said = [
            line
            for cell in written(prepared)["cells"]
            for output in cell.get("outputs", [])
            if output["output_type"] == "stream"
            for line in "".join(output["text"]).splitlines()
            if re.match(r"\d\.\d: ", line)
        ]
        assert said
        agreeing = sum(questions.AGREES in line for line in said)
        missing = sum(questions.MISSING in line for line in said)
        assert agreeing + missing == len(said)
        assert (agreeing == missing) if name == "instructor" else agreeing == 0


def test_the_homework_needs_nothing_but_the_package(tmp_path: Path) -> None:
    assert {path.stem for path in NOTEBOOKS} == {"homework", "lab_1", "lab_2"}
    shutil.copy(TEMPLATES / "homework.ipynb", tmp_path)
    students = ["ada"]
    made = write_homework(students, tmp_path / "out", term="1", templates=tmp_path)
    assert [path.name for path in made] == ["ada.ipynb"]
    with pytest.raises(FileNotFoundError, match=r"homework\.ipynb"):
        write_homework(students, tmp_path / "out", term="1", templates=tmp_path / "no")
