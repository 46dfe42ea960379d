"""A job's own deadline, and a job that is cancelled, say nothing of its account; the provider's timeout does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from queues.errors import JobCancelled, JobTimedOut
from queues.registry import RunResult
from queues.states import Status
from queues.worker.failures import cancelled, timed_out
from queues.worker.running import Running
from quotas.engine.account_state import AccountState
from quotas.runtime.connection import accounts
from quotas.snapshot import resolve
from tests.integration.queues.desk import Desk, fresh


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def account() -> AccountState:
    (state,) = accounts().states(resolve.pool_spec("llm"))
    return state


@pytest.mark.parametrize(("own", "providers", "blamed"), [(0.1, 30.0, False), (60.0, 0.1, True), (0.1, 0.1, True)])
def test_whose_deadline_it_was(desk: Desk, silent: str, own: float, providers: float, blamed: bool) -> None:
    pool = desk.pool("llm", url=silent, breaker_failures=1)
    pool.provider.timeout = providers
    pool.provider.save()
    desk.renew_configuration()
    worker = desk.worker()
    (job,) = desk.submit(type="http.request", queue="batch", payload={"pool": "llm", "path": "/"}, timeout=own)
    desk.cycle()
    worker.claim()
    worker.run()
    assert fresh(job).category == "timeout" and fresh(job).status == Status.RETRYING
    assert (account().health < 1, account().state) == (blamed, "open" if blamed else "available")


@pytest.mark.parametrize("why", [JobTimedOut, JobCancelled])
def test_a_thread_that_is_interrupted(desk: Desk, silent: str, why: type[BaseException]) -> None:
    desk.pool("llm", url=silent, breaker_failures=1)
    worker = desk.worker()
    desk.submit(type="http.request", queue="batch", payload={"pool": "llm", "path": "/"})
    desk.cycle()
    (claimed,) = worker.claim()
    slow = Running(replace(claimed, context=replace(claimed.context, timeout=1.0)))
    found: list[RunResult] = []
    thread = threading.Thread(target=lambda: found.append(slow.run()))
    thread.start()
    while slow.deadline is None:
        thread.join(0.01)
    slow.interrupt(why)
    thread.join(20)
    worker.settle([claimed], found[0])
    assert (account().health, account().state) == (1.0, "available")


def test_a_forked_job_that_is_ended(desk: Desk, silent: str) -> None:
    desk.pool("llm", url=silent, breaker_failures=1)
    worker = desk.worker()
    for made in (timed_out, cancelled):
        desk.submit(type="http.request", queue="batch", payload={"pool": "llm", "path": "/"})
        desk.cycle()
        (claimed,) = worker.claim()
        worker.settle([claimed], made(claimed))
    assert (account().health, account().state) == (1.0, "available")
