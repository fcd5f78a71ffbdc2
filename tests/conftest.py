"""How the tests are divided among processes (``make test``: as many as there are cores), and the
browser that some of them look at pages with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RENDERED_BOOK = ("test_accessibility", "test_rendered_book", "test_slides")
"""Modules that look at the same rendered book: one process builds it, and runs them all."""


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module stays in one process, so that what it sets up is made once."""
    for item in items:
        module = item.path.stem
        group = "the rendered book" if module in RENDERED_BOOK else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


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
