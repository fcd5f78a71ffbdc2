"""From a chapter to a run of one's own: parameters, commands, records side by side, links."""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from book.machine import comparison, copies, online, rerun
from book.machine.parameters import read_parameters
from book.machine.profiles import plan, read_manifest
from book.machine.project import BookError, Project

ROOT = Path(__file__).parents[2]
PROJECT = Project(ROOT)
every_notebook = pytest.mark.parametrize("name", PROJECT.names())

PARAMETERS = (
    "alpha: float = 0.9  # weight of the entropy [0.4 to 1.4]\n"
    'kind: str = "it\'s pair"  # of noise [pair or symmetric]\n'
    'path: str = ""\n'
    'record_path: str = ""  # where to write'
)


def notebook(*cells: tuple[str, str, list[str]], parameters: str = PARAMETERS) -> dict[str, Any]:
    """A notebook of (type, source, tags), with a title and a parameters cell before them."""
    first = [("markdown", "# Title", []), ("code", parameters, ["parameters"])]
    made = []
    for number, (kind, source, tags) in enumerate([*first, *cells]):
        cell = {"cell_type": kind, "id": f"c{number}", "metadata": {}, "source": source}
        if tags:
            cell["metadata"] = {"tags": tags}
        if kind == "code":
            cell |= {"outputs": [], "execution_count": None}
        made.append(cell)
    return {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.notebooks.mkdir()
    (made.notebooks / "manifest.yml").write_text("quick: {a: {}}")
    made.template("a").write_text(json.dumps(notebook(("code", "alpha + 1", []))))
    return made


# --- Parameters --------------------------------------------------------------------------------


def test_meaning_and_range_are_the_comment_of_a_parameter(project: Project) -> None:
    known = read_parameters(project.template("a"))
    assert (known["alpha"].meaning, known["alpha"].range) == ("weight of the entropy", "0.4 to 1.4")
    assert (known["path"].meaning, known["path"].range) == ("", "")
    assert (known["record_path"].meaning, known["record_path"].range) == ("where to write", "")


@every_notebook
def test_every_parameter_says_what_it_means_and_every_number_its_range(name: str) -> None:
    for one in read_parameters(PROJECT.template(name)).values():
        assert one.meaning, f"{name}: say in a comment what {one.name} means"
        if isinstance(one.default, int | float) and not isinstance(one.default, bool):
            assert re.fullmatch(r"[\d.]+ to [\d.]+", one.range), f"{name}: {one.name} [LOW to HIGH]"


@pytest.mark.parametrize("profile", read_manifest(ROOT))
def test_the_values_of_every_profile_lie_in_the_range(profile: str) -> None:
    for job in plan(Project(ROOT, profile), overrides={}):
        for key, one in read_parameters(PROJECT.template(job.name)).items():
            if found := re.fullmatch(r"([\d.]+) to ([\d.]+)", one.range):
                low, high = map(float, found.groups())
                assert low <= job.parameters[key] <= high, f"{job.name}: {key}"


# --- What is computed, and what is only said ---------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "is_same"),
    [
        ([("markdown", "Prose.", []), ("code", "x = alpha + 1", [])], True),
        ([("code", "x = alpha + 1  # why", [])], True),
        ([("code", "x = (alpha\n     + 1)", ["hide-input"])], True),
        ([("code", "import os", ["setup"]), ("code", "x = alpha + 1", [])], True),
        ([("code", "x = alpha + 2", [])], False),
        ([("code", "x = alpha + 1", ["skip-execution"])], False),
        ([("code", "x = alpha + 1", []), ("code", "x", [])], False),
        ([("code", "%time x = alpha + 1", [])], False),
    ],
)
def test_a_fingerprint_changes_with_the_code_alone(
    project: Project, cells: list[tuple[str, str, list[str]]], is_same: bool
) -> None:
    path = project.template("a")
    path.write_text(json.dumps(notebook(("code", "x = alpha + 1", []))))
    before = copies.code_fingerprint(path)
    path.write_text(json.dumps(notebook(*cells)))
    assert (copies.code_fingerprint(path) == before) is is_same


def executed(*cells: tuple[str, str, list[str]], alpha: str = "1.2") -> dict[str, Any]:
    made = notebook(*cells, parameters=PARAMETERS.replace("0.9", alpha))
    made["metadata"] = {"genkl": {"profile": "quick", "changed": {}}}
    for number, cell in enumerate(c for c in made["cells"] if c["cell_type"] == "code"):
        output = {"output_type": "stream", "name": "stdout", "text": f"output {number}"}
        cell |= {"outputs": [output], "execution_count": number + 1}
    return made


def test_a_copy_gets_the_prose_and_the_metadata_of_today() -> None:
    copy = executed(("markdown", "Old.", []), ("code", "x = 1", []))
    template = notebook(
        ("code", "fetch()", ["setup"]), ("markdown", "New.", []), ("code", "x = 1  # one", ["tag"])
    )
    template["metadata"] = {"genkl": {"compare": {}}}
    shown = copies.up_to_date(template, copy)
    sources = [cell["source"] for cell in shown["cells"]]
    assert sources == ["# Title", PARAMETERS.replace("0.9", "1.2"), "New.", "x = 1  # one"]
    assert shown["cells"][-1]["outputs"][0]["text"] == "output 1"
    assert shown["cells"][-1]["metadata"]["tags"] == ["tag"]
    assert shown["metadata"]["genkl"] == {"profile": "quick", "changed": {}, "compare": {}}


def test_a_copy_of_other_code_is_shown_as_it_is() -> None:
    copy = executed(("code", "x = 1", []))
    assert copies.up_to_date(notebook(("code", "x = 2", [])), copy) == copy


# --- Commands ----------------------------------------------------------------------------------


def test_the_papermill_command_is_read_back_by_a_shell(project: Project) -> None:
    known = read_parameters(project.template("a"))
    words = shlex.split(rerun.papermill_command("a", known, {"alpha": 0.5}))
    assert words[:4] == ["papermill", "--cwd", "notebooks", "notebooks/a.ipynb"]
    given_values = {words[at + 1]: words[at + 2] for at, word in enumerate(words) if word == "-p"}
    assert given_values == {
        "alpha": "0.5",
        "kind": "it's pair",
        "record_path": "../a-mine.json",
    }


@pytest.mark.book
def test_the_papermill_command_runs_and_its_record_can_be_compared(tmp_path: Path) -> None:
    known = read_parameters(PROJECT.template("2_identification"))
    values = {"num_seeds": 1, "pretrain_steps": 15}
    command = rerun.papermill_command("2_identification", known, values)
    mine = tmp_path / "mine.json"
    command = command.replace("../2_identification-mine.json", str(mine))
    command = command.replace(" 2_identification-mine.ipynb", f" {tmp_path / 'mine.ipynb'}")
    command = command.replace("papermill", f"{shlex.quote(sys.executable)} -m papermill", 1)
    subprocess.run(command, shell=True, check=True, cwd=ROOT, capture_output=True)
    table = comparison.compare(PROJECT, "2_identification", mine)
    assert "entropy" in table
    assert "pretrain_steps = 15 (recorded with 200)" in table


@every_notebook
def test_the_section_names_every_parameter_and_both_commands(name: str) -> None:
    known = read_parameters(PROJECT.template(name))
    values = {key: one.default for key, one in known.items()}
    made = rerun.rerun_section(PROJECT, name, values)
    for key, one in known.items():
        if key != "record_path":
            assert f"| `{key}` | {one.meaning} |" in made
    assert f"python -m book chapter {name} -p " in made
    assert f"notebooks/{name}.ipynb" in made
    assert "Binder" not in made


# --- Records side by side ------------------------------------------------------------------------


def record(*values: float, rule: str = "entropy", **settings: Any) -> dict[str, Any]:
    rows = [{"rule": rule, "seed": seed, "auroc": value} for seed, value in enumerate(values)]
    return {"schema": 1, "tables": {"reports": rows}, "settings": settings, "runs": []}


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        ((0.7, 0.8, 0.9), "the same"),
        ((0.8,), "the same"),
        ((0.75,), "within the spread"),
        ((0.69,), "outside it"),
        ((0.91,), "outside it"),
    ],
)
def test_a_run_is_judged_by_the_recorded_spread(own: tuple[float, ...], verdict: str) -> None:
    (row,) = comparison.compare_records(record(0.7, 0.8, 0.9), record(*own))
    assert (row.what, row.metric) == ("entropy", "auroc")
    assert math.isclose(row.recorded.mean, 0.8)
    assert math.isclose(row.recorded.std, 0.1)
    assert row.verdict == verdict
    assert math.isclose(row.difference, sum(own) / len(own) - 0.8, abs_tol=1e-12)


def test_a_single_recorded_value_has_no_spread_to_judge_by() -> None:
    (row,) = comparison.compare_records(record(0.7), record(0.7, 0.9))
    assert row.verdict == "no spread was recorded"


def test_what_only_one_run_has_is_shown_and_said() -> None:
    rows = comparison.compare_records(record(0.7), record(0.7, rule="other"))
    assert [(row.what, row.verdict) for row in rows] == [
        ("entropy", "only in one of them"),
        ("other", "only in one of them"),
    ]
    assert "nan" not in comparison.comparison_table(rows)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.randoms())
def test_the_order_of_repetitions_does_not_matter(values: list[float], random: Any) -> None:
    shuffled = random.sample(values, len(values))
    (row,) = comparison.compare_records(record(*values), record(*shuffled))
    assert row.verdict == "the same"


def test_the_table_is_square_markdown() -> None:
    lines = comparison.comparison_table(
        comparison.compare_records(record(0.7, 0.8), record(0.6))
    ).splitlines()
    assert {line.count("|") for line in lines} == {7}
    assert len(set(map(len, lines))) == 1
    assert "0.750 ± 0.071" in lines[2]
    assert "-0.150" in lines[2]


def test_another_record_is_compared_by_command(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    from book.__main__ import main

    results = comparison.recorded_path(project, "a")
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps(record(0.7, 0.8, alpha=0.9)))
    mine = project.root / "mine.json"
    mine.write_text(json.dumps(record(0.7, 0.8, alpha=0.5)))
    assert main(["compare", "a", str(mine), "--root", str(project.root)]) == 0
    said = capsys.readouterr().out
    assert "the same" in said
    assert "alpha = 0.5 (recorded with 0.9)" in said
    assert main(["compare", "a", "--root", str(project.root)]) == 1
    assert "no record" in capsys.readouterr().err
    mine.write_text("[]")
    assert main(["compare", "a", str(mine), "--root", str(project.root)]) == 1
    assert "is no record" in capsys.readouterr().err


def test_the_chosen_columns_are_in_the_records() -> None:
    chosen = {name: comparison.chosen_columns(PROJECT, name) for name in PROJECT.names()}
    kept = {path.stem for path in (ROOT / "results" / "quick").glob("*.json")}
    assert {name for name, columns in chosen.items() if columns} <= kept
    for name in kept:
        tables = comparison.read_record(comparison.recorded_path(PROJECT, name))["tables"]
        for table, columns in (chosen[name] or {}).items():
            names = set().union(*(row.keys() for row in tables[table]))
            assert {*columns["by"], *columns["metrics"]} <= names, name


# --- Binder and Colab --------------------------------------------------------------------------

REPOSITORY = online.Repository("https://github.com/someone/some-book", "trunk")


def test_links_open_the_notebook_of_this_repository(project: Project) -> None:
    values = {"alpha": 0.9}
    made = rerun.rerun_section(project, "a", values, REPOSITORY)
    assert (
        "https://mybinder.org/v2/gh/someone/some-book/trunk?urlpath=lab/tree/notebooks/a.ipynb"
        in made
    )
    assert (
        "https://colab.research.google.com/github/someone/some-book/blob/trunk/notebooks/a.ipynb"
        in made
    )


@pytest.mark.parametrize("text", ["", "repository: {url: ''}", "repository:"])
def test_without_a_repository_there_are_no_links(project: Project, text: str) -> None:
    (project.root / "_config.yml").write_text(text)
    assert online.read_repository(project.root) is None


def test_another_host_is_refused(project: Project) -> None:
    (project.root / "_config.yml").write_text("repository: {url: 'https://host.org/a/b'}")
    with pytest.raises(BookError, match=r"repository\.url"):
        online.read_repository(project.root)


def test_setup_cells_follow_the_configuration_and_nothing_else_changes(project: Project) -> None:
    before = project.template("a").read_text()
    fingerprint = copies.code_fingerprint(project.template("a"))
    config = project.root / "_config.yml"
    config.write_text("repository: {url: 'https://github.com/someone/some-book'}")
    assert online.write_setup_cells(project) == ["a"]
    assert online.write_setup_cells(project) == []
    made = json.loads(project.template("a").read_text())
    assert made["cells"][1]["metadata"]["tags"] == ["remove-cell", "setup"]
    assert copies.code_fingerprint(project.template("a")) == fingerprint
    config.write_text("repository: {url: ''}")
    assert online.write_setup_cells(project) == ["a"]
    assert json.loads(project.template("a").read_text()) == json.loads(before)


def test_the_setup_cell_does_nothing_where_the_package_is(capsys: Any) -> None:
    source = online.setup_source(REPOSITORY)
    ast.parse(source)
    here = Path.cwd()
    exec(compile(source, "setup", "exec"), {})
    assert Path.cwd() == here
    fetch = "git clone --quiet --depth 1 --branch trunk https://github.com/someone/some-book"
    assert f"{fetch} some-book" in source
    assert "pip install --quiet './some-book[train,plots]'" in source  # what chapters import


@every_notebook
def test_the_committed_setup_cell_is_the_configured_one(name: str) -> None:
    committed = json.loads(PROJECT.template(name).read_text("utf-8"))
    assert online.with_setup(committed, online.read_repository(ROOT)) == committed, (
        "run `python -m book online`"
    )
