"""Slides of the lectures, made of pieces of the rendered pages: one file for each lecture."""

from __future__ import annotations

import base64
import html
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from book.machine.project import BookError, Project, need
from genkl.storage import write_atomically

LECTURES = "teaching/lectures.yml"
DECK = "teaching/deck"
"""The folder with the decks' style and script."""

MATHJAX = "_static/mathjax/tex-svg.js"

PIECES = {
    "p": ":scope > p",
    "list": ":scope > ul, :scope > ol",
    "table": "table",
    "math": ":scope > div.math",
    "figure": "[id] img",
    "exercise": "[id]",
    "theorem": "[id]",
}
"""Kind of a piece -> how it is found in a section."""


def read_lectures(project: Project) -> list[dict[str, Any]]:
    """The lectures of ``teaching/lectures.yml``: name, title, subtitle, slides.

    Raises:
        BookError: the file is missing, is no YAML, or lacks something.
    """
    need("yaml")
    import yaml

    path = project.root / LECTURES
    try:
        lectures = yaml.safe_load(path.read_text("utf-8"))["lectures"]
        for lecture in lectures:
            if missing := {"name", "title", "subtitle", "slides"} - lecture.keys():
                raise BookError(f"{path}: a lecture has no {', '.join(sorted(missing))}")
    except OSError as error:
        raise BookError(f"no {path}: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise BookError(f"{path}: {error}") from None
    return list(lectures)


def build_slides(project: Project, pages: Path, output: Path) -> list[Path]:
    """Write each lecture as one file that needs nothing else.

    Args:
        project: the book.
        pages: the rendered pages, such as ``_build/html``. Their words, numbers and figures are
            what the slides show; ``teaching/lectures.yml`` says which.
        output: the folder for the files.

    Returns:
        The files, in the lectures' order.

    Raises:
        BookError: a slide names a piece that no page has, or the pages are not rendered.
    """
    need("bs4")
    book = _Pages(pages)
    made = []
    for lecture in read_lectures(project):
        slides = [_title_slide(lecture)]
        for number, slide in enumerate(lecture["slides"], 2):
            try:
                slides.append(_slide(book, slide))
            except BookError as error:
                raise BookError(f"{LECTURES}, {lecture['name']}, slide {number}: {error}") from None
        path = output / f"{lecture['name']}.html"
        deck = _deck(project, pages, lecture["title"], slides)
        made.append(write_atomically(path, deck.encode()))
    return made


class _Pages:
    """The rendered pages, parsed when they are asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._parsed: dict[str, Any] = {}

    def section(self, page: str, name: str) -> Any:
        from bs4 import BeautifulSoup

        if page not in self._parsed:
            path = self.folder / f"{page}.html"
            if not path.exists():
                raise BookError(f"no page {path}: render the book first")
            parsed = BeautifulSoup(path.read_text("utf-8"), "html.parser").find("article")
            self._parsed[page] = parsed
        found = self._parsed[page].find("section", id=name)
        if found is None:
            sections = self._parsed[page].find_all("section", id=True)
            known = [section["id"] for section in sections]
            raise BookError(f"{page} has no section {name!r}; it has {', '.join(known)}")
        return found

    def data_uri(self, page: str, source: str) -> tuple[str, float]:
        """A picture as text, and how many times wider than high it is."""
        data = (self.folder / page).parent.joinpath(source).resolve().read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        return f"data:image/png;base64,{base64.b64encode(data).decode()}", width / height


def _title_slide(lecture: Mapping[str, Any]) -> str:
    title, subtitle = (html.escape(str(lecture[key])) for key in ("title", "subtitle"))
    return f'<section class="slide first"><h1>{title}</h1><p>{subtitle}</p></section>'


def _slide(book: _Pages, slide: Mapping[str, Any]) -> str:
    page, section = slide["page"], book.section(slide["page"], slide["section"])
    title = slide.get("title") or _heading(section)
    shown = [piece for part in slide["show"] for piece in part.items()]
    pieces = [_piece(book, page, section, kind, which) for kind, which in shown]
    tall = any('class="tall"' in piece for piece in pieces)
    source = f"{page}.html#{slide['section']}"
    return (
        f'<section class="slide{" beside" if tall else ""}" data-source="{source}">'
        f"<h2>{html.escape(title)}</h2>"
        f'<div class="body">{"".join(pieces)}</div></section>'
    )


def _heading(section: Any) -> str:
    heading = section.find(re.compile("h[1-6]"))
    for extra in heading.select(".section-number, .headerlink"):
        extra.extract()
    return str(heading.get_text()).strip()


def _piece(book: _Pages, page: str, section: Any, kind: str, which: Any) -> str:
    """A piece of a section, as HTML that stands alone."""
    if kind == "figure":
        return _figure(book, page, section, which)
    found = _find(section, kind, which)
    if found is None:
        raise BookError(f"section {section['id']!r} of {page} has no {kind} {which!r}")
    return _standing_alone(found)


def _find(section: Any, kind: str, which: Any) -> Any:
    """A piece by its first words, its id, or its number among those of this very section."""
    if kind not in PIECES:
        raise BookError(f"{kind!r} is none of {', '.join(PIECES)}")
    found = section.select(PIECES[kind])
    if kind in ("exercise", "theorem"):
        return next((piece for piece in found if piece["id"] == which), None)
    found = [piece for piece in found if piece.find_parent("section") is section]
    if kind == "p":
        found = [piece for piece in found if _words(piece).startswith(which)]
        return found[0] if len(found) == 1 else None
    return found[which - 1] if 0 < which <= len(found) else None


def _words(element: Any) -> str:
    return " ".join(element.get_text().split())


def _figure(book: _Pages, page: str, section: Any, name: str) -> str:
    cell = section.find(id=name)
    image = cell.find("img") if cell else None
    if image is None:
        raise BookError(f"section {section['id']!r} of {page} has no figure {name!r}")
    data, aspect = book.data_uri(page, image["src"])
    shape = "tall" if aspect < 1.5 else "wide"
    return f'<figure class="{shape}"><img src="{data}" alt="{html.escape(image["alt"])}"></figure>'


def _standing_alone(element: Any) -> str:
    """An element whose links lead nowhere any more, and which has no more than its own words."""
    from bs4 import BeautifulSoup

    copy = BeautifulSoup(str(element), "html.parser")
    for extra in copy.select("style, .headerlink, .toggle-button"):
        extra.extract()
    for link in copy.find_all("a"):
        link.unwrap()
    for part in copy.find_all(True):
        kept = part.attrs.keys() & {"class", "colspan", "rowspan", "scope"}
        part.attrs = {key: value for key, value in part.attrs.items() if key in kept}
    return str(copy)


def _deck(project: Project, pages: Path, title: str, slides: Sequence[str]) -> str:
    parts = {
        "TITLE": html.escape(title),
        "STYLE": (project.root / DECK / "deck.css").read_text("utf-8"),
        "SCRIPT": (project.root / DECK / "deck.js").read_text("utf-8"),
        "MATHJAX": (pages / MATHJAX).read_text("utf-8").replace("</script", "<\\/script"),
        "SLIDES": "\n".join(slides),
    }
    text = (project.root / DECK / "deck.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], text)
