"""Dependencies point one way: controlplane → queues → quotas → quotas.engine, and the engine knows no Django."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import import_graph

ROOT = Path(__file__).resolve().parents[2]
APPS = ("quotas", "queues", "controlplane")
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
    for node in ast.walk(import_graph.tree_of(path)):
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


LEVELS_OF_QUEUES = {
    "models": ("models", "ids", "states"),
    "lifecycle": ("api", "admin", "management", "selectors", "services", "dispatcher", "worker", "maintenance"),
    "settlement": ("api", "admin", "management", "selectors", "services", "dispatcher", "worker", "maintenance"),
    "selectors": ("api", "admin", "management", "services", "dispatcher", "worker", "maintenance"),
    "services": ("api", "admin", "management", "dispatcher", "worker", "maintenance"),
    "maintenance": ("api", "admin", "management", "dispatcher", "worker"),
    "worker": ("api", "admin", "management", "dispatcher", "maintenance"),
    "dispatcher": ("api", "admin", "management", "worker"),
    "api": ("admin", "management", "dispatcher", "worker", "maintenance"),
}
"""For each part of queues, the parts above or beside it, which it must not import; `models` lists what it may."""
TOP_OF_QUEUES = {"api", "admin", "management", "dispatcher", "worker", "apps"}


def test_the_parts_of_queues_import_downwards_only() -> None:
    edges = import_graph.graph("queues")
    assert set(edges["models"]) <= set(LEVELS_OF_QUEUES["models"])
    for part, forbidden in LEVELS_OF_QUEUES.items():
        if part != "models":
            assert not set(edges[part]) & set(forbidden), part
    for part in edges.keys() - TOP_OF_QUEUES:
        assert not set(edges[part]) & {"api", "admin", "worker", "dispatcher"}, part


LEVELS_OF_QUOTAS = (
    {"engine", "clock", "durations", "moments", "permissions", "suggestions", "times", "tracing"},
    {"errors", "events", "models", "shapes"},
    {"audit", "runtime"},
    {"snapshot"},
    {"rest", "upstream"},
    {"services"},
    {"web"},
    {"admin", "api", "apps", "decorators", "limits", "management", "middleware", "pools", "testing", "throttling"},
)
"""The parts of quotas from the bottom up: each may import what is below it, and nothing beside or above it."""


def test_the_parts_of_quotas_import_downwards_only() -> None:
    level = {part: number for number, parts in enumerate(LEVELS_OF_QUOTAS) for part in parts}
    edges = import_graph.graph("quotas")
    assert edges.keys() == level.keys()
    upwards = [
        f"{place} imports {other}"
        for part, others in edges.items()
        for other, places in others.items()
        for place in places
        if level[other] >= level[part]
    ]
    assert upwards == []


@pytest.mark.parametrize("app", APPS)
def test_there_is_no_ring_of_imports(app: str) -> None:
    assert import_graph.cycles(import_graph.graph(app)) == []


def test_there_is_no_ring_of_modules() -> None:
    """Imports inside functions count, so that none of them hides a cycle."""
    assert import_graph.cycles(import_graph.module_graph(*APPS)) == []


LAZY = {
    # Django calls `ready` when the models are loaded; what these import needs them.
    "controlplane.apps": "ready",
    "queues.apps": "ready",
    "quotas.apps": "ready",
    # Works before Django is set up.
    "controlplane.cli": "before Django",
    "controlplane.management.commands.up": "before Django",
    # The public name of a package; importing the package must not import all of it.
    "quotas.services.list_actions": "REST, which most processes never need",
    "queues.tasks": "public name",
    "queues.worker": "one of two classes, so that each process loads what it runs",
}
"""The modules that import our own code inside functions, with the reason."""


def test_imports_inside_functions_have_a_reason() -> None:
    found = import_graph.lazy(*APPS)
    assert found.keys() == LAZY.keys(), {name: found.get(name) for name in found.keys() ^ LAZY.keys()}
