"""Sphinx extension: a chapter's figure on another page, as the chapter computed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from book._ext.executed_notebooks import FOLDER, executed_copy, figure_of
from book.machine.copies import up_to_date


class BookFigure(SphinxDirective):
    """``{book-figure} NAME``: a figure of a chapter, as it was computed, with a link to it.

    The name is the one that the cell's metadata gives (``genkl: {figure: NAME}``), the content a
    caption, the alternative text the chapter's.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        for path in sorted((Path(self.env.srcdir) / FOLDER).glob("*.ipynb")):
            template = json.loads(path.read_text("utf-8"))
            if name not in map(figure_of, template["cells"]):
                continue
            docname = f"{FOLDER}{path.stem}"
            copy = executed_copy(self.env.app, docname)
            self.env.note_dependency(str(copy))
            shown = up_to_date(template, json.loads(copy.read_text("utf-8")))
            (cell,) = (cell for cell in shown["cells"] if figure_of(cell) == name)
            return [self.figure(cell, f"{docname}.html#{name}")]
        raise self.error(f"no chapter has a figure {name!r}")

    def figure(self, cell: dict[str, Any], target: str) -> nodes.Node:
        pictures = [output.get("data", {}).get("image/png") for output in cell["outputs"]]
        (picture,) = filter(None, pictures)
        data = "".join(picture).replace("\n", "")
        image = nodes.image(uri=f"data:image/png;base64,{data}", classes=["book-figure"])
        image["alt"] = cell["metadata"]["mystnb"]["image"]["alt"]
        up = "../" * self.env.docname.count("/")
        link = nodes.reference("", "", image, refuri=f"{up}{target}")
        caption = nodes.caption()
        self.state.nested_parse(self.content, self.content_offset, caption)
        words = nodes.caption("", "", *caption.children[0].children)
        return nodes.figure("", link, words, classes=["book-figure"])


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("book-figure", BookFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
