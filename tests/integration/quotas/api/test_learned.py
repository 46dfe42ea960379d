"""Learned quotas, explicit waits and units without an estimate, as callers over REST and in Python meet them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from quotas import pools
from quotas.errors import NoAccountAvailable
from quotas.models import Pool, PoolLimit
from tests.integration.quotas.api.conftest import api
from tests.integration.quotas.api.test_pools import acquire, make_pool, settle


def used_up(limit: int = 100, reset: str = "15m0s") -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": reset,
    }


def test_a_model_that_is_used_up_holds_up_no_other_one_and_is_shown() -> None:
    make_pool(accounts=1)
    caller = api()
    lease = acquire(caller, model="large").json()["lease"]
    settle(caller, lease, status=200, headers=used_up(), body="{}")
    assert acquire(caller, model="large").json()["reasons"] == {"requests": 1}
    assert acquire(caller, model="small").status_code == 200
    learned = caller.get("accounts").json()["results"][0]["learned"]
    assert learned["requests"]["models"]["large"]["remaining"] == 0
    pools.get("llm").acquire(model="small").give_back()
    with pytest.raises(NoAccountAvailable) as refused:
        pools.get("llm").acquire(model="large")
    assert refused.value.reasons == {"requests": 1}


def test_every_reader_reports_the_explicit_wait() -> None:
    make_pool(accounts=1)
    caller = api()
    lease = acquire(caller).json()["lease"]
    wait = settle(caller, lease, status=429, headers={**used_up(), "Retry-After": "10"}, body="{}").json()["cooldown"]
    assert 10 <= wait <= 11
    assert 8 < acquire(caller).json()["retry_after"] <= wait
    explained = caller.get("pools/llm/explain").json()
    assert 8 < explained["retry_after"] <= wait and explained["accounts"][0]["retry_after"] <= wait
    account = caller.get("accounts").json()["results"][0]
    assert account["state"] == "cooling_down"
    assert (datetime.fromisoformat(account["until"]) - datetime.now(UTC)).total_seconds() <= wait
    with pytest.raises(NoAccountAvailable) as refused:
        pools.get("llm").acquire()
    assert refused.value.retry_after is not None and refused.value.retry_after <= wait


@pytest.mark.parametrize("stated", [{}, {"cost": {"requests": 1}}])
def test_tokens_without_an_estimate_are_charged_and_hold_the_next_call(stated: dict[str, Any]) -> None:
    pool: Pool = make_pool(accounts=1)
    PoolLimit.objects.create(pool=pool, unit="tokens", limit=1_000, algorithm="token_bucket", window=60.0)
    caller = api()
    lease = acquire(caller, **stated).json()["lease"]
    settle(caller, lease, status=200, headers={}, usage={"tokens": 5_000})
    denied = acquire(caller, **stated)
    assert denied.status_code == 429 and denied.json()["reasons"] == {"tokens": 1}
    assert 230 < denied.json()["retry_after"] <= 241
    with pytest.raises(NoAccountAvailable):
        pools.get("llm").acquire()


def test_a_concluded_capacity_is_no_422() -> None:
    make_pool(accounts=1)
    caller = api()
    lease = acquire(caller).json()["lease"]
    fields = {
        "x-ratelimit-limit-tokens": "10000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "50s",
    }
    settle(caller, lease, status=200, headers=fields, body="{}")
    denied = acquire(caller, cost={"tokens": 9_900})
    assert denied.status_code == 429 and denied.json()["retry_after"] <= 50.1
    assert acquire(caller, cost={"tokens": 10_001}).status_code == 422
