"""Redis answers, but with errors: everything waits, limits follow their fail mode, all recovers, and no process ends."""

from __future__ import annotations

import time
from contextlib import ExitStack

import httpx
import pytest

from tests.acceptance.plans import TASKS
from tests.support.forwarder import forwarder
from tests.support.instance import Instance, running, wait_until
from tests.support.product import Product
from tests.support.refusing import STATES, refusing
from tests.support.servers import separate_servers
from tests.support.shapes import Deployment, Plan
from tests.support.valkey import run_server, valkey_binary

LONG = 18.0
"""Seconds within which a worker or `up` that ends because of it would have ended."""
POLICIES = """
version: 1
projects: [{slug: acme}]
policies:
  - {name: closed, scope: user, unit: requests, algorithm: fixed_window, limit: 1000, window: 1h}
  - {name: open, scope: ip, unit: requests, algorithm: fixed_window, limit: 1000, window: 1h, on_redis_down: fail_open}
"""
PLAN = Plan(environ=TASKS, configuration=POLICIES)


def pids(instance: Instance) -> dict[str, list[int]]:
    return {name: instance.pids(name) for name in ("web", "dispatcher", "worker-io", "worker-cpu")}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("state", STATES)
def test_all_wait_and_recover(either_if_long: Deployment, state: str) -> None:
    instance, product = either_if_long.instance, either_if_long.product
    before = pids(instance)
    with instance.redis() as server:
        ids = [product.submit()]
        with refusing(server, state):
            until = time.monotonic() + (LONG if state in ("OOM", "READONLY") else 6.0)
            wait_until(lambda: instance.readyz().json().get("failing") == ["redis"], 10, lambda: instance.readyz().text)
            while time.monotonic() < until:
                ids.append(product.submit())
                refused = product.check(user="u")
                assert (refused.status_code, refused.json()["type"]) == (503, "/problems/limiter-unavailable")
                degraded = product.check(ip="192.0.2.1")
                assert (degraded.status_code, degraded.json()["degraded"]) == (200, True)
                for path in ("/api/v1/queue/status", "/api/v1/queues", "/api/v1/workers", "/metrics", "/healthz"):
                    answer = product.http.get(path)
                    assert answer.status_code in (200, 503), f"{path}: {answer.text}"
                time.sleep(0.3)
        wait_until(instance.is_serving, 30, lambda: instance.readyz().text)
        product.wait(*ids)
        assert product.check(user="u").status_code == 200
    assert pids(instance) == before, instance.output


@pytest.mark.timeout(240)
def test_a_worker_that_starts_meanwhile_waits(either_if_long: Deployment) -> None:
    instance, product = either_if_long.instance, either_if_long.product
    with instance.redis() as server:
        with refusing(server, "OOM"):
            killed = instance.kill_child("worker-io")
            wait_until(lambda: len(instance.pids("worker-io")) == 2 and killed not in instance.pids("worker-io"), 30)
            started = instance.pids("worker-io")
            time.sleep(8.0)
            assert instance.pids("worker-io") == started, instance.output
        job = product.submit()
        product.wait(job)


@pytest.mark.postgres
@pytest.mark.timeout(240)
def test_after_a_failover_behind_one_address_no_process_uses_the_old_primary() -> None:
    """As of managed services: the name moves, the old primary becomes a replica, and connections to it stay open."""
    with ExitStack() as stack:
        postgres, old = stack.enter_context(separate_servers(migrated=True))
        new = stack.enter_context(run_server(valkey_binary()))
        moving = stack.enter_context(forwarder(old.port))
        environ = {
            **TASKS, "DATABASE_URL": postgres.url, "REDIS_URL": f"redis://127.0.0.1:{moving.port}/0",
        }  # fmt: skip
        instance = stack.enter_context(running(environ=environ))
        instance.manage("apply", "-", stdin=POLICIES)
        before = pids(instance)
        product = stack.enter_context(Product.of(instance))
        job = product.submit()
        product.wait(job)
        moving.target = new.port
        with old.client() as server:
            server.execute_command("REPLICAOF", "127.0.0.1", str(new.port))
        jobs = [product.submit() for _ in range(5)]
        wait_until(lambda: product.check(user="u").status_code == 200, 30)
        product.wait(*jobs)
        assert pids(instance) == before


@pytest.mark.timeout(240)
def test_pages_are_shown_and_operators_act_while_its_memory_is_full(either_if_long: Deployment) -> None:
    instance, product = either_if_long.instance, either_if_long.product
    with httpx.Client(base_url=instance.url, follow_redirects=True, timeout=30.0) as browser:
        page = browser.get("/admin/login/")
        form = {
            "username": instance.credentials["admin_username"], "password": instance.credentials["admin_password"],
            "csrfmiddlewaretoken": browser.cookies["csrftoken"], "next": "/admin/",
        }  # fmt: skip
        assert page.status_code == 200
        with instance.redis() as server, refusing(server, "OOM"):
            assert browser.post("/admin/login/", data=form, headers={"Referer": instance.url}).status_code == 200
            for path in (
                "/admin/", "/admin/queues/job/", "/admin/queues/queue/", "/admin/queues/deadletter/",
                "/admin/queues/workerprocess/", "/admin/quotas/policy/", "/admin/quotas/account/", "/admin/quotas/pool/",
                "/admin/live/limits/", "/admin/live/accounts/", "/admin/live/queues/", "/admin/live/workers/",
            ):  # fmt: skip
                assert browser.get(path).status_code in (200, 404), path
            product.pause("batch")
            product.resume("batch")
            product.cancel(product.submit())
            reset = product.call("POST", "limits/reset", {"policy": "closed", "reason": "full"})
            assert reset.status_code in (200, 503), reset.text  # deleting needs no memory
