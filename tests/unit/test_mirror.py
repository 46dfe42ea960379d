"""Tests mirror the packages: each module's tests have the module's path, and vice versa."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("controlplane", "queues", "quotas")


def mirrored(kind: str) -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / "tests" / kind / package).rglob("test_*.py"))


FILES = [*mirrored("unit"), *mirrored("integration")]


def package_of(file: Path) -> Path:
    """The package whose tests the file is among, as a path from the root."""
    return Path(*file.relative_to(ROOT / "tests").parts[1:-1])


def imports_of(file: Path) -> set[str]:
    """Dotted names of modules and of what is imported from them."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "tests")))
def test_a_test_is_among_those_of_a_package_of_the_product(file: Path) -> None:
    assert (ROOT / package_of(file) / "__init__.py").exists(), f"there is no package {package_of(file)}"


@pytest.mark.parametrize("kind", ["unit", "integration"])
def test_all_directories_are_those_of_packages(kind: str) -> None:
    top = {path.name for path in (ROOT / "tests" / kind).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert top == set(PACKAGES)


@pytest.mark.parametrize("file", list(mirrored("unit")), ids=lambda file: str(file.relative_to(ROOT / "tests")))
def test_a_unit_test_imports_from_its_package(file: Path) -> None:
    package = ".".join(package_of(file).parts)
    assert any(name == package or name.startswith(f"{package}.") for name in imports_of(file))
