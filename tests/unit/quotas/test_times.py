"""One text for times, whatever zone and precision they have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from quotas.times import from_unix, rfc3339


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), "2026-12-31T23:59:59.000Z"),
        (datetime(2026, 12, 31, 23, 59, 59, 123456, tzinfo=UTC), "2026-12-31T23:59:59.123Z"),
        (datetime(2027, 1, 1, 0, 59, 59, tzinfo=timezone(timedelta(hours=1))), "2026-12-31T23:59:59.000Z"),
        (from_unix(1_767_225_599.25), "2025-12-31T23:59:59.250Z"),
        (None, None),
    ],
)
def test_times_have_milliseconds_and_z(at: datetime | None, text: str | None) -> None:
    assert rfc3339(at) == text
