"""`Prefer: respond-async`: what can't go now becomes a job, and is made once."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.gateway_scene import MESSAGES, PROMPT, Scene
from tests.support.instance import wait_until

ASYNC = {"Prefer": "respond-async"}


def deferred(scene: Scene, pool: str = "narrow", **options: Any) -> httpx.Response:
    """A call to a pool whose only account is used up, that may become a job."""
    headers = ASYNC | options.pop("headers", {})
    for _ in range(10):
        answer = scene.call(pool, headers=headers, **options)
        if answer.status_code != 200:
            return answer
    raise AssertionError("the pool is never used up")


def job_of(scene: Scene, answer: httpx.Response) -> dict[str, Any]:
    """The job when it has ended."""
    client = scene.instance.client()
    wait_until(lambda: client.get(answer.headers["location"]).json()["status"] in ("completed", "dead"), 30)
    return dict(client.get(answer.headers["location"]).json())


def test_what_can_go_goes_at_once(scene: Scene) -> None:
    answer = scene.call("llm", headers=ASYNC)
    assert answer.status_code == 200 and answer.json()["choices"]


def test_a_call_without_an_account_becomes_a_job_of_the_pools_queue(scene: Scene) -> None:
    fields = {"Sluice-User": "u-later", "Sluice-Priority": "high", "Prefer": "respond-async, wait=0"}
    answer = deferred(scene, headers=fields)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert job["status"] in ("pending", "rate_limited")  # a dispatcher that is quick has tried it already
    assert answer.headers["preference-applied"] == "respond-async"
    assert (job["queue"], job["type"], job["user"], job["priority"]) == ("later", "http.request", "u-later", 1)
    assert job["payload"]["path"] == "/v1/chat/completions" and scene.key not in answer.text
    assert scene.recent(answer)["outcome"] == "queued"
    done = job_of(scene, answer)
    assert done["status"] == "completed" and done["result"]["status"] == 200
    assert done["result"]["body"]["choices"][0]["message"]["content"] == PROMPT


def test_a_call_above_its_callers_limit_becomes_a_job_and_is_charged_once(scene: Scene) -> None:
    fields = {"Sluice-Keys": "few=async", "Sluice-User": "u-async", "Sluice-Queue": "elsewhere"}
    before = scene.used("by-user")
    answer = deferred(scene, "llm", headers=fields)
    assert answer.status_code == 202 and answer.json()["queue"] == "elsewhere"
    assert job_of(scene, answer)["status"] == "completed"
    assert scene.used("by-user") == before + 2  # the call that used the limit up, and the job


def test_a_call_that_every_account_refuses_becomes_a_job(scene: Scene) -> None:
    scene.sim.faults({"status": 429, "headers": {"retry-after": "1"}})
    answer = scene.call("llm", headers=ASYNC)
    assert answer.status_code == 202, answer.text
    scene.sim.faults()
    assert job_of(scene, answer)["status"] == "completed"


def test_the_same_key_is_the_same_job(scene: Scene) -> None:
    fields = {"Idempotency-Key": "async-once", "x-stainless-retry-count": "0"}
    first = deferred(scene, headers=fields)
    assert first.status_code == 202
    requests = scene.sim.stats()["requests"]
    job_of(scene, first)
    # The account is free again, but the call was accepted as a job.
    again = scene.call("narrow", headers=ASYNC | fields | {"x-stainless-retry-count": "1"})
    assert again.status_code == 200 and again.json()["id"] == first.json()["id"]
    assert scene.sim.stats()["requests"] == requests + 1
    other = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "something else"}]}
    assert scene.call("narrow", headers=ASYNC | fields, json=other).status_code == 409


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {"Sluice-Queue": "nowhere"}}, 400),
        ({"headers": {"Sluice-Cost": "tokens=9000000"}}, 400),
        ({"json": None, "content": b"\xff\xfe"}, 429),
    ],
)
def test_what_no_job_can_stand_for_is_refused(scene: Scene, options: dict[str, Any], status: int) -> None:
    options = {**options, "headers": {"Sluice-User": "u-refused", **options.get("headers", {})}}
    answer = scene.call("llm", headers=ASYNC | options["headers"]) if status == 400 else deferred(scene, **options)
    assert answer.status_code == status, answer.text


def test_a_platform_key_names_its_project(scene: Scene) -> None:
    platform = {"Authorization": f"Bearer {scene.instance.credentials['platform_key']}"} | ASYNC
    assert scene.call("llm", headers=platform).status_code == 400
    named = deferred(scene, headers=platform | {"Sluice-Project": "other"}, json={"model": "m", "messages": MESSAGES})
    assert named.status_code == 202 and named.json()["project"] == "other"
