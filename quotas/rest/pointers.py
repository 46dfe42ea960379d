"""The places of mistakes: JSON pointers (RFC 6901), in answers in their URI fragment form (RFC 9457): `#/cost/tokens`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ROOT = "#"
WHOLE = "non_field_errors"
MAX_SHOWN = 64
"""Characters of a member's name that are repeated in an answer."""
MAX_ERRORS = 50


@dataclass(frozen=True, slots=True)
class FieldError:
    """One mistake in an input.

    `pointer` is a JSON pointer, such as `/cost/tokens` (or `#/cost/tokens`), the name of a header field, or `?limit` for
    a query parameter.
    """

    pointer: str
    detail: str

    @property
    def place(self) -> str:
        """The pointer as answers show it."""
        return f"{ROOT}{self.pointer}" if self.pointer[:1] in ("", "/") else self.pointer

    def __str__(self) -> str:
        return f"{self.place}: {self.detail}"

    @property
    def parameter(self) -> str:
        """The query parameter with the mistake; empty if it is elsewhere."""
        return self.pointer[1:] if self.pointer[:1] == "?" else ""


def pointer(*parts: str | int) -> str:
    """`pointer("cost", "tokens")` is `#/cost/tokens`."""
    return ROOT + "".join(f"/{escape(part)}" for part in parts)


def escape(part: object) -> str:
    """One step of a pointer; a very long name is cut."""
    text = str(part).encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def errors_of(detail: Any, base: str = ROOT) -> list[FieldError]:
    """The mistakes in DRF's nested error detail, at most 50."""
    return list(_flat(detail, base))[:MAX_ERRORS]


def _flat(detail: Any, base: str) -> Iterable[FieldError]:
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from _flat(inner, base if name == WHOLE else f"{base}/{escape(name)}")
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            # A list contains the messages of one place, or one entry for each item of a list.
            yield from _flat(inner, f"{base}/{index}" if isinstance(inner, dict | list) else base)
    else:
        yield FieldError(base, str(detail))
