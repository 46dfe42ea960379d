"""`from quotas import pools`: acquiring and settling."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import quotas
from quotas import CallStatus, pools
from quotas.models import Account
from quotas.services.account_lease import Lease
from quotas.snapshot import resolve
from tests.integration.quotas.api.test_pools import SECRET, make_pool
from tests.integration.quotas.upstream.clients import Answer
from tests.integration.quotas.upstream.conftest import empty, fresh

__all__ = ["empty", "fresh"]


def test_lease_has_what_a_call_needs() -> None:
    make_pool(accounts=1)
    with pools.get("llm").acquire(tokens=800, max_wait=1) as lease:
        assert lease.base_url == "http://127.0.0.1:9100" and lease.account == "llm-1"
        assert lease.credential == f"{SECRET}-0"
        assert lease.auth_headers == {"Authorization": f"Bearer {SECRET}-0"}
        assert SECRET not in repr(lease) and SECRET not in repr(vars(lease))
        assert pools.get("llm").states()[0].in_flight == 1
        assert lease.settle_response(Answer(429, {"Retry-After": "7"})).category == "rate_limited"
    (state,) = pools.get("llm").states()
    assert state.in_flight == 0 and state.state == "cooling_down" and state.errors == {"rate_limited": 1}


def test_unsettled_lease_ends_with_its_block() -> None:
    make_pool(accounts=1)
    with pools.get("llm").acquire():
        pass
    with pytest.raises(TimeoutError), pools.get("llm").acquire():
        raise TimeoutError
    (state,) = pools.get("llm").states()
    assert (state.successes, state.errors, state.in_flight) == (1, {"timeout": 1}, 0)


def test_refusals() -> None:
    make_pool(accounts=1, limit=1)
    pool = pools.get("llm")
    with pool.acquire():
        pass
    with pytest.raises(quotas.NoAccountAvailable) as refused:
        pool.acquire()
    assert refused.value.reasons == {"requests": 1} and refused.value.retry_after
    with pytest.raises(quotas.CostExceedsLimit):
        pool.acquire(requests=2)
    with pytest.raises(quotas.UnknownPool):
        pools.get("nobody")


@pytest.mark.django_db(transaction=True)
def test_async_forms() -> None:
    make_pool(accounts=2)
    statuses: list[CallStatus] = []
    seen: list[str] = []

    async def fn(lease: Lease) -> Answer:
        seen.append(lease.account)
        return Answer(429, {"Retry-After": "60"}) if len(seen) == 1 else Answer(200)

    async def hang(lease: Lease) -> None:
        seen.append("hung")
        await asyncio.sleep(60)

    async def main() -> None:
        async with pools.get("llm").acquire_async(tokens=1) as lease:
            assert lease.account
        answer = await pools.get("llm").call_async(fn, on_status=statuses.append)
        assert answer.status_code == 200
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pools.get("llm").call_async(hang), 0.5)
        assert seen[-1] == "hung" and sum(state.in_flight for state in pools.get("llm").states()) == 0
        with pytest.raises(ConnectionError):
            async with pools.get("llm").acquire_async():
                raise ConnectionResetError
        with pytest.raises(quotas.NoAccountAvailable):
            async with pools.get("llm").acquire_async(key="x"), pools.get("llm").acquire_async(cost={"tokens": 1}):
                raise quotas.NoAccountAvailable(1.0, {})

    resolve.clear()  # what is configured is read in the loop, too
    asyncio.run(main())
    assert [status.kind for status in statuses] == ["retry", "recovered"]
    assert sum(state.in_flight for state in pools.get("llm").states()) == 0


def test_credential_in_the_address_is_put_in_for_the_call() -> None:
    pool = make_pool(accounts=1, dialect="telegram")
    pool.provider.base_url, pool.provider.auth_header = "https://api.telegram.org/bot{credential}", ""
    pool.provider.save()
    with pools.get("llm").acquire() as lease:
        assert lease.base_url == f"https://api.telegram.org/bot{SECRET}-0" and lease.auth_headers == {}
        assert SECRET not in repr(lease) and SECRET not in repr(vars(lease))


@pytest.mark.parametrize(
    "asked",
    [
        {"tokens": 1.5}, {"tokens": -1}, {"tokens": True}, {"cost": {"tokens": "8"}}, {"requests": 2**53},
        {"priority": "urgent"}, {"priority": 10}, {"priority": True},
    ],
)  # fmt: skip
def test_costs_and_priorities_that_are_none_are_refused(asked: dict[str, Any]) -> None:
    make_pool(accounts=1)
    with pytest.raises(ValueError, match="cost|priority"):
        pools.get("llm").acquire(**asked)
    assert pools.get("llm").states()[0].in_flight == 0


def test_priorities_have_names_and_keys_may_be_numbers() -> None:
    make_pool(accounts=1, limit=10, pause_at=0.1)
    pool = pools.get("llm")
    with pool.acquire(priority="low", key=-100123), pytest.raises(quotas.NoAccountAvailable) as refused:
        pool.acquire(priority="low")
    assert refused.value.reasons == {"paused": 1}
    with pool.acquire(priority="high"):
        pass


@pytest.mark.django_db(transaction=True)
def test_on_an_event_loop_the_configuration_is_read_and_changes_are_written() -> None:
    make_pool(accounts=1)
    resolve.clear()
    statuses: list[str] = []

    async def watch(status: CallStatus) -> None:
        await asyncio.sleep(0)
        statuses.append(status.kind)

    async def main() -> None:
        for _ in range(2):
            async with pools.get("llm").acquire_async() as lease:
                assert lease.settle(status=401).category == "auth"
        resolve.expire()
        assert pools.get("llm").states()[0].state == "disabled"
        with pytest.raises(quotas.PoolDisabled):
            await pools.get("llm").call_async(lambda lease: asyncio.sleep(0), on_status=watch)

    asyncio.run(main())
    assert Account.objects.get().state == "disabled"
    assert statuses == ["given_up"]
