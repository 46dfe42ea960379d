"""Reservations: refunds go to the window that was charged, extra charges always count, once."""

from __future__ import annotations

import pytest

from quotas.engine.limiter import Limiter
from quotas.engine.types import ALGORITHMS, Limit
from tests.valkey import wait_for

from .conftest import Clock, limit

DAY = 86400 * 10**6
WINDOWED = [a for a in ALGORITHMS if a != "concurrency"]


def used(limiter: Limiter, one: Limit) -> int:
    return limiter.peek([one])[0].used


@pytest.mark.parametrize("algorithm", WINDOWED)
@pytest.mark.parametrize("actual", [0, 3, 10, 14])
def test_settling_leaves_the_actual_use(limiter: Limiter, algorithm: str, actual: int) -> None:
    one = limit("a", algorithm, unit="tokens", limit=12, cost=10)
    reservation = limiter.check([one]).reservation
    assert reservation
    settled = limiter.settle(reservation, {"tokens": actual})
    assert settled and settled.refunded == {"tokens": 10 - actual} and not settled.repeated
    assert used(limiter, one) == actual
    again = limiter.settle(reservation, {"tokens": 1})
    assert again and again.repeated and again.actual == {"tokens": actual} and again.refunded == settled.refunded
    assert used(limiter, one) == actual


@pytest.mark.parametrize("algorithm", WINDOWED)
def test_nothing_is_refunded_into_a_new_window(limiter: Limiter, clock: Clock, algorithm: str) -> None:
    clock.now = -(-clock.now // DAY) * DAY - 10**8
    one = limit("a", algorithm, unit="tokens", limit=10, cost=10)
    reservation = limiter.check([one]).reservation
    clock.move(130)
    assert limiter.check([limit("a", algorithm, unit="tokens", limit=10, cost=8)])
    settled = limiter.settle(reservation or "", {"tokens": 0})
    assert settled and settled.refunded == {"tokens": 0}
    assert used(limiter, one) == 8


def test_a_bucket_gives_back_only_what_it_would_still_hold(limiter: Limiter, clock: Clock) -> None:
    one = limit("a", "token_bucket", unit="tokens", limit=60, cost=30)
    reservation = limiter.check([one]).reservation
    clock.move(20)  # 20 of the 30 have drained by themselves
    other = limit("a", "token_bucket", unit="tokens", limit=60, cost=25)
    assert limiter.check([other])
    limiter.settle(reservation or "", {"tokens": 0})
    assert used(limiter, one) == 25


def test_units_settle_apart_and_slots_are_released(limiter: Limiter) -> None:
    limits = [
        limit("r", limit=10),
        limit("t", unit="tokens", limit=100, cost=50),
        limit("c", "concurrency", limit=1),
    ]
    first = limiter.check(limits)
    assert first.reservation
    assert limiter.check(limits).binding == "c"
    limiter.settle(first.reservation, {"tokens": 20})
    assert [s.used for s in limiter.peek(limits)] == [1, 20, 0]
    assert limiter.check(limits)


def test_an_unknown_reservation_changes_nothing(limiter: Limiter) -> None:
    assert limiter.settle("nobody", {"tokens": 5}) is None


def test_a_reservation_expires_with_its_lease(on_server: Limiter) -> None:
    one = limit("c", "concurrency", limit=1, lease_ttl=0.05)
    reservation = on_server.check([one]).reservation
    key = on_server.keys.reservation(reservation or "")
    wait_for(lambda: not on_server.transport.command("EXISTS", key))
    assert on_server.settle(reservation or "", {}) is None


def test_a_shadow_limit_that_was_not_charged_is_not_refunded(limiter: Limiter) -> None:
    shadow = limit("s", unit="tokens", limit=5, cost=4, mode="shadow")
    limiter.check([shadow])
    second = limiter.check([shadow])
    limiter.settle(second.reservation or "", {"tokens": 0})
    assert used(limiter, shadow) == 4
