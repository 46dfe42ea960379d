"""One second after `apply` has returned, nobody answers from the configuration before it: in no process, over no interface.

Each burst comes after a quiet time, when every process's copy is old and all callers meet the same refresh.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.instance import BASE_DIR, Instance, wait_until
from tests.support.shapes import BOTH, placed

AT_ONCE = 40
QUIET = 2.0
PROMISE = 1.0


@pytest.fixture(scope="module", params=BOTH)
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    environ = {"SLUICE_TASK_MODULES": "tests.acceptance.tasks", "ACCEPTANCE_SCRATCH": "/tmp"}
    with placed(request.param, environ=environ) as place:
        yield place.instance


@pytest.fixture
def asking(instance: Instance) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of their own that ask through the Python API."""
    instance.manage("apply", "-", stdin=policy(1000))
    command = [sys.executable, "-m", "tests.acceptance.parallel_checks", "fresh"]
    started = [
        subprocess.Popen(
            command, cwd=BASE_DIR, env=instance.environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    yield started
    for process in started:
        process.kill()
        process.communicate()


def policy(limit: int) -> str:
    return f"""
version: 1
projects: [{{slug: fresh}}]
policies: [{{name: fresh-limit, scope: project, project: fresh, unit: requests, algorithm: fixed_window, limit: {limit}, window: 1h}}]
"""


def applied(instance: Instance, text: str) -> None:
    """After a quiet time; returns when the promised second is over."""
    time.sleep(QUIET)
    instance.manage("apply", "-", stdin=text)
    time.sleep(PROMISE)


def burst(client: httpx.Client, path: str, body: dict[str, object]) -> list[httpx.Response]:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda _: client.post(path, json=body), range(AT_ONCE)))


def test_no_check_uses_the_old_limit(instance: Instance, asking: list[subprocess.Popen[str]]) -> None:
    body: dict[str, object] = {"project": "fresh", "cost": {"requests": 0}}
    with instance.client() as client:
        burst(client, "/api/v1/limits/check", body)  # connections, threads, keys
        for limit in range(2000, 2004):
            applied(instance, policy(limit))
            for process in asking:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            answers = burst(client, "/api/v1/limits/check", body)
            assert Counter(one.json()["limits"][0]["limit"] for one in answers) == {limit: AT_ONCE}
            for process in asking:
                assert process.stdout is not None
                assert json.loads(process.stdout.readline()) == {str(limit): AT_ONCE}


@pytest.mark.parametrize(
    ("path", "extra"),
    [
        ("/api/v1/limits/check", {}),
        ("/api/v1/limits/check", {"max_wait": 0.01}),
        ("/api/v1/limits/check-batch", {"checks": [{}]}),
        ("/api/v1/limits/leases", {"units": 1}),
    ],
)
def test_a_project_that_was_just_made_is_known(instance: Instance, path: str, extra: dict[str, object]) -> None:
    with instance.client() as client:
        burst(client, "/api/v1/limits/check", {})
        for _ in range(2):
            name = f"p{time.time_ns()}"
            applied(instance, f"version: 1\nprojects: [{{slug: {name}}}]")
            body = {"checks": [{"project": name}]} if "checks" in extra else {"project": name, **extra}
            answers = burst(client, path, body)
            assert set(Counter(one.status_code for one in answers)) <= {200, 201}
            results = [result["status"] for one in answers for result in one.json().get("results", [])]
            assert set(results) <= {200}


def test_a_queue_that_was_just_made_takes_jobs_and_they_run(instance: Instance) -> None:
    with instance.client() as client:
        for _ in range(2):
            name = f"q{time.time_ns()}"
            applied(instance, f"version: 1\nprojects: [{{slug: fresh}}]\nqueues: [{{name: {name}}}]")
            job = {"type": "t.echo", "queue": name, "project": "fresh", "payload": {"text": "x"}}
            answers = burst(client, "/api/v1/jobs", job)
            assert Counter(one.status_code for one in answers) == {202: AT_ONCE}
            wait_until(lambda name=name: done(client, name) == AT_ONCE, 60)


def done(client: httpx.Client, queue: str) -> int:
    return len(client.get(f"/api/v1/jobs?queue={queue}&status=completed&limit=500").json()["results"])


def test_a_pool_that_was_just_made_is_known(instance: Instance) -> None:
    with instance.client() as client:
        for _ in range(2):
            name = f"pool{time.time_ns()}"
            instance.environ["FRESH_KEY"] = "k"
            text = f"""
version: 1
providers: [{{name: fresh-provider, dialect: generic, base_url: "http://127.0.0.1:9"}}]
pools: [{{name: {name}, provider: fresh-provider, concurrency: {{initial: 100, ceiling: 100}}, accounts: [{{name: a, credential_env: FRESH_KEY}}]}}]
"""
            applied(instance, text)
            answers = burst(client, f"/api/v1/pools/{name}/acquire", {"cost": {"requests": 1}})
            assert set(Counter(one.status_code for one in answers)) <= {200, 429}, answers[0].text


def test_a_job_that_waits_for_a_limit_runs_when_the_limit_is_raised(instance: Instance) -> None:
    text = """
version: 1
projects: [{slug: limited}]
policies: [{name: low-limit, scope: project, project: limited, unit: requests, algorithm: fixed_window, limit: %d, window: 7d}]
"""
    instance.manage("apply", "-", stdin=text % 0)
    job = {"type": "t.echo", "queue": "batch", "project": "limited", "payload": {"text": "x"}}
    with instance.client() as client:
        found = client.post("/api/v1/jobs", json=job).json()["id"]
        wait_until(lambda: client.get(f"/api/v1/jobs/{found}").json()["status"] == "rate_limited", 20)
        applied(instance, text % 5)
        wait_until(lambda: client.get(f"/api/v1/jobs/{found}").json()["status"] == "completed", 20)
