"""Sphinx extension: the words of the glossary and the symbols of the notation, for every page.

They are collected from the two pages themselves and written into ``_static/definitions.js``, where
``book/_static/tooltips.js`` finds them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

GLOSSARY, NOTATION = "book/glossary", "book/notation"
EVERYDAY = {"vote", "round", "collapse", "precision", "temperature", "seed", "spared"}
"""Terms that are common words as well: explained only where a page writes {term}`vote`."""


def collect(env: BuildEnvironment) -> dict[str, list[dict[str, Any]]]:
    """The terms (names, meaning, anchor) and the symbols (TeX, meaning)."""
    found: dict[str, list[dict[str, Any]]] = {"terms": [], "symbols": []}
    if GLOSSARY in env.found_docs:
        for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
            if terms := list(item.findall(nodes.term)):
                names = [term.astext() for term in terms]
                meaning = written(next(item.findall(nodes.definition)))
                entry = {"names": names, "meaning": meaning, "anchor": terms[0]["ids"][0]}
                found["terms"].append(entry | {"everyday": names[0] in EVERYDAY})
    if NOTATION in env.found_docs:
        for row in env.get_doctree(NOTATION).findall(nodes.row):
            symbol, _, meaning = row.children
            for math in symbol.findall(nodes.math):
                text = written(meaning)
                found["symbols"] += [{"tex": tex, "meaning": text} for tex in each(math.astext())]
    return found


def each(tex: str) -> Iterator[str]:
    """The symbols of a formula: itself and, of a definition, its left side."""
    yield tex
    if " = " in tex:
        yield tex.split(" = ")[0]


def written(node: nodes.Node) -> str:
    """A definition as text, with formulas between ``\\(`` and ``\\)`` for MathJax."""
    if isinstance(node, nodes.math):
        return rf"\({node.astext()}\)"
    if isinstance(node, nodes.Text):
        return str(node.astext())
    inner = " " if isinstance(node, nodes.definition) else ""
    return inner.join(written(child) for child in node.children).strip(
        " " if isinstance(node, nodes.definition | nodes.entry) else ""
    )


def write_definitions(app: Sphinx, error: Exception | None) -> None:
    """Write the script that holds them; pages opened from disk may load scripts, and no JSON."""
    if error or app.builder.format != "html":
        return
    text = json.dumps(collect(app.env), ensure_ascii=False, indent=0)
    path = Path(app.outdir, "_static", "definitions.js")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"window.GENKL_DEFINITIONS = {text};\n", "utf-8")


def add_scripts(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Only pages with prose explain words, and not the two that define them."""
    if doctree is not None and page not in (GLOSSARY, NOTATION) and not has_reference(doctree):
        app.add_js_file("definitions.js", loading_method="defer")
        app.add_js_file("tooltips.js", loading_method="defer")


def has_reference(doctree: nodes.document) -> bool:
    """Whether a page documents code, where a word is mostly a name."""
    return next(doctree.findall(addnodes.desc), None) is not None


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", write_definitions)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
