"""Lua scripts: found by name, joined with what they include, run by their SHA, loaded when the server forgot them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LUA = Path(__file__).parent / "lua"
INCLUDE = re.compile(r"^-- include: ([\w.]+)\n", re.MULTILINE)

Key = bytes | str
Argument = bytes | str | int


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script with everything that it includes."""

    name: str
    source: str
    sha: str


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script."""

    script: Script
    keys: Sequence[Key]
    args: Sequence[Argument] = ()


def _joined(name: str, seen: set[str]) -> str:
    text = (LUA / name).read_text(encoding="utf-8")
    parts = []
    for library in INCLUDE.findall(text):
        if library not in seen:
            seen.add(library)
            parts.append(_joined(library, seen))
    return "".join([*parts, INCLUDE.sub("", text)])


@lru_cache(maxsize=64)
def load(name: str) -> Script:
    """The script `lua/<name>.lua`. Lines `-- include: <file>` pull in library files, each one once, in order."""
    source = _joined(f"{name}.lua", set())
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
