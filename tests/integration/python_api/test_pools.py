"""`from quotas import pools`: lending, settling, and calls that are tried again."""

from __future__ import annotations

import asyncio
import email.message
import http
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

import quotas
from quotas import CallStatus, policies, pools
from quotas.connection import accounts
from quotas.leases import Lease
from tests.integration.api.test_pools import SECRET, make_pool


@dataclass
class Answer:
    """What any HTTP client's answer has."""

    status_code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    accounts.cache_clear()
    yield


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


@pytest.mark.parametrize(
    ("answer", "category"),
    [
        (SimpleNamespace(status="200", headers=None), "ok"),
        (SimpleNamespace(status_code=429, headers=[("Retry-After", "7")]), "rate_limited"),
        (SimpleNamespace(status=http.HTTPStatus.SERVICE_UNAVAILABLE, headers=email.message.Message()), "server"),
        (SimpleNamespace(status_code="many", headers=3), "unknown"),
        (None, "unknown"),
    ],
)
def test_answers_of_any_client_settle(answer: Any, category: str) -> None:
    make_pool(accounts=1)
    with pools.get("llm").acquire() as lease:
        assert lease.settle_response(answer).category == category


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


def test_call_goes_to_another_account_after_a_rate_limit() -> None:
    make_pool(accounts=2)
    seen: list[str] = []
    told: list[CallStatus] = []

    def fn(lease: Lease) -> Answer:
        seen.append(lease.account)
        return Answer(429, {"Retry-After": "60"}) if len(seen) == 1 else Answer(200)

    answer = pools.get("llm").call(fn, tokens=8, request_id="chat_123", on_status=told.append)
    assert answer.status_code == 200 and len(set(seen)) == 2
    assert [(status.kind, status.attempt, status.category) for status in told] == [
        ("retry", 2, "rate_limited"),
        ("recovered", 2, ""),
    ]
    assert str(told[1]) == "chat_123: recovered at attempt 2"


def test_call_backs_off_after_faults_and_gives_up(monkeypatch: Any) -> None:
    make_pool(accounts=1)
    waits: list[float] = []
    monkeypatch.setattr("quotas.pools.time.sleep", waits.append)
    told: list[CallStatus] = []
    with pytest.raises(quotas.CallFailed) as failed:
        pools.get("llm").call(lambda lease: Answer(503), attempts=3, on_status=told.append)
    assert failed.value.category == "server" and failed.value.attempts == 3 and failed.value.response.status_code == 503
    assert len(waits) == 2 and 0.45 <= waits[0] <= 0.55 and 0.9 <= waits[1] <= 1.1
    assert [status.kind for status in told] == ["retry", "retry", "given_up"]


def test_call_does_not_repeat_what_would_not_help() -> None:
    make_pool(accounts=1)
    calls: list[str] = []

    def fn(lease: Lease) -> Answer:
        calls.append(lease.account)
        return Answer(400)

    with pytest.raises(quotas.CallFailed):
        pools.get("llm").call(fn)
    assert len(calls) == 1


def test_call_raises_what_the_function_raised_and_settles() -> None:
    make_pool(accounts=1)

    def fn(lease: Lease) -> Answer:
        raise KeyError("a fault of the caller's own")

    with pytest.raises(KeyError):
        pools.get("llm").call(fn)
    assert pools.get("llm").states()[0].in_flight == 0


def test_call_waits_for_an_account_no_longer_than_it_may() -> None:
    make_pool(accounts=1, limit=1)
    pool = pools.get("llm")
    assert pool.call(lambda lease: "done") == "done"
    told: list[CallStatus] = []
    with pytest.raises(quotas.NoAccountAvailable):
        pool.call(lambda lease: "never", max_wait=0.1, on_status=told.append)
    assert [status.kind for status in told] == ["given_up"]


@pytest.mark.django_db(transaction=True)
def test_async_forms() -> None:
    make_pool(accounts=2)
    told: list[CallStatus] = []
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
        answer = await pools.get("llm").call_async(fn, on_status=told.append)
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

    policies.forget()  # what is configured is read in the loop, too
    asyncio.run(main())
    assert [status.kind for status in told] == ["retry", "recovered"]
    assert sum(state.in_flight for state in pools.get("llm").states()) == 0
