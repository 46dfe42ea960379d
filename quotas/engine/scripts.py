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
    """One run of a script, by its keys and arguments or as the bytes that are sent (`packed`)."""

    script: Script
    keys: Sequence[Key] = ()
    args: Sequence[Argument] = ()
    packed: bytes = b""


def bulk(data: bytes) -> bytes:
    """One key or argument as the server reads it."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def packed(script: Script, keys: int, args: int, *parts: bytes) -> bytes:
    """A run of a script as it is sent, from keys and arguments that are packed already, one or many to a part."""
    return b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$%d\r\n%d\r\n%b" % (
        keys + args + 3,
        script.sha.encode(),
        len(str(keys)),
        keys,
        b"".join(parts),
    )


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
