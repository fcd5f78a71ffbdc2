"""The book of the profile ``tiny``, rendered once for all tests that look at its pages."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rendered_pages import ROOT, Reader

from book.machine.project import Project
from book.machine.rendering import build


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder with the pages; a warning fails the build. Nothing is made that is whole."""
    return build(Project(ROOT, "tiny"))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def address(built: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def reader(browser, address: str) -> Iterator[Reader]:
    made = Reader(browser.new_page(), address)
    local = (address, "data:", "blob:")

    def asked(request) -> None:
        if not request.url.startswith(local):
            made.elsewhere.append(request.url)

    def answered(response) -> None:
        if response.status >= 400:
            made.errors.append(f"{response.status} {response.url}")

    made.page.on("request", asked)
    made.page.on("response", answered)
    yield made
    made.page.close()
