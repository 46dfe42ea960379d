"""Accounts: how they are chosen, limited, learned about and explained, over REST and in Python."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from tests.acceptance.pools import CHAT, SECRET, Pools, credential
from tests.support.instance import wait_until
from tests.support.product import Product


@pytest.fixture(scope="module")
def product(pools: Pools) -> Product:
    return pools.product


def test_each_account_counts_how_its_calls_ended(product: Product) -> None:
    for status in (200, 200, 500, 404):
        product.settle(product.lease("counted"), status, latency=0.5)
    lease = product.lease("counted")
    answer = product.call("POST", f"leases/{lease['lease']}/settle", {"error": "timeout"})
    assert answer.json()["outcome"] == "timeout"
    row = product.account("counted-1")
    assert (row["successes"], row["errors"]) == (2, {"server": 1, "validation": 1, "timeout": 1})
    assert 0 < row["health"] < 1 and row["latency"] == pytest.approx(0.5) and row["in_flight"] == 0
    assert row["last_used"] and row["last_error_at"]


def test_a_settle_counts_once_and_an_unknown_lease_is_not_found(product: Product) -> None:
    lease = product.lease("counted")
    before = product.account("counted-1")["successes"]
    assert [product.settle(lease, status)["outcome"] for status in (200, 500)] == ["ok", "ok"]
    assert product.account("counted-1")["successes"] == before + 1
    assert product.call("POST", "leases/nobody/settle", {"status": 200}).status_code == 404


def test_cooldown_takes_the_providers_time_and_bounds_nonsense(product: Product) -> None:
    first, second = product.lease("cooled"), product.lease("cooled")
    assert 30 <= product.settle(first, 429, headers={"retry-after": "30"})["cooldown"] <= 33
    assert 60 <= product.settle(second, 429, headers={"retry-after": "1e400"})["cooldown"] <= 66, (
        "60 s where the header is invalid"
    )
    shown = product.account(first["account"])
    assert shown["state"] == "cooling_down" and shown["until"] and shown["why"] == "rate_limited"
    denied = product.acquire("cooled")
    assert denied.status_code == 429 and denied.json()["reasons"] == {"cooldown": 2}
    assert product.account(first["account"])["skips"]["cooldown"] >= 1


def test_round_robin_is_even_and_weight_counts(product: Product) -> None:
    turns = Counter(product.lease("even")["account"] for _ in range(12))
    assert turns == {f"even-{number}": 4 for number in (1, 2, 3)}
    product.settle(product.lease("even"), 429, headers={"retry-after": "60"})
    left = Counter(product.lease("even")["account"] for _ in range(8))
    assert sorted(left.values()) == [4, 4]
    assert {product.lease("weighted")["account"] for _ in range(30)} == {"weighted-1", "weighted-2"}


def test_a_denial_has_the_earliest_time_over_all_causes_also_for_a_job(pools: Pools, product: Product) -> None:
    cold, limited = product.lease("busy"), product.lease("busy")
    product.settle(cold, 429, headers={"retry-after": "600"})
    product.settle(limited)
    asked = []
    for _ in range(2):
        before = time.time()
        answer = product.acquire("busy")
        asked.append((before, time.time(), answer))
        time.sleep(1.1)  # so that the second response differs
    for _, _, answer in asked:
        problem = answer.json()
        assert answer.status_code == 429 and problem["type"] == "/problems/no-account-available"
        assert problem["reasons"] == {"cooldown": 1, "requests": 1}
        assert 0 < problem["retry_after"] <= 15 and "cool" in problem["detail"]
        assert answer.headers["Retry-After"] == str(-int(-problem["retry_after"] // 1))
    (start, begun, earlier), (asked_at, end, later) = asked
    passed = earlier.json()["retry_after"] - later.json()["retry_after"]
    assert asked_at - begun - 0.01 <= passed <= end - start + 0.01, "the remaining time, not the original one"
    free_at = (asked_at + later.json()["retry_after"], end + later.json()["retry_after"])

    uid = pools.submit("busy")
    product.wait(uid, status="rate_limited", seconds=10)
    until = product.explain(uid)["until"]
    (job,) = product.wait_for_end(uid)
    assert job["status"] == "completed" and len(job["attempts"]) == 1, "waiting costs no attempt"
    began = _unix(job["attempts"][0]["started_at"])
    assert free_at[0] - 1 <= _unix(until) <= free_at[1] + 1
    assert began >= free_at[0] - 0.01


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_max_wait_waits_for_the_account(product: Product) -> None:
    lease = product.lease("wrapped")
    other = product.lease("wrapped")
    for one in (lease, other):
        product.settle(one, 429, headers={"retry-after": "1"})
    assert product.acquire("wrapped").status_code == 429
    product.settle(product.lease("wrapped", max_wait=5))


def test_tokens_are_granted_exactly_and_refused_calls_use_none(product: Product) -> None:
    def acquire(_: int) -> int:
        return product.acquire("tokens", cost={"tokens": 150}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert Counter(threads.map(acquire, range(40))) == {200: 6, 429: 34}
    product.lease("tokens", cost={"tokens": 100})
    assert product.acquire("tokens", cost={"tokens": 1}).status_code == 429


def test_a_cost_that_can_never_pass_is_422(product: Product) -> None:
    answer = product.acquire("tokens", cost={"tokens": 1001})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/cost-exceeds-limit")
    assert "Retry-After" not in answer.headers


def test_breaker_opens_and_admits_one_probe(product: Product) -> None:
    stale = product.lease("breaking")
    for _ in range(2):
        product.settle(product.lease("breaking"), 503)
    assert product.account("breaking-1")["state"] == "open"
    assert product.acquire("breaking").json()["reasons"] == {"breaker_open": 1}
    product.settle(stale)
    assert product.account("breaking-1")["state"] == "open", "a late success of an earlier call does not close it"
    wait_until(lambda: product.account("breaking-1")["state"] == "half_open", 10)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: product.acquire("breaking"), range(8)))
    (probe,) = [answer.json() for answer in answers if answer.status_code == 200]
    assert {str(answer.json()["reasons"]) for answer in answers if answer.status_code == 429} == {"{'probing': 1}"}
    product.settle(probe)
    assert product.account("breaking-1")["state"] == "available"


def test_limits_are_learned_from_headers(product: Product) -> None:
    headers = {
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "54s",
    }
    settled = product.settle(product.lease("learning", cost={"tokens": 10}), 200, headers=headers, usage={"tokens": 10})
    assert settled["learned"]["tokens"]["remaining"] == 100
    assert product.account("learning-1")["learned"]["tokens"]["limit"] == 1000
    denied = product.acquire("learning", cost={"tokens": 500})
    assert denied.status_code == 429 and denied.json()["reasons"] == {"tokens": 1}
    assert 15 < denied.json()["retry_after"] < 25, "400 tokens at 1,000 a minute"
    product.settle(product.lease("learning", cost={"tokens": 20}), 200, headers={"x-ratelimit-limit-tokens": "many"})


def test_low_priorities_wait_from_the_threshold_on(product: Product) -> None:
    for _ in range(8):
        product.lease("pausing")
    denied = product.acquire("pausing", priority="low")
    assert denied.status_code == 429 and denied.json()["reasons"] == {"paused": 1}
    product.lease("pausing", priority="normal")
    shown = product.account("pausing-1")
    assert shown["state"] == "paused" and "80%" in shown["why"]


def test_concurrency_decreases_with_errors_and_is_enforced(product: Product) -> None:
    def moved() -> bool:
        product.settle(product.lease("adapting"), 503)
        return bool(product.account("adapting-1")["concurrency"] == 8)

    assert product.account("adapting-1")["concurrency"] == 10
    wait_until(moved, 30, "twenty results and two seconds")
    for _ in range(8):
        product.lease("adapting")
    denied = product.acquire("adapting")
    assert denied.status_code == 429 and denied.json()["reasons"] == {"concurrency": 1}


def test_telegrams_preset_limits_each_chat_by_itself(product: Product) -> None:
    chat, group = uuid.uuid4().hex, f"-{uuid.uuid4().int}"
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: product.acquire("telegram", key=chat), range(16)))
    waiting = [answer.json() for answer in answers if answer.status_code == 429]
    assert waiting and all(one["reasons"] == {"key": 1} and one["retry_after"] <= 1 for one in waiting)
    lease = product.lease("telegram", key=group)
    refused = product.settle(lease, 429, body='{"ok":false,"error_code":429,"parameters":{"retry_after":35}}')
    assert refused["outcome"] == "rate_limited" and 35 <= refused["cooldown"] <= 38.5
    denied = product.acquire("telegram", key=group)
    assert denied.status_code == 429 and 30 < denied.json()["retry_after"] <= 38.5
    product.lease("telegram", key=uuid.uuid4().hex)
    assert product.account("bot")["state"] == "available"


SCRIPT = """
import asyncio, httpx
from quotas import pools
seen = []
def call(lease):
    seen.append(lease.account)
    return httpx.post(lease.base_url + "/v1/chat/completions", headers=lease.auth_headers, json={chat})
async def call_async(lease):
    return call(lease)
pool = pools.get("wrapped")
report = lambda status: print("status", status.kind, status.attempt, status.of, str(status))
for _ in range(2):  # by turns: one of them meets the account that is refused
    print("sync", pool.call(call, tokens=10, request_id="chat_1", on_status=report, max_wait=30).status_code)
print("async", asyncio.run(pool.call_async(call_async, tokens=10, on_status=report, max_wait=30)).status_code)
try:
    pool.call(call, request_id="chat_2", on_status=report, attempts=2, max_wait=30)
except Exception as error:
    print("error", type(error).__name__, error)
print("accounts", len(set(seen)))
"""


def test_python_callers_share_the_pool_and_get_status_reports(pools: Pools, product: Product) -> None:
    product.settle(product.lease("wrapped", max_wait=5))
    pools.sim.faults({"key": credential("wrapped", 1), "status": 429, "headers": {"retry-after": "1"}})
    try:
        ran = pools.deployment.instance.manage("shell", "-c", SCRIPT.replace("{chat}", repr(CHAT)))
    finally:
        pools.sim.faults()
    lines = ran.stdout.splitlines()
    assert {"sync 200", "async 200"} <= set(lines), ran.stdout + ran.stderr
    kinds = [line.split()[1] for line in lines if line.startswith("status ")]
    assert "retry" in kinds and "recovered" in kinds, ran.stdout
    assert any(re.search(r"chat_1: rate_limited, retry 2 of 5 in \d", line) for line in lines), ran.stdout
    assert "accounts 2" in lines
    assert SECRET not in ran.stdout + ran.stderr


def test_a_full_pool_falls_back_and_a_denial_has_the_reasons_of_both(product: Product) -> None:
    assert [product.lease("first")["account"] for _ in range(3)] == ["first-1", "second-1", "second-1"]
    product.settle(product.lease("first"), 429, headers={"retry-after": "60"})
    denied = product.acquire("first")
    assert denied.status_code == 429 and denied.json()["reasons"] == {"requests": 1, "cooldown": 1}
    assert denied.json()["retry_after"] <= 66, "the earlier of both pools"


def test_a_conversation_stays_on_its_account_while_it_can(product: Product) -> None:
    mine = [product.lease("sticky", key="conversation") for _ in range(5)]
    assert len({lease["account"] for lease in mine}) == 1
    assert {product.lease("sticky")["account"] for _ in range(3)} == {"sticky-1", "sticky-2", "sticky-3"}
    product.settle(mine[0], 429, headers={"retry-after": "60"})
    moved = {product.lease("sticky", key="conversation")["account"] for _ in range(3)}
    assert len(moved) == 1 and moved != {mine[0]["account"]}
