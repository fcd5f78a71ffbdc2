"""The rendered book: built strictly from the `tiny` profile, then read page by page in Chromium."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from rendered_pages import CHAPTERS, PAGES, Reader

pytestmark = pytest.mark.book

# The lowest contrast between a text and what is painted behind it, with the text.
CONTRAST = """() => {
  const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parse = (color) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1);
    return pen.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (rgb) => {
    const [r, g, b] = [...rgb].slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  let lowest = {ratio: 21, text: ''};
  const named = 'p, li, td, th, h1, h2, h3, dt, dd, a, figcaption, .output pre';
  for (const element of document.querySelectorAll(`article :is(${named})`)) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3);
    const text = own.map((node) => node.textContent).join('').trim();
    if (!text || !element.checkVisibility() || element.matches('.headerlink')) continue;
    const pair = [parse(getComputedStyle(element).color), behind(element)].map(luminance);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < lowest.ratio) lowest = {ratio, text: `${element.tagName}: ${text.slice(0, 60)}`};
  }
  return {...lowest, background: luminance(parse(getComputedStyle(document.body).backgroundColor))};
}"""


def test_every_page_is_built(built: Path) -> None:
    for name in PAGES:
        assert (built / f"{name}.html").exists()


@pytest.mark.parametrize("name", PAGES)
def test_page_is_complete_without_a_network(reader: Reader, name: str) -> None:
    reader.elsewhere.clear()
    reader.errors.clear()
    page = reader.open(name)
    page.wait_for_load_state("networkidle")
    assert reader.elsewhere == []
    assert reader.errors == []
    broken = "images => images.filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
    assert page.eval_on_selector_all("img", broken) == []
    written = page.locator("article .math")
    unset = "found => found.filter(m => !m.querySelector('mjx-container')).map(m => m.innerText)"
    assert written.evaluate_all(unset) == []
    assert page.locator("mjx-merror, mjx-container [data-mjx-error]").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_links_inside_the_book_lead_somewhere(reader: Reader, built: Path, name: str) -> None:
    page = reader.open(name)
    for link in set(page.eval_on_selector_all("a[href]", "links => links.map(a => a.href)")):
        if not link.startswith(reader.address):
            continue
        parts = urlsplit(link)
        target = built / unquote(parts.path).lstrip("/")
        target = target / "index.html" if target.is_dir() else target
        assert target.exists(), link
        if parts.fragment and target.suffix == ".html":
            assert f'id="{unquote(parts.fragment)}"' in target.read_text("utf-8"), link


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_phone(reader: Reader, name: str) -> None:
    page = reader.open(name, width=375, height=812)
    wide = page.evaluate(
        """() => [...document.querySelectorAll('article *')].filter((element) =>
          element.getBoundingClientRect().right > innerWidth + 1).map((element) =>
          `${element.tagName}.${element.className}`).slice(0, 5)"""
    )
    width = page.evaluate(
        "() => Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    )
    assert width <= 375, f"too wide, perhaps because of {wide}"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_text_stands_out_in_both_themes(reader: Reader, name: str, theme: str) -> None:
    page = reader.open(name, theme=theme)
    found = page.evaluate(CONTRAST)
    assert (found["background"] < 0.1) == (theme == "dark")
    assert found["ratio"] >= 4.5, found["text"]


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
