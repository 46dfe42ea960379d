"""Limits in operation: waiting, adapting, thresholds, resets, usage, changes while requests come, and Redis away."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.events import EventStream
from tests.support.instance import wait_until
from tests.support.product import Product
from tests.support.shapes import Deployment

CONFIGURATION = """
version: 1
projects: [{slug: moving}, {slug: waits}, {slug: tight}, {slug: resets}, {slug: used}, {slug: past}, {slug: live}]
policies:
  - {name: moving-user, project: moving, scope: user, algorithm: fixed_window, limit: 100, window: 365d, adaptive: {floor: 10, ceiling: 200, interval: 1s}}
  - {name: waits-all, project: waits, scope: project, algorithm: token_bucket, limit: 4, window: 1s, burst: 1}
  - {name: tight-jobs, project: tight, scope: project, algorithm: fixed_window, limit: 20, window: 365d, pause_at: 0.5}
  - {name: resets-user, project: resets, scope: user, algorithm: fixed_window, limit: 2, window: 365d}
  - {name: used-user, project: used, scope: user, algorithm: calendar, limit: 4, period: month}
  - {name: past-user, project: past, scope: user, algorithm: fixed_window, limit: 6, window: 365d}
"""


@pytest.fixture(scope="module", autouse=True)
def configured(shared: Deployment) -> None:
    shared.apply(CONFIGURATION)
    wait_until(lambda: shared.product.check("past", user="nobody", dry_run=True).is_success)


def limit_of(product: Product, project: str, **who: str) -> int:
    (state,) = product.check(project, **who, dry_run=True).json()["limits"]
    return int(state["limit"])


def test_an_adaptive_limit_decreases_with_errors_and_gives_the_reason(shared: Deployment, product: Product) -> None:
    events = shared.events()
    report = {"project": "moving", "user": "u", "status": 503, "latency": 0.2, "count": 50}
    product.post("limits/outcomes", report)
    wait_until(lambda: limit_of(product, "moving", user="u") == 70, 20)
    product.check("moving", user="u")
    row = product.usage(policy="moving-user", project="moving", key="u")[0]
    assert row["limit"] == 70 and row["adaptive"]["configured"] == 100 and "100%" in row["adaptive"]["why"]
    wait_until(lambda: events.named("limit.adapted"), 20)
    data = events.named("limit.adapted")[0].data
    assert (data["policy"], data["before"], data["after"]) == ("moving-user", 100, 70) and data["why"]


def test_waiting_checks_are_served_in_order_of_arrival(shared: Deployment, product: Product) -> None:
    overdrawn = product.check("waits", cost={"requests": 1, "tokens": 1}).json()
    served: list[int] = []

    def wait(number: int) -> None:
        if product.check("waits", max_wait=50).status_code == 200:
            served.append(number)

    with shared.instance.redis() as redis, ThreadPoolExecutor(8) as pool:
        # Overdrawn by 3 s of refill, so that all have arrived before the first one passes.
        if overdrawn["reservation"] is not None:
            product.post("limits/settle", {"reservation": overdrawn["reservation"], "actual": {"requests": 13}})
        for number in range(8):
            pool.submit(wait, number)
            wait_until(lambda number=number: _waiting(redis) + len(served) > number, 30)  # type: ignore[misc]
    assert served == list(range(8))
    refused = product.check("waits", max_wait=0.01)
    assert refused.status_code in (200, 429)


def _waiting(redis: Any) -> int:
    lines = [key for key in redis.scan_iter(match="{sl}:w:*") if redis.type(key) == b"zset" and not key.endswith(b":e")]
    return sum(redis.zcard(line) for line in lines)


def test_bypass_needs_its_scope_and_is_counted_and_audited(shared: Deployment, product: Product) -> None:
    made = shared.instance.manage("apikey", "create", "--name", "plain", "--platform", "--scopes", "check")
    user = {"user": "emergency"}
    assert [product.check("resets", **user).status_code for _ in range(3)] == [200, 200, 429]
    with Product.of(shared.instance, made.stdout.strip()) as plain:
        assert plain.check("resets", **user, bypass=True).status_code == 403
    passed = product.check("resets", **user, bypass=True)
    assert passed.status_code == 200 and passed.json()["bypassed"] is True
    entry = product.results("audit", verb="limit.bypass")[0]
    assert entry["target"] == "project:resets" and entry["after"]["user"] == "emergency"


def test_thresholds_are_reported_once_and_low_priorities_wait_until_a_reset(
    shared: Deployment, product: Product
) -> None:
    events = shared.events()
    for _ in range(12):
        assert product.check("tight").status_code == 200
    low, normal = (product.submit(project="tight", priority=priority) for priority in ("low", "normal"))
    product.wait(normal, seconds=30)
    wait_until(lambda: _crossings(events) == [0.6], 30)
    assert product.status(low) in ("pending", "rate_limited"), "above half of the limit low priorities wait"
    for _ in range(6):
        product.check("tight")
    wait_until(lambda: _crossings(events)[-1:] == [0.95], 30)
    assert _crossings(events) in ([0.6, 0.8, 0.95], [0.6, 0.95])
    assert product.status(low) in ("pending", "rate_limited")
    reset = {"policy": "tight-jobs", "project": "tight", "reason": "a new period"}
    assert product.post("limits/reset", reset) == {"reset": 1}
    product.wait(low)
    before = len(_crossings(events))
    for _ in range(12):
        product.check("tight")
    wait_until(lambda: len(_crossings(events)) > before, 30, "after a reset they are reported again")
    assert _crossings(events)[before:] == [0.6]


def _crossings(events: EventStream) -> list[float]:
    return [event.data["share"] for event in events.named("limit.threshold", policy="tight-jobs")]


def test_reset_and_peek(product: Product) -> None:
    for user in ("ann", "bob"):
        assert [product.check("resets", user=user).status_code for _ in range(3)] == [200, 200, 429]
    for _ in range(3):
        assert product.check("resets", user="eve", dry_run=True).is_success, "a peek consumes nothing"
    for path in ("limits/reset", "rate-limiter/reset"):
        product.post(path, {"policy": "resets-user"}, expected=400)  # without a reason
    one = {"policy": "resets-user", "project": "resets", "key": "ann", "reason": "her mistake"}
    assert product.post("limits/reset", one) == {"reset": 1}
    assert product.check("resets", user="ann").status_code == 200
    assert product.check("resets", user="bob").status_code == 429
    all_of_it = {"project": "resets", "all": True, "reason": "a new start"}
    assert product.post("rate-limiter/reset", all_of_it)["reset"] >= 2
    assert product.check("resets", user="bob").status_code == 200
    entries = product.results("audit", verb="limit.reset")
    assert {"her mistake", "a new start"} <= {entry["reason"] for entry in entries}


def test_usage_now_and_over_time(product: Product) -> None:
    for _ in range(6):
        product.check("used", user="u")
    (row,) = product.usage(policy="used-user", project="used")
    assert (row["key"], row["used"], row["limit"], row["remaining"], row["ratio"]) == ("u", 4, 4, 0, 1.0)
    assert 0 < row["reset_after"] <= 31 * 86400

    def history(resolution: str) -> list[tuple[int, int]]:
        query = {"policy": "used-user", "project": "used", "resolution": resolution}
        return [(row["used"], row["denied"]) for row in product.results("limits/usage/history", **query)]

    for resolution in ("hour", "day"):
        wait_until(lambda resolution=resolution: sum(denied for _, denied in history(resolution)) == 2, 30)  # type: ignore[misc]
        assert max(used for used, _ in history(resolution)) == 4
    wait_until(lambda: history("minute"), 30)


def test_a_change_is_in_force_while_requests_come(shared: Deployment, product: Product) -> None:
    text = "version: 1\npolicies:\n  - {{name: live-user, project: live, scope: user, algorithm: {}, limit: {}, window: 365d}}\n"
    shared.apply(text.format("fixed_window", 100))
    stop, statuses = threading.Event(), set()

    def check() -> None:
        while not stop.is_set():
            statuses.add(product.check("live", user="u").status_code)
            stop.wait(0.02)

    def limit() -> tuple[str, int]:
        states = product.check("live", user="u", dry_run=True).json()["limits"]
        return (states[0]["algorithm"], states[0]["limit"]) if states else ("", 0)

    threads = [threading.Thread(target=check) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for algorithm, size in (("fixed_window", 10), ("fixed_window", 1000), ("token_bucket", 50)):
            shared.apply(text.format(algorithm, size))
            wait_until(lambda wanted=(algorithm, size): limit() == wanted, 20)  # type: ignore[misc]
            row = product.check("live", user="u", cost=0, dry_run=True).json()["limits"][0]
            if size == 10:
                assert row["remaining"] == 0, "what was used still counts"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statuses <= {200, 429}, "no error meanwhile"


def test_a_backtest_applies_another_limit_to_the_recorded_requests(product: Product) -> None:
    began = datetime.now(UTC)
    for user, count in (("busy", 8), ("calm", 2)):
        for _ in range(count):
            product.check("past", user=user)
    policy = {"name": "past-user", "project": "past", "scope": "user", "algorithm": "fixed_window", "limit": 4}

    def backtest(**changed: Any) -> dict[str, tuple[int, int]]:
        times = {"from": began.isoformat(), "to": (began + timedelta(hours=1)).isoformat()}
        found = product.post("limits/backtest", {"policy": {**policy, "window": "365d", **changed}, **times})
        return {row["key"]: (row["denied"], row["recorded_denied"]) for row in found["results"]}

    wait_until(lambda: backtest() == {"busy": (4, 2), "calm": (0, 0)}, 30)
    assert backtest(limit=6) == {"busy": (2, 2), "calm": (0, 0)}, "unchanged, it denies what it did deny"
    assert backtest(limit=1) == {"busy": (7, 2), "calm": (1, 0)}
    assert backtest(limit=None) == {"busy": (0, 2), "calm": (0, 0)}
    assert product.check("past", user="busy", dry_run=True).status_code == 429, "nothing was changed"
    assert limit_of(product, "past", user="calm") == 6


def test_without_redis_each_policy_follows_its_fail_mode_and_recovers(fresh: Deployment) -> None:
    fresh.apply("""
version: 1
policies:
  - {name: open, scope: custom, key_name: open, algorithm: fixed_window, limit: 5, window: 365d, on_redis_down: fail_open}
  - {name: closed, scope: custom, key_name: closed, algorithm: fixed_window, limit: 5, window: 365d}
""")
    product = fresh.product
    wait_until(lambda: product.check(keys={"open": "x"}, dry_run=True).json()["limits"])
    events = fresh.events()
    with stopped(fresh.instance.redis_pid):
        responses = [product.check(keys={"open": "x"}) for _ in range(8)]
        assert [one.status_code for one in responses] == [200] * 5 + [429] * 3, "the policy's own limit"
        assert all(one.json()["degraded"] for one in responses)
        closed = product.check(keys={"closed": "x"})
        assert closed.status_code == 503 and closed.json()["type"] == "/problems/limiter-unavailable"
        assert int(closed.headers["Retry-After"]) >= 1
        both = product.check(keys={"open": "y", "closed": "x"})
        assert both.status_code == 503, "one that fails closed is enough"
    wait_until(lambda: product.check(keys={"closed": "x"}, dry_run=True).is_success, 10)
    assert product.post("limits/check", {"keys": {"open": "x"}})["degraded"] is False
    wait_until(lambda: {"limit.degraded", "limit.recovered"} <= set(events.names()), 20)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process hangs: its connections stay open, and nothing is answered."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
