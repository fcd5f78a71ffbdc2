"""The lectures' slides: whole, self-contained, and turned by keys, fingers and paper."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rendered_pages import ROOT

from book.machine.project import BookError, Project
from book.machine.slides import LECTURES, build_slides, read_lectures

PROJECT = Project(ROOT)
NAMES = [lecture["name"] for lecture in read_lectures(PROJECT)]

# One pixel: a PNG that any browser shows.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8ffff"
    "3f0005fe02fea735814e0000000049454e44ae426082"
)

PAGE = """<html><body><article><section id="top"><h1><span class="section-number">1. </span>Top
<a class="headerlink">#</a></h1><p>First words <a href="x.html">here</a>.</p><p>Second.</p>
<ul><li>one</li></ul><div class="math">\\[x\\]</div><script>bad()</script>
<div class="cell" id="fig-one"><img src="pic.png" alt="what it shows"></div>
<section id="inner"><h2>Inner</h2><table onclick="x()"><tr><td>1</td></tr></table></section>
</section></article></body></html>"""


@pytest.fixture
def small(tmp_path: Path) -> tuple[Project, Path]:
    """A project with one lecture, and pages as if they had been rendered."""
    pages = tmp_path / "html"
    (pages / "_static" / "mathjax").mkdir(parents=True)
    (pages / "_static" / "mathjax" / "tex-svg.js").write_text("let a = '</script>';")
    (pages / "page.html").write_text(PAGE)
    (pages / "pic.png").write_bytes(PNG)
    (tmp_path / "teaching").mkdir()
    shutil.copytree(ROOT / "teaching" / "deck", tmp_path / "teaching" / "deck")
    return Project(tmp_path), pages


def lecture(project: Project, *slides: dict[str, Any]) -> None:
    made = {"name": "one", "title": "A & B", "subtitle": "so", "slides": list(slides)}
    (project.root / LECTURES).write_text(json.dumps({"lectures": [made]}))


def slide(*show: dict[str, Any], section: str = "top", **more: Any) -> dict[str, Any]:
    return {"page": "page", "section": section, "show": list(show), **more}


def test_a_slide_shows_pieces_of_the_page_and_stands_alone(small: tuple[Project, Path]) -> None:
    project, pages = small
    lecture(
        project,
        slide({"p": "First words"}, {"list": 1}, {"math": 1}, {"figure": "fig-one"}),
        slide({"table": 1}, section="inner", title="Other"),
    )
    (path,) = build_slides(project, pages, project.root / "out")
    text = path.read_text()
    slides = re.findall(r'<section class="slide.*?</section>', text, re.DOTALL)
    assert len(slides) == 3
    assert "A &amp; B" in slides[0]
    assert "<h2>Top</h2>" in slides[1]
    assert "First words here." in slides[1]
    assert "Second" not in slides[1]
    assert "<a" not in slides[1]
    assert 'alt="what it shows"' in slides[1]
    assert "data:image/png;base64," in slides[1]
    assert "<h2>Other</h2>" in slides[2]
    assert "onclick" not in slides[2]
    assert "<\\/script>" in text
    assert "{{" not in text.replace("{{ ", "")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (slide({"p": "Third"}), "no p 'Third'"),
        (slide({"list": 2}), "no list 2"),
        (slide({"figure": "fig-two"}), "no figure 'fig-two'"),
        (slide({"word": 1}), "'word' is none of"),
        (slide({"p": "First"}, section="no"), "no section 'no'; it has top, inner"),
        ({"page": "other", "section": "top", "show": []}, "render the book first"),
    ],
)
def test_a_piece_that_is_not_there_is_named(
    small: tuple[Project, Path], wrong: dict[str, Any], message: str
) -> None:
    project, pages = small
    lecture(project, slide({"p": "First"}), wrong)
    with pytest.raises(BookError, match="one, slide 3") as raised:
        build_slides(project, pages, project.root / "out")
    assert message in str(raised.value)
    assert not list((project.root / "out").glob("*.html"))


@pytest.mark.parametrize("text", ["lectures: [", "lectures: [{name: a}]", "other: 1", ""])
def test_a_plan_that_makes_no_sense_is_refused(small: tuple[Project, Path], text: str) -> None:
    project, _ = small
    (project.root / LECTURES).write_text(text)
    with pytest.raises(BookError, match=r"lectures\.yml"):
        read_lectures(project)


def test_there_are_three_lectures() -> None:
    assert NAMES == ["lecture-1", "lecture-2", "lecture-3"]


# --- In the browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decks(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = build_slides(PROJECT, built, tmp_path_factory.mktemp("slides"))
    return {path.stem: path for path in made}


def shown(page: Any) -> str:
    return page.locator("#where").inner_text()


@pytest.mark.book
@pytest.mark.parametrize("name", NAMES)
def test_a_deck_is_whole_and_turns(browser: Any, decks: dict[str, Path], name: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(decks[name].as_uri())
    page.evaluate("() => MathJax.startup.promise.then(() => true)")
    count = page.locator("section.slide").count()
    lectures = {one["name"]: one for one in read_lectures(PROJECT)}
    assert count == len(lectures[name]["slides"]) + 1
    assert shown(page) == f"1 / {count}"
    for key, number in {
        "ArrowRight": 2, " ": 3, "ArrowLeft": 2, "End": count, "ArrowDown": count, "Home": 1,
        "PageUp": 1,
    }.items():  # fmt: skip
        page.keyboard.press(key)
        assert shown(page) == f"{number} / {count}"
        assert page.locator("section.slide:visible").count() == 1
    page.locator("#on").click()
    assert shown(page) == f"2 / {count}"
    for number in range(1, count + 1):
        page.evaluate(f"() => {{ location.hash = '#{number}'; }}")
        page.wait_for_function(
            f"document.getElementById('where').innerText == '{number} / {count}'"
        )
        over = page.evaluate(
            """() => { const one = document.querySelector('.slide.shown');
              return [one.scrollHeight - one.clientHeight, one.scrollWidth - one.clientWidth]; }"""
        )
        assert max(over) <= 1, f"slide {number} is too long for its screen"
    assert page.locator("section.slide img").evaluate_all("all => all.every((i) => i.naturalWidth)")
    assert page.locator("mjx-merror").count() == 0
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert failed == []
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == count
    page.close()


@pytest.mark.book
def test_a_deck_fits_a_phone_and_turns_by_swiping(browser: Any, decks: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 375, "height": 740}, has_touch=True)
    page.goto(decks["lecture-1"].as_uri())
    page.evaluate("() => MathJax.startup.promise.then(() => true)")
    swipe = """([from, to]) => {
      for (const [kind, x] of [['touchstart', from], ['touchend', to]]) {
        const touch = new Touch({identifier: 1, target: document.body, clientX: x, clientY: 300});
        document.body.dispatchEvent(
          new TouchEvent(kind, {bubbles: true, changedTouches: [touch], touches: []}));
      }
    }"""
    page.evaluate(swipe, [300, 60])
    assert shown(page).startswith("2 / ")
    page.evaluate(swipe, [60, 300])
    assert shown(page).startswith("1 / ")
    count = page.locator("section.slide").count()
    for _ in range(count):
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 375
        page.keyboard.press("ArrowRight")
    page.close()
