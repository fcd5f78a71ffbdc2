"""The benchmark of the rendered pages: loading times from disk, pictures of interactive parts.

    make book && python -m benchmarks.pages --screenshots screenshots

Every page is opened from its file in headless Chromium, as a reader without a server does. Pictures
are taken on a desktop and on a phone, in light and in dark: the explorer, the re-execution of a
chapter, the report on its own and within its chapter, and a page with figures.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import genkl
from genkl.data.images import as_images
from genkl.report import assess, held_out_probs, write_page

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = {"desktop": (1280, 900), "phone": (360, 740)}
SCHEMES = ("light", "dark")
PARTS = {
    "explorer": ("book/explorer.html", "[data-ex=canvas]"),
    "re-execution": ("notebooks/2_identification.html", "#run-it-yourself"),
    "report-in-its-chapter": ("notebooks/16_your_folder.html", "iframe"),
    "figure": ("notebooks/2_identification.html", "article figure, article .cell_output img"),
}
"""Name of a picture -> page, and what it is of."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="openings of each page (default 3)")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="where pictures go")
    options = parser.parse_args()
    if not (HTML / "index.html").is_file():
        sys.exit("nothing is rendered yet: make book")
    with open_browser() as browser, tempfile.TemporaryDirectory() as folder:
        if browser is None:
            sys.exit(f"no browser found: install one of {', '.join(BROWSERS)}")
        report = write_report(Path(folder) / "report.html")
        table = loading_times(browser, [*pages(), report], options.repeats)
        print(table.round(2).to_string(index=False))
        print(f"slowest: {table['seconds'].max():.2f} s, median: {table['seconds'].median():.2f} s")
        if options.screenshots:
            take_pictures(browser, report, options.screenshots)


@contextmanager
def open_browser() -> Iterator[Any]:
    """Headless Chromium; None where there is none."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


def pages() -> list[Path]:
    """What a reader opens: landing page, prose and chapters."""
    found = [HTML / "index.html", *(HTML / "book").glob("*.html")]
    return [*found, *sorted((HTML / "notebooks").glob("*.html"))]


def write_report(path: Path) -> Path:
    """A report on the noisy digits, by cross-validation on their pixels."""
    dataset, _ = genkl.load_dataset("digits", seed=0)
    pixels, given = (
        dataset.noisy.inputs.numpy().reshape(len(dataset.noisy), -1),
        dataset.noisy.labels,
    )
    probs = held_out_probs(pixels, given.numpy(), dataset.num_classes)
    found = assess(probs, given.numpy(), features=pixels, class_names=dataset.class_names)
    shown = (dataset.noisy.inputs / dataset.noisy.inputs.max()).repeat_interleave(4, 2)
    return write_page(found, path, as_images(shown.repeat_interleave(4, 3)), title="Noisy digits")


def loading_times(browser, files: list[Path], repeats: int) -> pd.DataFrame:
    """Median seconds until the browser says that a page is loaded, nothing kept from before."""
    rows = []
    for file in files:
        taken = []
        for _ in range(repeats):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            start = time.perf_counter()
            page.goto(file.as_uri(), wait_until="load")
            taken.append(time.perf_counter() - start)
            context.close()
        name = str(file.relative_to(HTML)) if file.is_relative_to(HTML) else "(a report)"
        rows.append({"page": name, "kB": file.stat().st_size / 1e3, "seconds": np.median(taken)})
    return pd.DataFrame(rows)


def take_pictures(browser, report: Path, folder: Path) -> None:
    """``NAME-SIZE-SCHEME.png`` for every part, size and scheme."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: (HTML / page, part) for name, (page, part) in PARTS.items()}
    parts |= {"report": (report, None), "report-gallery": (report, "#gallery")}
    parts |= {"report-image": (report, "dialog")}
    for size, (width, height) in SIZES.items():
        for scheme in SCHEMES:
            screen = {"viewport": {"width": width, "height": height}, "has_touch": size == "phone"}
            context = browser.new_context(color_scheme=scheme, **screen)
            page = context.new_page()
            for name, (file, part) in parts.items():
                page.goto(file.as_uri(), wait_until="load")
                page.wait_for_timeout(1000)  # formulas have their heights
                if part == "dialog":
                    page.locator("#gallery").evaluate("(part) => part.scrollIntoView()")
                    page.locator("#grid button").first.click()
                elif part is not None:
                    page.locator(part).first.evaluate("(part) => part.scrollIntoView()")
                page.wait_for_timeout(700)  # what fades in has arrived
                page.screenshot(path=folder / f"{name}-{size}-{scheme}.png")
            context.close()
    print(f"{len(parts) * len(SIZES) * len(SCHEMES)} pictures in {folder}")


if __name__ == "__main__":
    main()
