"""Calendar quotas on the days that trip others up, by every limiter alike."""

from __future__ import annotations

import pytest

from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.packed import LimitSet
from quotas.engine.limits.periods import boundaries
from tests.integration.quotas.engine.limits.conftest import Clock, limit
from tests.unit.quotas.engine.limits.test_periods import at

DAYS = [
    ("Europe/Berlin", "day", (2026, 3, 29, 1, 59)),
    ("Europe/Berlin", "day", (2026, 10, 25, 2, 30)),
    ("America/Sao_Paulo", "day", (2018, 11, 4, 1, 0)),
    ("Pacific/Apia", "day", (2011, 12, 29, 23, 59)),
    ("UTC", "month", (2028, 2, 29, 23, 59)),
    ("UTC", "month", (2026, 1, 31, 12)),
    ("America/New_York", "week", (2026, 11, 1, 1, 30)),
]


@pytest.mark.parametrize(("zone", "period", "moment"), DAYS)
def test_a_quota_is_whole_again_exactly_when_its_period_ends(
    limiter: Limiter, clock: Clock, zone: str, period: str, moment: tuple[int, ...]
) -> None:
    clock.now = at(zone, *moment)
    stop = boundaries(period, zone, clock.now)[2]
    limits = LimitSet([limit("c", "calendar", limit=3, period=period, timezone=zone)])
    assert [bool(limiter.check(limits)) for _ in range(4)] == [True, True, True, False]
    denied = limiter.check(limits)
    assert denied.retry_after == (stop - clock.now) / 1e6 == denied.limits[0].reset_after
    clock.now = stop - 1
    assert not limiter.check(limits)
    clock.now = stop
    after = limiter.check(limits)
    assert after and after.limits[0].used == 1
    assert after.limits[0].reset_after == (boundaries(period, zone, stop)[2] - stop) / 1e6


def test_a_time_zone_that_was_changed_needs_a_new_generation(limiter: Limiter, clock: Clock) -> None:
    clock.now = at("UTC", 2026, 5, 5, 12)
    tokyo = limit("c", "calendar", limit=1, timezone="Asia/Tokyo")
    assert limiter.check([tokyo])
    berlin = limit("c", "calendar", limit=1, timezone="Europe/Berlin", generation=1)
    assert limiter.check([berlin]) and not limiter.check([berlin])
