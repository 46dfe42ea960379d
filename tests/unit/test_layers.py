"""Dependencies point one way: controlplane → queues → quotas → quotas.engine, and the engine knows no Django."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABOVE = {"quotas": ("queues", "controlplane"), "queues": ("controlplane",)}
STRANGERS = (
    "django",
    "rest_framework",
    "rq",
    "django_rq",
    "quotas.models",
    "quotas.services",
    "quotas.snapshot.resolve",
    "quotas.rest",
)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file imports, at whatever depth."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{name.name}") for name in node.names)


def offences(package: str, forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, name in imports(path)
        if any(name == word or name.startswith(f"{word}.") for word in forbidden)
    ]


@pytest.mark.parametrize(("package", "above"), ABOVE.items())
def test_nothing_points_back(package: str, above: tuple[str, ...]) -> None:
    assert offences(package, above) == []


def test_the_engine_knows_no_django() -> None:
    assert offences("quotas/engine", STRANGERS) == []


def test_the_net_catches_what_it_is_for() -> None:
    found = dict.fromkeys(name for _, name in imports(ROOT / "queues" / "settlement.py"))
    assert "quotas.runtime.connection.limiter" in found
    assert offences("queues", ("quotas",)), "queues does import quotas, so the check sees imports at all"
