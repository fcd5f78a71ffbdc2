"""How are the book's notebooks executed and its pages rendered?

Notebooks are committed without outputs. This module executes them into ``_executed/<profile>/``,
each one only when something it depends on has changed, and renders the pages from those copies::

    python -m book execute                            # what is stale, in parallel
    python -m book chapter 1_geometry -p alpha 0.9    # one chapter, another parameter
    python -m book render                             # execute, then build _build/html

A profile (``notebooks/manifest.yml``) names the parameters of every notebook.
"""

from book.machine.comparison import compare, compare_records
from book.machine.copies import code_fingerprint, up_to_date
from book.machine.dependencies import package_files
from book.machine.execution import Outcome, change_chapter, execute, summarize
from book.machine.online import Repository, read_repository, with_setup, write_setup_cells
from book.machine.parameters import Parameter, check_parameters, read_parameters, with_parameters
from book.machine.profiles import Job, plan, read_manifest, read_overrides
from book.machine.project import BookError, Project
from book.machine.rendering import build_html, render
from book.machine.rerun import papermill_command, rerun_section
from book.machine.slides import build_slides, read_lectures

__all__ = [
    "build_slides",
    "read_lectures",
    "write_setup_cells",
    "with_setup",
    "rerun_section",
    "read_repository",
    "papermill_command",
    "compare_records",
    "compare",
    "Repository",
    "BookError",
    "Job",
    "Outcome",
    "Parameter",
    "Project",
    "build_html",
    "change_chapter",
    "check_parameters",
    "code_fingerprint",
    "execute",
    "package_files",
    "plan",
    "read_manifest",
    "read_overrides",
    "read_parameters",
    "render",
    "summarize",
    "up_to_date",
    "with_parameters",
]
