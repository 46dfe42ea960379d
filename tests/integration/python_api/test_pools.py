"""`from quotas import pools`: lending, settling, and calls that are tried again."""

from __future__ import annotations

import asyncio
import email.message
import http
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

import quotas
from quotas import CallStatus, policies, pools
from quotas.calls import Plan
from quotas.connection import accounts
from quotas.engine.types import Admission
from quotas.leases import Lease
from quotas.models import Account, Provider
from quotas.models.encrypted import CredentialUnreadable
from quotas.services import pools as service
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


def message(**fields: str) -> Message:
    """Header fields as `http.client` and `urllib` have them."""
    found = Message()
    for name, value in fields.items():
        found[name.replace("_", "-")] = value
    return found


class Unreadable:
    """An answer whose body and fields can't be had any more."""

    status_code = 429

    @property
    def headers(self) -> object:
        raise RuntimeError("closed")

    content = headers


@dataclass
class Object:
    """What a client's SDK returns: no HTTP answer, though it has a `status`."""

    status: object


@pytest.mark.parametrize(
    ("answer", "category", "wait"),
    [
        (Answer("429", {"Retry-After": "7"}), "rate_limited", 7.0),  # type: ignore[arg-type]
        (Answer(429, message(Retry_After="8")), "rate_limited", 8.0),  # type: ignore[arg-type]
        (Unreadable(), "rate_limited", None),
        (Object("completed"), "unknown", None),
        (Object(None), "unknown", None),
        (None, "unknown", None),
        ({"status_code": 429}, "unknown", None),
    ],
)
def test_odd_answers_settle_too(answer: object, category: str, wait: float | None) -> None:
    make_pool(accounts=1)
    with pools.get("llm").acquire() as lease:
        outcome = lease.settle_response(answer)
    assert (outcome.category, outcome.retry_after) == (category, wait)
    assert pools.get("llm").states()[0].in_flight == 0


def test_actual_use_in_the_body_of_an_answer_corrects_the_estimate() -> None:
    make_pool(accounts=1)
    with pools.get("llm").acquire(tokens=800) as lease:
        outcome = lease.settle_response(Answer(200, {}, b'{"usage": {"total_tokens": 77}}'))
    assert outcome.usage == {"tokens": 77}


def test_refusal_in_the_body_of_a_success_is_heard_and_its_echo_redacted() -> None:
    make_pool(accounts=1, dialect="slack")
    body = f'{{"ok": false, "error": "ratelimited", "message": "of {SECRET}-0"}}'.encode()
    with pools.get("llm").acquire() as lease:
        outcome = lease.settle_response(Answer(200, {"x-ratelimit-user": f"{SECRET}-0"}, body))
    assert outcome.category == "rate_limited"
    assert SECRET not in repr(outcome)


def test_body_that_is_still_a_stream_is_left_alone() -> None:
    class Streaming(Answer):
        _content = False  # as requests has it with stream=True

        @property
        def content(self) -> bytes:  # type: ignore[override]
            raise AssertionError("it was read")

        @content.setter
        def content(self, value: bytes) -> None:
            pass

    make_pool(accounts=1)
    with pools.get("llm").acquire() as lease:
        assert lease.settle_response(Streaming(200)).category == "ok"


class StatusError(Exception):
    """What `raise_for_status` raises."""

    def __init__(self, response: Answer) -> None:
        super().__init__("refused")
        self.response = response


def test_answer_that_a_client_made_an_exception_of_is_heard() -> None:
    make_pool(accounts=1)
    with pytest.raises(StatusError), pools.get("llm").acquire():
        raise StatusError(Answer(429, {"Retry-After": "33"}))
    (state,) = pools.get("llm").states()
    assert state.state == "cooling_down" and state.errors == {"rate_limited": 1}
    assert state.until is not None and 30 < state.until < 37


def test_call_tries_again_after_an_exception_with_an_answer() -> None:
    make_pool(accounts=2)
    seen: list[str] = []

    def fn(lease: Lease) -> str:
        seen.append(lease.account)
        if len(seen) == 1:
            raise StatusError(Answer(429, {"Retry-After": "33"}))
        return "done"

    assert pools.get("llm").call(fn) == "done" and len(set(seen)) == 2


def test_call_returns_an_object_that_is_no_answer() -> None:
    make_pool(accounts=1)
    assert pools.get("llm").call(lambda lease: Object("completed")).status == "completed"
    assert pools.get("llm").states()[0].successes == 1


def test_call_takes_another_account_where_a_credential_is_refused() -> None:
    make_pool(accounts=2)
    seen: list[str] = []
    told: list[CallStatus] = []

    def fn(lease: Lease) -> Answer:
        seen.append(lease.account)
        return Answer(401 if len(seen) == 1 else 200)

    assert pools.get("llm").call(fn, on_status=told.append).status_code == 200
    assert len(set(seen)) == 2 and [status.kind for status in told] == ["retry", "recovered"]
    with pytest.raises(quotas.CallFailed) as failed:  # nobody is left after this one
        pools.get("llm").call(lambda lease: Answer(401))
    assert failed.value.category == "auth" and failed.value.attempts == 1


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


def test_an_answers_use_replaces_the_estimate() -> None:
    make_pool(accounts=1)
    with pools.get("llm").acquire(tokens=800) as lease:
        outcome = lease.settle_response(httpx.Response(200, json={"usage": {"total_tokens": 12}}))
    assert outcome.usage == {"tokens": 12} and outcome.latency is not None
    with pools.get("llm").acquire(tokens=800) as lease:
        assert lease.settle_response(Answer(200), body=b'{"usage": {"total_tokens": 5}}').usage == {"tokens": 5}


def test_the_credential_stands_in_an_address_that_asks_for_it() -> None:
    make_pool(accounts=1)
    Provider.objects.update(base_url="https://api.telegram.org/bot{credential}", auth_header="")
    policies.forget()
    with pools.get("llm").acquire() as lease:
        assert lease.base_url == f"https://api.telegram.org/bot{SECRET}-0" and lease.auth_headers == {}
        assert SECRET not in repr(lease) + repr(vars(lease))


def test_an_answer_in_an_exception_counts_as_that_answer() -> None:
    make_pool(accounts=2)
    told: list[CallStatus] = []

    def fn(lease: Lease) -> httpx.Response:
        refused = httpx.Response(429, headers={"Retry-After": "60"}, request=httpx.Request("GET", lease.base_url))
        return refused.raise_for_status() if not told else httpx.Response(200)

    assert pools.get("llm").call(fn, on_status=told.append).status_code == 200
    assert [(status.kind, status.category) for status in told] == [("retry", "rate_limited"), ("recovered", "")]
    with pytest.raises(httpx.HTTPStatusError):
        pools.get("llm").call(fn_of(503), attempts=1)
    assert {name for state in pools.get("llm").states() for name in state.errors} == {"rate_limited", "server"}


def fn_of(status: int) -> Any:
    def fn(lease: Lease) -> httpx.Response:
        return httpx.Response(status, request=httpx.Request("GET", lease.base_url)).raise_for_status()

    return fn


def test_a_clients_own_object_with_a_status_in_words_is_no_http_answer() -> None:
    make_pool(accounts=1)
    run = SimpleNamespace(status="completed")
    assert pools.get("llm").call(lambda lease: run) is run
    assert pools.get("llm").states()[0].successes == 1


def test_call_leaves_an_account_whose_credential_is_refused_and_ends_with_that_answer() -> None:
    make_pool(accounts=2)
    told: list[CallStatus] = []

    def fn(lease: Lease) -> Answer:
        return Answer(401) if lease.account == "llm-1" else Answer(200)

    for _ in range(2):
        assert pools.get("llm").call(fn, on_status=told.append).status_code == 200
    assert [status.kind for status in told] == ["retry", "recovered"]
    with pytest.raises(quotas.CallFailed) as failed:
        pools.get("llm").call(lambda lease: Answer(401), on_status=told.append)
    assert failed.value.category == "auth" and failed.value.response.status_code == 401
    assert told[-1].kind == "given_up"
    with pytest.raises(quotas.PoolDisabled):
        pools.get("llm").call(fn, on_status=told.append)
    assert told[-1].kind == "given_up"


def test_every_end_without_an_account_is_told() -> None:
    make_pool(accounts=1, limit=3)
    told: list[CallStatus] = []
    with pytest.raises(quotas.CostExceedsLimit):
        pools.get("llm").call(lambda lease: "never", requests=4, on_status=told.append)
    assert [status.kind for status in told] == ["given_up"]


def test_who_watches_a_call_cannot_fail_it(caplog: Any) -> None:
    make_pool(accounts=2)
    answers = iter([Answer(429, {"Retry-After": "60"}), Answer(200)])

    def broken(status: CallStatus) -> None:
        raise ValueError("a fault of the interface")

    assert pools.get("llm").call(lambda lease: next(answers), on_status=broken).status_code == 200
    assert "on_status failed" in caplog.text


def test_an_unreadable_credential_uses_nothing(settings: Any) -> None:
    make_pool(accounts=1, limit=1)
    settings.CREDENTIAL_KEYS = [Fernet.generate_key().decode()]
    for _ in range(3):
        with pytest.raises(CredentialUnreadable):
            pools.get("llm").call(lambda lease: lease.auth_headers)
    (state,) = pools.get("llm").states()
    assert (state.successes, state.errors, state.in_flight, state.health) == (0, {}, 0, 1.0)


@pytest.mark.django_db(transaction=True)
def test_on_an_event_loop_the_configuration_is_read_and_changes_are_written() -> None:
    make_pool(accounts=1)
    policies.forget()
    told: list[str] = []

    async def watch(status: CallStatus) -> None:
        await asyncio.sleep(0)
        told.append(status.kind)

    async def main() -> None:
        async with pools.get("llm").acquire_async() as lease:
            assert lease.settle(status=401).category == "auth"
        policies.outdate()
        assert pools.get("llm").states()[0].state == "disabled"
        with pytest.raises(quotas.PoolDisabled):
            await pools.get("llm").call_async(lambda lease: asyncio.sleep(0), on_status=watch)

    asyncio.run(main())
    assert Account.objects.get().state == "disabled"
    assert told == ["given_up"]


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
        raise AssertionError("the account is still held")

    asyncio.run(main())


def test_a_wait_is_told_once_and_again_where_it_grows(monkeypatch: Any) -> None:
    now = [100.0]
    monkeypatch.setattr("quotas.calls.time.monotonic", lambda: now[0])
    told: list[float] = []
    plan = Plan("llm", "", 5, 60.0, lambda status: told.append(status.wait))
    for wait in (0.1, 0.1, 0.1, 0.1, 3.0, 0.1):
        now[0] += plan.before(Admission(False, retry_after=wait))
    assert told == [0.1, 3.0]


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
        with pytest.raises(quotas.LimiterUnavailable):
            lease.settle(status=429)
        monkeypatch.setattr(service, "settle_outcome", settle)
        assert lease.settle(status=200).category == "rate_limited", "what was told first, told again"
    assert pool.states()[0].errors == {"rate_limited": 1}
