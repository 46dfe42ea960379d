"""Calls that are tried again: `pools.get(..).call` and its async twin."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

import quotas
from quotas import CallStatus, pools
from quotas.engine.types import Admission
from quotas.models.encrypted import CredentialUnreadable
from quotas.services import accounts as service
from quotas.services.account_lease import Lease
from quotas.upstream.call import CallRetry
from tests.integration.quotas.api.test_pools import make_pool
from tests.integration.quotas.upstream.clients import Answer, Object
from tests.support.valkey import wait_for


def test_call_goes_to_another_account_after_a_rate_limit() -> None:
    make_pool(accounts=2)
    seen: list[str] = []
    statuses: list[CallStatus] = []

    def fn(lease: Lease) -> Answer:
        seen.append(lease.account)
        return Answer(429, {"Retry-After": "60"}) if len(seen) == 1 else Answer(200)

    answer = pools.get("llm").call(fn, tokens=8, request_id="chat_123", on_status=statuses.append)
    assert answer.status_code == 200 and len(set(seen)) == 2
    assert [(status.kind, status.attempt, status.category) for status in statuses] == [
        ("retry", 2, "rate_limited"),
        ("recovered", 2, ""),
    ]
    assert str(statuses[1]) == "chat_123: recovered at attempt 2"


def test_call_backs_off_after_faults_and_gives_up(monkeypatch: Any) -> None:
    make_pool(accounts=1)
    waits: list[float] = []
    caller, sleep = threading.current_thread(), time.sleep

    def wait(seconds: float) -> None:
        if threading.current_thread() is caller:
            waits.append(seconds)
        else:
            sleep(seconds)

    monkeypatch.setattr("quotas.pools.time.sleep", wait)
    statuses: list[CallStatus] = []
    with pytest.raises(quotas.CallFailed) as failed:
        pools.get("llm").call(lambda lease: Answer(503), attempts=3, on_status=statuses.append)
    assert failed.value.category == "server" and failed.value.attempts == 3 and failed.value.response.status_code == 503
    assert len(waits) == 2 and 0.45 <= waits[0] <= 0.55 and 0.9 <= waits[1] <= 1.1
    assert [status.kind for status in statuses] == ["retry", "retry", "given_up"]


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
    statuses: list[CallStatus] = []
    with pytest.raises(quotas.NoAccountAvailable):
        pool.call(lambda lease: "never", max_wait=0.1, on_status=statuses.append)
    assert [status.kind for status in statuses] == ["given_up"]


def test_call_returns_an_object_that_is_no_answer() -> None:
    make_pool(accounts=1)
    assert pools.get("llm").call(lambda lease: Object("completed")).status == "completed"
    assert pools.get("llm").states()[0].successes == 1


def test_an_answer_in_an_exception_counts_as_that_answer() -> None:
    make_pool(accounts=2)
    statuses: list[CallStatus] = []

    def fn(lease: Lease) -> httpx.Response:
        refused = httpx.Response(429, headers={"Retry-After": "60"}, request=httpx.Request("GET", lease.base_url))
        return refused.raise_for_status() if not statuses else httpx.Response(200)

    assert pools.get("llm").call(fn, on_status=statuses.append).status_code == 200
    assert [(status.kind, status.category) for status in statuses] == [("retry", "rate_limited"), ("recovered", "")]
    with pytest.raises(httpx.HTTPStatusError):
        pools.get("llm").call(fn_of(503), attempts=1)
    assert {name for state in pools.get("llm").states() for name in state.errors} == {"rate_limited", "server"}


def fn_of(status: int) -> Any:
    def fn(lease: Lease) -> httpx.Response:
        return httpx.Response(status, request=httpx.Request("GET", lease.base_url)).raise_for_status()

    return fn


def test_call_leaves_an_account_whose_credential_is_refused() -> None:
    make_pool(accounts=2)
    statuses: list[CallStatus] = []

    def fn(lease: Lease) -> Answer:
        return Answer(401) if lease.account == "llm-1" else Answer(200)

    for _ in range(6):
        assert pools.get("llm").call(fn, on_status=statuses.append).status_code == 200
    assert [status.kind for status in statuses] == ["retry", "recovered"] * 2
    assert [state.state for state in pools.get("llm").states()] == ["disabled", "available"]
    with pytest.raises(quotas.CallFailed) as failed:
        pools.get("llm").call(lambda lease: Answer(401), on_status=statuses.append)
    assert failed.value.category == "auth" and failed.value.response.status_code == 401 and failed.value.attempts == 1
    assert statuses[-1].kind == "given_up"


@pytest.mark.parametrize("attempts", [5, 50])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.django_db(transaction=True)
def test_a_call_that_two_accounts_refuse_ends_and_disables_none(attempts: int, asynchronous: bool) -> None:
    make_pool(accounts=24)
    asked: list[str] = []

    def fn(lease: Lease) -> httpx.Response:
        asked.append(lease.account)
        return httpx.Response(401, request=httpx.Request("GET", f"{lease.base_url}/v1/closed"))

    async def fn_async(lease: Lease) -> httpx.Response:
        return fn(lease)

    for _ in range(30):
        with pytest.raises(quotas.CallFailed) as failed:
            if asynchronous:
                asyncio.run(pools.get("llm").call_async(fn_async, attempts=attempts))
            else:
                pools.get("llm").call(fn, attempts=attempts)
        assert (failed.value.category, failed.value.attempts) == ("auth", 2)
    assert len(asked) == 60 and all(one != other for one, other in zip(asked[::2], asked[1::2], strict=True))
    assert {state.state for state in pools.get("llm").states()} == {"available"}


def test_every_end_without_an_account_is_reported() -> None:
    make_pool(accounts=1, limit=3)
    statuses: list[CallStatus] = []
    with pytest.raises(quotas.CostExceedsLimit):
        pools.get("llm").call(lambda lease: "never", requests=4, on_status=statuses.append)
    assert [status.kind for status in statuses] == ["given_up"]


def test_who_watches_a_call_cannot_fail_it(caplog: Any) -> None:
    make_pool(accounts=2)
    answers = iter([Answer(429, {"Retry-After": "60"}), Answer(200)])

    def broken(status: CallStatus) -> None:
        raise ValueError("a fault of the interface")

    assert pools.get("llm").call(lambda lease: next(answers), on_status=broken).status_code == 200
    assert "call.on_status_failed" in caplog.text


def test_an_unreadable_credential_uses_nothing(settings: Any) -> None:
    make_pool(accounts=1, limit=1)
    settings.CREDENTIAL_KEYS = [Fernet.generate_key().decode()]
    for _ in range(3):
        with pytest.raises(CredentialUnreadable):
            pools.get("llm").call(lambda lease: lease.auth_headers)
    (state,) = pools.get("llm").states()
    assert (state.successes, state.errors, state.in_flight, state.health) == (0, {}, 0, 1.0)


@pytest.mark.django_db(transaction=True)
def test_a_cancelled_wait_holds_no_account(monkeypatch: Any) -> None:
    make_pool(accounts=1)
    pool = pools.get("llm")
    begun, go_on, admit = threading.Event(), threading.Event(), service.admit

    def slow(request: Any) -> Any:
        admission = admit(request)
        begun.set()
        assert go_on.wait(30)
        return admission

    monkeypatch.setattr(service, "admit", slow)

    async def main() -> None:
        task = asyncio.create_task(pool.call_async(lambda lease: asyncio.sleep(0)))
        assert await asyncio.to_thread(begun.wait, 30)
        assert pool.states()[0].in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        for _ in range(3000):
            if pool.states()[0].in_flight == 0:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the account is still reserved")

    asyncio.run(main())


def test_a_wait_is_reported_once_and_again_where_it_grows(monkeypatch: Any) -> None:
    now = [100.0]
    monkeypatch.setattr("quotas.upstream.call.time.monotonic", lambda: now[0])
    statuses: list[float] = []
    retry = CallRetry("llm", "", 5, 60.0, lambda status: statuses.append(status.wait))
    for wait in (0.1, 0.1, 0.1, 0.1, 3.0, 0.1):
        now[0] += retry.wait_for_account(Admission(False, retry_after=wait))
    assert statuses == [0.1, 3.0]


# Another thread repeats the settlement: it must see the rows.
@pytest.mark.django_db(transaction=True)
def test_redis_away_at_the_end_of_a_call_costs_no_answer_and_hides_no_error(monkeypatch: Any) -> None:
    make_pool(accounts=1)
    pool, settle = pools.get("llm"), service.settle_outcome

    def away(*args: Any) -> Any:
        raise quotas.LimiterUnavailable("away")

    monkeypatch.setattr(service, "settle_outcome", away)
    assert pool.call(lambda lease: Answer(200)).status_code == 200
    with pytest.raises(KeyError), pool.acquire():
        raise KeyError
    with pool.acquire() as lease:
        assert lease.settle(status=429).category == "rate_limited"
        assert lease.settle(status=200).category == "rate_limited", "the first one counts"
        assert pool.states()[0].in_flight == 3
    monkeypatch.setattr(service, "settle_outcome", settle)
    wait_for(lambda: pool.states()[0].in_flight == 0)
    assert pool.states()[0].errors["rate_limited"] == 1, "settled when Redis answers again, as it was first said"
