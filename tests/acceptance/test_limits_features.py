"""Limits over REST, on the command line and in a Django project's own views, on a real instance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.acceptance.test_front import EventListener
from tests.support.instance import BASE_DIR, Instance, running, wait_until
from tests.support.valkey import free_port

WORLD = """
version: 1
tiers: [{{name: gold, users: [rich]}}]
projects: [{{slug: rows}}, {{slug: costs}}, {{slug: moving}}, {{slug: waits}}, {{slug: modes}}, {{slug: shop}}, {{slug: tight}},
           {{slug: resets}}, {{slug: used}}, {{slug: blocks}}, {{slug: past}}, {{slug: live}}, {{slug: plans, tier: gold}}, {{slug: poor}}, {{slug: nets}}]
networks: [{{name: rows-office, action: allow, cidrs: [198.51.100.0/24]}}, {{name: rows-foes, action: deny, cidrs: ["2001:db8:bad::/48"]}}]
cost_rules: [{{match: "POST /rows/embeddings", cost: {{requests: 5}}}}]
overrides: [{{policy: tiers-user, key: guest, limit: 3, until: "{soon}", reason: a visit}}]
policies:
  - {{name: alg-sw, project: rows, scope: custom, key_name: sw, algorithm: sliding_window, limit: 3, window: 1h}}
  - {{name: alg-sc, project: rows, scope: custom, key_name: sc, algorithm: sliding_window_counter, limit: 3, window: 1h}}
  - {{name: alg-tb, project: rows, scope: custom, key_name: tb, algorithm: token_bucket, limit: 3, window: 1h}}
  - {{name: alg-fw, project: rows, scope: custom, key_name: fw, algorithm: fixed_window, limit: 3, window: 365d}}
  - {{name: alg-ca, project: rows, scope: custom, key_name: ca, algorithm: calendar, limit: 3, period: day, timezone: Europe/Berlin}}
  - {{name: alg-cc, project: rows, scope: custom, key_name: cc, algorithm: concurrency, limit: 3, lease_ttl: 2s}}
  - {{name: alg-quick, project: rows, scope: custom, key_name: quick, algorithm: token_bucket, limit: 2, window: 3s, burst: 1}}
  - {{name: scope-ip, project: rows, scope: ip, algorithm: fixed_window, limit: 100, window: 365d}}
  - {{name: scope-user, project: rows, scope: user, algorithm: fixed_window, limit: 100, window: 365d}}
  - {{name: scope-project, project: rows, scope: project, algorithm: fixed_window, limit: 100000, window: 365d}}
  - {{name: scope-endpoint, project: rows, scope: endpoint, match: "POST /rows/*", algorithm: fixed_window, limit: 1000, window: 365d}}
  - {{name: scope-bot, project: rows, scope: custom, key_name: bot, algorithm: fixed_window, limit: 1, window: 365d}}
  - {{name: cost-requests, project: costs, scope: user, algorithm: fixed_window, limit: 100, window: 365d}}
  - {{name: cost-tokens, project: costs, scope: user, unit: tokens, algorithm: fixed_window, limit: 1000, window: 365d}}
  - {{name: cost-money, project: costs, scope: user, unit: money, algorithm: fixed_window, limit: 5000000, window: 365d}}
  - {{name: adaptive-user, project: moving, scope: user, algorithm: fixed_window, limit: 100, window: 365d, adaptive: {{floor: 10, ceiling: 200, interval: 1s}}}}
  - {{name: wait-all, project: waits, scope: project, algorithm: token_bucket, limit: 4, window: 1s, burst: 1}}
  - {{name: modes-trial, project: modes, scope: user, algorithm: fixed_window, limit: 1, window: 365d, mode: shadow}}
  - {{name: modes-user, project: modes, scope: user, algorithm: fixed_window, limit: 2, window: 365d, exempt: [boss], excluded_paths: [/open/*]}}
  - {{name: django-user, project: shop, scope: user, algorithm: fixed_window, limit: 3, window: 365d}}
  - {{name: django-ip, project: shop, scope: ip, algorithm: fixed_window, limit: 6, window: 365d}}
  - {{name: django-chat, project: shop, scope: custom, key_name: chat, algorithm: fixed_window, limit: 1, window: 365d}}
  - {{name: paused-jobs, project: tight, scope: project, algorithm: fixed_window, limit: 20, window: 365d, pause_at: 0.5}}
  - {{name: reset-user, project: resets, scope: user, algorithm: fixed_window, limit: 2, window: 365d}}
  - {{name: usage-user, project: used, scope: user, algorithm: calendar, limit: 4, period: month}}
  - {{name: blocks-user, project: blocks, scope: user, algorithm: fixed_window, limit: 100, window: 365d}}
  - {{name: past-user, project: past, scope: user, algorithm: fixed_window, limit: 6, window: 365d}}
  - {{name: tiers-user, tier: gold, scope: user, algorithm: fixed_window, limit: 2, window: 365d}}
  - {{name: nets-ip, project: nets, scope: ip, algorithm: fixed_window, limit: 1, window: 365d}}
"""
CHECK = "/api/v1/limits/check"


@pytest.fixture(scope="module")
def world() -> Iterator[Instance]:
    """An instance with all that these tests need, in force."""
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    with running(environ={"SLUICE_TASK_MODULES": "tests.acceptance.tasks"}) as instance:
        instance.manage("apply", "-", stdin=WORLD.format(soon=soon))
        with instance.client() as client:
            peek = {"project": "nets", "ip": "203.0.113.1", "dry_run": True}
            wait_until(lambda: client.post(CHECK, json=peek).is_success)
        yield instance


@pytest.fixture
def client(world: Instance) -> Iterator[httpx.Client]:
    with world.client() as client:
        yield client


def check(client: httpx.Client, project: str, **asked: Any) -> httpx.Response:
    return client.post(CHECK, json={"project": project, **asked})


def state(answer: httpx.Response, policy: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in answer.json()["limits"] if one["policy"] == policy)
    return found


@pytest.mark.parametrize("key", ["sw", "sc", "tb", "fw", "ca", "cc"])
def test_each_algorithm_admits_its_limit_and_no_more(client: httpx.Client, key: str) -> None:
    answers = [check(client, "rows", keys={key: "x"}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    denied = state(answers[3], f"alg-{key}")
    assert answers[3].json()["binding"] == f"alg-{key}" and denied["remaining"] == 0
    if key == "ca":
        berlin = datetime.now(ZoneInfo("Europe/Berlin"))
        midnight = (berlin + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        left = midnight.timestamp() - berlin.timestamp()
        assert abs(denied["reset_after"] - left) < 60 or left > 86340
    if key == "cc":
        reservation = answers[0].json()["reservation"]
        assert client.post("/api/v1/limits/settle", json={"reservation": reservation}).status_code == 200
        assert check(client, "rows", keys={key: "x"}).status_code == 200, "a slot that was freed"
        assert check(client, "rows", keys={key: "x"}).status_code == 429
        wait_until(lambda: check(client, "rows", keys={key: "x"}, dry_run=True).is_success, 20, "leases expire")


def test_one_request_is_checked_in_all_scopes_and_charged_by_all_or_none(client: httpx.Client) -> None:
    asked = {"ip": "203.0.113.7", "user": "u-2", "endpoint": "/rows/x", "method": "POST", "keys": {"bot": "b"}}
    first = check(client, "rows", **asked)
    names = ["scope-ip", "scope-user", "scope-project", "scope-endpoint", "scope-bot"]
    assert [one["policy"] for one in first.json()["limits"]] == names
    assert [one["key"] for one in first.json()["limits"]] == ["203.0.113.7", "u-2", "rows", "POST /rows/*", "b"]
    before = {row["policy"]: row["used"] for row in usage(client, project="rows")}
    denied = check(client, "rows", **asked)
    assert denied.status_code == 429 and denied.json()["violated-policies"] == ["scope-bot"]
    assert {row["policy"]: row["used"] for row in usage(client, project="rows")} == before


def test_odd_subjects_never_share_a_counter_and_equal_ones_always_do(client: httpx.Client) -> None:
    odd = ["a:c", "a", "c", "{x}", "x", "a\nc", "a c", "*", "rows", "\u00e9", "e\u0301", "1", "01", "A", "a%3Ac"]
    long = "y" * 1023
    for subject in (*odd, long + "1", long + "2"):
        assert check(client, "rows", keys={"bot": subject}).status_code == 200, subject
    for subject in (*odd, long + "1", long + "2"):
        assert check(client, "rows", keys={"bot": subject}).status_code == 429, subject
    refused = check(client, "rows", keys={"bot": "y" * 10_240})
    assert refused.status_code == 400, "not cut to a name that another one has"


def usage(client: httpx.Client, **query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get("/api/v1/limits/usage", params=query).json()["results"]
    return rows


def test_costs_in_several_units_by_rule_and_settled_with_the_actual_use(client: httpx.Client) -> None:
    by_rule = check(client, "costs", user="r", endpoint="/rows/embeddings", method="POST")
    assert state(by_rule, "cost-requests")["remaining"] == 95
    cost = {"tokens": 800, "money": 1_500_000}
    admitted = check(client, "costs", user="u", cost=cost)
    assert [state(admitted, f"cost-{unit}")["remaining"] for unit in ("requests", "tokens", "money")] == [
        99,
        200,
        3_500_000,
    ]
    assert check(client, "costs", user="u", cost={"tokens": 201}).status_code == 429
    assert check(client, "costs", user="u", cost={"tokens": 1001}).status_code == 422
    settle = {"reservation": admitted.json()["reservation"], "actual": {"tokens": 300, "money": 2_000_000}}
    settled = client.post("/api/v1/limits/settle", json=settle)
    assert settled.json()["refunded"] == {"tokens": 500, "money": -500_000}
    assert client.post("/api/v1/limits/settle", json=settle).json() == settled.json(), "once"
    after = check(client, "costs", user="u", cost=0, dry_run=True)
    assert [state(after, f"cost-{unit}")["remaining"] for unit in ("tokens", "money")] == [700, 3_000_000]


def test_a_denial_says_what_bound_and_when_the_same_request_passes(client: httpx.Client) -> None:
    asked: dict[str, Any] = {"keys": {"quick": "k"}}
    assert check(client, "rows", **asked).status_code == 200
    denied = check(client, "rows", **asked)
    wait = int(denied.headers["Retry-After"])
    body = denied.json()
    assert denied.status_code == 429 and denied.headers["Content-Type"].startswith("application/problem+json")
    assert body["type"] == "/problems/quota-exceeded" and body["violated-policies"] == ["alg-quick"]
    assert 0 < body["retry_after"] <= wait < body["retry_after"] + 1 and 1 <= wait <= 2
    assert denied.headers["RateLimit"] == f'"alg-quick";r=0;t={wait}'
    assert denied.headers["RateLimit-Policy"].startswith('"alg-quick";q=2;w=3')
    trio = [denied.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")]
    assert trio == ["2", "0", str(wait)]
    time.sleep(wait)  # exactly as long as the response says
    assert check(client, "rows", **asked).status_code == 200


def test_an_adaptive_limit_goes_down_with_errors_and_says_why(client: httpx.Client, world: Instance) -> None:
    listener = EventListener(world)
    report = {"project": "moving", "user": "u", "status": 503, "latency": 0.2, "count": 50}
    assert client.post("/api/v1/limits/outcomes", json=report).json() == {"heard": ["adaptive-user"]}
    wait_until(lambda: state(check(client, "moving", user="u", dry_run=True), "adaptive-user")["limit"] == 70, 20)
    check(client, "moving", user="u")
    row = usage(client, policy="adaptive-user", project="moving", key="u")[0]
    assert row["limit"] == 70 and row["adaptive"]["configured"] == 100 and "100%" in row["adaptive"]["why"]
    wait_until(lambda: any(name == "limit.adapted" for _, name, _ in listener.received), 20)
    reported = next(data for _, name, data in listener.received if name == "limit.adapted")["data"]
    assert (reported["policy"], reported["before"], reported["after"]) == ("adaptive-user", 100, 70) and reported["why"]


def test_waiting_callers_are_served_in_order_of_arrival(client: httpx.Client, world: Instance) -> None:
    admitted = check(client, "waits", cost={"requests": 1, "tokens": 1})
    served: list[int] = []

    def wait(number: int) -> None:
        with world.client() as own:
            if check(own, "waits", max_wait=50).status_code == 200:
                served.append(number)

    with world.redis() as redis, ThreadPoolExecutor(8) as pool:
        # Overdrawn by 3 s of refill, so that all have come before the first one passes.
        settled = {"reservation": admitted.json()["reservation"], "actual": {"requests": 13}}
        assert admitted.json()["reservation"] is None or client.post("/api/v1/limits/settle", json=settled).is_success
        for number in range(8):
            pool.submit(wait, number)
            wait_until(lambda number=number: _standing(redis) + len(served) > number, 30)  # type: ignore[misc]
    assert served == list(range(8))
    refused = check(client, "waits", max_wait=0.01)
    assert refused.status_code in (200, 429)


def _standing(redis: Any) -> int:
    lines = [key for key in redis.scan_iter(match="{sl}:w:*") if redis.type(key) == b"zset" and not key.endswith(b":e")]
    return sum(redis.zcard(line) for line in lines)


def test_bypass_needs_its_scope_and_is_counted_and_audited(client: httpx.Client, world: Instance) -> None:
    made = world.manage("apikey", "create", "--name", "plain", "--platform", "--scopes", "check").stdout.strip()
    user = {"user": "emergency"}
    for _ in range(2):
        check(client, "resets", **user)
    assert check(client, "resets", **user).status_code == 429
    with world.client(made) as plain:
        assert check(plain, "resets", **user, bypass=True).status_code == 403
    passed = check(client, "resets", **user, bypass=True)
    assert passed.status_code == 200 and passed.json()["bypassed"] is True
    entry = client.get("/api/v1/audit", params={"verb": "limit.bypass"}).json()["results"][0]
    assert entry["target"] == "project:resets" and entry["after"]["user"] == "emergency"


def test_without_redis_each_policy_follows_its_setting_and_recovers(fresh_instance: Instance) -> None:
    fresh_instance.manage("apply", "-", stdin="""
version: 1
policies:
  - {name: open, scope: custom, key_name: open, algorithm: fixed_window, limit: 5, window: 365d, on_redis_down: fail_open}
  - {name: closed, scope: custom, key_name: closed, algorithm: fixed_window, limit: 5, window: 365d}
""")  # fmt: skip
    with fresh_instance.client() as client:
        wait_until(lambda: client.post(CHECK, json={"keys": {"open": "x"}, "dry_run": True}).json()["limits"])
        listener = EventListener(fresh_instance)
        with stopped(fresh_instance.redis_pid):
            statuses = [client.post(CHECK, json={"keys": {"open": "x"}}) for _ in range(8)]
            assert [answer.status_code for answer in statuses] == [200] * 5 + [429] * 3, "the policy's own limit"
            assert all(answer.json()["degraded"] for answer in statuses)
            closed = client.post(CHECK, json={"keys": {"closed": "x"}})
            assert closed.status_code == 503 and closed.json()["type"] == "/problems/limiter-unavailable"
            assert int(closed.headers["Retry-After"]) >= 1
            both = client.post(CHECK, json={"keys": {"open": "y", "closed": "x"}})
            assert both.status_code == 503, "no way round the closed one"
        wait_until(lambda: client.post(CHECK, json={"keys": {"closed": "x"}, "dry_run": True}).is_success, 10)
        answer = client.post(CHECK, json={"keys": {"open": "x"}})
        assert answer.status_code == 200 and answer.json()["degraded"] is False
        wait_until(lambda: {"limit.degraded", "limit.recovered"} <= {name for _, name, _ in listener.received}, 20)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process hangs: its connections stay open, and nothing is answered."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_shadow_policies_exempt_subjects_and_excluded_paths(client: httpx.Client) -> None:
    answers = [check(client, "modes", user="u") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    trial = state(answers[1], "modes-trial")
    assert trial["mode"] == "shadow" and trial["allowed"] is False, "it would have denied"
    assert answers[2].json()["violated-policies"] == ["modes-user"]
    assert [check(client, "modes", user="boss").status_code for _ in range(5)] == [200] * 5
    assert [check(client, "modes", user="u", endpoint="/open/door").status_code for _ in range(5)] == [200] * 5
    assert check(client, "modes", user="u", endpoint="/other").status_code == 429


def test_a_separate_django_project_is_limited_by_middleware_decorator_and_throttle(world: Instance) -> None:
    port = free_port()
    environ = {
        **world.environ,
        "DJANGO_SETTINGS_MODULE": "tests.example.settings",
        "SLUICE_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    command = [sys.executable, "manage.py", "runserver", "--noreload", "--skip-checks", f"127.0.0.1:{port}"]
    server = subprocess.Popen(
        command, cwd=BASE_DIR, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as web:
            wait_until(lambda: _answers(web), 60)
            seven = [web.get("/plain", headers={"X-Forwarded-For": "203.0.113.50"}) for _ in range(7)]
            assert [answer.status_code for answer in seven] == [200] * 6 + [429]
            assert seven[0].headers["X-RateLimit-Remaining"] == "5" and int(seven[6].headers["Retry-After"]) >= 1
            assert seven[6].json()["violated-policies"] == ["django-ip"]
            spoofed = {"X-Forwarded-For": "192.0.2.99, 203.0.113.50"}
            assert web.get("/plain", headers=spoofed).status_code == 429, "what a client writes itself is not believed"
            ipv6 = {"X-Forwarded-For": "2001:db8:1:2::1"}
            for n in range(6):
                assert web.get("/plain", headers={"X-Forwarded-For": f"2001:db8:1:2::{n + 1}"}).status_code == 200
            assert web.get("/plain", headers=ipv6).status_code == 429, "one caller has all of a /64"
            assert web.get("/health", headers=ipv6).status_code == 200
            orders = {"X-Customer": "c-1", "X-Forwarded-For": "203.0.113.51"}
            assert [web.get("/orders", headers=orders).status_code for _ in range(4)] == [200, 200, 200, 429]
            chat = {"X-Forwarded-For": "203.0.113.52"}
            assert [web.get("/chats/7/send", headers=chat).status_code for _ in range(2)] == [200, 429]
            search = {"X-Forwarded-For": "203.0.113.53"}  # one by the middleware and two by the throttle, each time
            assert [web.get("/search", headers=search).status_code for _ in range(3)] == [200, 200, 429]
    finally:
        server.kill()
        server.wait()


def _answers(web: httpx.Client) -> bool:
    try:
        return web.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_thresholds_are_reported_once_and_pause_low_priorities_until_a_reset(
    client: httpx.Client, world: Instance
) -> None:
    listener = EventListener(world)
    for _ in range(12):
        assert check(client, "tight").status_code == 200
    low, normal = (submit(client, priority) for priority in ("low", "normal"))
    wait_until(lambda: status(client, normal) == "completed", 30)
    wait_until(lambda: _crossings(listener) == [0.6], 30)
    assert status(client, low) in ("pending", "rate_limited"), "from half of the limit on low ones wait"
    for _ in range(6):
        check(client, "tight")
    wait_until(lambda: _crossings(listener)[-1:] == [0.95], 30)
    assert _crossings(listener) in ([0.6, 0.8, 0.95], [0.6, 0.95])
    assert status(client, low) in ("pending", "rate_limited")
    reset = {"policy": "paused-jobs", "project": "tight", "reason": "a new period"}
    assert client.post("/api/v1/limits/reset", json=reset).json() == {"reset": 1}
    wait_until(lambda: status(client, low) == "completed", 60, "it goes on by itself")
    reported = len(_crossings(listener))
    for _ in range(12):
        check(client, "tight")
    wait_until(lambda: len(_crossings(listener)) > reported, 30, "after a reset they are reported again")
    assert _crossings(listener)[reported:] == [0.6]


def submit(client: httpx.Client, priority: str) -> str:
    job = {"type": "t.echo", "queue": "batch", "project": "tight", "priority": priority}
    answer = client.post("/api/v1/jobs", json=job)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def status(client: httpx.Client, job: str) -> str:
    return str(client.get(f"/api/v1/jobs/{job}").json()["status"])


def _crossings(listener: EventListener) -> list[float]:
    return [
        data["data"]["share"]
        for _, name, data in listener.received
        if name == "limit.threshold" and data["data"]["policy"] == "paused-jobs"
    ]


def test_reset_and_peek(client: httpx.Client) -> None:
    for user in ("ann", "bob"):
        assert [check(client, "resets", user=user).status_code for _ in range(3)] == [200, 200, 429]
    for _ in range(3):
        assert check(client, "resets", user="eve", dry_run=True).is_success, "a peek consumes nothing"
    for path in ("limits/reset", "rate-limiter/reset"):
        assert client.post(f"/api/v1/{path}", json={"policy": "reset-user"}).status_code == 400, "why?"
    one = {"policy": "reset-user", "project": "resets", "key": "ann", "reason": "her mistake"}
    assert client.post("/api/v1/limits/reset", json=one).json() == {"reset": 1}
    assert check(client, "resets", user="ann").status_code == 200
    assert check(client, "resets", user="bob").status_code == 429
    all_of_it = {"project": "resets", "all": True, "reason": "a new start"}
    assert client.post("/api/v1/rate-limiter/reset", json=all_of_it).json()["reset"] >= 2
    assert check(client, "resets", user="bob").status_code == 200
    entries = client.get("/api/v1/audit", params={"verb": "limit.reset"}).json()["results"]
    assert {"her mistake", "a new start"} <= {entry["reason"] for entry in entries}


def test_usage_now_and_over_time(client: httpx.Client) -> None:
    for _ in range(6):
        check(client, "used", user="u")
    (row,) = usage(client, policy="usage-user", project="used")
    assert (row["key"], row["used"], row["limit"], row["remaining"], row["ratio"]) == ("u", 4, 4, 0, 1.0)
    assert 0 < row["reset_after"] <= 31 * 86400

    def history(resolution: str) -> list[tuple[int, int]]:
        query = {"policy": "usage-user", "project": "used", "resolution": resolution}
        rows = client.get("/api/v1/limits/usage/history", params=query).json()["results"]
        return [(row["used"], row["denied"]) for row in rows]

    for resolution in ("hour", "day"):
        wait_until(lambda resolution=resolution: sum(denied for _, denied in history(resolution)) == 2, 30)  # type: ignore[misc]
        assert max(used for used, _ in history(resolution)) == 4
    wait_until(lambda: history("minute"), 30)


def test_many_checks_in_one_call_and_blocks_to_spend_in_memory(client: httpx.Client) -> None:
    checks = [{"project": "blocks", "user": f"u-{n % 5}", "cost": 60} for n in range(10)]
    results = client.post("/api/v1/limits/check-batch", json={"checks": checks}).json()["results"]
    assert [result["status"] for result in results] == [200] * 5 + [429] * 5
    ask = {"project": "blocks", "user": "lessee", "units": 80, "ttl": 60}
    blocks = [client.post("/api/v1/limits/leases", json=ask) for _ in range(3)]
    assert [answer.status_code for answer in blocks] == [201, 201, 429]
    assert [answer.json()["units"] for answer in blocks[:2]] == [80, 20], "near the limit fewer than asked"
    lease = blocks[0].json()["id"]
    back = client.request("DELETE", f"/api/v1/limits/leases/{lease}", json={"spent": 30})
    assert back.json() == {"id": lease, "spent": 30, "refunded": 50}
    assert usage(client, policy="blocks-user", project="blocks", key="lessee")[0]["used"] == 50


def test_a_change_is_in_force_while_requests_go_on(client: httpx.Client, world: Instance) -> None:
    text = (
        "version: 1\npolicies:\n  - {{name: a15, project: live, scope: user, algorithm: {}, limit: {}, window: 365d}}\n"
    )
    world.manage("apply", "-", stdin=text.format("fixed_window", 100))
    stop, statuses = threading.Event(), set()

    def press() -> None:
        with world.client() as own:
            while not stop.is_set():
                statuses.add(check(own, "live", user="u").status_code)
                stop.wait(0.02)

    def limit() -> tuple[str, int]:
        states = check(client, "live", user="u", dry_run=True).json()["limits"]
        return (states[0]["algorithm"], states[0]["limit"]) if states else ("", 0)

    threads = [threading.Thread(target=press) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for algorithm, size in (("fixed_window", 10), ("fixed_window", 1000), ("token_bucket", 50)):
            world.manage("apply", "-", stdin=text.format(algorithm, size))
            wait_until(lambda wanted=(algorithm, size): limit() == wanted, 20)  # type: ignore[misc]
            row = check(client, "live", user="u", cost=0, dry_run=True).json()["limits"][0]
            if size == 10:
                assert row["remaining"] == 0, "what was used is kept"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statuses <= {200, 429}, "no error meanwhile"


def test_tiers_overrides_and_networks(client: httpx.Client, world: Instance) -> None:
    def allowed(project: str, **who: str) -> int:
        return sum(check(client, project, **who).is_success for _ in range(4))

    assert allowed("plans", user="u") == 2, "the project's plan"
    assert allowed("poor", user="u") == 4 and allowed("poor", user="rich") == 2, "the user's plan"
    assert allowed("plans", user="guest") == 3, "an override, for an hour"
    ended = (datetime.now(UTC) - timedelta(seconds=1)).isoformat(timespec="seconds")
    world.manage("apply", "-", stdin=f"""
version: 1
overrides: [{{policy: tiers-user, key: guest, limit: 3, until: "{ended}", reason: the visit is over}}]
""")  # fmt: skip
    wait_until(lambda: state(check(client, "plans", user="guest", dry_run=True), "tiers-user")["limit"] == 2, 20)
    assert allowed("nets", ip="203.0.113.60") == 1 and allowed("nets", ip="::ffff:203.0.113.60") == 0
    assert allowed("nets", ip="198.51.100.60") == 4, "the allowed network"
    assert allowed("nets", ip="2001:db8:5::1") == 1 and allowed("nets", ip="2001:db8:5::2") == 0, "one /64"
    denied = check(client, "nets", ip="2001:db8:bad:1::1")
    assert denied.status_code == 403 and denied.json()["type"] == "/problems/network-denied"


def test_a_backtest_applies_a_smaller_limit_to_recorded_traffic(client: httpx.Client) -> None:
    began = datetime.now(UTC)
    for user, count in (("busy", 8), ("calm", 2)):
        for _ in range(count):
            check(client, "past", user=user)
    policy = {"name": "past-user", "project": "past", "scope": "user", "algorithm": "fixed_window", "limit": 4}

    def judged(**changed: Any) -> dict[str, tuple[int, int]]:
        times = {"from": began.isoformat(), "to": (began + timedelta(hours=1)).isoformat()}
        body = {"policy": {**policy, "window": "365d", **changed}, **times}
        answer = client.post("/api/v1/limits/backtest", json=body)
        assert answer.status_code == 200, answer.text
        return {row["key"]: (row["denied"], row["recorded_denied"]) for row in answer.json()["results"]}

    wait_until(lambda: judged() == {"busy": (4, 2), "calm": (0, 0)}, 30)
    assert judged(limit=6) == {"busy": (2, 2), "calm": (0, 0)}, "unchanged, it refuses what it did refuse"
    assert judged(limit=1) == {"busy": (7, 2), "calm": (1, 0)}
    assert judged(limit=None) == {"busy": (0, 2), "calm": (0, 0)}
    assert check(client, "past", user="busy", dry_run=True).status_code == 429, "nothing was changed"
    assert state(check(client, "past", user="calm", dry_run=True), "past-user")["limit"] == 6
