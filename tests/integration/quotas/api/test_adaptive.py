"""Adaptive policies: outcomes go in by every door, the controller moves the limit, everybody sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.test import Client

from quotas import events, limits
from quotas.engine.types import CallOutcome
from quotas.models import Account, AdaptiveState, ConfigVersion, Policy, Pool, Project, Provider
from quotas.runtime.counters import flush_all
from quotas.services import outcomes
from quotas.services.adaptive import Controller
from quotas.snapshot import resolve
from quotas.testing import capture_events
from tests.integration.quotas.api.conftest import Api, api, policy
from tests.support.postgres import url_of
from tests.support.valkey import wait_for

BOUNDS = {"floor": 10, "ceiling": 200, "samples": 10}


@pytest.fixture
def adapted() -> Iterator[list[events.LimitAdapted]]:
    with capture_events(events.LimitAdapted) as moved:
        yield moved


@pytest.fixture(autouse=True)
def no_outcomes_yet(empty: None) -> None:
    flush_all()
    outcomes.counter.drain()


class Clock:
    """A controller and its time, moved by whole intervals."""

    def __init__(self) -> None:
        self.controller, self.moment = Controller(), 1000.0
        self.step(0)

    def step(self, seconds: float = 5.0) -> int:
        flush_all()
        resolve.clear()
        self.moment += seconds
        return self.controller.run(self.moment)


def limit_of(caller: Api, name: str = "upstream") -> int:
    states = caller.post("limits/check", {"user": "u", "dry_run": True}).json()["limits"]
    limit: int = next(state["limit"] for state in states if state["policy"] == name)
    return limit


def report(caller: Api, count: int = 10, **outcome: Any) -> None:
    answer = caller.post("limits/outcomes", {"user": "u", "count": count, **outcome})
    assert answer.status_code == 200 and answer.json() == {"policies": ["upstream"]}, answer.content


def test_errors_lower_the_limit_and_calm_raises_it_again(adapted: list[events.LimitAdapted]) -> None:
    policy("upstream", "user", 100, adaptive=BOUNDS)
    caller, clock = api(project="acme"), Clock()
    report(caller, 7, status=200)
    report(caller, 3, status=503)
    assert clock.step(1) == 0, "an interval is not over"
    assert clock.step(4) == 1
    assert limit_of(caller) == 70
    assert [(event.policy, event.before, event.after) for event in adapted] == [("upstream", 100, 70)]
    assert "30% of 10 calls failed" in adapted[0].why
    row = caller.get("limits/usage", policy="upstream", key="u").json()["results"][0]
    assert row["limit"] == 70 and row["adaptive"]["configured"] == 100
    assert row["adaptive"]["why"] == adapted[0].why and row["adaptive"]["since"].endswith("Z")
    limits_after = []
    for _ in range(6):
        report(caller, 20, status=200)
        clock.step()
        limits_after.append(limit_of(caller))
    # Three intervals of calm after the step down, then a step of 5 % of 190 at each good interval.
    assert limits_after == [70, 70, 80, 90, 100, 110]


def test_it_stays_between_floor_and_ceiling_and_emits_only_real_steps(adapted: list[events.LimitAdapted]) -> None:
    policy("upstream", "user", 15, adaptive=BOUNDS)
    caller, clock = api(project="acme"), Clock()
    for _ in range(3):
        report(caller, error="timeout")
        clock.step()
    assert limit_of(caller) == 10 and [event.after for event in adapted] == [10]


def test_few_outcomes_wait_for_more_and_old_ones_are_forgotten() -> None:
    policy("upstream", "user", 100, adaptive=BOUNDS)
    caller, clock = api(project="acme"), Clock()
    report(caller, 5, status=500)
    assert clock.step() == 0
    report(caller, 5, status=500)
    assert clock.step(1) == 1, "together they are enough"
    report(caller, 5, status=500)
    assert clock.step(120) == 0
    report(caller, 5, status=500)
    assert clock.step() == 0, "those of two minutes ago say nothing any more"


def test_latency_and_the_upstreams_own_fields_move_it_too() -> None:
    policy("upstream", "user", 100, adaptive={**BOUNDS, "latency": 0.5})
    caller, clock = api(project="acme"), Clock()
    report(caller, status=200, latency=0.6)
    clock.step()
    assert limit_of(caller) == 70
    report(caller, status=200, headers={"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "50"})
    clock.step()
    assert limit_of(caller) == 49


def test_every_interface_counts_outcomes() -> None:
    policy("upstream", "user", 100, unit="tokens", adaptive=BOUNDS)
    caller, clock = api(project="acme"), Clock()
    for _ in range(3):
        held = caller.post("limits/check", {"user": "u", "cost": {"tokens": 1}}).json()["reservation"]
        settle = {"reservation": held, "actual": {"tokens": 1}, "outcome": {"status": 502}}
        for _ in range(2):  # the second time is a repetition, and counts for nothing
            assert caller.post("limits/settle", settle).status_code == 200
    with limits.reserve(project="acme", user="u", cost={"tokens": 1}) as reservation:
        reservation.settle(tokens=1)
        assert reservation.report(error="network") == ["upstream"]
    assert limits.report(project="acme", user="u", status=429, count=2) == ["upstream"]
    assert limits.report(project="acme", status=429) == [], "no policy of that scope applies"
    clock.step(0)
    assert clock.controller.seen("upstream").failed == 6
    assert clock.controller.seen("upstream").seen == 6
    assert caller.post("limits/outcomes", {"user": "u"}).status_code == 400
    assert caller.post("limits/outcomes", {"user": "u", "status": 200, "project": "other"}).status_code == 404


def test_calls_through_a_pool_move_the_policy_that_follows_it(valkey: redis.Redis) -> None:
    provider = Provider.objects.create(name="sim", base_url="http://127.0.0.1:9100")
    pool = Pool.objects.create(name="llm", provider=provider)
    Account.objects.create(pool=pool, name="a1", credential="k")
    policy("upstream", "user", 100, adaptive={**BOUNDS, "pool": "llm", "samples": 2})
    policy("apart", "user", 100, adaptive=BOUNDS)
    caller, clock = api(project="acme"), Clock()
    for _ in range(2):
        lease = caller.post("pools/llm/acquire").json()["lease"]
        for _ in range(2):
            caller.post(f"leases/{lease}/settle", {"status": 500})
    clock.step()
    assert (limit_of(caller), limit_of(caller, "apart")) == (70, 100)
    outcomes.of_account("nobody", CallOutcome("server"))


def test_views_report_their_own_answers(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.example.urls"
    settings.SLUICE = {"PROJECT": "shop"}
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "quotas.middleware.RateLimitMiddleware"]
    Project.objects.create(slug="shop")
    policy("upstream", "project", 100, adaptive={**BOUNDS, "samples": 4})
    clock = Clock()
    client = Client(raise_request_exception=False)
    assert [client.get(path).status_code for path in ("/plain", "/broken", "/broken", "/nowhere")] == [
        200, 500, 500, 404,
    ]  # fmt: skip
    assert clock.step() == 1
    assert resolve.snapshot().policies["upstream"].limit == 70


def test_loss_of_redis_and_new_processes_leave_the_limit_where_it_is(valkey: redis.Redis) -> None:
    policy("upstream", "user", 100, adaptive=BOUNDS)
    caller, clock = api(project="acme"), Clock()
    report(caller, status=500)
    clock.step()
    valkey.flushall()
    assert limit_of(caller) == 70
    assert Clock().step() == 0, "another leader begins with nothing, and moves nothing"
    assert limit_of(caller) == 70


def test_another_configured_limit_begins_anew_and_so_does_a_policy_that_was_not_adaptive() -> None:
    upstream = policy("upstream", "user", 100, adaptive=BOUNDS)
    caller, clock = api(project="acme"), Clock()
    report(caller, status=500)
    clock.step()
    upstream.limit = 150
    upstream.save()
    assert limit_of(caller) == 150
    upstream.limit = 100
    upstream.adaptive = None
    upstream.save()
    clock.step()
    assert limit_of(caller) == 100 and not AdaptiveState.objects.exists()


def test_a_move_reads_the_moved_limits_only(django_assert_num_queries: Any) -> None:
    policy("upstream", "user", 100, adaptive=BOUNDS)
    for n in range(20):
        policy(f"p{n}", "user", 10)
    held = resolve.snapshot()
    AdaptiveState.objects.create(
        policy=Policy.objects.get(name="upstream"), configured=100, effective=33, changed_at="2026-01-01T00:00:00Z"
    )
    ConfigVersion.announce_move()
    resolve.expire()
    with django_assert_num_queries(2):
        moved = resolve.snapshot()
    assert moved.version == held.version and moved.policies["p3"] is held.policies["p3"]
    assert {limit.name: limit.limit for limit in resolve.limits_for(user="u")}["upstream"] == 33


WATCH = """
import json, sys, time, django
django.setup()
from quotas.snapshot import resolve as policies
for line in sys.stdin:
    wanted = int(line)
    begun = time.monotonic()
    while policies.limits_for(user="u")[0].limit != wanted and time.monotonic() - begun < 20:
        time.sleep(0.01)
    print(json.dumps([policies.limits_for(user="u")[0].limit, policies.snapshot().version]), flush=True)
"""


@pytest.mark.django_db(transaction=True)
def test_a_move_is_in_force_in_other_processes_without_reading_the_configuration_anew(valkey: redis.Redis) -> None:
    policy("upstream", "user", 100, adaptive=BOUNDS)
    resolve.clear()
    caller, clock = api(project="acme"), Clock()
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "controlplane.settings"}
    environ["DATABASE_URL"] = url_of(django_settings.DATABASES["default"])
    watchers = [
        subprocess.Popen(
            [sys.executable, "-c", WATCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ,
            cwd=Path(__file__).parents[4],
        )
        for _ in range(3)
    ]  # fmt: skip
    try:
        seen = [_ask(watcher, 100) for watcher in watchers]
        report(caller, status=500)
        clock.step()
        after = [_ask(watcher, 70) for watcher in watchers]
        assert [limit for limit, _ in after] == [70, 70, 70]
        assert [version for _, version in after] == [version for _, version in seen]
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.communicate()
    wait_for(lambda: all(watcher.poll() is not None for watcher in watchers))


def _ask(watcher: subprocess.Popen[str], wanted: int) -> tuple[int, int]:
    assert watcher.stdin is not None and watcher.stdout is not None
    watcher.stdin.write(f"{wanted}\n")
    watcher.stdin.flush()
    limit, version = json.loads(watcher.stdout.readline())
    return limit, version
