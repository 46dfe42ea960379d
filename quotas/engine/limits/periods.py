"""Calendar periods: where days, weeks and months begin in a time zone, in microseconds since the epoch."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from zoneinfo import ZoneInfo

Boundaries = tuple[int, int, int, int]


def _step(day: dt.date, period: str, by: int) -> dt.date:
    if period == "day":
        return day + dt.timedelta(days=by)
    if period == "week":
        return day + dt.timedelta(weeks=by)
    month = day.year * 12 + day.month - 1 + by
    return dt.date(month // 12, month % 12 + 1, 1)


@lru_cache(maxsize=4096)
def _boundaries(period: str, timezone: str, today: dt.date) -> Boundaries:
    zone = ZoneInfo(timezone)
    if period == "week":
        today -= dt.timedelta(days=today.weekday())
    elif period == "month":
        today = today.replace(day=1)
    elif period != "day":
        raise ValueError(f"a period is day, week or month, not {period!r}")

    def begins(day: dt.date) -> int:
        # Where midnight does not exist (a DST gap), this is the moment that the clocks jump over it.
        return int(dt.datetime.combine(day, dt.time(), zone).timestamp()) * 1_000_000

    return (
        begins(_step(today, period, -1)),
        begins(today),
        begins(_step(today, period, 1)),
        begins(_step(today, period, 2)),
    )


def boundaries(period: str, timezone: str, now: int) -> Boundaries:
    """Begin of the previous, the present, the next period and the one after it, by the clock `now` (microseconds).

    Weeks begin on Monday. Four boundaries, so that a clock that is wrong by less than a period changes nothing: the
    server picks by its own.
    """
    found = _present.get((period, timezone))
    if found is None or not found[1] <= now < found[2]:
        today = dt.datetime.fromtimestamp(now // 1_000_000, ZoneInfo(timezone)).date()
        found = _present[period, timezone] = _boundaries(period, timezone, today)
    return found


_present: dict[tuple[str, str], Boundaries] = {}
"""The period of the last call: nearly always also that of the next one."""
