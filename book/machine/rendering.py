"""Rendering of the pages: built strictly, published only when they are whole, and only when needed.

A build remembers a digest of all that it was made from. While that stays the same, nothing is
executed and Sphinx isn't started.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path

from book.machine.audience import AUDIENCES, check_audience
from book.machine.execution import execute, summarize
from book.machine.profiles import at_work, in_turn
from book.machine.project import BookError, Project, need, say, search_path
from genkl.provenance import usable_cores
from genkl.storage import explained, write_json

INSTRUCTOR_PAGES = "book/instructor"
"""The folder of the pages that only instructors get."""

SOURCES = ("book", "notebooks", "genkl", "results", "teaching", "benchmarks", "*.yml", "*.toml")
"""What pages and numbers are made from: files of the root, and folders with all that is below."""

PAGES = Path("_build", "html")
"""Where Jupyter Book puts the pages, below the folder that it is given."""

WHOLE = "whole.json"
"""A file beside a build, written when it succeeded: what it was made from, and what it made."""


def build_html(project: Project, output: Path, *, audience: str = AUDIENCES[0]) -> Path:
    """Build the pages from the executed copies, strictly: a warning is a failure.

    Args:
        project: the book and the profile.
        output: a folder for Jupyter Book's own files; kept, it makes the next build quick.
        audience: one of `AUDIENCES`. Students get no solutions, instructors a key as well.

    Returns:
        The folder with the pages, which is not published.

    Raises:
        BookError: the build failed.
    """
    need("jupyter_book", "sphinx_exercise", "sphinx_proof", "sphinxcontrib.bibtex")
    run = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-P", "-c", run, "build", str(project.root)]
    command += ["--path-output", str(output), "-W", "-n", "--keep-going", "-q"]
    environment = os.environ | {
        "GENKL_PROFILE": project.profile,
        "GENKL_ALREADY_EXECUTED": "1",
        "GENKL_AUDIENCE": check_audience(audience),
        "PYTHONPATH": search_path(project.root),
    }
    output.mkdir(parents=True, exist_ok=True)
    if audience == "instructor":
        command += ["--toc", str(_instructors_toc(project, output))]
    done = subprocess.run(command, cwd=project.root, env=environment, stdout=subprocess.PIPE)
    if done.returncode:
        sys.stdout.write(done.stdout.decode(errors="replace"))
        # A page that was read once does not warn a second time: start afresh.
        shutil.rmtree(output / "_build" / ".doctrees", ignore_errors=True)
        raise BookError("the pages could not be built; the warnings above say why")
    return output / PAGES


def _instructors_toc(project: Project, output: Path) -> Path:
    """The table of contents with the instructors' pages at its end."""
    import yaml

    toc = yaml.safe_load((project.root / "_toc.yml").read_text("utf-8"))
    pages = sorted((project.root / INSTRUCTOR_PAGES).glob("*.md"))
    chapters = [{"file": f"{INSTRUCTOR_PAGES}/{page.stem}"} for page in pages]
    if "parts" in toc:
        toc["parts"].append({"caption": "For instructors only", "chapters": chapters})
    else:
        toc["chapters"] += chapters
    path = output / "_toc.yml"
    path.write_text(yaml.safe_dump(toc, sort_keys=False), "utf-8")
    return path


def published(project: Project, audience: str = AUDIENCES[0]) -> Path:
    """The folder of the pages that an audience gets."""
    return project.html if audience == AUDIENCES[0] else project.html.with_name(audience)


@in_turn
def render(project: Project, *, jobs: int | None = None, audience: str = AUDIENCES[0]) -> Path:
    """Execute what is stale, build the pages, and publish them only if both succeed.

    Args:
        project: the book and the profile.
        jobs: how many notebooks at once; by default one a core.
        audience: one of `AUDIENCES`; each has its own folder of pages.

    Returns:
        The published page to open.

    Raises:
        BookError: a notebook or the build failed; what was published before is still there.
    """
    built = build(project, jobs=jobs, audience=audience)
    target = published(project, audience)
    with at_work(target.parent):
        if listing(target) != listing(built):
            _publish(built, target)
    return target / "index.html"


@in_turn
def build(project: Project, *, jobs: int | None = None, audience: str = AUDIENCES[0]) -> Path:
    """Execute what is stale, and build the pages if anything behind them has changed.

    Args and errors are those of `render`.

    Returns:
        The folder with the pages, which is not published.
    """
    suffix = "" if check_audience(audience) == AUDIENCES[0] else f"-{audience}"
    staging = project.root / "_build" / ".staging" / f"{project.profile}{suffix}"
    if is_whole(project, staging, jobs):
        say("Nothing has changed since the pages were rendered.")
        return staging / PAGES
    outcome = execute(project, jobs=jobs)
    say(summarize(outcome))
    if outcome.failed:
        raise BookError("the book was not rendered, because a notebook failed")
    say("Rendering the pages ...")
    began, sources = time.monotonic(), made_from(project, jobs)
    built = build_html(project, staging, audience=audience)
    write_json(staging / WHOLE, [sources, listing(built)])
    say(f"Rendered in {time.monotonic() - began:.1f} s")
    return built


def is_whole(project: Project, staging: Path, jobs: int | None = None) -> bool:
    """Whether a build is all there, and nothing that it was made from has changed."""
    try:
        sources, pages = json.loads((staging / WHOLE).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False
    return bool(pages == listing(staging / PAGES) and sources == made_from(project, jobs))


def made_from(project: Project, jobs: int | None = None) -> str:
    """A digest of all that executing and rendering depend on: files, versions, machine."""
    digest = hashlib.sha256(project.profile.encode())
    digest.update(f"{platform.python_version()} {usable_cores()} {jobs}".encode())
    installed = Path(sysconfig.get_path("purelib")).glob("*.dist-info")
    digest.update(" ".join(sorted(path.name for path in installed)).encode())
    named = [path for pattern in SOURCES for path in project.root.glob(pattern)]
    for path in _files_in([*named, project.executed]):
        digest.update(f"{path.relative_to(project.root)} {path.stat().st_size} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def listing(folder: Path) -> str:
    """A digest of which files a folder holds, how long they are, and when they were written."""
    stats = ((path.relative_to(folder), path.stat()) for path in _files_in([folder]))
    lines = (f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _files_in(places: Iterable[Path]) -> list[Path]:
    """The files among some paths and below them, but for hidden ones and what Python caches."""
    return sorted(
        path
        for place in places
        for path in (place.rglob("*") if place.is_dir() else [place])
        if not re.search(r"/(\.|__pycache__)", f"/{path.relative_to(place.parent).as_posix()}")
        and path.is_file()
    )


def _publish(built: Path, target: Path) -> None:
    """Put a finished build in the place of the published one, by renaming."""
    new, old = (target.with_name(f"{target.name}.{age}") for age in ("new", "old"))
    if old.exists() and not target.exists():  # the last time ended between the two renames
        os.replace(old, target)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with explained(target):
        shutil.copytree(built, new)
        if target.exists():
            os.replace(target, old)
        os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)
