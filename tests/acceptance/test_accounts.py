"""Accounts over REST on a real instance, jobs through real workers, a provider that misbehaves."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import BASE_DIR, Instance, running, wait_until
from tests.support.receiver import Receiver, receiving

SECRET = "outside9f3b7cQzWk"  # of no known shape: only a comparison with the account's own credential finds it
BOT = f"110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw-{SECRET}"
HOURLY: dict[str, Any] = {"unit": "requests", "algorithm": "fixed_window", "window": "1h"}
CHAT = {"model": "gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
POOLS: dict[str, dict[str, Any]] = {
    "counted": {"accounts": 1, "breaker": {"failures": 100}},
    "cooled": {"accounts": 2},
    "even": {"accounts": 3, "strategy": "round_robin"},
    "weighted": {"accounts": 2, "strategy": "weighted_random"},
    "busy": {
        "accounts": 2,
        "strategy": "round_robin",
        "limits": [{"unit": "requests", "algorithm": "token_bucket", "limit": 4, "window": "60s", "burst": 1}],
        "pause_at": None,
    },
    "tokens": {"accounts": 1, "limits": [{**HOURLY, "unit": "tokens", "limit": 1000}], "pause_at": None},
    "breaking": {"accounts": 1, "breaker": {"failures": 2, "window": "60s", "open_for": "1s", "probes": 1}},
    "learning": {"accounts": 1},
    "pausing": {"accounts": 1, "limits": [{**HOURLY, "limit": 10}], "pause_at": 0.8, "pause": "low"},
    "adapting": {
        "accounts": 1,
        "concurrency": {"initial": 10, "floor": 2, "ceiling": 12},
        "breaker": {"failures": 1000},
    },
    "first": {"accounts": 1, "limits": [{**HOURLY, "limit": 1}], "pause_at": None, "fallback": ["second"]},
    "second": {"accounts": 1},
    "sticky": {"accounts": 3, "strategy": "round_robin", "sticky": True},
    "wrapped": {"accounts": 2, "strategy": "round_robin", "cooldown": {"default": "1s", "max": "2s"}},
    "stormy": {
        "accounts": 6,
        "strategy": "health",
        "breaker": {"failures": 2, "window": "60s", "open_for": "2s", "probes": 1},
        "cooldown": {"default": "1s", "max": "3s"},
    },
    "echoing": {"accounts": 2, "breaker": {"failures": 100}, "cooldown": {"default": "1s", "max": "2s"}},
    "lasting": {"accounts": 2, "strategy": "round_robin"},
}


def credential(pool: str, number: int) -> str:
    return f"{SECRET}-{pool}-{number}"


def configuration(openai: str, telegram: str, hook: str) -> tuple[str, dict[str, str]]:
    """The file that is applied, and the environment with the credentials that it names."""
    environ = {"OUTSIDE_BOT": BOT, "OUTSIDE_HOOK": f"webhook+http://hook:{SECRET}@{hook}/{SECRET}"}
    pools: list[dict[str, Any]] = []
    for name, columns in POOLS.items():
        accounts = []
        for number in range(1, columns["accounts"] + 1):
            variable = f"OUTSIDE_{name}_{number}".upper()
            environ[variable] = credential(name, number)
            accounts.append({"name": f"{name}-{number}", "credential_env": variable})
        pools.append({"name": name, "provider": "outside", **columns, "accounts": accounts})
    preset = yaml.safe_load((BASE_DIR / "controlplane" / "presets" / "telegram.yaml").read_text())
    (chats,) = preset["pools"]
    chats["accounts"] = [{"name": "bot", "credential_env": "OUTSIDE_BOT"}]
    (messenger,) = preset["providers"]
    messenger["base_url"] = telegram + "/bot{credential}"
    document = {
        "version": 1,
        "projects": [{"slug": "outside"}],
        "providers": [
            {"name": "outside", "dialect": "openai", "base_url": openai, "timeout": "10s"},
            messenger,
        ],
        "pools": [*pools, chats],
        "retry_policies": [
            {
                "name": "keen",
                "strategy": "exponential",
                "initial": "200ms",
                "max": "1s",
                "max_attempts": 9,
                "by_category": {"auth": "never"},
            },
            {"name": "once", "strategy": "fixed", "initial": "100ms", "max_attempts": 1},
        ],
        "queues": [
            {"name": "outside-keen", "retry_policy": "keen", "timeout": "30s"},
            {"name": "outside-once", "retry_policy": "once", "timeout": "30s"},
        ],
        "alerts": [
            {"name": "outside", "when": ["account_auth_failed", "breaker_opened"], "to_env": "OUTSIDE_HOOK"},
            {"name": "deaf", "when": ["account_auth_failed"], "to": f"json://nobody:{SECRET}@127.0.0.1:1/{SECRET}"},
        ],
    }
    return yaml.safe_dump(document), environ


class Outside:
    """The instance and its providers, with the few calls that these tests are made of."""

    def __init__(
        self, instance: Instance, client: httpx.Client, sim: Simulator, bot: Simulator, hook: Receiver
    ) -> None:
        self.instance, self.client, self.sim, self.bot, self.hook = instance, client, sim, bot, hook

    def acquire(self, pool: str, **body: Any) -> httpx.Response:
        return self.client.post(f"/api/v1/pools/{pool}/acquire", json=body)

    def lease(self, pool: str, **body: Any) -> dict[str, Any]:
        answer = self.acquire(pool, **body)
        assert answer.status_code == 200, answer.text
        lease: dict[str, Any] = answer.json()
        return lease

    def settle(self, lease: dict[str, Any], status: int = 200, **report: Any) -> dict[str, Any]:
        answer = self.client.post(f"/api/v1/leases/{lease['lease']}/settle", json={"status": status, **report})
        assert answer.status_code == 200, answer.text
        settled: dict[str, Any] = answer.json()
        return settled

    def account(self, name: str) -> dict[str, Any]:
        rows = self.client.get("/api/v1/accounts", params={"limit": 500}).json()["results"]
        return next(row for row in rows if row["name"] == name)

    def submit(self, pool: str, queue: str = "outside-keen", **columns: Any) -> str:
        payload = {"pool": pool, "method": "POST", "path": "/v1/chat/completions", "json": CHAT}
        body = {"type": "http.request", "project": "outside", "queue": queue, "payload": payload, **columns}
        answer = self.client.post("/api/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, uid: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/api/v1/jobs/{uid}").json()
        return found

    def events(self, since: str, until: Callable[[list[tuple[str, dict[str, Any]]]], bool]) -> list[Any]:
        """Live events as (name, data) from `since` on, until there are those that are waited for."""
        received: list[tuple[str, dict[str, Any]]] = []
        name = ""
        with self.client.stream("GET", "/api/v1/events", params={"since": since}, timeout=60) as answer:
            assert answer.status_code == 200
            deadline = time.monotonic() + 60
            for line in answer.iter_lines():
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    received.append((name, json.loads(line[5:])["data"]))
                    if until(received):
                        return received
                assert time.monotonic() < deadline, received[-20:]
        raise AssertionError("the stream has ended")

    def ended(self, *uids: str, seconds: float = 90.0) -> list[dict[str, Any]]:
        """The jobs, when all of them have come to an end."""
        final = ("completed", "dead", "cancelled")
        left = list(uids)

        def done() -> bool:
            left[:] = [uid for uid in left if self.job(uid)["status"] not in final]
            return not left

        wait_until(done, seconds, lambda: str([self.job(uid) for uid in left[:3]]))
        return [self.job(uid) for uid in uids]


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with (
        Simulator("--dialect", "openai") as sim,
        Simulator("--dialect", "telegram") as bot,
        receiving() as hook,
        running(environ={"SLUICE_LOG_LEVEL": "debug", "SLUICE_ALERT_CALM": "1"}) as instance,
    ):
        document, environ = configuration(sim.base_url, bot.base_url, hook.place)
        instance.environ.update(environ)
        instance.manage("apply", "-", stdin=document)
        with instance.client() as client:
            wait_until(lambda: client.get("/api/v1/pools/lasting").status_code == 200, 10)
            yield Outside(instance, client, sim, bot, hook)


# Results of calls, cooldowns, strategies


def test_each_account_reports_the_results_of_its_calls(outside: Outside) -> None:
    for status in (200, 200, 500, 404):
        outside.settle(outside.lease("counted"), status, latency=0.5)
    lease = outside.lease("counted")
    answer = outside.client.post(f"/api/v1/leases/{lease['lease']}/settle", json={"error": "timeout"})
    assert answer.json()["outcome"] == "timeout"
    row = outside.account("counted-1")
    assert (row["successes"], row["errors"]) == (2, {"server": 1, "validation": 1, "timeout": 1})
    assert 0 < row["health"] < 1 and row["latency"] == pytest.approx(0.5) and row["in_flight"] == 0
    assert row["last_used"] and row["last_error_at"]


def test_a_settle_counts_once_and_an_unknown_lease_is_not_found(outside: Outside) -> None:
    lease = outside.lease("counted")
    before = outside.account("counted-1")["successes"]
    assert [outside.settle(lease, status)["outcome"] for status in (200, 500)] == ["ok", "ok"]
    assert outside.account("counted-1")["successes"] == before + 1
    assert outside.client.post("/api/v1/leases/nobody/settle", json={"status": 200}).status_code == 404


def test_cooldown_keeps_the_providers_time_and_bounds_nonsense(outside: Outside) -> None:
    first, second = outside.lease("cooled"), outside.lease("cooled")
    assert 30 <= outside.settle(first, 429, headers={"retry-after": "30"})["cooldown"] <= 33
    assert 60 <= outside.settle(second, 429, headers={"retry-after": "1e400"})["cooldown"] <= 66, "60 s where it is not"
    shown = outside.account(first["account"])
    assert shown["state"] == "cooling_down" and shown["until"] and shown["why"] == "rate_limited"
    denied = outside.acquire("cooled")
    assert denied.status_code == 429 and denied.json()["reasons"] == {"cooldown": 2}
    assert outside.account(first["account"])["skips"]["cooldown"] >= 1


def test_round_robin_is_even_and_weight_counts(outside: Outside) -> None:
    turns = Counter(outside.lease("even")["account"] for _ in range(12))
    assert turns == {f"even-{number}": 4 for number in (1, 2, 3)}
    outside.settle(outside.lease("even"), 429, headers={"retry-after": "60"})
    left = Counter(outside.lease("even")["account"] for _ in range(8))
    assert sorted(left.values()) == [4, 4]
    assert {outside.lease("weighted")["account"] for _ in range(30)} == {"weighted-1", "weighted-2"}


# All limited


def test_all_limited_reports_the_shortest_wait_over_all_causes_also_for_a_job(outside: Outside) -> None:
    cold, limited = outside.lease("busy"), outside.lease("busy")
    outside.settle(cold, 429, headers={"retry-after": "600"})
    outside.settle(limited)
    asked = []
    for _ in range(2):
        before = time.time()
        answer = outside.acquire("busy")
        asked.append((before, time.time(), answer))
        time.sleep(1.1)  # the answer is to be another one later
    for _, _, answer in asked:
        problem = answer.json()
        assert answer.status_code == 429 and problem["type"] == "/problems/no-account-available"
        assert problem["reasons"] == {"cooldown": 1, "requests": 1}
        assert 0 < problem["retry_after"] <= 15 and "cool" in problem["detail"]
        assert answer.headers["Retry-After"] == str(-int(-problem["retry_after"] // 1))
    (start, begun, earlier), (asked_at, end, later) = asked
    passed = earlier.json()["retry_after"] - later.json()["retry_after"]
    assert asked_at - begun - 0.01 <= passed <= end - start + 0.01, "what is left, not what it was"
    free_at = (asked_at + later.json()["retry_after"], end + later.json()["retry_after"])

    uid = outside.submit("busy")
    wait_until(lambda: outside.job(uid)["status"] == "rate_limited", 10, lambda: str(outside.job(uid)))
    until = outside.client.get(f"/api/v1/jobs/{uid}/explain").json()["until"]
    (job,) = outside.ended(uid)
    assert job["status"] == "completed" and len(job["attempts"]) == 1, "waiting costs no attempt"
    began = _unix(job["attempts"][0]["started_at"])
    assert free_at[0] - 1 <= _unix(until) <= free_at[1] + 1
    assert began >= free_at[0] - 0.01


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_max_wait_waits_for_the_account(outside: Outside) -> None:
    lease = outside.lease("wrapped")
    other = outside.lease("wrapped")
    for one in (lease, other):
        outside.settle(one, 429, headers={"retry-after": "1"})
    assert outside.acquire("wrapped").status_code == 429
    outside.settle(outside.lease("wrapped", max_wait=5))


# Costs


def test_tokens_are_granted_exactly_and_refused_calls_use_none(outside: Outside) -> None:
    key = outside.instance.credentials["platform_key"]

    def ask(_: int) -> int:
        with outside.instance.client(key) as client:
            return client.post("/api/v1/pools/tokens/acquire", json={"cost": {"tokens": 150}}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert Counter(threads.map(ask, range(40))) == {200: 6, 429: 34}
    outside.lease("tokens", cost={"tokens": 100})
    assert outside.acquire("tokens", cost={"tokens": 1}).status_code == 429


def test_a_cost_that_can_never_pass_is_422(outside: Outside) -> None:
    answer = outside.acquire("tokens", cost={"tokens": 1001})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/cost-exceeds-limit")
    assert "Retry-After" not in answer.headers


# Circuit breaker


def test_breaker_opens_and_sends_one_probe(outside: Outside) -> None:
    stale = outside.lease("breaking")
    for _ in range(2):
        outside.settle(outside.lease("breaking"), 503)
    assert outside.account("breaking-1")["state"] == "open"
    assert outside.acquire("breaking").json()["reasons"] == {"breaker_open": 1}
    outside.settle(stale)
    assert outside.account("breaking-1")["state"] == "open", "a late success of before closes nothing"
    wait_until(lambda: outside.account("breaking-1")["state"] == "half_open", 10)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: outside.acquire("breaking"), range(8)))
    (probe,) = [answer.json() for answer in answers if answer.status_code == 200]
    assert {str(answer.json()["reasons"]) for answer in answers if answer.status_code == 429} == {"{'probing': 1}"}
    outside.settle(probe)
    assert outside.account("breaking-1")["state"] == "available"


# Learned limits, pausing, concurrency, limits per key


def test_limits_are_learned_from_headers(outside: Outside) -> None:
    reported = {
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "54s",
    }
    settled = outside.settle(
        outside.lease("learning", cost={"tokens": 10}), 200, headers=reported, usage={"tokens": 10}
    )
    assert settled["learned"]["tokens"]["remaining"] == 100
    assert outside.account("learning-1")["learned"]["tokens"]["limit"] == 1000
    denied = outside.acquire("learning", cost={"tokens": 500})
    assert denied.status_code == 429 and denied.json()["reasons"] == {"tokens": 1}
    assert 15 < denied.json()["retry_after"] < 25, "400 tokens at 1,000 a minute"
    outside.settle(outside.lease("learning", cost={"tokens": 20}), 200, headers={"x-ratelimit-limit-tokens": "many"})


def test_low_priorities_wait_from_the_threshold_on(outside: Outside) -> None:
    for _ in range(8):
        outside.lease("pausing")
    denied = outside.acquire("pausing", priority="low")
    assert denied.status_code == 429 and denied.json()["reasons"] == {"paused": 1}
    outside.lease("pausing", priority="normal")
    shown = outside.account("pausing-1")
    assert shown["state"] == "paused" and "80%" in shown["why"]


def test_concurrency_goes_down_with_errors_and_is_enforced(outside: Outside) -> None:
    def moved() -> bool:
        outside.settle(outside.lease("adapting"), 503)
        return bool(outside.account("adapting-1")["concurrency"] == 8)

    assert outside.account("adapting-1")["concurrency"] == 10
    wait_until(moved, 30, "twenty results and two seconds")
    for _ in range(8):
        outside.lease("adapting")
    denied = outside.acquire("adapting")
    assert denied.status_code == 429 and denied.json()["reasons"] == {"concurrency": 1}


def test_telegrams_preset_limits_each_chat_separately(outside: Outside) -> None:
    chat, group = uuid.uuid4().hex, f"-{uuid.uuid4().int}"
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: outside.acquire("telegram", key=chat), range(16)))
    waiting = [answer.json() for answer in answers if answer.status_code == 429]
    assert waiting and all(one["reasons"] == {"key": 1} and one["retry_after"] <= 1 for one in waiting)
    lease = outside.lease("telegram", key=group)
    refused = outside.settle(lease, 429, body='{"ok":false,"error_code":429,"parameters":{"retry_after":35}}')
    assert refused["outcome"] == "rate_limited" and 35 <= refused["cooldown"] <= 38.5
    denied = outside.acquire("telegram", key=group)
    assert denied.status_code == 429 and 30 < denied.json()["retry_after"] <= 38.5
    outside.lease("telegram", key=uuid.uuid4().hex)
    assert outside.account("bot")["state"] == "available"


# Python callers

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
record = lambda status: print("status", status.kind, status.attempt, status.of, str(status))
for _ in range(2):  # by turns: one of them meets the account that is refused
    print("sync", pool.call(call, tokens=10, request_id="chat_1", on_status=record, max_wait=30).status_code)
print("async", asyncio.run(pool.call_async(call_async, tokens=10, on_status=record, max_wait=30)).status_code)
try:
    pool.call(call, request_id="chat_2", on_status=record, attempts=2, max_wait=30)
except Exception as error:
    print("error", type(error).__name__, error)
print("accounts", len(set(seen)))
"""


def test_python_callers_share_the_pool_and_get_each_status(outside: Outside) -> None:
    outside.settle(outside.lease("wrapped", max_wait=5))
    outside.sim.faults({"key": credential("wrapped", 1), "status": 429, "headers": {"retry-after": "1"}})
    try:
        ran = outside.instance.manage("shell", "-c", SCRIPT.replace("{chat}", repr(CHAT)))
    finally:
        outside.sim.faults()
    lines = ran.stdout.splitlines()
    assert {"sync 200", "async 200"} <= set(lines), ran.stdout + ran.stderr
    kinds = [line.split()[1] for line in lines if line.startswith("status ")]
    assert "retry" in kinds and "recovered" in kinds, ran.stdout
    assert any(re.search(r"chat_1: rate_limited, retry 2 of 5 in \d", line) for line in lines), ran.stdout
    assert "accounts 2" in lines
    assert SECRET not in ran.stdout + ran.stderr


# Fallback and sticky keys


def test_a_full_pool_falls_back_and_explains_all_reasons(outside: Outside) -> None:
    assert [outside.lease("first")["account"] for _ in range(3)] == ["first-1", "second-1", "second-1"]
    outside.settle(outside.lease("first"), 429, headers={"retry-after": "60"})
    denied = outside.acquire("first")
    assert denied.status_code == 429 and denied.json()["reasons"] == {"requests": 1, "cooldown": 1}
    assert denied.json()["retry_after"] <= 66, "the earlier of both pools"


def test_a_conversation_stays_on_its_account_while_it_can(outside: Outside) -> None:
    mine = [outside.lease("sticky", key="conversation") for _ in range(5)]
    assert len({lease["account"] for lease in mine}) == 1
    assert {outside.lease("sticky")["account"] for _ in range(3)} == {"sticky-1", "sticky-2", "sticky-3"}
    outside.settle(mine[0], 429, headers={"retry-after": "60"})
    moved = {outside.lease("sticky", key="conversation")["account"] for _ in range(3)}
    assert len(moved) == 1 and moved != {mine[0]["account"]}


# Many failures at once


def test_many_failures_at_once_fail_no_job_and_pass_except_for_the_invalid_key(outside: Outside) -> None:
    stormy = [credential("stormy", number) for number in range(1, 5)]
    begin = datetime.now(UTC).isoformat()
    outside.sim.faults(
        {"key": stormy[0], "status": 429, "headers": {"retry-after": "2"}},
        {"key": stormy[1], "status": 503},
        {"key": stormy[2], "latency": 1.5},
        {"invalid_key": stormy[3]},
    )
    jobs: list[dict[str, Any]] = []

    def met() -> bool:
        """Whether each of the four was asked often enough to show what is wrong with it."""
        jobs.extend(outside.ended(*[outside.submit("stormy") for _ in range(40)], seconds=150))
        errors = [outside.account(f"stormy-{number}")["errors"] for number in (1, 2, 4)]
        return bool(errors[0] and errors[1].get("server", 0) >= 2 and errors[2])

    try:
        wait_until(met, 150, lambda: str(outside.client.get("/api/v1/pools/stormy").json()))
    finally:
        outside.sim.faults({"invalid_key": stormy[3]})
    assert {job["status"] for job in jobs} == {"completed"}
    carried = Counter(job["attempts"][-1]["account"].rpartition("/")[2] for job in jobs)
    assert carried["stormy-5"] + carried["stormy-6"] >= 0.6 * len(jobs), carried
    refused, dead, slow, invalid = (outside.account(f"stormy-{number}") for number in range(1, 5))
    assert refused["errors"]["rate_limited"] >= 1 and refused["last_error"]
    assert dead["errors"]["server"] >= 1 and dead["last_error"]
    assert (slow["errors"], slow["state"]) == ({}, "available") and slow["latency"] > 1.4
    assert invalid["state"] == "disabled" and invalid["why"] and invalid["last_error"]
    assert 1 <= invalid["errors"]["auth"] <= 10, "those that were on their way"

    def recovered() -> bool:
        outside.ended(*[outside.submit("stormy") for _ in range(4)])
        return [outside.account(f"stormy-{number}")["state"] for number in range(1, 7)] == [
            "disabled" if number == 4 else "available" for number in range(1, 7)
        ]

    wait_until(recovered, 60, lambda: str(outside.client.get("/api/v1/pools/stormy").json()))
    last = outside.submit("stormy")
    outside.ended(last)
    received = outside.events(begin, lambda all_: all_[-1][0] == "job.completed" and all_[-1][1]["job"] == last)
    reported = Counter(
        (name, data["account"]) for name, data in received if data.get("pool") == "stormy" and "account" in data
    )
    assert reported["account.disabled", "stormy-4"] == 1, "one event"
    assert reported["breaker.opened", "stormy-2"] >= 1 and reported["breaker.closed", "stormy-2"] == 1
    assert reported["breaker.half_open", "stormy-2"] == reported["breaker.opened", "stormy-2"]
    assert SECRET not in str(received)

    def alerts() -> dict[tuple[str, str], list[dict[str, Any]]]:
        rows = outside.client.get("/api/v1/alerts", params={"limit": 500}).json()["results"]
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            found.setdefault((row["kind"], row["subject"]), []).append(row)
        return found

    (refused_key,) = alerts()["account_auth_failed", "stormy/stormy-4"]
    assert refused_key["resolved_at"] is None and refused_key["severity"] == "critical"
    wait_until(
        lambda: all(row["resolved_at"] for row in alerts()["breaker_opened", "stormy/stormy-2"]), 60, str(alerts())
    )
    wait_until(lambda: ("alert.resolved", "stormy/stormy-2") in notices(outside), 30, lambda: str(notices(outside)))
    sent = notices(outside)
    assert sent.count(("alert.raised", "stormy/stormy-4")) == 1, "one alert, reported once"
    assert ("alert.resolved", "stormy/stormy-4") not in sent
    assert sent.index(("alert.raised", "stormy/stormy-2")) < sent.index(("alert.resolved", "stormy/stormy-2"))
    raised = [data for name, data in outside.events(begin, lambda all_: ends_with(all_, "alert.resolved"))]
    assert [data["kind"] for data in raised if data.get("subject") == "stormy/stormy-4"] == ["account_auth_failed"]

    # Another key brings it back, and the alert ends.
    row = outside.account("stormy-4")
    outside.sim.faults()
    enabled = outside.client.post(f"/api/v1/accounts/{row['id']}/enable", json={"reason": "paid"})
    assert enabled.status_code == 200
    wait_until(lambda: ("alert.resolved", "stormy/stormy-4") in notices(outside), 60, lambda: str(notices(outside)))


def notices(outside: Outside) -> list[tuple[str, str]]:
    """(event, subject) of what the rule's address got."""
    return [(body["type"], body["data"]["subject"]) for _, _, body in list(outside.hook.got)]


def ends_with(received: list[tuple[str, dict[str, Any]]], name: str) -> bool:
    return received[-1][0] == name


# Secrets


def forms(secret: str) -> list[bytes]:
    """A secret as it may be written: plain, or in base64 at any offset."""
    found = [secret.encode()]
    for offset in range(3):
        coded = base64.b64encode(b"x" * offset + secret.encode()).decode().rstrip("=")
        found.append(coded[4:-4].encode())
    return found


def test_no_secret_shows_anywhere_even_if_the_provider_echoes_it(outside: Outside) -> None:
    echo = {"body": '{"error": {"message": "no: {credential}", "code": "{credential}"}}'}
    uids: list[str] = []

    def settled() -> bool:
        return all(outside.job(uid)["status"] in ("completed", "dead", "rate_limited") for uid in uids)

    def enable_all() -> None:
        for name in ("echoing-1", "echoing-2", "bot"):
            row = outside.account(name)
            outside.client.post(f"/api/v1/accounts/{row['id']}/enable", json={"reason": "on with the test"})

    for status in (200, 400, 401, 403, 429, 500):
        owns = [credential("echoing", number) for number in (1, 2)]
        outside.sim.faults(*({"key": own, "status": status, "headers": {"x-echo": own}, **echo} for own in owns))
        uids.append(outside.submit("echoing", queue="outside-once"))
        outside.bot.faults({"status": status, **echo})
        body = {"pool": "telegram", "method": "POST", "path": "/sendMessage", "json": {"chat_id": 1, "text": "x"}}
        uids.append(outside.submit("telegram", queue="outside-once", payload=body, keys={"chat": str(status)}))
        wait_until(settled, 60, lambda: str([outside.job(uid) for uid in uids[-2:]]))
        enable_all()  # a job whose credential is refused tries the other account too
        lease = outside.lease("echoing", max_wait=5)
        own = credential("echoing", int(lease["account"][-1]))
        outside.settle(lease, status, body=echo["body"].replace("{credential}", own), headers={"retry-after": "1"})
        enable_all()
    outside.sim.faults()
    outside.bot.faults()
    assert {outside.job(uid)["status"] for uid in uids} >= {"completed", "dead"}, "calls were made and failed"

    places: dict[str, bytes] = {}
    for path in outside.instance.data_dir.rglob("*"):
        if path.is_file():
            places[str(path)] = path.read_bytes()
    assert any("log" in name and places[name] for name in places)
    places["output of up"] = "\n".join(outside.instance.lines).encode()
    places["export"] = outside.instance.manage("export").stdout.encode()
    with outside.instance.redis() as client:
        for key in client.scan_iter(count=1000):
            places[f"redis {key!r}"] = key + (client.dump(key) or b"") + _plain(client, key)
    paths = [
        "alerts",
        "accounts",
        "pools",
        "jobs?limit=500",
        "queue/requests",
        "dead-letters",
        "dead-letters/groups",
        "audit",
    ]
    paths += [f"pools/{name}/explain" for name in ("echoing", "telegram")]
    paths += [f"jobs/{uid}{more}" for uid in uids for more in ("", "/timeline", "/explain")]
    for path in paths:
        answer = outside.client.get(f"/api/v1/{path}")
        assert answer.status_code == 200, (path, answer.text)
        places[path] = answer.content
    places["metrics"] = httpx.get(f"{outside.instance.url}/metrics").content
    places |= admin_pages(outside)
    masked = [name for name, data in places.items() if b"[redacted]" in data and name.startswith("jobs/")]
    assert masked, "the provider has echoed"
    needles = [form for secret in (SECRET, BOT) for form in forms(secret)]
    leaks = [
        (name, data[max(at - 80, 0) : at + 20])
        for name, data in places.items()
        for needle in needles
        if (at := data.find(needle)) >= 0
    ]
    assert leaks == []


def _plain(client: Any, key: bytes) -> bytes:
    """A key's value as it is, since a dump may be compressed."""
    readers = {
        b"string": lambda: client.get(key),
        b"hash": lambda: client.hgetall(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"stream": lambda: client.xrange(key),
    }
    kind = client.type(key)
    return repr(readers[kind]()).encode() if kind in readers else b""


def admin_pages(outside: Outside) -> dict[str, bytes]:
    """What an administrator sees of accounts, jobs and the trail: lists and each page that they link to."""
    known = outside.instance.credentials
    pages: dict[str, bytes] = {}
    with httpx.Client(base_url=outside.instance.url, follow_redirects=True, timeout=30) as browser:
        form = browser.get("/admin/login/").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
        assert token
        fields = {
            "csrfmiddlewaretoken": token[1],
            "username": known["admin_username"],
            "password": known["admin_password"],
            "next": "/admin/",
        }
        assert browser.post("/admin/login/", data=fields, headers={"Referer": outside.instance.url}).status_code == 200
        front = browser.get("/admin/")
        assert "/admin/logout/" in front.text, "logged in"
        lists = sorted(set(re.findall(r'href="(/admin/(?:quotas|queues|controlplane)/[a-z]+/)"', front.text)))
        assert any("account" in path for path in lists) and any("job" in path for path in lists), lists
        for path in ["/admin/", *lists]:
            page = browser.get(path)
            assert page.status_code == 200, path
            pages[path] = page.content
            for link in sorted(set(re.findall(rf'href="({path}[^"/?]+/change/)', page.text)))[:12]:
                pages[link] = browser.get(link).content
                if found := re.fullmatch(r"/admin/quotas/account/(\d+)/change/", link):
                    live = f"/admin/live/account?pk={found[1]}"
                    pages[live] = browser.get(live).content
                    assert b"Last rate-limit headers" in pages[live]
    assert sum("/account/" in path for path in pages) > 2
    return pages


# The last, since it empties Redis


def test_the_state_of_accounts_survives_a_loss_of_redis(outside: Outside) -> None:
    lease = outside.lease("lasting")
    outside.settle(lease, 429, headers={"retry-after": "600"})
    query = "SELECT state FROM quotas_account WHERE name = ?"

    def stored() -> bool:
        return outside.instance.rows(query, lease["account"]) == [("cooling_down",)]

    wait_until(stored, 30, "the flusher")
    outside.instance.flushall()
    wait_until(lambda: outside.account(lease["account"])["state"] == "cooling_down", 30)
    assert {outside.lease("lasting")["account"] for _ in range(4)} == {"lasting-1", "lasting-2"} - {lease["account"]}
