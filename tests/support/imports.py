"""Who imports whom, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"srcli": ROOT / "srcli", "srcli.export": ROOT / "export"}


def modules() -> dict[str, Path]:
    """All modules of the package by their dotted names."""
    found = {}
    for package, folder in PACKAGES.items():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            found[name] = file
    return found


def imported(name: str, file: Path, *, late: bool) -> Iterator[str]:
    """Dotted names that a module imports.

    Args:
        name: Of the module.
        file: Its source.
        late: Whether imports inside functions count.
    """
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in _nodes(ast.parse(file.read_text("utf-8")), late=late):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *base.split(".")]).strip(
                    "."
                )
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _nodes(tree: ast.AST, *, late: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        yield node
        if late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _nodes(node, late=late)


def circle() -> list[str]:
    """Modules that import each other in a circle, if there is one; the root of all is left out."""
    known = modules()
    graph = {name: set(_known(name, file, known)) for name, file in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def _known(name: str, file: Path, known: dict[str, Path]) -> Iterator[str]:
    for said in imported(name, file, late=False):
        module = said if said in known else said.rpartition(".")[0]
        if module in known and module not in (name, "srcli"):
            yield module
