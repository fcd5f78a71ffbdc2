"""Students' pages hold no solution: not in the page, the search index, or the sources."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book.machine.audience import check_audience, student_notebook, without_solutions
from book.machine.project import BookError, Project
from book.machine.rendering import build_html

REPOSITORY = Path(__file__).parents[2]
SECRET = "pumpernickel"

FORMS = {
    "backticks": f"```{{solution}} ex\n:class: dropdown\n\nIt is {SECRET}.\n```\n",
    "tildes": f"~~~{{solution}} ex\n{SECRET}\n~~~\n",
    "colons": f":::{{solution}} ex\n{SECRET}\n:::\n",
    "longer, around code": f"````{{solution}} ex\n```python\n{SECRET}\n```\nso\n````\n",
    "colons around colons": f"::::{{solution}} ex\n:::{{note}}\n{SECRET}\n:::\n{SECRET}\n::::\n",
    "gates": (
        f"```{{solution-start}} ex\n```\n{SECRET}\n```\n{SECRET}\n```\n```{{solution-end}}\n```\n"
    ),
    "indented": f"- item\n\n  ```{{solution}} ex\n  {SECRET}\n  ```\n",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_solution_goes_in_every_form_and_the_rest_stays(form: str) -> None:
    before, after = "# Title\n\n```{exercise}\n:label: ex\nWhy?\n```\n", "\n## Next\n"
    left = without_solutions(before + form + after)
    assert SECRET not in left
    assert left.startswith(before)
    assert left.endswith(after)


@given(st.lists(st.sampled_from(["text", "```python", "```", "{solution}", ":::", ""])))
def test_what_holds_no_solution_is_not_touched(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert without_solutions(text) == text


@pytest.mark.parametrize("text", ["```{solution} ex\nopen", "```{solution-start} ex\n```\nopen"])
def test_a_solution_without_end_is_an_error_and_hides_nothing(text: str) -> None:
    with pytest.raises(BookError, match="no"):
        without_solutions(text)


def markdown(source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": metadata, "source": source}


def code(source: str, **metadata: Any) -> dict[str, Any]:
    outputs = [{"output_type": "stream", "name": "stdout", "text": source}]
    return {"cell_type": "code", "metadata": metadata, "source": source, "outputs": outputs}


def test_solutions_that_span_cells_go_with_their_code() -> None:
    notebook = {
        "cells": [
            markdown("# Title"),
            markdown("Before.\n\n```{solution-start} ex\n```\n" + SECRET),
            code(SECRET),
            markdown(f"{SECRET}\n```{{solution-end}}\n```\nAfter."),
            code("kept"),
            code(SECRET, tags=["solution"]),
            markdown(SECRET, tags=["hide-input", "solution"]),
            markdown("```{solution} ex\n" + SECRET + "\n```"),
        ]
    }
    left = student_notebook(notebook)
    assert SECRET not in json.dumps(left)
    sources = [cell["source"] for cell in left["cells"]]
    assert sources == ["# Title", "Before.\n\nAfter.", "kept"]


@pytest.mark.parametrize("name", Project(REPOSITORY).names())
def test_no_solution_of_a_chapter_is_left(name: str) -> None:
    notebook = json.loads(Project(REPOSITORY).template(name).read_text("utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    left = "\n".join("".join(cell["source"]) for cell in student_notebook(notebook)["cells"])
    assert "{solution}" in text
    assert "{solution" not in left
    assert left.count("{exercise") == text.count("{exercise")
    for piece in text.split("{solution}")[1:]:
        for line in piece.split("```")[0].splitlines()[2:]:
            assert not line.strip() or line not in left.splitlines()


def test_an_unknown_audience_is_refused() -> None:
    assert check_audience("student") == "student"
    with pytest.raises(BookError, match="everyone, student, instructor"):
        check_audience("robots")


# --- A real build ----------------------------------------------------------------------------


@pytest.fixture
def small_book(tmp_path: Path) -> Project:
    """A page and a notebook with a solution each, and a page for instructors, really built."""
    project = Project(tmp_path)
    shutil.copy(REPOSITORY / "_config.yml", tmp_path)
    for folder in ("_ext", "_static"):
        shutil.copytree(REPOSITORY / "book" / folder, tmp_path / "book" / folder)
    solution = "```{exercise}\n:label: %s\nWhy?\n```\n\n" + FORMS["backticks"].replace(
        " ex\n", " %s\n"
    )
    (tmp_path / "book" / "references.bib").write_text("")
    (tmp_path / "book" / "index.md").write_text("# Start\n\n" + solution % ("one", "one"))
    (tmp_path / "book" / "instructor").mkdir()
    (tmp_path / "book" / "instructor" / "key.md").write_text(f"# Key\n\n{SECRET} and rye\n")
    project.notebooks.mkdir()
    (project.notebooks / "manifest.yml").write_text("quick: {a: {}}")
    cells = [
        {**markdown("# A"), "id": "a"},
        {**code("x: int = 1  # one [0 to 2]", tags=["parameters"]), "id": "b"},
        {**code(f"y = '{SECRET}'", tags=["solution"]), "id": "c"},
        {**markdown(solution % ("two", "two")), "id": "d"},
    ]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4}
    notebook["nbformat_minor"] = 5
    project.template("a").write_text(json.dumps(notebook))
    project.executed.mkdir(parents=True)
    shutil.copy(project.template("a"), project.copy("a"))
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters: [{file: notebooks/a}]\n"
    )
    return project


def files_with_the_secret(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes().lower()
    }


@pytest.mark.book
def test_no_file_of_the_student_build_holds_a_solution(small_book: Project) -> None:
    output = small_book.root / "out"
    full = build_html(small_book, output / "everyone")
    found = files_with_the_secret(full)
    assert {"book/index.html", "notebooks/a.html", "searchindex.js"} <= found
    assert {"_sources/book/index.md", "_sources/notebooks/a.ipynb"} <= found
    assert not (full / "book/instructor/key.html").exists()

    made = build_html(small_book, output / "student", audience="student")
    assert files_with_the_secret(made) == set()
    assert "Why?" in (made / "notebooks/a.html").read_text()
    assert (made / "_sources/notebooks/a.ipynb").exists()

    key = build_html(small_book, output / "instructor", audience="instructor")
    assert "rye" in (key / "book/instructor/key.html").read_text()
    assert found < files_with_the_secret(key)
