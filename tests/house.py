"""The size of the house, measured: code lines, longest function, layers, dependencies, and limits.

``python -m tests.house`` prints one row a measure, and fails where one is beyond its limit. The aim
is where the project wants to be; the limit is what it must not grow beyond.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
HOUSE = ("genkl", "notebooks", "book", "teaching", "benchmarks")
"""Folders of code that isn't tests."""

BLANK = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """A file of code.

    Attributes:
        path: of the file.
        tree: its syntax tree.
        lines: numbers of its code lines: no docstrings, comments, blanks.
        characters: in these lines, without indentation.
    """

    path: Path
    tree: ast.Module
    lines: frozenset[int]
    characters: int

    @staticmethod
    def read(path: Path) -> Module:
        """Read and count a file."""
        text = path.read_text("utf-8")
        tree = ast.parse(text)
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in BLANK:
                lines.update(range(token.start[0], token.end[0] + 1))
        for docstring in docstrings(tree):
            lines -= set(range(docstring.lineno, docstring.end_lineno + 1))
        rows = text.splitlines()
        return Module(
            path, tree, frozenset(lines), sum(len(rows[number - 1].strip()) for number in lines)
        )

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method in it."""
        return (node for node in ast.walk(self.tree) if isinstance(node, DEFINITIONS))

    def length(self, node: ast.AST) -> int:
        """Code lines of a definition."""
        return len(self.lines & set(range(node.lineno, node.end_lineno + 1)))

    def place(self, node: ast.AST) -> str:
        """Where a definition stands."""
        return f"{self.path.relative_to(ROOT)}:{node.lineno} {node.name}"


@dataclass(frozen=True)
class Measure:
    """One row: what was found, and where; what it should be, and what it must not exceed."""

    name: str
    found: float
    aim: float
    limit: float
    where: str = ""


def docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    """Strings that stand alone: docstrings, of attributes too."""
    for node in ast.walk(tree):
        body = getattr(node, "body", ())
        for child in body if isinstance(body, list) else ():
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                yield child


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many arguments a function has; self and cls don't count, ``**options`` does."""
    given = node.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [a.arg for a in (given.vararg, given.kwarg) if a is not None]
    return len([name for name in names if name not in ("self", "cls")])


def modules(*folders: str) -> list[Module]:
    """The modules below some folders."""
    return [
        Module.read(path)
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "_executed" not in path.parts
    ]


def riddles(package: list[Module]) -> list[str]:
    """Modules whose docstring asks instead of naming what is in it, or that have none."""
    first = {m.path: (ast.get_docstring(m.tree) or "?").splitlines()[0] for m in package}
    return [str(path.relative_to(ROOT)) for path, line in first.items() if "?" in line]


def named(package: list[Module], name: str) -> list[str]:
    """Modules that use an identifier."""
    found = []
    for module in package:
        names = {n.id for n in ast.walk(module.tree) if isinstance(n, ast.Name)}
        names |= {n.arg for n in ast.walk(module.tree) if isinstance(n, ast.arg)}
        if name in names:
            found.append(str(module.path.relative_to(ROOT)))
    return found


def training_step() -> list[str]:
    """Files of the package that one training step of an ensemble of heads passes through."""
    import torch

    from genkl import Examples, Phase
    from genkl.data import make_split
    from genkl.learn import trainer
    from genkl.networks import linear_head

    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    split = make_split(inputs, torch.arange(64) % 3, torch.arange(64))
    heads = [linear_head((8,), 3) for _ in range(2)]
    files: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(ROOT / "genkl"):
            files.add(str(Path(frame.f_code.co_filename).relative_to(ROOT / "genkl")))

    step = trainer._Training._take_step

    def traced(*given: object) -> None:
        sys.setprofile(note)
        try:
            step(*given)
        finally:
            sys.setprofile(None)

    trainer._Training._take_step = traced
    try:
        phase = Phase(steps=2, learning_rate=0.1, batch_size=16)
        trainer.fit_together(heads, Examples.clean(split, 3), phase, split, seeds=[0, 1])
    finally:
        trainer._Training._take_step = step
    # Where the batch comes from; and not the engine, which moves tensors and knows no training.
    return sorted({*files, "learn/batches.py"} - {"engine.py"})


def measures() -> list[Measure]:
    """Every measure of the house."""
    package, house = modules("genkl"), modules(*HOUSE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    functions = [(m.length(f), m.place(f)) for m in house for f in m.functions()]
    given = [(arguments(f), m.place(f)) for m in house for f in m.functions()]
    largest = max((len(m.lines), str(m.path.relative_to(ROOT))) for m in house)
    lines = sum(len(m.lines) for m in package)
    skips = [
        str(m.path.relative_to(ROOT))
        for m in house
        if re.search(r"# fmt: (skip|off)", m.path.read_text("utf-8"))
    ]
    puzzling, vague = riddles(house), named(house, "one")
    step = training_step()
    return [
        Measure("code lines of genkl/", lines, 8_000, 12_870),
        Measure(
            "code lines of everything but tests", sum(len(m.lines) for m in house), 13_000, 20_530
        ),
        Measure(
            "characters in a code line of genkl/",
            round(sum(m.characters for m in package) / lines, 1),
            37,
            39.0,
        ),
        Measure("largest file (code lines)", largest[0], 350, 350, largest[1]),
        Measure("longest function (code lines)", *max(functions)[:1], 45, 45, max(functions)[1]),
        Measure("most arguments of a function", max(given)[0], 9, 9, max(given)[1]),
        Measure("files that a training step reads", len(step), 4, 4, ", ".join(step)),
        Measure("layers of the import contract", len(contract["layers"]), 12, 12),
        Measure("direct dependencies", len(project["project"]["dependencies"]), 12, 12),
        Measure("module docstrings that ask", len(puzzling), 0, 0, ", ".join(puzzling[:3])),
        Measure("modules with an identifier `one`", len(vague), 0, 0, ", ".join(vague[:3])),
        Measure("files with `# fmt: skip`", len(skips), 0, 0, ", ".join(skips[:3])),
    ]


def main() -> int:
    """Print the measures; 1 if one is beyond its limit."""
    rows = measures()
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}} {'found':>8} {'aim':>8} {'limit':>8}")
    for row in rows:
        mark = "  TOO MUCH" if row.found > row.limit else "  above the aim" * (row.found > row.aim)
        print(f"{row.name:{width}} {row.found:8,} {row.aim:8,} {row.limit:8,}{mark}  {row.where}")
    return int(any(row.found > row.limit for row in rows))


if __name__ == "__main__":
    sys.exit(main())
