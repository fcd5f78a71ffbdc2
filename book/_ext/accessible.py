"""Sphinx extension: what the theme and docutils leave out for readers with assistive technology."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def mend_roles(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """docutils gives citations a list whose items are none, and a role that ARIA has given up;
    MyST-NB calls every drop-down of code the same, whatever it shows."""
    if body := context.get("body"):
        body = body.replace('role="list" class="citation-list"', 'class="citation-list"')
        body = body.replace(' role="doc-biblioentry"', "")
        context["body"] = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", mend_roles)
    app.add_js_file("accessible.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
