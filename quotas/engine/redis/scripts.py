"""Lua scripts, as functions of one library: found by name, called by name, loaded where a server does not have them.

A file in `lua/` that no other one includes is a script: lines `-- include: <file>` name what it uses, and what stands
below the line `-- at each call:` (all of it, without that line) is run with KEYS and ARGV. Files in a folder with the
name of a script are its chapters: their locals are the script's own, those of other included files are everybody's. Everything else is made once
per server and lives between calls: closures, tables for looking things up, and bounded caches of what depends on
arguments only, never on keys' values or time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import hiredis

from quotas.engine.frozen import quickly_made
from quotas.engine.redis.library import PREFIX, Library

LUA = Path(__file__).parents[1] / "lua"
INCLUDE = re.compile(r"^-- include: ([\w./]+)\n", re.MULTILINE)
READ_ONLY = re.compile(r"^-- read-only: (\w+)\n", re.MULTILINE)
FORMS = {"": (False,), "always": (True,), "dry": (False, True)}
"""Which forms a script has, by its line `-- read-only: ...`: always, or when it is run dry."""
BODY = "-- at each call:\n"

Key = bytes | str
Argument = bytes | str | int
pack: Callable[[tuple[Argument, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]
"""One command as the server reads it."""


@dataclass(frozen=True, slots=True)
class Script:
    """One function of the library. Read-only ones also run on a server whose memory is full."""

    name: str
    function: str
    library: Library = field(repr=False)
    read_only: bool = False
    sent: bytes = field(init=False, repr=False)
    """Command and function as they are sent."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sent", bulk(self.command) + bulk(self.function.encode()))

    @property
    def command(self) -> bytes:
        return b"FCALL_RO" if self.read_only else b"FCALL"


@quickly_made
@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script, by its keys and arguments or as the bytes that are sent (`packed`)."""

    script: Script
    keys: Sequence[Key] = ()
    args: Sequence[Argument] = ()
    packed: bytes = b""

    def payload(self) -> bytes:
        """The call as it is sent."""
        if self.packed:
            return self.packed
        script, keys = self.script, self.keys
        return pack((script.command, script.function, len(keys), *keys, *self.args))


def bulk(data: bytes) -> bytes:
    """One key or argument as the server reads it."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


EMPTY = bulk(b"")


def packed(script: Script, keys: int, args: int, *parts: bytes) -> bytes:
    """A run of a script as it is sent, from keys and arguments that are packed already, one or many to a part."""
    return b"*%d\r\n%b$%d\r\n%d\r\n%b" % (keys + args + 3, script.sent, len(str(keys)), keys, b"".join(parts))


def _joined(name: str, seen: set[str]) -> str:
    """A library file after those that it includes; nothing that was joined before."""
    text = (LUA / name).read_text(encoding="utf-8")
    return _included(text, seen) + INCLUDE.sub("", text)


def _included(text: str, seen: set[str], script: str = "") -> str:
    """The files that a text includes, in order, without the chapters of the script whose text it is."""
    parts = []
    for name in INCLUDE.findall(text):
        if name not in seen and not (script and name.startswith(f"{script}/")):
            seen.add(name)
            parts.append(_joined(name, seen))
    return "".join(parts)


@lru_cache(maxsize=1)
def _scripts() -> dict[tuple[str, bool], Script]:
    """Every script in `lua/`, by name and whether it is the read-only form.

    Only `redis.register_function` exists while a library is loaded, so all is made at the first call.
    """
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(LUA.glob("*.lua"))}
    used = {name.removesuffix(".lua") for text in texts.values() for name in INCLUDE.findall(text)}
    texts = {name: text for name, text in texts.items() if name not in used}
    seen: set[str] = set()
    parts = ["local made\nlocal function make()\nlocal scripts = {}\n"]
    for name, text in texts.items():
        chapters = [chapter for chapter in INCLUDE.findall(text) if chapter.startswith(f"{name}/")]
        parts.append(_included(text, seen, name))
        text = "".join(_joined(chapter, seen) for chapter in chapters) + INCLUDE.sub("", text)
        made, found, body = text.partition(BODY)
        made, body = (made, body) if found else ("", made)
        parts.append(f"do\n{made}scripts.{name} = function(KEYS, ARGV)\n{body}\nend\nend\n")
    parts.append("return scripts\nend\n")
    digest = hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
    forms = [(name, read_only) for name, text in texts.items() for read_only in FORMS[_marked(text)]]
    functions = {form: f"{PREFIX}{form[0]}{'_ro' if form[1] else ''}_{digest}" for form in forms}
    for (name, read_only), function in functions.items():
        flags = "'no-writes'" if read_only else ""
        parts.append(
            f"redis.register_function{{function_name = '{function}', flags = {{{flags}}},\n"
            f"callback = function(keys, args)\nmade = made or make()\nreturn made.{name}(keys, args)\nend}}\n"
        )
    library = Library(PREFIX + digest, f"#!lua name={PREFIX}{digest}\n{''.join(parts)}")
    return {form: Script(form[0], function, library, form[1]) for form, function in functions.items()}


def _marked(text: str) -> str:
    found = READ_ONLY.search(text)
    return found.group(1) if found else ""


def load(name: str, *, read_only: bool = False) -> Script:
    """The script `lua/<name>.lua`, or its read-only form: the same code, for calls that write nothing."""
    return _scripts()[name, read_only]
