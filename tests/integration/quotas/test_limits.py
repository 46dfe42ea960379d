"""`from quotas import limits` in anybody's Django code."""

from __future__ import annotations

import asyncio

import pytest

import quotas
from quotas import limits
from quotas.errors import CostExceedsLimit, UnknownUnit
from quotas.models import Project
from quotas.services.usage import Selection, usage
from quotas.snapshot import resolve
from tests.integration.quotas.api.conftest import empty, policy
from tests.integration.quotas.upstream.conftest import fresh

__all__ = ["empty", "fresh"]


def used(name: str) -> int:
    return sum(state.used for state in usage(Selection(policy=name)))


def test_decision_is_truthy_when_allowed() -> None:
    policy("per-user", "user", 2)
    assert limits.check(user="u")
    assert limits.check(user="u", dry_run=True).limits[0].remaining == 1
    assert limits.check(user="u", cost=1)
    denied = limits.check(user="u")
    assert not denied and denied.binding == "per-user" and denied.retry_after and denied.retry_after > 0


def test_reservation_is_settled_with_the_actual_use() -> None:
    Project.objects.create(slug="acme")
    policy("tokens", "project", 1000, unit="tokens")
    with limits.reserve(project="acme", cost={"tokens": 800}) as reservation:
        assert used("tokens") == 800
        settled = reservation.settle(tokens=512)
    assert settled is not None and settled.refunded == {"tokens": 288}
    assert used("tokens") == 512


def test_unsettled_reservation_counts_as_reserved_and_frees_its_slot() -> None:
    policy("inflight", "global", 1, algorithm="concurrency", window=None)
    policy("tokens", "global", 1000, unit="tokens")
    with pytest.raises(RuntimeError), limits.reserve(cost={"tokens": 100}):
        assert not limits.check(cost={"tokens": 1})
        raise RuntimeError("the work failed")
    assert used("tokens") == 100
    assert limits.check(cost={"tokens": 1})


def test_refusals_are_exceptions_of_one_family() -> None:
    policy("few", "global", 1)
    limits.check()
    with pytest.raises(quotas.LimitExceeded) as refused, limits.reserve():
        raise AssertionError("never reached")
    assert refused.value.retry_after and refused.value.decision is not None
    assert refused.value.decision.binding == "few"
    with pytest.raises(quotas.CostExceedsLimit), limits.reserve(cost=2):
        raise AssertionError("never reached")
    with pytest.raises(quotas.QuotaError, match="no such project"):
        limits.check(project="nobody")


def test_waits_for_capacity() -> None:
    policy("fast", "global", 1, algorithm="token_bucket", window=0.2)
    assert limits.check()
    assert limits.check(max_wait=5)
    assert not limits.check(cost=1, max_wait=0)
    resolve.clear()


def test_lease_is_spent_in_memory_and_never_above_the_limit() -> None:
    changed = policy("per-user", "user", 50)
    with limits.lease(user="u", units=20) as lease:
        assert sum(bool(lease.spend()) for _ in range(60)) == 50
        changed.limit = 60
        changed.save()
        resolve.clear()
        assert sum(bool(lease.spend()) for _ in range(60)) == 10, "a changed policy applies from the next block on"
    assert used("per-user") == 60
    with limits.lease(user="w", units=20) as lease:
        lease.spend(3)
    assert sum(state.used for state in usage(Selection(policy="per-user", key="w"))) == 3


@pytest.mark.django_db(transaction=True)
def test_async_forms() -> None:
    policy("fast", "global", 10, algorithm="token_bucket", window=1.0, burst=1)
    policy("spend", "project", 1000, unit="tokens")
    policy("one", "project", 1, algorithm="concurrency", window=None)
    Project.objects.create(slug="acme")
    resolve.clear()

    async def main() -> list[int]:
        async with limits.reserve_async(project="acme", cost={"tokens": 100}, max_wait=20) as held:
            held.settle(tokens=30)
        assert held.settlement is not None and held.settlement.refunded == {"tokens": 70}
        with pytest.raises(CostExceedsLimit):
            async with limits.reserve_async(project="acme", cost={"tokens": 1001}):
                pytest.fail("entered")
        order: list[int] = []

        async def wait(number: int) -> None:
            if await limits.check_async(user="u", max_wait=20):
                order.append(number)

        await asyncio.gather(*map(wait, range(8)))
        return order

    assert sorted(asyncio.run(main())) == list(range(8)), "each of them, though only one passes at a time"


def test_a_misspelt_unit_is_raised_and_settles_nothing() -> None:
    policy("tokens", "project", 1000, unit="tokens")
    Project.objects.get_or_create(slug="acme")
    resolve.clear()
    with limits.reserve(project="acme", cost={"tokens": 800, "signs": 3}) as reservation:
        with pytest.raises(UnknownUnit, match=r"'tokns'.*'tokens'"):
            reservation.settle(tokns=5)
        settlement = reservation.settle(tokens=5, signs=2)
    assert settlement is not None and settlement.refunded == {"tokens": 795}


@pytest.mark.django_db(transaction=True)
def test_a_cancelled_wait_takes_no_unit() -> None:
    policy("users", "user", 1, algorithm="fixed_window", window=2)
    Project.objects.get_or_create(slug="acme")
    resolve.clear()

    async def main() -> tuple[bool, bool]:
        assert await limits.check_async(project="acme", user="u")
        waits = [asyncio.ensure_future(limits.check_async(project="acme", user="u", max_wait=20)) for _ in range(70)]
        await asyncio.sleep(0.2)
        other = await asyncio.wait_for(limits.check_async(project="acme", user="v", max_wait=20), 5)
        for waiter in waits:
            waiter.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        async with limits.reserve_async(project="acme", user="u", max_wait=20) as reservation:
            return bool(other), bool(reservation.decision)

    assert asyncio.run(main()) == (True, True)
