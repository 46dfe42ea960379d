"""JSON pointers (RFC 6901) in their URI fragment form, as RFC 9457 shows them: `#/cost/tokens`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

ROOT = "#"
WHOLE = "non_field_errors"
MAX_SHOWN = 64
"""Characters of a member's name that are repeated in an answer."""
MAX_ERRORS = 50


def pointer(*parts: str | int) -> str:
    """`pointer("cost", "tokens")` is `#/cost/tokens`."""
    return ROOT + "".join(f"/{escape(part)}" for part in parts)


def escape(part: str | int) -> str:
    text = str(part).replace("~", "~0").replace("/", "~1")
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def errors_of(detail: Any, base: str = ROOT) -> list[dict[str, str]]:
    """DRF's nested error detail, flat: a list of `{pointer, detail}`, at most 50."""
    return list(_flat(detail, base))[:MAX_ERRORS]


def _flat(detail: Any, base: str) -> Iterable[dict[str, str]]:
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from _flat(inner, base if name == WHOLE else f"{base}/{escape(name)}")
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            # A list holds the messages of one place, or one entry for each item of a list.
            yield from _flat(inner, f"{base}/{index}" if isinstance(inner, dict | list) else base)
    else:
        yield {"pointer": base, "detail": str(detail)}
