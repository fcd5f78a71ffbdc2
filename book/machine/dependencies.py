"""Files that a notebook depends on: the modules that its code uses, and the files it names."""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cached_property
from pathlib import Path

from book.machine.parameters import code_cells
from book.machine.project import PACKAGE, Project

FIGURES = "figures"
"""The package in ``notebooks/`` with what only chapters draw."""

_ANY_MODULE = {"import_module", "__import__", "exec", "vars", "globals"}
"""Names in a notebook behind which any module may be."""


class Modules:
    """The modules of ``genkl`` and of ``notebooks/figures``, and who imports whom."""

    def __init__(self, project: Project):
        self._imported: dict[Path, set[str]] = {}
        self.files: dict[str, Path] = {}
        for folder in (project.root / PACKAGE, project.notebooks / FIGURES):
            for path in sorted(folder.rglob("*.py")):
                parts = path.relative_to(folder.parent).with_suffix("").parts
                self.files[".".join(part for part in parts if part != "__init__")] = path

    @cached_property
    def exports(self) -> dict[str, dict[str, str]]:
        """Package -> name -> module, for packages whose names are loaded on first use."""
        inits = {name: path for name, path in self.files.items() if path.name == "__init__.py"}
        tables = {name: _table(path.read_text("utf-8")) for name, path in inits.items()}
        return {name: table for name, table in tables.items() if table}

    def used_by(self, template: Path) -> list[Path]:
        """The files that a notebook uses, directly or not; found without executing it.

        A package's ``_EXPORTS`` or ``_MODULES`` says behind which module a name is, so that
        ``genkl.fit`` is a dependency on that module and what it imports, and not on everything.
        Where the code can't be decided (names made at run time), all files are returned.
        """
        try:
            tree = ast.parse(_python(template))
        except SyntaxError:
            return sorted(self.files.values())
        if _ANY_MODULE & _identifiers(tree):
            return sorted(self.files.values())
        found: set[str] = set()
        waiting = self._imports(tree, "")
        while waiting:
            module = waiting.pop()
            found.add(module)
            waiting |= self._imports_of(self.files[module], module) - found
        return sorted(self.files[module] for module in found - self.exports.keys())

    def _imports_of(self, path: Path, module: str) -> set[str]:
        if path not in self._imported:
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            self._imported[path] = self._imports(ast.parse(path.read_text("utf-8")), package)
        return self._imported[path]

    def _imports(self, tree: ast.AST, package: str) -> set[str]:
        """The modules that some code names, with the packages around them."""
        named: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                base = importlib.util.resolve_name(base, package)
                named |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        names = _identifiers(tree)
        for lazy, exports in self.exports.items():
            if lazy in named:
                named |= {module for name, module in exports.items() if name in names}
        parts = [name.split(".") for name in named]
        found = {".".join(part[:count]) for part in parts for count in range(1, len(part) + 1)}
        return found & self.files.keys()


def _table(source: str) -> dict[str, str]:
    """Name -> module, as an ``__init__`` writes them: ``_EXPORTS``, or ``_MODULES`` with names."""
    found: dict[str, str] = {}
    for node in ast.parse(source).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        is_table = ast.unparse(targets[0] or node) in ("_EXPORTS", "_MODULES")
        if is_table and isinstance(node.value, ast.Dict):
            for key, value in ast.literal_eval(node.value).items():
                found |= {key: value} if isinstance(value, str) else dict.fromkeys(value, key)
    return found


def _identifiers(tree: ast.AST) -> set[str]:
    """Every name that some code uses: variables, attributes, and what it imports."""
    fields = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name"}
    return {getattr(node, fields[type(node)]) for node in ast.walk(tree) if type(node) in fields}


def quoted_files(project: Project, template: Path) -> list[Path]:
    """Files that a notebook names in a string, as a path from its folder; a folder names its files.

    Only what lies in the repository counts, and no folder around the notebooks.
    """
    try:
        nodes = list(ast.walk(ast.parse(_python(template))))
    except SyntaxError:
        return []
    files: set[Path] = set()
    for node in nodes:
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and "." in text and text.isprintable() and len(text) < 200:
            path = (project.notebooks / text).resolve()
            around = project.notebooks.resolve().is_relative_to(path)
            if path.is_relative_to(project.root.resolve()) and not around:
                files |= {path} if path.is_file() else set(filter(Path.is_file, path.rglob("*")))
    return sorted(files)


def _python(template: Path) -> str:
    """A notebook's code, without the lines that are IPython's."""
    code = "\n".join(cell["source"] for cell in code_cells(template))
    return re.sub(r"^(\s*)[%!].*", r"\1pass", code, flags=re.MULTILINE)
