"""How the tests are divided among processes (``make test``: as many as there are cores)."""

from __future__ import annotations

import pytest

ONE_BUILD = (
    "test_accessibility", "test_audience", "test_rendered_book", "test_rerun", "test_slides",
)  # fmt: skip
"""Modules that look at the same rendered book: one process builds it, and runs them all."""


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module stays in one process, so that what it sets up is made once."""
    for item in items:
        module = item.path.stem
        group = "the rendered book" if module in ONE_BUILD else module
        item.add_marker(pytest.mark.xdist_group(group))
