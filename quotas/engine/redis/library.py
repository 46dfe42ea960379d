"""The library of scripts on a server: what loads it, what says that it is missing, which versions are too many.

Names carry a digest of the source, so that the versions of a rolling upgrade live side by side. Who loads a version
deletes surplus ones; one that was still in use is loaded again by its users, which costs them one round trip.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PREFIX = "sluice_"
KEPT_VERSIONS = 4
"""Versions of the library that stay on a server."""


@dataclass(frozen=True, slots=True)
class Library:
    """All scripts of this version as one library."""

    name: str
    source: str


def not_found(message: str) -> bool:
    """Whether an error says that the server does not have the library; nothing was run then."""
    return message.startswith("ERR Function not found")


def already_loaded(message: str) -> bool:
    """Whether an error says that somebody else has loaded the library meanwhile."""
    return message.startswith("ERR Library '") and message.endswith("already exists")


def commands(library: Library) -> list[tuple[str, ...]]:
    """What loads a library and lists those of ours; the last reply is for `surplus`."""
    return [("FUNCTION", "LOAD", library.source), ("FUNCTION", "LIST", "LIBRARYNAME", PREFIX + "*")]


def surplus(library: Library, listed: object) -> list[tuple[str, ...]]:
    """What deletes the versions that are too many, this one never.

    A server does not report when a library was last used, so libraries are dropped at random: unused ones go sooner or later.
    """
    names = [name for name in _names(listed) if name != library.name] if isinstance(listed, list) else []
    gone = random.sample(names, max(len(names) + 1 - KEPT_VERSIONS, 0))
    return [("FUNCTION", "DELETE", name) for name in gone]


def _names(listed: Iterable[Any]) -> list[str]:
    """The names in a list of libraries: maps in RESP3, flat lists of pairs before."""
    found = []
    for one in listed:
        pairs = one if isinstance(one, dict) else dict(zip(one[::2], one[1::2], strict=True))
        found.append(pairs[b"library_name"].decode())
    return found
