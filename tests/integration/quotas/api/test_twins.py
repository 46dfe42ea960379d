"""One credential under several accounts; and another credential under one."""

from __future__ import annotations

from typing import Any

import pytest

from quotas.events import AccountChanged
from quotas.models import Account, Provider
from quotas.runtime.connection import accounts
from quotas.services import account_actions, credentials
from quotas.services import accounts as pools
from quotas.services.accounts import Report
from quotas.snapshot import resolve
from quotas.testing import capture_events
from tests.integration.quotas.api.test_pools import make_pool

pytestmark = pytest.mark.usefixtures("empty")
BAD_KEY = {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}}


def acquire(name: str = "llm") -> str:
    resolve.clear()
    admission = pools.acquire(name)
    assert admission.lease, admission
    return admission.lease


def states() -> dict[str, str]:
    resolve.clear()
    return {
        f"{name}/{state.name}": state.state
        for name, config in resolve.snapshot().pools.items()
        for state in accounts().states(config.spec)
    }


@pytest.fixture
def twins() -> None:
    """The key of llm-1 is also in two other pools; that of `elsewhere` is at another provider."""
    make_pool("llm", accounts=1)
    make_pool("batch", accounts=2)
    make_pool("elsewhere", accounts=1, dialect="generic")
    Provider.objects.filter(dialect="generic").update(base_url="http://127.0.0.1:9200")
    key = Account.objects.get(name="llm-1").credential.reveal()  # type: ignore[attr-defined]
    for name, given in (("batch-1", "sk-of-its-own"), ("batch-2", key), ("elsewhere-1", key)):
        row = Account.objects.get(name=name)
        row.credential = given  # type: ignore[assignment]
        row.save()


@pytest.mark.usefixtures("twins")
def test_a_refused_credential_is_known_in_every_pool() -> None:
    with capture_events(AccountChanged) as changes:
        refuse_two_calls()
    assert [(event.pool, event.account, event.after, event.why) for event in changes] == [
        ("llm", "llm-1", "disabled", "auth"),
        ("batch", "batch-2", "disabled", "auth"),
    ]


def refuse_two_calls() -> None:
    """The second one had started before the first was refused."""
    late = acquire()
    pools.settle(acquire(), Report(status=401, body=BAD_KEY))
    assert states() == {
        "llm/llm-1": "disabled", "batch/batch-1": "available", "batch/batch-2": "disabled",
        "elsewhere/elsewhere-1": "available",
    }  # fmt: skip
    assert Account.objects.get(name="batch-2").state == "disabled"
    pools.settle(late, Report(status=401, body=BAD_KEY))


@pytest.mark.usefixtures("twins")
def test_a_limited_credential_cools_down_in_every_pool() -> None:
    pools.settle(acquire(), Report(status=429, headers={"Retry-After": "120"}))
    found = states()
    assert (found["batch/batch-2"], found["batch/batch-1"]) == ("cooling_down", "available")
    assert found["elsewhere/elsewhere-1"] == "available"


@pytest.mark.usefixtures("twins")
def test_what_an_operator_has_disabled_keeps_its_reason() -> None:
    row = Account.objects.get(name="batch-2")
    accounts().disable(str(row.pk), "maintenance")
    pools.settle(acquire(), Report(status=401, body=BAD_KEY))
    states()
    assert pools.state_of(resolve.pool_spec("batch"), str(row.pk)).why == "maintenance"  # type: ignore[union-attr]


@pytest.mark.usefixtures("twins")
def test_another_credential_parts_them() -> None:
    row = Account.objects.get(name="batch-2")
    pools.settle(acquire(), Report(status=401, body=BAD_KEY))
    row.credential = "sk-another"  # type: ignore[assignment]
    row.save()
    assert credentials.renewed(row.pk)
    assert states()["batch/batch-2"] == "available"
    account_actions.enable(Account.objects.select_related("pool").get(name="llm-1"), actor="t", reason="t")
    pools.settle(acquire(), Report(status=401, body=BAD_KEY))
    assert states()["batch/batch-2"] == "available"


def test_a_cooldown_ends_with_its_credential() -> None:
    make_pool(accounts=1)
    pools.settle(acquire(), Report(status=429, headers={"Retry-After": "600"}))
    assert states() == {"llm/llm-1": "cooling_down"}
    row = Account.objects.get()
    row.credential = "sk-renewed"  # type: ignore[assignment]
    row.save()
    assert credentials.renewed(row.pk)
    assert states() == {"llm/llm-1": "available"}
    row.refresh_from_db()
    assert (row.state, row.until) == ("available", None), "so that no loss of Redis brings it back"


@pytest.mark.parametrize("report", [{"error": "cancelled"}, {"error": "cancelled", "latency": 30.0}])
def test_a_caller_that_gave_up_costs_the_account_nothing(report: dict[str, Any]) -> None:
    make_pool(accounts=1, breaker_failures=2)
    for _ in range(8):
        pools.settle(acquire(), Report(**report))
    (state,) = accounts().states(resolve.pool_spec("llm"))
    assert (state.state, state.health, state.last_error) == ("available", 1.0, "")
