"""The disk of the data directory is full: no process ends, what cannot be stored is refused with 503, and all continues
once there is room."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.disk import fill, small_file_system
from tests.support.instance import BASE_DIR, Instance, wait_until
from tests.support.migrated import SQLITE, copy_sqlite
from tests.support.product import Product, job_of
from tests.support.servers import separate_servers
from tests.support.shapes import BOTH_IF_LONG, SEPARATE

POLICIES = """
version: 1
projects: [{slug: acme}]
policies: [{name: closed, scope: user, unit: requests, algorithm: fixed_window, limit: 100000, window: 1h}]
"""
LONG = 20.0


@pytest.fixture(params=BOTH_IF_LONG)
def instance(request: pytest.FixtureRequest) -> Iterator[Instance]:
    """An instance whose data directory is a small disk of its own; in the separate shape that has its logs only."""
    environ = {"SLUICE_TASK_MODULES": "tests.acceptance.tasks", "ACCEPTANCE_SCRATCH": "/tmp"}
    with ExitStack() as stack:
        if request.param == SEPARATE:
            postgres, server = stack.enter_context(separate_servers(migrated=True))
            environ |= {"DATABASE_URL": postgres.url, "REDIS_URL": server.url}
        made = Instance(environ=environ)
        stack.enter_context(small_file_system(made.data_dir, megabytes=32))
        stack.callback(made.remove)
        if request.param != SEPARATE:
            copy_sqlite(made.data_dir / SQLITE)
        made.start()
        made.manage("apply", "-", stdin=POLICIES)
        yield made


class Caller:
    """Submits jobs and checks limits, and counts the responses."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self.accepted: list[str] = []
        self.statuses: Counter[tuple[str, int]] = Counter()

    def call(self) -> None:
        response = self._product.call("POST", "jobs", job_of(payload={"text": "x" * 2000}))
        self.statuses["submit", response.status_code] += 1
        if response.status_code == 202:
            self.accepted.append(response.json()["id"])
        check = self._product.check(user=f"u{len(self.accepted)}")
        self.statuses["check", check.status_code] += 1
        for path in ("/readyz", "/healthz", "/api/v1/queues", "/metrics"):
            self.statuses[path, self._product.http.get(path).status_code] += 1


@pytest.mark.timeout(300)
def test_no_process_ends_and_all_continues_when_there_is_room(instance: Instance) -> None:
    assert instance.process is not None
    ballast = instance.data_dir / "ballast"
    embedded = "DATABASE_URL" not in instance.environ
    with Product.of(instance) as product:
        caller = Caller(product)
        for _ in range(5):
            caller.call()
        web = instance.pids("web")
        until = time.monotonic() + LONG
        while time.monotonic() < until:
            fill(ballast)  # again and again: space that a log or a write-ahead log frees is filled, too
            caller.call()
            time.sleep(0.1)
        assert instance.process.poll() is None, instance.output
        assert {status for _, status in caller.statuses} <= {200, 202, 503}, caller.statuses
        if embedded:
            assert caller.statuses["submit", 503], caller.statuses
        killed = instance.kill_child("worker-io")
        time.sleep(3.0)
        assert instance.process.poll() is None, instance.output
        caller.call()
        ballast.unlink()
        wait_until(instance.is_serving, 60, lambda: instance.readyz().text)
        wait_until(lambda: len(set(instance.pids("worker-io")) - {killed}) == 2, 60, lambda: instance.output)
        caller.call()
        assert product.check(user="u").status_code == 200
        product.wait(*caller.accepted, seconds=90)
    assert instance.pids("web") == web
    assert {status for _, status in caller.statuses} <= {200, 202, 503}, caller.statuses
    assert instance.stop() == 0
    print(dict(caller.statuses))


@pytest.mark.timeout(200)
def test_standard_error_on_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    """`up >log 2>&1` onto a disk that fills up, with the data elsewhere."""
    with small_file_system(tmp_path / "logs", megabytes=1) as disk, ExitStack() as stack:
        made = Instance()
        copy_sqlite(made.data_dir / SQLITE)
        stack.callback(made.remove)
        with (disk / "up.log").open("wb") as log:
            made.process = subprocess.Popen(  # type: ignore[assignment]
                [sys.executable, "manage.py", "up", "--port", str(made.port)],
                cwd=BASE_DIR, env=made.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(lambda: b"ready: " in (disk / "up.log").read_bytes(), 90)
        fill(disk / "ballast")
        before = made.pids("worker-io")
        for pid in before:
            os.kill(pid, 9)  # the supervisor says so, and each new worker too
        wait_until(lambda: len(set(made.pids("worker-io")) - set(before)) == 2, 60)
        assert made.process.poll() is None
        wait_until(made.is_serving, 60)
        assert made.stop() == 0
