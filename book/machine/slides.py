"""How is it shown in a lecture? Slides made of pieces of the rendered pages, a file for each."""

from __future__ import annotations

import base64
import html
import os
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from book.machine.project import BookError, Project, need

LECTURES = "teaching/lectures.yml"
DECK = "teaching/deck"
"""The folder with the decks' style and script."""

MATHJAX = "_static/mathjax/tex-svg.js"


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
    output.mkdir(parents=True, exist_ok=True)
    for lecture in read_lectures(project):
        slides = [_title_slide(lecture)]
        for number, slide in enumerate(lecture["slides"], 2):
            try:
                slides.append(_slide(book, slide))
            except BookError as error:
                raise BookError(f"{LECTURES}, {lecture['name']}, slide {number}: {error}") from None
        path = output / f"{lecture['name']}.html"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(_deck(project, pages, lecture["title"], slides), "utf-8")
        os.replace(temporary, path)
        made.append(path)
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
            known = [one["id"] for one in self._parsed[page].find_all("section", id=True)]
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
    pieces = [_piece(book, page, section, *one) for part in slide["show"] for one in part.items()]
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
    if kind == "p":
        starting = [
            one
            for one in section.find_all("p", recursive=False)
            if " ".join(one.get_text().split()).startswith(which)
        ]
        return starting[0] if len(starting) == 1 else None
    if kind in ("exercise", "theorem"):
        return section.find(id=which)
    named = {"list": ["ul", "ol"], "table": ["table"], "math": ["div"]}
    if kind not in named:
        raise BookError(f"{kind!r} is none of p, list, table, math, figure, exercise, theorem")
    found = section.find_all(named[kind], recursive=kind == "table")
    if kind == "math":
        found = [one for one in found if "math" in (one.get("class") or [])]
    if kind == "table":
        found = [one for one in found if one.find_parent("section") is section]
    return found[which - 1] if 0 < which <= len(found) else None


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
    for one in copy.find_all(True):
        one.attrs = {
            key: value
            for key, value in one.attrs.items()
            if key in ("class", "colspan", "rowspan", "scope")
        }
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
