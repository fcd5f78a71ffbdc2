"""Can it be read? The pages are built strictly, and published only when they are whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from book.machine.audience import AUDIENCES, check_audience
from book.machine.execution import execute, summarize
from book.machine.project import BookError, Project, need, say

INSTRUCTOR_PAGES = "book/instructor"
"""The folder of the pages that only instructors get."""


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
    return output / "_build" / "html"


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
    staging = (
        project.profile
        if check_audience(audience) == AUDIENCES[0]
        else (f"{project.profile}-{audience}")
    )
    outcome = execute(project, jobs=jobs)
    say(summarize(outcome))
    if outcome.failed:
        raise BookError("the book was not rendered, because a notebook failed")
    say("Rendering the pages ...")
    began = time.monotonic()
    folder = project.root / "_build" / ".staging" / staging
    built = build_html(project, folder, audience=audience)
    _publish(built, published(project, audience))
    say(f"Rendered in {time.monotonic() - began:.1f} s")
    return published(project, audience) / "index.html"


def _publish(built: Path, target: Path) -> None:
    """Put a finished build in the place of the published one, by renaming."""
    new, old = (target.with_name(f"{target.name}.{age}") for age in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(built, new)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)
