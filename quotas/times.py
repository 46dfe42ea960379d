"""Times as text: RFC 3339 in UTC with milliseconds and `Z`, wherever one is shown or sent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload


@overload
def rfc3339(at: datetime) -> str: ...


@overload
def rfc3339(at: datetime | None) -> str | None: ...


def rfc3339(at: datetime | None) -> str | None:
    """`2026-12-31T23:59:59.250Z`; None for None."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_unix(seconds: float) -> datetime:
    """The time of a Unix time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
