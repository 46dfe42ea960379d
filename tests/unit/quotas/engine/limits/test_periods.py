"""Where days, weeks and months begin: by the wall clock of the time zone, whatever it jumps over."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from quotas.engine.limits.periods import boundaries

HOUR = 3600 * 10**6


def at(zone: str, *moment: int) -> int:
    """Microseconds since the epoch of a wall clock's time."""
    return int(dt.datetime(*moment, tzinfo=ZoneInfo(zone)).timestamp()) * 10**6  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("zone", "period", "moment", "begins", "hours"),
    [
        ("Europe/Berlin", "day", (2026, 3, 29, 12), (2026, 3, 29), 23),  # the clocks go forward
        ("Europe/Berlin", "day", (2026, 10, 25, 12), (2026, 10, 25), 25),
        ("Europe/Berlin", "day", (2026, 10, 26, 0), (2026, 10, 26), 24),
        ("America/Sao_Paulo", "day", (2018, 11, 4, 12), (2018, 11, 4, 1), 23),  # there was no midnight
        ("Pacific/Apia", "day", (2011, 12, 31, 12), (2011, 12, 31), 24),  # the 30th did not exist
        ("America/St_Johns", "day", (2026, 7, 1, 23, 59), (2026, 7, 1), 24),
        ("UTC", "day", (2028, 2, 29, 12), (2028, 2, 29), 24),
        ("UTC", "month", (2028, 2, 29, 12), (2028, 2, 1), 29 * 24),
        ("UTC", "month", (2026, 2, 28, 12), (2026, 2, 1), 28 * 24),
        ("UTC", "month", (2026, 1, 31, 12), (2026, 1, 1), 31 * 24),
        ("UTC", "month", (2026, 12, 31, 23), (2026, 12, 1), 31 * 24),
        ("Europe/Berlin", "month", (2026, 3, 31, 23), (2026, 3, 1), 31 * 24 - 1),
        ("Europe/Berlin", "month", (2026, 10, 1, 0), (2026, 10, 1), 31 * 24 + 1),
        ("UTC", "week", (2026, 11, 29, 12), (2026, 11, 23), 7 * 24),  # a Sunday; its week began on Monday
        ("UTC", "week", (2026, 11, 30, 0), (2026, 11, 30), 7 * 24),
        ("Europe/Berlin", "week", (2026, 3, 29, 12), (2026, 3, 23), 7 * 24 - 1),
        ("UTC", "week", (2027, 1, 1, 12), (2026, 12, 28), 7 * 24),  # over the end of the year
    ],
)
def test_the_present_period(
    zone: str, period: str, moment: tuple[int, ...], begins: tuple[int, ...], hours: int
) -> None:
    now = at(zone, *moment)
    before, start, stop, after = boundaries(period, zone, now)
    assert start == at(zone, *begins) and stop - start == hours * HOUR
    assert before <= start <= now < stop < after
    assert boundaries(period, zone, stop)[:3] == (start, stop, after), "the next one begins where this one ends"
    if before < start:  # the day before Apia's 31st had no moment
        assert boundaries(period, zone, start - 1)[1:3] == (before, start)


def test_a_period_that_is_none_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="year"):
        boundaries("year", "UTC", 0)
