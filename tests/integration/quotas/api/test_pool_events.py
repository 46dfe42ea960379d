"""What calls change about accounts is emitted as typed events, each once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quotas import events
from quotas.engine.types import CallOutcome
from quotas.models import Account
from quotas.runtime.connection import accounts
from quotas.services import account_actions, account_changes, credentials
from quotas.services import accounts as pools
from quotas.services.accounts import Report
from quotas.snapshot import resolve
from quotas.testing import capture_events
from tests.integration.quotas.api.test_pools import SECRET, make_pool
from tests.support.instance import wait_until

BREAKER = {"breaker_failures": 1, "breaker_open_for": 1.0}


@pytest.fixture
def emitted() -> Iterator[list[Any]]:
    """All events but those about checks, as they come."""
    accounts.cache_clear()
    with capture_events(events.AccountChanged, events.PoolLimited, events.ConcurrencyChanged) as captured:
        yield captured


def call(status: int | None = 200, **report: Any) -> str:
    """One call through the pool; the account's name."""
    resolve.clear()
    admission = pools.acquire("llm", max_wait=5)
    assert admission.lease, admission
    pools.settle(admission.lease, Report(status=status, **report))
    return admission.account or ""


def test_a_breaker_emits_events_when_it_opens_half_opens_and_closes(emitted: list[Any]) -> None:
    make_pool(accounts=1, **BREAKER)
    call(503)
    call(503)  # the probe
    call(200)
    assert [(event.before, event.after) for event in emitted] == [
        ("available", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "available"),
    ]
    assert emitted[0].why == "too many failures" and 0 < emitted[0].until <= 1.0
    assert {(event.pool, event.account) for event in emitted} == {("llm", "llm-1")}


def test_further_probes_emit_nothing(emitted: list[Any]) -> None:
    make_pool(accounts=1, **BREAKER, breaker_probes=2)
    call(503)
    first, second = (pools.acquire("llm", max_wait=5).lease or "" for _ in range(2))
    assert [event.after for event in emitted] == ["open", "half_open"]
    for lease in (first, second):
        pools.settle(lease, Report(status=200))
    assert [event.after for event in emitted] == ["open", "half_open", "available"]


def test_a_refused_credential_is_one_event_however_many_calls_were_out(emitted: list[Any]) -> None:
    make_pool(accounts=1)
    leases = [pools.acquire("llm").lease or "" for _ in range(3)]
    for lease in leases:
        pools.settle(lease, Report(status=401, body=f'{{"error": {{"message": "bad key {SECRET}-0"}}}}'))
    assert [(event.account, event.after, event.why) for event in emitted] == [("llm-1", "disabled", "auth")]
    assert SECRET not in repr(emitted)
    assert Account.objects.get().state == "disabled", "written at once, not by the next flush"


def test_a_pool_whose_accounts_share_a_limit_emits_one_event_with_the_time(emitted: list[Any]) -> None:
    make_pool(accounts=4)
    leases = [pools.acquire("llm").lease or "" for _ in range(4)]
    for lease in leases:
        pools.settle(lease, Report(status=429, headers={"retry-after": "30"}))
    (event,) = emitted
    assert isinstance(event, events.PoolLimited)
    assert (event.pool, event.why) == ("llm", "rate_limited")
    assert event.until == pytest.approx(30, abs=3.5)


def test_a_change_of_concurrency_says_from_where_to_where_and_why(emitted: list[Any]) -> None:
    bounds = {"concurrency_initial": 10, "concurrency_floor": 1, "concurrency_ceiling": 16}
    make_pool(accounts=1, breaker_failures=1000, **bounds)
    spec = resolve.pool_spec("llm")
    moved: list[Any] = []

    def busy() -> bool:
        lease = accounts().admit(pools.request_for("llm")).lease or ""
        settled = accounts().settle(lease, CallOutcome("server" if len(moved) % 2 else "ok", status=200))
        assert settled is not None
        moved.append(settled)
        account_changes.publish_settled([settled])
        return bool(emitted)

    wait_until(busy, 30, "twenty results and two seconds")
    (event,) = emitted
    assert isinstance(event, events.ConcurrencyChanged)
    assert (event.pool, event.account, event.before, event.after) == (spec.name, "llm-1", 10, 8)
    assert event.why.endswith("% of the calls failed")


def test_another_credential_brings_a_refused_account_back_and_no_other(emitted: list[Any]) -> None:
    make_pool(accounts=2)
    for _ in range(2):
        call(401, body={"error": {"code": "invalid_api_key"}})
    refused, stopped = Account.objects.order_by("pk")
    account_actions.disable(stopped, actor="user:eve", reason="not paid")
    emitted.clear()
    for account in (refused, stopped):
        account.credential = "sk-renewed"  # type: ignore[assignment]
        account.save()
        credentials.renewed(account.pk)
    assert [(event.account, event.before, event.after) for event in emitted] == [("llm-1", "disabled", "available")]
    assert call(200) == "llm-1"
    states = {row.name: row.state for row in Account.objects.all()}
    assert states == {"llm-1": "available", "llm-2": "disabled"}
    assert not credentials.renewed(refused.pk), "it was not refused since"
