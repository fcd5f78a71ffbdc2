"""Sphinx extension: a name in single backticks in a docstring is code, and a link where it can be.

What is not documented in the book (a private name, an expression, another package's) stays code.
"""

from __future__ import annotations

from typing import Any

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.environment import BuildEnvironment

MARK = "genkl_name"


class NameRole(PyXRefRole):
    """Looks a name up among all documented objects, first in the module at hand."""

    def process_link(
        self,
        env: BuildEnvironment,
        refnode: Element,
        has_explicit_title: bool,
        title: str,
        target: str,
    ) -> tuple[str, str]:
        refnode["reftype"] = "obj"
        refnode["refspecific"] = True
        refnode[MARK] = True
        return super().process_link(env, refnode, has_explicit_title, title, target)


def leave_as_code(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element
) -> Element | None:
    """A name that leads nowhere is no warning, unlike a reference that was meant as one."""
    return text if node.get(MARK) else None


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role_to_domain("py", "name", NameRole())
    app.connect("missing-reference", leave_as_code)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
