"""The pages of the book, and a reader who opens them in a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(entry["file"] for part in TOC["parts"] for entry in part["chapters"])]
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]

AXE = (Path(__file__).parent / "assets" / "axe.min.js").read_text("utf-8")
RUN_AXE = """async (rules) => {
  // A theme fades in: half-way colours are nobody's.
  document.getAnimations().forEach((animation) => animation.finish());
  const found = await axe.run(document, {resultTypes: ['violations'], runOnly: rules ?? undefined});
  return found.violations
    .filter((rule) => ['serious', 'critical'].includes(rule.impact))
    .flatMap((rule) => rule.nodes.map((node) => [rule.id, node.target.join(' '), node.html]));
}"""


@dataclass
class Reader:
    """A page of the browser, and what it asked for."""

    page: object
    address: str
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, name: str, width: int = 1280, height: int = 900, theme: str = "light"):
        """Load a page anew; it has settled when this returns."""
        self.elsewhere.clear()
        self.errors.clear()
        self.page.goto("about:blank")
        page = self.show(width, height, theme)
        page.goto(f"{self.address}{name}.html", wait_until="load")
        if page.locator("article .math").count():
            page.wait_for_function("window.MathJax?.startup?.promise !== undefined")
            page.evaluate("() => MathJax.startup.promise.then(() => true)")
        page.evaluate("() => document.fonts.ready.then(() => true)")
        return self.show(width, height, theme)

    def show(self, width: int = 1280, height: int = 900, theme: str = "light"):
        """Look at the open page in another window or theme."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme=theme)
        self.page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        return self.page
