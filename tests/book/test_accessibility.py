"""The rendered pages for everyone: alternative texts, words and symbols that explain themselves,
commands that follow their fields."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendered_pages import CHAPTERS, ROOT, Reader

from book.machine.copies import up_to_date
from book.machine.project import Project

PROJECT = Project(ROOT)
BY_ITSELF = ("book/glossary", "book/notation")  # pages that define, and need no tips

# --- Figures say what they show ------------------------------------------------------------------


def figure_cells(name: str) -> list[dict[str, Any]]:
    """The cells of a chapter whose executed copy holds a picture, as the chapter has them now."""
    template, copy = (
        json.loads(path.read_text("utf-8"))
        for path in (PROJECT.template(name), Project(ROOT, "tiny").copy(name))
    )
    return [
        cell
        for cell in up_to_date(template, copy)["cells"]
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    ]


@pytest.mark.book
@pytest.mark.parametrize("name", PROJECT.names())
@pytest.mark.usefixtures("built")
def test_every_figure_has_a_text_that_says_what_it_shows(name: str) -> None:
    cells = figure_cells(name)
    assert cells
    for cell in cells:
        text = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        first = "".join(cell["source"])[:80]
        assert len(text) > 60, f"{name}: a cell without alternative text, which begins {first!r}"
        assert not re.match(r"(?i)(an? )?(image|figure|picture|plot|chart) of", text), text
        assert not re.search(r"\d\.\d\d", text), f"{name}: a run may change this number: {text}"


def test_alternative_texts_and_names_of_figures_differ() -> None:
    texts, names = [], []
    for name in PROJECT.names():
        for cell in json.loads(PROJECT.template(name).read_text("utf-8"))["cells"]:
            texts.append(cell["metadata"].get("mystnb", {}).get("image", {}).get("alt"))
            names.append(cell["metadata"].get("genkl", {}).get("figure"))
    for found in (texts, names):
        given = [one for one in found if one]
        assert len(set(given)) == len(given)


# --- Words and symbols explain themselves --------------------------------------------------------


def definitions(built: Path) -> dict[str, Any]:
    text = (built / "_static" / "definitions.js").read_text("utf-8")
    return json.loads(text.partition("=")[2].rstrip().rstrip(";"))


@pytest.mark.book
def test_definitions_come_from_the_glossary_and_the_notation(built: Path) -> None:
    made = definitions(built)
    names = {name for term in made["terms"] for name in term["names"]}
    assert {"NC", "OOD", "AID", "double-hot", "critical alpha", "conformal threshold"} <= names
    symbols = {one["tex"]: one["meaning"] for one in made["symbols"]}
    assert {r"\alpha", r"\beta", r"\tau", "q", "k"} <= symbols.keys()
    assert symbols[r"\tau"] == "dominance threshold"
    page = (built / "book" / "glossary.html").read_text("utf-8")
    for term in made["terms"]:
        assert term["meaning"]
        assert f'id="{term["anchor"]}"' in page


@pytest.mark.book
def test_a_word_is_explained_by_mouse_keyboard_and_finger(reader: Reader) -> None:
    page = reader.open("notebooks/1_geometry")
    word, tip = (
        page.locator("a.gloss", has_text="dominant entries").first,
        page.locator("#gloss-tip"),
    )
    assert tip.is_hidden()
    word.hover()
    tip.wait_for(state="visible")
    assert "dominance threshold" in tip.inner_text()
    assert word.get_attribute("aria-describedby") == "gloss-tip"
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.mouse.move(0, 0)
    word.focus()
    tip.wait_for(state="visible")
    page.keyboard.press("Escape")
    word.dispatch_event("pointerdown", {"pointerType": "touch"})
    word.dispatch_event("click")
    assert tip.is_visible()
    assert page.url.endswith("1_geometry.html")  # the first tap explains, and leads nowhere
    page.locator("article h1").click()
    assert tip.is_hidden()


@pytest.mark.book
def test_a_word_is_marked_once_and_never_in_code_or_headings(reader: Reader) -> None:
    page = reader.open("notebooks/2_identification")
    marked = page.eval_on_selector_all("article a.gloss", "all => all.map((a) => a.hash)")
    assert len(marked) > 5
    assert len(set(marked)) == len(marked)
    inside = "article :is(h1, h2, h3, pre, code, table, .exercise) a.gloss"
    assert page.locator(inside).count() == 0


@pytest.mark.book
def test_a_symbol_is_explained(reader: Reader) -> None:
    page = reader.open("notebooks/1_geometry")
    symbol = page.locator("span.math.gloss[data-meaning^='averaged prediction vector']").first
    symbol.wait_for()
    symbol.hover()
    tip = page.locator("#gloss-tip")
    tip.wait_for(state="visible")
    assert "averaged prediction vector" in tip.inner_text()
    assert "\\(" not in tip.inner_text()


@pytest.mark.book
@pytest.mark.parametrize("name", BY_ITSELF)
def test_pages_that_define_are_left_alone(reader: Reader, name: str) -> None:
    assert reader.open(name).locator(".gloss").count() == 0


# --- Run it yourself -----------------------------------------------------------------------------


@pytest.mark.book
@pytest.mark.parametrize("name", CHAPTERS)
def test_commands_follow_the_fields(reader: Reader, name: str) -> None:
    page = reader.open(name)
    panel = page.locator("details.rerun").first
    panel.locator("summary").click()
    field = panel.locator("input").first
    parameter = field.get_attribute("name")
    field.fill("7.25")
    chapter, papermill = panel.locator("pre").all_inner_texts()
    assert chapter.endswith(f" -p {parameter} 7.25")
    assert f" -p {parameter} 7.25" in papermill
    assert papermill.startswith("papermill --cwd notebooks ")
    assert panel.locator(".copybtn").count() == 2


def test_the_book_has_its_pages_for_teachers_and_readers() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = {entry["file"] for part in toc["parts"] for entry in part["chapters"]}
    assert {"book/glossary", "book/paths", "book/teaching"} <= files
    assert not any(name.startswith("book/instructor") for name in files)


# --- Formulas come after the page ----------------------------------------------------------------


@pytest.mark.book
def test_an_address_within_a_page_leads_there_though_formulas_move_it(reader: Reader) -> None:
    page = reader.open("notebooks/7_theory")
    anchors = page.eval_on_selector_all("article section[id]", "all => all.map((one) => one.id)")
    for anchor in (anchors[len(anchors) // 2], anchors[-1]):
        page.goto("about:blank")
        page.goto(f"{reader.address}notebooks/7_theory.html#{anchor}", wait_until="load")
        page.evaluate("() => MathJax.startup.promise.then(() => true)")
        page.wait_for_timeout(800)  # scrolling has ended
        top, low = page.evaluate(
            """(id) => [document.getElementById(id).getBoundingClientRect().top,
                        scrollY + innerHeight >= document.documentElement.scrollHeight - 1]""",
            anchor,
        )
        assert 0 <= top < 160 or low
