"""How the tests are divided among processes (``make test``: as many as there are cores), and the
browser that some of them look at pages with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RENDERED_BOOK = ("test_accessibility", "test_rendered_book", "test_slides")
"""Modules that look at the same rendered book: one process builds it, and runs them all."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A module stays in one process, so that what it sets up is made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "the rendered book" if Path(path).stem in RENDERED_BOOK else path

    return ByModule(config, log)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A browser. It is closed after each module, since its event loop gets in others' way."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        if os.environ.get("GENKL_REQUIRE_BROWSER"):
            pytest.fail(f"no browser found: install one of {', '.join(BROWSERS)}")
        pytest.skip(f"no browser found ({', '.join(BROWSERS)}): the pages were not looked at")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def ax():
    """Axes to draw into, closed afterwards."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)
