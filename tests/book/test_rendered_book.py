"""The rendered book: built strictly from the `tiny` profile, then read page by page in Chromium."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from rendered_pages import AXE, CHAPTERS, PAGES, ROOT, RUN_AXE, Reader

from book.machine.project import Project
from book.machine.rendering import build_html

pytestmark = pytest.mark.book

# (rule, part of the selector) -> why it stays. All others of these impacts are failures.
EXCEPTIONS = {
    ("label-content-name-mismatch", "theme-switch-button"): (
        "the theme's button shows an icon for each mode and is labelled 'Color mode'; the icons' "
        "characters come from a font and are no words"
    ),
}

COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}


@pytest.fixture(scope="module", params=PAGES)
def opened(request: pytest.FixtureRequest, reader: Reader) -> Reader:
    """The reader at a page. It is loaded once, and looked at by all tests that ask for it."""
    reader.open(request.param)
    return reader


def test_every_page_is_built(built: Path) -> None:
    for name in PAGES:
        assert (built / f"{name}.html").exists()


def test_links_inside_the_book_lead_somewhere(opened: Reader, built: Path) -> None:
    page = opened.show()
    for link in set(page.eval_on_selector_all("a[href]", "links => links.map(a => a.href)")):
        if not link.startswith(opened.address):
            continue
        parts = urlsplit(link)
        target = built / unquote(parts.path).lstrip("/")
        target = target / "index.html" if target.is_dir() else target
        assert target.exists(), link
        if parts.fragment and target.suffix == ".html":
            assert f'id="{unquote(parts.fragment)}"' in target.read_text("utf-8"), link


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Reader, theme: str) -> None:
    """Everything on the light page; on the dark one, what colours can break."""
    page = opened.show(theme=theme)
    page.evaluate(AXE)
    left = [
        (rule, target, html)
        for rule, target, html in page.evaluate(RUN_AXE, COLOURS if theme == "dark" else None)
        if not any(rule == known and part in target + html for known, part in EXCEPTIONS)
    ]
    assert left == []
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background)[:3])) < 80) == (theme == "dark")


def test_no_markup_is_left_over(opened: Reader) -> None:
    """A table or formula in an output that is read as another kind of Markdown stays as written."""
    left = opened.page.evaluate(
        r"""() => [...document.querySelectorAll('article :is(p, li, td, dd, figcaption)')]
          .filter((found) => !found.closest('pre, code, .math')).map((found) => {
            const copy = found.cloneNode(true);
            copy.querySelectorAll('pre, code, .math, script').forEach((part) => part.remove());
            return copy.textContent;
          }).filter((text) => /\$\\[a-z]|\|-{3}|\| \||\{(cite|ref|eq|glue|term)[:}]/.test(text))"""
    )
    assert left == []


def test_no_output_is_a_bare_value(opened: Reader) -> None:
    """What a notebook leaves on its last line by accident: an object, a list, all of a float."""
    outputs = opened.page.eval_on_selector_all(
        ".cell_output pre", "all => all.map((output) => output.textContent.trim())"
    )
    bare = re.compile(r"<[\w.]+[^>]*>|\[.*\]|\{.*\}|-?\d+\.\d{7,}|np\.\w+\(.*\)", re.DOTALL)
    assert [text for text in outputs if bare.fullmatch(text)] == []


def test_every_picture_has_words(opened: Reader) -> None:
    for text in opened.page.eval_on_selector_all("article img", "all => all.map((i) => i.alt)"):
        assert text
        assert "/" not in text.split()[0], f"{text} is a file"


def test_nothing_scrolls_sideways_on_a_narrow_phone(opened: Reader) -> None:
    page = opened.show(width=360, height=740)
    closed = page.eval_on_selector_all(
        "article details:not([open])", "all => all.map((d) => { d.open = true; return d; }).length"
    )
    width, wide = page.evaluate(
        """() => [Math.max(document.documentElement.scrollWidth, document.body.scrollWidth),
          [...document.querySelectorAll('article *')].filter((element) =>
          element.getBoundingClientRect().right > innerWidth + 1).map((element) =>
          `${element.tagName}.${element.className}`).slice(0, 5)]"""
    )
    assert width <= 360, f"too wide, with {closed} parts unfolded, perhaps because of {wide}"


def test_paper_shows_the_article_and_nothing_else(opened: Reader) -> None:
    page = opened.show(width=718)  # A4 within its margins
    page.emulate_media(media="print")
    try:
        shown = page.evaluate(
            """() => ['.bd-sidebar-primary', '.bd-sidebar-secondary', '.bd-header-article',
              '.prev-next-footer', '#gloss-tip'].filter((name) =>
              [...document.querySelectorAll(name)].some((found) => found.checkVisibility()))"""
        )
        assert shown == []
        assert page.locator("h1:visible").count() == 1
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.emulate_media(media="screen")


@pytest.mark.usefixtures("built")
def test_the_pages_for_instructors_build_as_strictly(tmp_path: Path) -> None:
    pages = build_html(Project(ROOT, "tiny"), tmp_path, audience="instructor")
    for name in (ROOT / "book" / "instructor").glob("*.md"):
        assert (pages / "book" / "instructor" / f"{name.stem}.html").is_file()


def test_page_is_complete_without_a_network(opened: Reader) -> None:
    """The last look at a page: what it asks for later than at its loading has been asked by now."""
    page = opened.show()
    assert opened.elsewhere == []
    assert opened.errors == []
    broken = "images => images.filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
    assert page.eval_on_selector_all("img", broken) == []
    written = page.locator("article .math")
    unset = "found => found.filter(m => !m.querySelector('mjx-container')).map(m => m.innerText)"
    assert written.evaluate_all(unset) == []
    assert page.locator("mjx-merror, mjx-container [data-mjx-error]").count() == 0


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_has_a_figure_and_solutions_that_open(reader: Reader, name: str) -> None:
    page = reader.open(name)
    figures = page.locator("article .cell_output img")
    assert figures.count() >= 1
    assert min(figures.evaluate_all("images => images.map(image => image.naturalWidth)")) > 100
    solutions = page.locator("article .solution.dropdown")
    assert solutions.count() >= 2
    for solution in solutions.all():
        content = solution.locator("section, .section").first
        assert not content.is_visible()
        solution.locator(".toggle-button").click()
        content.wait_for(state="visible", timeout=5000)


def test_search_finds_a_chapter(reader: Reader) -> None:
    reader.page.goto(f"{reader.address}search.html?q=divergence")
    reader.page.wait_for_selector("#search-results li a", timeout=10_000)
