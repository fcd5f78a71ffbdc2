"""Twenty-five broken lines (signs, bounds, dropped terms), and whether the tests notice each.

``python -m tests.mutations`` copies the checkout into a temporary folder, breaks one line after
the other there, and runs the tests that answer for it. It fails if one goes unnoticed. Some
minutes on two cores; nothing of it is part of ``make test``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutation:
    """A line to break, and the test modules that should notice.

    Attributes:
        before: text that stands once in the package.
        after: what takes its place.
        tests: names of test modules, without ``test_`` and ``.py``.
    """

    before: str
    after: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "axis=-1) - alpha * unchecked_entropy(xp, p)",
        "axis=-1) + alpha * unchecked_entropy(xp, p)",
        ("divergence",),
    ),
    Mutation(
        "dominant = q >= dominance_threshold(",
        "dominant = q > dominance_threshold(",
        ("divergence",),
    ),
    Mutation("return 1 / num_classes - beta", "return 1 / num_classes + beta", ("divergence",)),
    Mutation("(mass.sum() + mass.max())", "mass.sum()", ("conformal",)),
    Mutation("betainc(len(scores) + 1 - ranks, ranks,", "betainc(ranks, ranks,", ("conformal",)),
    Mutation(
        "np.vstack([transition, shares])", "np.vstack([transition.T, shares])", ("posterior",)
    ),
    Mutation("min(1, 2 * (1 + (p_values", "min(1, 1 * (1 + (p_values", ("posterior",)),
    Mutation("found[:, :-1] + found[:, -1:]", "found[:, :-1] + 0 * found[:, -1:]", ("posterior",)),
    Mutation("inverse = 1 / counts", "inverse = counts", ("relabel",)),
    Mutation("return prior + xp.where(predicted", "return xp.where(predicted", ("relabel",)),
    Mutation("+ targets.log(), dim=1)", "- targets.log(), dim=1)", ("losses",)),
    Mutation("dim=1))).sum(dim=1) / q", "dim=1))).sum(dim=1)", ("losses",)),
    Mutation("keep[rows] = max(lam, 1 - lam)", "keep[rows] = min(lam, 1 - lam)", ("losses",)),
    Mutation(
        "MIXED_ROLES = (int(Role.CLEAN), int(Role.NON_NC))",
        "MIXED_ROLES = tuple(range(len(Role)))",
        ("losses",),
    ),
    Mutation("PLATEAU_FACTOR = 0.1", "PLATEAU_FACTOR = 0.5", ("train",)),
    Mutation(
        "shift = rng.integers(1, num_classes,",
        "shift = rng.integers(0, num_classes,",
        ("planting", "data"),
    ),
    Mutation("counts[most_cut] += 1", "counts[most_cut] += 0", ("planting",)),
    Mutation(
        "stop_early:\n                break",
        "stop_early is None:\n                break",
        ("pipeline",),
    ),
    Mutation("return (total / count)", "return (total)", ("pipeline", "models")),
    Mutation("- 2 * xlogy(middle, middle)", "- xlogy(middle, middle)", ("detectors",)),
    Mutation(
        "transition.T[np.asarray(given_labels)]",
        "transition[np.asarray(given_labels)]",
        ("baselines",),
    ),
    Mutation(
        "if metadata.get(CHECKSUM) != ", "if False and metadata.get(CHECKSUM) != ", ("storage",)
    ),
    Mutation(
        '"false_flags": precision_recall_f1(is_flagged, ~is_nc)',
        '"false_flags": precision_recall_f1(is_flagged, is_nc)',
        ("evaluate", "pipeline"),
    ),
    Mutation(
        "search.kneighbors(features)[0][:, -1]", "search.kneighbors(features)[0][:, 0]", ("kinds",)
    ),
    Mutation(
        "if not 0 <= beta < 1 / num_classes:", "if not 0 <= beta <= 1 / num_classes:", ("identify",)
    ),
)


def file_of(mutation: Mutation, root: Path) -> Path:
    """The one file of the package that holds the line."""
    found = [
        path
        for path in (root / "genkl").rglob("*.py")
        if path.read_text("utf-8").count(mutation.before)
    ]
    if len(found) != 1:
        raise ValueError(f"{mutation.before!r} stands in {len(found)} files; state a longer piece")
    return found[0]


def is_caught(mutation: Mutation, root: Path) -> bool:
    """Whether a test fails once the line is broken; the line is mended again."""
    path = file_of(mutation, root)
    text = path.read_text("utf-8")
    path.write_text(text.replace(mutation.before, mutation.after, 1), "utf-8")
    names = {f"test_{name}.py" for name in mutation.tests}
    tests = [str(file) for file in (root / "tests").rglob("*.py") if file.name in names]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
        )
    finally:
        path.write_text(text, "utf-8")
    return done.returncode == 1


def main() -> int:
    """Break each line in a copy; 1 if one goes unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="a checkout (default: this one)")
    options = parser.parse_args()
    caught = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "checkout")
        unwanted = shutil.ignore_patterns(".git", ".venv", "_build", "_executed", "__pycache__")
        shutil.copytree(options.root, copy, ignore=unwanted, symlinks=True)
        for mutation in MUTATIONS:
            noticed = is_caught(mutation, copy)
            caught += noticed
            print(f"{'caught' if noticed else 'MISSED'}  {mutation.before}", flush=True)
    print(f"{caught} of {len(MUTATIONS)} caught")
    return int(caught < len(MUTATIONS))


if __name__ == "__main__":
    sys.exit(main())
