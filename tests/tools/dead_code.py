"""Names that nothing uses: `python -m tests.tools.dead_code`.

A function, class, constant or method counts as used if its name appears anywhere else in code, templates, settings or
tests: as a name, an attribute, a keyword or a whole word of a string. It also does if a framework calls it: what a
decorator registers, what overrides a member of a class that is not ours, and a few names that Django looks up.
"""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from pathlib import Path

import django

from quotas.shapes import Shape

ROOT = Path(__file__).resolve().parents[2]
APPS = ("controlplane", "queues", "quotas")
READERS = (*APPS, "tests", "bench", "examples", "manage.py")
"""Where a use may be."""
TEXTS = (".html", ".toml", ".js", ".yaml")
"""Files besides Python whose words are uses."""
LOOKED_UP = re.compile(r"Command|Meta|(clean|validate)_\w+|handler\d{3}|\w+Config")
"""Names that Django and Django REST framework look up."""
EVENTS = "quotas/events.py"
SETTINGS = ("controlplane/settings.py", "controlplane/formats/en/formats.py")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Definition:
    """A name that is defined in an app."""

    path: Path
    line: int
    name: str
    owner: str
    """The class that it is in; empty: the module."""
    together: tuple[str, ...] = ()
    """Names of the same statement: the codes of a protocol are numbered together."""

    def __str__(self) -> str:
        name = f"{self.owner}.{self.name}" if self.owner else self.name
        return f"{self.path.relative_to(ROOT)}:{self.line} {name}"


def definitions(path: Path) -> Iterator[Definition]:
    """What a file defines at its top and in its classes, except what Python or a framework calls by its name."""
    tree = ast.parse(path.read_text())
    yield from _named(path, tree.body, "")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from _named(path, node.body, node.name)


def _named(path: Path, body: Iterable[ast.stmt], owner: str) -> Iterator[Definition]:
    for node in body:
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name] if not any(_registers(one) for one in node.decorator_list) else []
        elif isinstance(node, ast.Assign):
            names = [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        elif isinstance(node, ast.If | ast.Try):
            yield from _named(path, node.body, owner)
        for name in names:
            if not name.startswith("__"):
                yield Definition(path, node.lineno, name, owner, tuple(names))


def _registers(decorator: ast.expr) -> bool:
    """Whether a decorator hands the definition to a framework: `@admin.register(Model)`, `@Field.register_lookup`."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute) and called.attr.startswith("register")


def overrides(definition: Definition) -> bool:
    """Whether a class that is not ours has a member of this name, which its framework uses."""
    if not definition.owner:
        return False
    module = import_module(".".join(definition.path.relative_to(ROOT).with_suffix("").parts))
    owner = getattr(module, definition.owner, None)
    if isinstance(owner, type) and issubclass(owner, Enum):
        return True  # by its value
    if isinstance(owner, type) and issubclass(owner, Shape):
        return True  # sent
    bases = owner.__mro__[1:] if isinstance(owner, type) else ()
    return any(
        definition.name in vars(base) or definition.name in getattr(base, "__annotations__", {})
        for base in bases
        if base.__module__.partition(".")[0] not in APPS
    )


@dataclass(slots=True)
class Uses:
    """Where names are used."""

    local: dict[Path, Counter[str]] = field(default_factory=dict)
    """Names by the file that they are in."""
    anywhere: Counter[str] = field(default_factory=Counter)
    """Attributes, keywords, words of strings and of other texts."""
    imported: set[tuple[str, str]] = field(default_factory=set)
    """Module and name."""

    def read(self, path: Path) -> None:
        """Add those of a file. Docstrings do not count: to be described is not to be used."""
        if path.suffix != ".py":
            self.anywhere.update(WORD.findall(path.read_text()))
            return
        tree = ast.parse(path.read_text())
        described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        names = self.local.setdefault(path, Counter())
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name, ctx=ast.Load()):
                    names[name] += 1
                case ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                    self.anywhere[name] += 1
                case ast.ImportFrom(module=str(module)):
                    self.imported.update((module, alias.name) for alias in node.names)
                case ast.Constant(value=str(text)) if id(node) not in described:
                    self.anywhere.update(WORD.findall(text))
                case ast.MatchClass():
                    self.anywhere.update(node.kwd_attrs)

    def has(self, definition: Definition) -> bool:
        """Whether the definition is used. A module's name is used in its own file, imported, or an attribute."""
        if any(self.anywhere[name] or self.local[definition.path][name] for name in definition.together):
            return True
        name = definition.name
        if definition.owner:
            return False
        module = ".".join(definition.path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        return any(named == name and f"{module}.".startswith(f"{source}.") for source, named in self.imported)


def files(places: Iterable[str], suffixes: tuple[str, ...]) -> Iterator[Path]:
    for place in places:
        path = ROOT / place
        yield from [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.suffix in suffixes)


def unused() -> list[Definition]:
    """Definitions that nothing uses."""
    uses = Uses()
    for path in files(READERS, (".py", *TEXTS)):
        if "migrations" not in path.parts and path.name != "test_dead_code.py":
            uses.read(path)
    uses.anywhere.update(WORD.findall((ROOT / "pyproject.toml").read_text()))
    return [
        definition
        for path in files(APPS, (".py",))
        if "migrations" not in path.parts
        for definition in definitions(path)
        if not uses.has(definition) and not _is_looked_up(definition) and not overrides(definition)
    ]


def _is_looked_up(definition: Definition) -> bool:
    file = str(definition.path.relative_to(ROOT))
    if file == EVENTS and definition.owner:
        return True  # fields of events are written to the log by their names
    return file in SETTINGS or definition.owner == "Meta" or LOOKED_UP.fullmatch(definition.name) is not None


def main() -> None:
    """Print them, one a line."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    django.setup()
    print(*unused(), sep="\n")


if __name__ == "__main__":
    main()
