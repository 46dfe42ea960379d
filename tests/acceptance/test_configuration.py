"""One second after `apply` has returned, no process and no interface answers from the configuration before it.

Each burst comes after a quiet time, when every process's copy is old and all callers wait for the same refresh.
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

from tests.acceptance.plans import TASKS
from tests.support.instance import BASE_DIR, wait_until
from tests.support.product import Product, job_of
from tests.support.shapes import Deployment, Plan

AT_ONCE = 40
QUIET = 2.0
PLAN = Plan(environ=TASKS)
PROMISE = 1.0


@pytest.fixture
def checking(either_if_long: Deployment) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of their own that check through the Python API."""
    either_if_long.apply(policy(1000))
    command = [sys.executable, "-m", "tests.acceptance.python_checks", "fresh"]
    started = [
        subprocess.Popen(
            command,
            cwd=BASE_DIR,
            env=either_if_long.instance.environ,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
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


def applied(deployment: Deployment, text: str) -> None:
    """After a quiet time; returns when the promised second is over."""
    time.sleep(QUIET)
    deployment.apply(text)
    time.sleep(PROMISE)


def burst(product: Product, path: str, body: dict[str, object]) -> list[httpx.Response]:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda _: product.call("POST", path, body), range(AT_ONCE)))


def test_no_check_is_counted_against_the_old_limit(
    either_if_long: Deployment, checking: list[subprocess.Popen[str]]
) -> None:
    body: dict[str, object] = {"project": "fresh", "cost": {"requests": 0}}
    burst(either_if_long.product, "limits/check", body)  # connections, threads, keys
    for limit in range(2000, 2004):
        applied(either_if_long, policy(limit))
        for process in checking:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        answers = burst(either_if_long.product, "limits/check", body)
        assert Counter(one.json()["limits"][0]["limit"] for one in answers) == {limit: AT_ONCE}
        for process in checking:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {str(limit): AT_ONCE}


ABOUT_A_PROJECT: list[tuple[str, dict[str, object]]] = [
    ("limits/check", {}),
    ("limits/check", {"max_wait": 0.01}),
    ("limits/check-batch", {"checks": [{}]}),
    ("limits/leases", {"units": 1}),
]


def test_a_project_that_was_just_made_is_known(either_if_long: Deployment) -> None:
    burst(either_if_long.product, "limits/check", {})
    for _ in range(2):
        name = f"p{time.time_ns()}"
        applied(either_if_long, f"version: 1\nprojects: [{{slug: {name}}}]")
        calls = [
            (path, {"checks": [{"project": name}]} if "checks" in extra else {"project": name, **extra})
            for path, extra in ABOUT_A_PROJECT * (AT_ONCE // 2)
        ]
        with ThreadPoolExecutor(len(calls)) as threads:
            answers = list(threads.map(lambda call: either_if_long.product.call("POST", *call), calls))
        assert set(Counter(one.status_code for one in answers)) <= {200, 201}
        results = [result["status"] for one in answers for result in one.json().get("results", [])]
        assert Counter(results) == {200: AT_ONCE // 2}


def test_a_queue_that_was_just_made_accepts_jobs_and_they_run(either_if_long: Deployment) -> None:
    for _ in range(2):
        name = f"q{time.time_ns()}"
        applied(either_if_long, f"version: 1\nprojects: [{{slug: fresh}}]\nqueues: [{{name: {name}}}]")
        job = job_of(queue=name, project="fresh")
        answers = burst(either_if_long.product, "jobs", job)
        assert Counter(one.status_code for one in answers) == {202: AT_ONCE}
        wait_until(lambda name=name: done(either_if_long.product, name) == AT_ONCE, 60)


def done(product: Product, queue: str) -> int:
    return len(product.results("jobs", queue=queue, status="completed", limit=500))


def test_a_pool_that_was_just_made_is_known(either_if_long: Deployment) -> None:
    for _ in range(2):
        name = f"pool{time.time_ns()}"
        either_if_long.instance.environ["FRESH_KEY"] = "k"
        text = f"""
version: 1
providers: [{{name: fresh-provider, dialect: generic, base_url: "http://127.0.0.1:9"}}]
pools: [{{name: {name}, provider: fresh-provider, concurrency: {{initial: 100, ceiling: 100}}, accounts: [{{name: a, credential_env: FRESH_KEY}}]}}]
"""
        applied(either_if_long, text)
        answers = burst(either_if_long.product, f"pools/{name}/acquire", {"cost": {"requests": 1}})
        assert set(Counter(one.status_code for one in answers)) <= {200, 429}, answers[0].text


def test_a_job_that_waits_for_a_limit_runs_when_the_limit_is_raised(either_if_long: Deployment) -> None:
    text = """
version: 1
projects: [{slug: waiting}]
policies: [{name: waiting-limit, scope: project, project: waiting, unit: requests, algorithm: fixed_window, limit: %d, window: 7d}]
"""
    product = either_if_long.product
    either_if_long.apply(text % 0)
    uid = product.submit(project="waiting")
    product.wait(uid, status="rate_limited", seconds=20)
    applied(either_if_long, text % 5)
    product.wait(uid, seconds=20)
