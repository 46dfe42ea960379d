"""Accounts over time: a sample a minute, the worst of it; and what the provider said last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import redis

from controlplane.models import AccountSample
from controlplane.observability.account_history import KEPT_HOURS, AccountHistory
from quotas.models import Account
from quotas.services import last_responses
from tests.integration.quotas.api.conftest import api
from tests.integration.quotas.api.test_pools import SECRET, acquire, make_pool, settle

pytestmark = pytest.mark.django_db
MINUTE = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_noted(valkey: redis.Redis) -> None:
    last_responses.forget()


def look(history: AccountHistory, seconds: float, **columns: object) -> int:
    Account.objects.update(**columns)
    return history.note(MINUTE + timedelta(seconds=seconds))


def test_each_minute_shows_the_worst_of_it_and_its_calls() -> None:
    make_pool(accounts=1)
    history = AccountHistory()
    assert look(history, 0, health=1.0, state="available", successes=100, errors={}) == 0
    look(history, 20, health=0.4, state="open", successes=110, errors={"server": 5})
    look(history, 40, health=0.7, state="half_open", successes=112, errors={"server": 5})
    assert look(history, 60, health=0.9, state="available", successes=120, errors={"server": 6}) == 1
    assert look(history, 120, successes=121) == 1
    first, second = AccountSample.objects.order_by("at")
    assert (first.at, first.health, first.state, first.succeeded, first.failed) == (MINUTE, 0.4, "open", 12, 5)
    assert (second.health, second.state, second.succeeded, second.failed) == (0.9, "available", 8, 1)


def test_counts_that_begin_anew_are_not_shown_as_negative_calls() -> None:
    make_pool(accounts=1)
    history = AccountHistory()
    look(history, 0, successes=1000, errors={"server": 50})
    look(history, 30, successes=3, errors={})
    look(history, 60, successes=4, errors={})
    sample = AccountSample.objects.get()
    assert (sample.succeeded, sample.failed) == (0, 0)


def test_two_leaders_in_one_minute_write_it_once_and_old_samples_go() -> None:
    make_pool(accounts=1)
    account = Account.objects.get()
    AccountSample.objects.create(
        account=account, at=MINUTE - KEPT_HOURS - timedelta(hours=1), health=1.0, state="available"
    )
    hour = MINUTE.replace(minute=0)
    one, other = AccountHistory(), AccountHistory()
    for history in (one, other):
        history.note(hour)
    assert [history.note(hour + timedelta(seconds=61)) for history in (one, other)] == [1, 1]
    assert AccountSample.objects.get().at == hour, "once, and the old one is gone"


def test_a_removed_account_takes_its_history_along() -> None:
    make_pool(accounts=2)
    history = AccountHistory()
    look(history, 0)
    look(history, 60)
    Account.objects.first().delete()  # type: ignore[union-attr]
    look(history, 120)
    assert {sample.account_id for sample in AccountSample.objects.all()} == {Account.objects.get().pk}


def test_the_last_answer_is_shown_redacted() -> None:
    make_pool(accounts=1)
    caller = api()
    lease = acquire(caller).json()
    before = caller.get(f"accounts/{lease['account_id']}").json()
    assert before["last_answer"] is None
    headers = {"x-ratelimit-remaining-requests": "41", "x-ratelimit-resource": f"{SECRET}-0", "x-other": "1"}
    settle(caller, lease["lease"], status=429, headers={**headers, "retry-after": "2"})
    answer = caller.get(f"accounts/{lease['account_id']}")
    last = answer.json()["last_answer"]
    assert (last["status"], last["outcome"]) == (429, "rate_limited")
    assert last["headers"]["retry-after"] == "2" and last["headers"]["x-ratelimit-remaining-requests"] == "41"
    assert "x-other" not in last["headers"] and SECRET not in answer.content.decode()


def test_a_busy_account_writes_no_more_than_every_few_seconds(valkey: redis.Redis) -> None:
    make_pool(accounts=1)
    caller = api()
    for remaining in (9, 8, 7):
        lease = acquire(caller).json()
        settle(caller, lease["lease"], status=200, headers={"x-ratelimit-remaining-requests": str(remaining)})
    last = caller.get(f"accounts/{lease['account_id']}").json()["last_answer"]
    assert last["headers"] == {"x-ratelimit-remaining-requests": "9"}, "the first of the five seconds"
