"""What tasks did to the workers of other job queues, tried on a worker's real threads. Each row names its source."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import datetime
import decimal
import multiprocessing
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from queues.models import Job
from queues.states import Status
from quotas.models import Project
from tests.integration.queues.desk import Desk
from tests.integration.queues.hands import Hands, hands


@pytest.fixture
def worker(desk: Desk) -> Iterator[Hands]:
    with hands(desk, places=2) as made:
        yield made


async def _raise(error: BaseException) -> None:
    raise error


class Interrupted(BaseException):
    pass


class TwoArguments(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


async def stop_iteration() -> None:
    raise StopIteration(3)


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def recursion() -> None:
    recursion()


def raises(error: BaseException) -> Any:
    def run() -> None:
        raise error

    return run


def araises(error: BaseException) -> Any:
    return lambda: _raise(error)


def nested_loop() -> Any:
    async def outer() -> None:
        asyncio.run(asyncio.sleep(0))

    return outer()


FAILURES: dict[str, Any] = {
    "celery/celery#457 KeyboardInterrupt": raises(KeyboardInterrupt()),
    "celery/celery#1285 exit()": lambda: sys.exit(1),
    "celery/celery#6185 an exception that is not unpickled": lambda: raises(TwoArguments("a", "b"))(),
    "celery/billiard#457 a BaseException": raises(Interrupted("mine")),
    "procrastinate-org/procrastinate#871 CancelledError": raises(asyncio.CancelledError()),
    "python-arq/arq#213 CancelledError of a coroutine": araises(asyncio.CancelledError()),
    "dask/distributed#5846 a coroutine cancels itself": cancels_itself,
    "Bogdanp/dramatiq#791 TimeoutError of a coroutine": araises(TimeoutError()),
    "Bogdanp/dramatiq#791 TimeoutError": raises(TimeoutError()),
    "Bogdanp/dramatiq#791 TimeoutError of a future": raises(concurrent.futures.TimeoutError()),
    "Bogdanp/dramatiq#89 a recursion": recursion,
    "celery/django-celery-results#82 NUL in the traceback": raises(ValueError("a\x00b")),
    "akash-network/console#3898 NUL in an error": raises(OSError(2, "no\x00file", "x\x00")),
    "kestra-io/kestra#16010 half a surrogate": raises(ValueError("\ud800")),
    "coleifer/huey#441 a loop in a loop": nested_loop,
    "GeneratorExit": raises(GeneratorExit()),
    "GeneratorExit of a coroutine": araises(GeneratorExit()),
    "StopIteration": raises(StopIteration(1)),
    "StopIteration of a coroutine": stop_iteration,
    "SystemExit of a coroutine": araises(SystemExit(0)),
    "KeyboardInterrupt of a coroutine": araises(KeyboardInterrupt()),
    "MemoryError": raises(MemoryError()),
}


def assert_goes_on(worker: Hands, type_of: Any) -> None:
    """The next jobs of both slots, plain and of a loop, read SQL and complete."""

    async def counts(job: Any) -> int:
        return await Project.objects.acount()

    type_of("test.counts")(lambda job: Project.objects.count())
    type_of("test.acounts")(counts)
    for name in ("test.counts", "test.acounts") * 2:
        (job,) = worker.desk.submit(type=name, max_attempts=1)
        row = worker.run(job)
        assert row.status == Status.COMPLETED, row.error


@pytest.mark.parametrize("report", FAILURES)
def test_what_a_task_raises_fails_its_job_alone(desk: Desk, worker: Hands, type_of: Any, report: str) -> None:
    work = FAILURES[report]

    async def arun(job: Any) -> Any:
        return await work()

    is_async = asyncio.iscoroutinefunction(work) or "coroutine" in report or "loop in" in report
    type_of("test.raises")(arun if is_async else lambda job: work())
    (job,) = desk.submit(type="test.raises", max_attempts=1)
    row = worker.run(job)
    assert (row.status, row.category) == (Status.DEAD, "code"), (row.status, row.category, row.error)
    assert_goes_on(worker, type_of)


RESULTS: dict[str, Any] = {
    "kestra-io/kestra#10326 NUL": "a\x00b",
    "Zipstack/unstract#2289 NUL in a member's name": {"a\x00": [1]},
    "kestra-io/kestra#16010 half a surrogate": ["\udc59"],
    "Zipstack/unstract#2217 NaN": {"score": float("nan")},
    "Zipstack/unstract#2217 infinity": [float("-inf")],
    "Recidiviz/recidiviz-data#456 bytes": b"raw",
    "a date": datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC),
    "a decimal": decimal.Decimal("0.1"),
    "a UUID": uuid.UUID(int=1),
    "a set": {1, 2},
    "a member that is no text": {(1, 2): 3},
    "an exception": ValueError("returned"),
    "a function": recursion,
    "a coroutine that is not awaited": stop_iteration,
    "an integer of 5,000 digits": 10**5000,
}


@pytest.mark.parametrize("report", RESULTS)
def test_a_result_that_is_no_json_ends_its_job(desk: Desk, worker: Hands, type_of: Any, report: str) -> None:
    """As `completed` where it can be kept, else as the task's mistake; never in between."""
    type_of("test.returns")(lambda job: RESULTS[report])
    (job,) = desk.submit(type="test.returns", max_attempts=1)
    row = worker.run(job)
    assert row.status in (Status.COMPLETED, Status.DEAD), row.status
    if row.status == Status.DEAD:
        assert row.category == "code" and row.error
    assert Job.objects.get(pk=job.pk).result == row.result
    assert_goes_on(worker, type_of)


left: list[Any] = []


def leaves_a_thread() -> None:
    release = threading.Event()
    left.append(release)
    threading.Thread(target=release.wait, args=(30,), daemon=True).start()


def leaves_a_task() -> Any:
    async def leave() -> None:
        left.append(asyncio.ensure_future(asyncio.sleep(60)))

    return leave()


def closes_its_loop() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.close()


def stops_its_loop() -> Any:
    async def stop() -> None:
        asyncio.get_running_loop().call_soon(lambda: None)
        asyncio.get_running_loop().slow_callback_duration = 0

    return stop()


def pool_of_processes() -> int:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(abs, [-1, -2]))


def starts_processes() -> None:
    child = multiprocessing.get_context("fork").Process(target=os.getpid)
    child.start()
    child.join(20)
    assert child.exitcode == 0


def forks() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def leaks_loops() -> None:
    for _ in range(20):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
    left.clear()


def hooks() -> None:
    def hook(args: Any) -> None:
        raise RuntimeError("the hook itself fails")

    threading.excepthook = hook
    thread = threading.Thread(target=raises(ValueError("in a thread")))
    thread.start()
    thread.join()


def blocks_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})


def registers_at_exit() -> None:
    atexit.register(int)


CHANGES: dict[str, Any] = {
    "sidekiq/sidekiq#2527 a thread that continues": leaves_a_thread,
    "rq/rq#1960 loops that are not closed": leaks_loops,
    "NousResearch/hermes-agent#2214 a closed loop": closes_its_loop,
    "karrot-dev/karrot-frontend#1696 a task that continues": leaves_a_task,
    "celery/celery#1709 a process": starts_processes,
    "Koed00/django-q#211 a pool of processes": pool_of_processes,
    "celery/celery#4297 a fork": forks,
    "celery/celery#1221 no timeout of sockets": lambda: socket.setdefaulttimeout(0.0001),
    "web2py/py4web#900 output that is closed": lambda: sys.stderr.flush(),
    "a hook for threads that fails": hooks,
    "a mask of signals": blocks_signals,
    "a function at exit": registers_at_exit,
    "options of a loop": stops_its_loop,
}


@pytest.fixture
def restored() -> Iterator[None]:
    """This process is the test's own: whatever the worker leaves as it is must not reach other tests."""
    hook, timeout = threading.excepthook, socket.getdefaulttimeout()
    yield
    threading.excepthook = hook
    socket.setdefaulttimeout(timeout)
    atexit.unregister(int)
    for item in left:
        if isinstance(item, threading.Event):
            item.set()
    left.clear()


@pytest.mark.parametrize("report", CHANGES)
def test_what_a_task_leaves_behind_hinders_no_other_job(
    desk: Desk, worker: Hands, type_of: Any, restored: None, report: str
) -> None:
    work = CHANGES[report]

    async def arun(job: Any) -> Any:
        return await work()

    type_of("test.changes")(arun if work in (leaves_a_task, stops_its_loop) else lambda job: work() and None)
    (job,) = desk.submit(type="test.changes", max_attempts=1)
    row = worker.run(job)
    assert row.status == Status.COMPLETED, row.error
    assert_goes_on(worker, type_of)
