"""`/api/v1/pools/`, `/accounts/`, `/leases/` as callers and operators see them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from controlplane.models import AuditEntry
from quotas import events
from quotas.models import Account, Pool, PoolLimit, Provider
from quotas.services import health
from quotas.testing import capture_events
from tests.integration.quotas.api.conftest import api

SECRET = "sk-very-secret-credential-0123456789"


def make_pool(
    name: str = "llm", *, accounts: int = 2, limit: int | None = None, dialect: str = "openai", **columns: Any
) -> Pool:
    provider, _ = Provider.objects.get_or_create(
        name=f"sim-{dialect}", defaults={"dialect": dialect, "base_url": "http://127.0.0.1:9100/"}
    )
    pool = Pool.objects.create(name=name, provider=provider, **columns)
    for number in range(accounts):
        Account.objects.create(pool=pool, name=f"{name}-{number + 1}", credential=f"{SECRET}-{number}")
    if limit is not None:
        PoolLimit.objects.create(pool=pool, limit=limit, algorithm="fixed_window", window=3600)
    return pool


def acquire(caller: Any, **body: Any) -> Any:
    return caller.post("pools/llm/acquire", body)


def settle(caller: Any, lease: str, **report: Any) -> Any:
    return caller.post(f"leases/{lease}/settle", report)


def test_an_account_is_leased_without_its_credential() -> None:
    make_pool()
    answer = acquire(api("submit"), cost={"tokens": 800})
    assert answer.status_code == 200
    body = answer.json()
    assert body["account"] in ("llm-1", "llm-2") and body["base_url"] == "http://127.0.0.1:9100"
    assert body["expires_in"] == 40.0 and body["lease"] and body["account_id"]
    assert SECRET not in answer.content.decode()


def test_all_limited_is_429_with_the_earliest_time() -> None:
    make_pool(limit=1)
    caller = api("submit")
    assert {acquire(caller).json()["account"] for _ in range(2)} == {"llm-1", "llm-2"}
    answer = acquire(caller)
    assert answer.status_code == 429 and answer.json()["type"] == "/problems/no-account-available"
    assert answer.json()["reasons"] == {"requests": 2}
    retry = answer.json()["retry_after"]
    assert 0 < retry <= 3600 and retry <= int(answer["Retry-After"]) < retry + 1.001


def test_impossible_disabled_and_unknown() -> None:
    make_pool(limit=5)
    caller = api()
    answer = acquire(caller, cost={"requests": 6})
    assert answer.status_code == 422 and answer.json()["type"] == "/problems/cost-exceeds-limit"
    for row in Account.objects.all():
        caller.post(f"accounts/{row.pk}/disable", {"reason": "test"})
    answer = acquire(caller)
    assert answer.status_code == 503 and answer.json()["type"] == "/problems/pool-disabled"
    assert caller.post("pools/nobody/acquire").status_code == 404


def test_429_cools_the_account_down_and_the_first_report_counts() -> None:
    make_pool(accounts=1)
    caller = api()
    lease = acquire(caller).json()["lease"]
    answer = settle(caller, lease, status=429, headers={"Retry-After": "30"}, body="{}")
    assert answer.status_code == 200
    assert answer.json()["outcome"] == "rate_limited" and 30 <= answer.json()["cooldown"] <= 33
    again = settle(caller, lease, status=200, headers={})
    assert again.status_code == 200 and again.json()["outcome"] == "rate_limited"
    denied = acquire(caller)
    assert denied.status_code == 429 and denied.json()["reasons"] == {"cooldown": 1}
    assert 29 <= denied.json()["retry_after"] <= 33
    account = caller.get("accounts").json()["results"][0]
    assert account["state"] == "cooling_down" and account["errors"] == {"rate_limited": 1}
    until = datetime.fromisoformat(account["until"])
    assert 28 < (until - datetime.now(UTC)).total_seconds() <= 33


def test_learned_quota_usage_and_success() -> None:
    make_pool(accounts=1)
    caller = api()
    lease = acquire(caller, cost={"tokens": 100}).json()["lease"]
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
    }
    answer = settle(caller, lease, status=200, headers=headers, usage={"tokens": 42}, latency=0.25)
    assert answer.json()["outcome"] == "ok" and answer.json()["cooldown"] == 0
    assert answer.json()["learned"]["requests"]["limit"] == 60
    account = caller.get("accounts").json()["results"][0]
    assert account["successes"] == 1 and account["in_flight"] == 0 and account["last_used"].endswith("Z")


def test_error_without_status_and_unknown_lease() -> None:
    make_pool(accounts=1)
    caller = api("submit")
    lease = acquire(caller).json()["lease"]
    assert settle(caller, lease, error="timeout").json()["outcome"] == "timeout"
    missing = settle(caller, "nobody", status=200)
    assert missing.status_code == 404 and missing.json()["type"] == "/problems/unknown-lease"


@pytest.mark.parametrize(
    "report",
    [{}, {"status": 99}, {"status": "200"}, {"error": "bad luck"}, {"status": 200, "headers": []},
     {"status": 200, "latency": -1}, {"status": 200, "usage": {"tokens": -1}}, {"status": 200, "colour": 1}],
)  # fmt: skip
def test_bad_reports_are_400(report: dict[str, Any]) -> None:
    assert settle(api("submit"), "x", **report).status_code == 400


@pytest.mark.parametrize(
    "body",
    [{"priority": "urgent"}, {"priority": 10}, {"priority": True}, {"max_wait": -1}, {"cost": {"tokens": 1.5}},
     {"key": 7}, {"pool": "llm"}],
)  # fmt: skip
def test_bad_acquires_are_400(body: dict[str, Any]) -> None:
    make_pool()
    assert acquire(api("submit"), **body).status_code == 400


def test_fallback_pools_are_tried_in_order() -> None:
    make_pool(accounts=1, limit=1, fallback=["spare"])
    make_pool("spare", accounts=1, dialect="anthropic")
    caller = api("submit")
    assert acquire(caller).json()["account"] == "llm-1"
    granted = acquire(caller).json()
    assert (granted["pool"], granted["account"]) == ("spare", "spare-1")
    overloaded = settle(caller, granted["lease"], status=529, headers={})
    assert overloaded.json()["outcome"] == "server", "read in the dialect of the account's pool"


def test_pool_pauses_and_resumes_with_a_reason() -> None:
    make_pool(accounts=1)
    caller = api()
    paused = caller.post("pools/llm/pause", {"reason": "provider's maintenance"})
    assert paused.json()["state"] == "paused" and paused.json()["why"] == "provider's maintenance"
    assert acquire(caller).status_code == 429
    assert caller.get("pools/llm").json()["accounts"][0]["state"] == "paused"
    assert caller.post("pools/llm/resume", {"reason": "done"}).json()["state"] == "available"
    assert acquire(caller).status_code == 200
    assert [entry.verb for entry in AuditEntry.objects.filter(target="pool:llm").order_by("pk")] == [
        "pool.pause",
        "pool.resume",
    ]
    assert caller.post("pools/llm/pause", {}).status_code == 400


def test_operators_verbs_answer_with_the_account_and_are_audited() -> None:
    make_pool(accounts=1)
    caller = api()
    (account,) = caller.get("accounts").json()["results"]
    path = f"accounts/{account['id']}"
    assert caller.post(f"{path}/trip", {"reason": "  "}).status_code == 400
    tripped = caller.post(f"{path}/trip", {"reason": "test"}).json()
    assert (tripped["state"], tripped["why"]) == ("open", "test")
    assert acquire(caller).json()["reasons"] == {"breaker_open": 1}
    assert caller.post(f"{path}/close", {"reason": "test"}).json()["state"] == "available"
    lease = acquire(caller).json()["lease"]
    settle(caller, lease, status=429, headers={"retry-after": "600"})
    assert caller.get(path).json()["state"] == "cooling_down"
    assert caller.post(f"{path}/clear-cooldown", {"reason": "test"}).json()["state"] == "available"
    disabled = caller.post(f"{path}/disable", {"reason": "no money"}).json()
    assert (disabled["state"], disabled["why"]) == ("disabled", "no money")
    assert caller.post(f"{path}/enable", {"reason": "paid"}).json()["state"] == "available"
    verbs = AuditEntry.objects.filter(target="account:llm/llm-1").order_by("pk").values_list("verb", "reason")
    assert ("account.trip.intent", "test") in verbs and ("account.trip", "test") in verbs
    assert ("account.disable", "no money") in verbs and ("account.enable", "paid") in verbs
    trip = AuditEntry.objects.get(verb="account.trip")
    assert (trip.before["state"], trip.after["state"]) == ("available", "open")  # type: ignore[index]
    assert caller.post(f"{path}/explode", {"reason": "x"}).status_code == 404
    assert caller.post("accounts/999999/trip", {"reason": "x"}).status_code == 404


def test_a_cleared_account_is_free_though_its_quota_was_reported_as_used_up() -> None:
    make_pool(accounts=1)
    caller = api()
    (account,) = caller.get("accounts").json()["results"]
    used_up = {"retry-after": "600", "x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "0",
               "x-ratelimit-reset-requests": "10m0s"}  # fmt: skip
    settle(caller, acquire(caller).json()["lease"], status=429, headers=used_up)
    assert caller.post(f"accounts/{account['id']}/clear-cooldown", {"reason": "paid"}).json()["state"] == "available"
    assert acquire(caller).status_code == 200


def test_explain_names_the_chosen_and_the_others_reasons() -> None:
    make_pool(accounts=2)
    caller = api()
    granted = acquire(caller).json()
    settle(caller, granted["lease"], status=429, headers={"retry-after": "60"})
    answer = caller.get("pools/llm/explain", tokens=10).json()
    by_name = {account["name"]: account for account in answer["accounts"]}
    assert answer["chosen"] != granted["account"] and by_name[answer["chosen"]]["chosen"]
    assert by_name[granted["account"]]["why"] == "cooldown" and by_name[granted["account"]]["until"]
    assert caller.get("pools/llm/explain", bananas=1).status_code == 400
    assert caller.get("pools/nobody/explain").status_code == 404


def test_invalid_key_disables_the_account_with_an_event_and_shows_no_secret() -> None:
    make_pool(accounts=1)
    caller = api()
    lease = acquire(caller).json()["lease"]
    echo = f'{{"error": {{"message": "Incorrect API key provided: {SECRET}-0", "code": "invalid_api_key"}}}}'
    with capture_events(events.AccountChanged) as changes:
        assert settle(caller, lease, status=401, headers={}, body=echo).json()["outcome"] == "auth"
    (account,) = caller.get("accounts").json()["results"]
    assert account["state"] == "disabled" and SECRET not in str(account) and "Incorrect" in account["last_error"]
    assert [(event.account, event.after) for event in changes] == [("llm-1", "disabled")]
    row = Account.objects.get()
    assert row.state == "disabled" and SECRET not in row.last_error


def test_health_is_copied_to_sql_and_survives_the_loss_of_redis(valkey: redis.Redis) -> None:
    make_pool(accounts=3, strategy="round_robin")
    caller = api()
    health.flush()
    refused = '{"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}}'
    for status, body in ((401, refused), (429, ""), (200, "")):
        lease = acquire(caller).json()["lease"]
        settle(caller, lease, status=status, headers={"retry-after": "600"} if status == 429 else {}, body=body)
    assert health.flush() >= 1
    assert health.flush() == 0, "nothing changed since"
    assert sorted(Account.objects.values_list("state", flat=True)) == ["available", "cooling_down", "disabled"]
    before = {row["name"]: row["state"] for row in caller.get("accounts").json()["results"]}
    valkey.flushall()
    assert health.flush() == 0, "what Redis has forgotten is not copied over what SQL knows"
    after = {row["name"]: row["state"] for row in caller.get("accounts").json()["results"]}
    assert after == before
    assert acquire(caller).json()["account"] == next(name for name, state in before.items() if state == "available")


def test_lists_are_paged_and_filtered() -> None:
    make_pool(accounts=3)
    make_pool("other", accounts=1)
    caller = api("read")
    first = caller.get("accounts", limit=2).json()
    second = caller.get("accounts", limit=2, cursor=first["next"]).json()
    assert [row["name"] for row in first["results"] + second["results"]] == ["other-1", "llm-3", "llm-2", "llm-1"]
    assert second["next"] is None
    assert [row["name"] for row in caller.get("accounts", pool="other").json()["results"]] == ["other-1"]
    assert [row["name"] for row in caller.get("pools").json()["results"]] == ["other", "llm"]
    assert SECRET not in str(caller.get("pools").json())


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [("read", "post", "pools/llm/acquire"), ("read", "post", "leases/x/settle"), ("submit", "get", "pools"),
     ("submit", "get", "accounts"), ("read", "post", "pools/llm/pause"), ("read", "post", "accounts/1/trip"),
     ("submit", "get", "pools/llm/explain")],
)  # fmt: skip
def test_scopes(scope: str, method: str, path: str) -> None:
    assert getattr(api(scope), method)(path).status_code == 403


def test_a_misspelt_unit_of_usage_is_refused_and_settles_nothing() -> None:
    make_pool()
    key = api("submit")
    lease = acquire(key, cost={"tokens": 800}).json()["lease"]
    refused = settle(key, lease, status=200, usage={"tokns": 5})
    assert refused.status_code == 400 and refused.json()["errors"][0]["pointer"] == "#/usage/tokns"
    assert settle(key, lease, status=200, usage={"tokens": 5}).json()["outcome"] == "ok"
