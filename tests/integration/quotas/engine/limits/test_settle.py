"""Reservations: refunds go to the window that was charged, extra charges always count, once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from quotas.engine.accounts.accounts import Accounts
from quotas.engine.limits.limiter import Limiter
from quotas.engine.redis.scripts import Call
from quotas.engine.types import ALGORITHMS, AdmitRequest, Limit
from tests.integration.quotas.engine.limits.conftest import Clock, limit
from tests.support.valkey import wait_for

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


@pytest.mark.parametrize("algorithm", WINDOWED)
@pytest.mark.parametrize("by", ["counter", "policy"])
@pytest.mark.parametrize("later", [0.0, 0.5])
def test_nothing_is_refunded_into_a_counter_that_was_reset(
    limiter: Limiter, clock: Clock, algorithm: str, by: str, later: float
) -> None:
    one = limit("a", algorithm, unit="tokens", limit=1000, cost=800)
    reservation = limiter.check([one]).reservation
    assert (limiter.reset([one]) if by == "counter" else limiter.reset_policy(one.id)) == 1
    clock.move(later)
    assert limiter.check([replace(one, cost=400)])
    before = used(limiter, one)
    settled = limiter.settle(reservation or "", {"tokens": 0})
    assert settled and settled.refunded == {"tokens": 0}
    assert used(limiter, one) == before


@pytest.mark.parametrize("algorithm", WINDOWED)
def test_what_is_charged_in_addition_begins_a_counter_of_its_own(limiter: Limiter, algorithm: str) -> None:
    one = limit("a", algorithm, unit="tokens", limit=1000, cost=100)
    first, second = (limiter.check([one]).reservation or "" for _ in range(2))
    limiter.reset([one])
    limiter.settle(first, {"tokens": 150})
    assert used(limiter, one) == 50
    limiter.settle(second, {"tokens": 0})
    assert used(limiter, one) == 50
    assert limiter.reset_policy(one.id) == 1


@pytest.mark.parametrize("algorithm", WINDOWED)
def test_a_refund_reaches_the_counter_that_others_have_charged_since(limiter: Limiter, algorithm: str) -> None:
    one = limit("a", algorithm, unit="tokens", limit=1000, cost=100)
    first = limiter.check([one]).reservation or ""
    second = limiter.check([one]).reservation or ""
    limiter.settle(first, {"tokens": 0})
    assert used(limiter, one) == 100
    limiter.settle(second, {"tokens": 30})
    assert used(limiter, one) == 30


def test_a_slot_of_before_a_reset_frees_no_other(limiter: Limiter) -> None:
    one = limit("c", "concurrency", limit=1)
    old = limiter.check([one]).reservation or ""
    limiter.reset([one])
    assert limiter.check([one])
    limiter.settle(old)
    assert used(limiter, one) == 1


@pytest.mark.parametrize("algorithm", WINDOWED)
def test_a_cost_of_nothing_is_settled_with_the_actual_use(limiter: Limiter, algorithm: str) -> None:
    """A unit that a limit counts is part of the reservation whatever it costs ahead."""
    one = limit("a", algorithm, unit="tokens", limit=1000, cost=0)
    decision = limiter.check([limit("r"), one])
    assert decision and decision.reservation
    settled = limiter.settle(decision.reservation, {"tokens": 5000})
    assert settled and settled.refunded == {"tokens": -5000}
    assert used(limiter, one) == 5000
    assert [state.used for state in limiter.usage([one])] == [5000], "its subject is listed"
    assert not limiter.check([replace(one, cost=1)])


def test_requests_that_cost_nothing_need_no_reservation(limiter: Limiter) -> None:
    assert limiter.check([limit("r", cost=0)]).reservation is None
    assert limiter.check([limit("u", unit="tokens", limit=None)]).reservation is None


def test_a_reservation_whose_counters_are_known_is_settled_in_one_round_trip(client: redis.Redis) -> None:
    """The code that admitted a call knows what it reserved, and does not read it again."""
    limiter, accounts = Limiter(client), Accounts(client)
    every = (
        limit("t", "token_bucket", unit="tokens", limit=50, cost=10),
        limit("s", "sliding_window", unit="tokens", limit=50, cost=10),
        limit("r", limit=5),
    )
    known, unknown = (accounts.admit(AdmitRequest(limits=every, cost={"requests": 1, "tokens": 10})) for _ in range(2))
    assert known.reservation and unknown.reservation and len(known.reserved) == len(every)

    steps = limiter.settling(known.reservation, {"tokens": 3}, known.reserved)
    asked = next(steps)
    assert isinstance(asked, Call), "the record is not read first"
    with pytest.raises(StopIteration) as ended:
        steps.send(limiter.transport.send(asked))
    settled = ended.value.value
    other = limiter.settle(unknown.reservation, {"tokens": 3})
    assert other and settled.limits == other.limits and settled.refunded == other.refunded == {"tokens": 7}
    assert [state.used for state in limiter.peek(every)] == [6, 6, 2]

    again = limiter.transport.send(limiter.settle_call(known.reservation, {"tokens": 50}, known.reserved))
    assert again.startswith(b"="), "the first settlement counts"
    repeated = limiter.settle(known.reservation, {"tokens": 50})
    assert repeated and repeated.repeated and repeated.actual == {"tokens": 3}
    assert [state.used for state in limiter.peek(every)] == [6, 6, 2]
    assert limiter.transport.send(limiter.settle_call("nobody's", {"tokens": 1}, known.reserved)) is None
