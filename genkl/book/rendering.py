"""Can it be read? The pages are built strictly, and published only when they are whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from genkl.book.execution import execute, summarize
from genkl.book.project import BookError, Project, need, say


def build_html(project: Project, output: Path) -> Path:
    """Build the pages from the executed copies, strictly: a warning is a failure.

    Args:
        project: the book and the profile.
        output: a folder for Jupyter Book's own files; kept, it makes the next build quick.

    Returns:
        The folder with the pages, which is not published.

    Raises:
        BookError: the build failed.
    """
    need("jupyter_book", "sphinx_exercise", "sphinx_proof", "sphinxcontrib.bibtex")
    run = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-P", "-c", run, "build", str(project.root)]
    command += ["--path-output", str(output), "-W", "-n", "--keep-going", "-q"]
    environment = os.environ | {"GENKL_PROFILE": project.profile, "GENKL_ALREADY_EXECUTED": "1"}
    output.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=project.root, env=environment, stdout=subprocess.PIPE)
    if done.returncode:
        sys.stdout.write(done.stdout.decode(errors="replace"))
        # A page that was read once does not warn a second time: start afresh.
        shutil.rmtree(output / "_build" / ".doctrees", ignore_errors=True)
        raise BookError("the pages could not be built; the warnings above say why")
    return output / "_build" / "html"


def render(project: Project, *, jobs: int | None = None) -> Path:
    """Execute what is stale, build the pages, and publish them only if both succeed.

    Returns:
        The published page to open.

    Raises:
        BookError: a notebook or the build failed; what was published before is still there.
    """
    outcome = execute(project, jobs=jobs)
    say(summarize(outcome))
    if outcome.failed:
        raise BookError("the book was not rendered, because a notebook failed")
    say("Rendering the pages ...")
    began = time.monotonic()
    built = build_html(project, project.root / "_build" / ".staging" / project.profile)
    _publish(built, project.html)
    say(f"Rendered in {time.monotonic() - began:.1f} s")
    return project.html / "index.html"


def _publish(built: Path, published: Path) -> None:
    """Put a finished build in the place of the published one, by renaming."""
    new, old = published.with_name("html.new"), published.with_name("html.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    published.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(built, new)
    if published.exists():
        os.replace(published, old)
    os.replace(new, published)
    shutil.rmtree(old, ignore_errors=True)
