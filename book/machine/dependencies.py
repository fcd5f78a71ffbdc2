"""What does a notebook depend on? Found from its code, without executing it."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from book.machine.parameters import code_cells
from book.machine.project import PACKAGE, Project


class _Undecidable(Exception):
    """The code may use any file of the package."""


def package_files(project: Project, template: Path) -> list[Path]:
    """The files of the package that a notebook uses, directly or not; found without executing it.

    Names are mapped through the package's ``_EXPORTS``, so that ``genkl.fit`` is a dependency on
    ``genkl/train.py`` and what that imports, and not on everything. Where the code can't be
    decided (a star import, names made at run time), all files are returned.
    """
    package = Package(project.root / PACKAGE)
    try:
        modules = package.used_by("\n".join(_python(cell) for cell in code_cells(template)))
    except (_Undecidable, SyntaxError):
        modules = set(package.modules)
    return sorted(package.modules[module] for module in modules if not _is_executor(module))


def _is_executor(module: str) -> bool:
    """Whether a module belongs to this subpackage, which no notebook's numbers depend on."""
    return f"{module}.".startswith(f"{PACKAGE}.book.")


def _python(cell: Mapping[str, Any]) -> str:
    """A cell's source without the lines that are IPython's."""
    return re.sub(r"^(\s*)[%!].*", r"\1pass", cell["source"], flags=re.MULTILINE)


class Package:
    """The package's modules and who imports whom, read from the source files."""

    def __init__(self, folder: Path):
        self.modules: dict[str, Path] = {}
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            self.modules[".".join(part for part in parts if part != "__init__")] = path
        self.exports: dict[str, str] = {}
        init = folder / "__init__.py"
        if init.exists() and "_EXPORTS" in init.read_text("utf-8"):
            self.exports = runpy.run_path(str(init), run_name=PACKAGE)["_EXPORTS"]

    def used_by(self, source: str) -> set[str]:
        """All modules that code outside the package uses, directly or not."""
        done: set[str] = set()
        waiting = self._imports(source, "", is_package=False)
        while waiting:
            module = waiting.pop()
            if module in done:
                continue
            done.add(module)
            path = self.modules[module]
            is_package = path.name == "__init__.py"
            waiting |= self._imports(path.read_text("utf-8"), module, is_package=is_package)
        return done

    def _imports(self, source: str, importer: str, *, is_package: bool) -> set[str]:
        """The modules of the package that some code names, with the packages around them."""
        tree = ast.parse(source)
        found: set[str] = set()
        aliases: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == PACKAGE:
                        found |= self._resolve(PACKAGE, alias.name[len(PACKAGE) + 1 :])
                        if alias.name == PACKAGE or not alias.asname:
                            aliases.add(alias.asname or PACKAGE)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = importer.split(".")[: None if is_package else -1]
                    parts = parts[: len(parts) - node.level + 1]
                    base = ".".join([*parts, *([node.module] if node.module else [])])
                if base.split(".")[0] == PACKAGE:
                    for alias in node.names:
                        found |= self._resolve(base, alias.name)
            elif isinstance(node, ast.Name | ast.Attribute):
                name = node.id if isinstance(node, ast.Name) else node.attr
                if name in {"import_module", "__import__", "exec", "eval"} and not self._is_method(
                    node
                ):
                    raise _Undecidable
        return found | self._attributes(tree, aliases)

    @staticmethod
    def _is_method(node: ast.Name | ast.Attribute) -> bool:
        """Whether this is ``model.eval`` and the like, and not the built-in function."""
        return isinstance(node, ast.Attribute) and node.attr in {"eval", "exec"}

    def _attributes(self, tree: ast.AST, aliases: set[str]) -> set[str]:
        """The modules behind ``genkl.name`` in code that imports the package itself."""
        found: set[str] = set()
        followed = set()
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in aliases
            ):
                followed.add(node.value)
                if not node.attr.startswith("__"):
                    found |= self._resolve(PACKAGE, node.attr)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in aliases and node not in followed:
                raise _Undecidable  # the package itself is handed on
        return found

    def _resolve(self, base: str, name: str) -> set[str]:
        """The modules needed for ``from base import name``; their enclosing packages are loaded."""
        module = f"{base}.{name}" if name else base
        if base == PACKAGE and name in self.exports:
            module = self.exports[name]
        elif name and module not in self.modules:
            if base == PACKAGE and self.exports:
                raise _Undecidable  # a star, or a name that is unknown
            module = base
        parts = module.split(".")
        found = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
        if self.exports:  # a lazy __init__ is a table of names, and these have been looked up
            found.discard(PACKAGE)
        return found & set(self.modules)


def quoted_files(project: Project, template: Path) -> list[Path]:
    """Files of the repository that a notebook names in a string, as a path from its folder."""
    files = set()
    for cell in code_cells(template):
        try:
            nodes = list(ast.walk(ast.parse(_python(cell))))
        except SyntaxError:
            continue
        for node in nodes:
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and "." in text and len(text) < 200 and "\n" not in text:
                path = (project.notebooks / text).resolve()
                if path.is_relative_to(project.root.resolve()) and path.is_file():
                    files.add(path)
    return sorted(files)
