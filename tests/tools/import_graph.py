"""The imports between the parts of an app, and the cycles among them: `python -m tests.tools.import_graph queues`.

A part is a module or a package directly inside the app. Imports inside functions count too; those for type checking only
do not, since they do not exist at run time.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = ("migrations",)


def modules(app: str) -> Iterator[Path]:
    """Every module of an app but its migrations."""
    for path in sorted((ROOT / app).rglob("*.py")):
        if not any(part in SKIPPED for part in path.parts):
            yield path


@cache
def tree_of(path: Path) -> ast.Module:
    """The file, parsed once."""
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a file imports at run time, at any depth."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in _running(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            for name in node.names:
                yield node.lineno, f"{module}.{name.name}"


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what is below it, without the bodies of `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield from _running(child)


def part_of(name: str, app: str) -> str | None:
    """The part of the app that a dotted name is in; None for what is outside or is the app itself."""
    parts = name.split(".")
    if parts[0] != app or len(parts) < 2:
        return None
    inside = ROOT / app / parts[1]
    return parts[1] if inside.is_dir() or inside.with_suffix(".py").exists() else None


def graph(app: str) -> dict[str, dict[str, list[str]]]:
    """{part: {part that it imports: ["file:line", ...]}}"""
    edges: dict[str, dict[str, list[str]]] = {}
    for path in modules(app):
        inside = path.relative_to(ROOT / app).with_suffix("").parts
        if inside == ("__init__",):
            continue  # the app's public face imports what it likes
        here = inside[0]
        edges.setdefault(here, {})
        for line, name in imported(path):
            there = part_of(name, app)
            if there and there != here:
                edges[here].setdefault(there, []).append(f"{path.relative_to(ROOT)}:{line}")
    return edges


def module_graph(*apps: str) -> dict[str, dict[str, list[str]]]:
    """The same between single modules of the apps. A name of a package's own counts as an import of its `__init__`."""
    paths = {name_of(path): path for app in apps for path in modules(app)}
    edges: dict[str, dict[str, list[str]]] = {name: {} for name in paths}
    for here, path in paths.items():
        for line, name in imported(path):
            there = name if name in paths else name.rpartition(".")[0]
            if there in paths and there != here:
                edges[here].setdefault(there, []).append(f"{path.relative_to(ROOT)}:{line}")
    return edges


def name_of(path: Path) -> str:
    """The dotted name of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def lazy(*apps: str) -> dict[str, set[str]]:
    """The imports of our own modules inside functions: {module: {"package.name", ...}}."""
    found: dict[str, set[str]] = {}
    for path in (path for app in apps for path in modules(app)):
        for function in ast.walk(tree_of(path)):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in apps:
                    names = {f"{node.module}.{name.name}" for name in node.names}
                elif isinstance(node, ast.Import):
                    names = {name.name for name in node.names if name.name.split(".")[0] in apps}
                else:
                    continue
                if names:
                    found.setdefault(name_of(path), set()).update(names)
    return found


def cycles(edges: dict[str, dict[str, list[str]]]) -> list[list[str]]:
    """The strongly connected components of more than one part (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(part: str) -> None:
        index[part] = low[part] = len(index)
        stack.append(part)
        for other in edges.get(part, {}):
            if other not in index:
                visit(other)
                low[part] = min(low[part], low[other])
            elif other in stack:
                low[part] = min(low[part], index[other])
        if low[part] == index[part]:
            cycle = []
            while True:
                cycle.append(stack.pop())
                if cycle[-1] == part:
                    break
            if len(cycle) > 1:
                found.append(sorted(cycle))

    for part in sorted(edges):
        if part not in index:
            visit(part)
    return found


def main() -> None:
    """Print each part with what it imports, then the cycles. Exits with 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("app", nargs="?", default="queues")
    parser.add_argument("--where", action="store_true", help="also print the lines that import")
    options = parser.parse_args()
    edges = graph(options.app)
    for part, targets in sorted(edges.items()):
        print(f"{part} -> {', '.join(sorted(targets)) or '(nothing)'}")
        if options.where:
            for other, places in sorted(targets.items()):
                print(*(f"    {other}: {place}" for place in places), sep="\n")
    found = cycles(edges)
    print(*(f"cycle: {' '.join(cycle)}" for cycle in found) if found else ("no cycle",), sep="\n")
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
