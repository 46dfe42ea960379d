"""Redis stops for a moment while calls are made: callers that wait are served, and none is charged twice."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from tests.support.gateway_scene import Scene
from tests.support.instance import wait_until


@contextmanager
def stopped_redis(scene: Scene, seconds: float) -> Iterator[None]:
    """Redis stops at once, and continues after so long."""
    pid = scene.instance.redis_pid
    again = threading.Timer(seconds, os.kill, [pid, signal.SIGCONT])
    os.kill(pid, signal.SIGSTOP)
    again.start()
    try:
        yield
    finally:
        again.cancel()
        os.kill(pid, signal.SIGCONT)


def calls(scene: Scene, user: str, count: int, **fields: str) -> list[httpx.Response]:
    """So many calls at the same time."""
    headers = {"Sluice-User": user, **fields}
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda _: scene.call("llm", headers=headers), range(count)))


def is_idle(scene: Scene) -> bool:
    found = scene.instance.client().get("/api/v1/accounts", params={"limit": 100}).json()["results"]
    return not any(one["in_flight"] for one in found if one["pool"] == "llm")


def test_calls_pass_a_short_stall_and_are_charged_once(scene: Scene) -> None:
    assert scene.call("llm", headers={"Sluice-User": "stalled"}).status_code == 200
    before = scene.used("by-user")
    with stopped_redis(scene, 0.4):
        answers = calls(scene, "stalled", 8)
    assert [answer.status_code for answer in answers] == [200] * 8, answers[0].text
    wait_until(lambda: scene.used("by-user") == before + 8, 10, "each call is charged once")
    wait_until(lambda: is_idle(scene), 10, "no slot stays taken")
    delayed = [call for call in map(scene.recent, answers) if call["waited_for"]]
    assert delayed and all(call["waited_for"] == ["redis"] and call["waited"] > 0.05 for call in delayed)


def test_calls_that_wait_pass_a_longer_stall(scene: Scene) -> None:
    before = scene.used("by-user")
    with stopped_redis(scene, 2.0):
        answers = calls(scene, "stalled", 8, Prefer="wait=20")
    assert [answer.status_code for answer in answers] == [200] * 8, answers[0].text
    assert max(float(answer.headers["sluice-waited"]) for answer in answers) > 1.0
    wait_until(lambda: scene.used("by-user") == before + 8, 10, "each call is charged once")
    wait_until(lambda: is_idle(scene), 10, "no slot stays taken")


def test_a_call_that_is_refused_in_an_outage_takes_no_slot(scene: Scene) -> None:
    before = scene.used("by-user")
    with stopped_redis(scene, 60):
        answers = calls(scene, "stalled", 4)
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["error"]["code"] for answer in answers} == {"limiter-unavailable"}
        late = scene.call("llm", headers={"Sluice-User": "stalled"})
        assert late.status_code == 503
    wait_until(lambda: is_idle(scene) and scene.used("by-user") == before, 20, "all is returned")
    waited = [scene.recent(answer)["waited"] for answer in (*answers, late)]
    assert waited[-1] < min(waited[:-1]) / 2, "a long outage is not waited for as long as a stall"
    for answer in (*answers, late):
        assert scene.recent(answer)["outcome"] == "unavailable", "calls of an outage are recorded when it is over"
    listed = [call["id"] for call in scene.calls(limit=500)]
    assert len(listed) == len(set(listed))


def test_other_doors_that_wait_pass_a_stall(scene: Scene) -> None:
    client = scene.instance.client()
    with stopped_redis(scene, 1.0), ThreadPoolExecutor(2) as threads:
        check = threads.submit(client.post, "/api/v1/limits/check", json={"user": "rest", "max_wait": 10})
        lease = threads.submit(client.post, "/api/v1/pools/llm/acquire", json={"max_wait": 10})
    assert check.result().status_code == 200 and check.result().json()["allowed"]
    assert lease.result().status_code == 200, lease.result().text
    settled = client.post(f"/api/v1/leases/{lease.result().json()['lease']}/settle", json={"status": 200})
    assert settled.status_code == 200
    wait_until(lambda: is_idle(scene), 10, "one account was acquired")
