"""Async jobs of one worker in one event loop: each for itself, whatever another one does to the loop."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queues.models import Job
from queues.states import Status
from quotas import events
from tests.integration.queues.conftest import wait_until
from tests.integration.queues.desk import Desk, fresh
from tests.integration.queues.hands import Hands, hands

LONG = 600.0


@pytest.fixture
def worker(desk: Desk) -> Iterator[Hands]:
    with hands(desk, places=20) as made:
        yield made


def ended(job: Job, seconds: float = 20.0) -> Job:
    wait_until(lambda: fresh(job).status in (Status.COMPLETED, Status.DEAD, Status.CANCELLED), seconds)
    return fresh(job)


def test_many_jobs_wait_in_one_thread(desk: Desk, worker: Hands, type_of: Any) -> None:
    loops: list[Any] = []

    async def waits(job: Any) -> None:
        loops.append(asyncio.get_running_loop())
        async with asyncio.timeout(20):
            while len(loops) < 20:
                await asyncio.sleep(0.01)

    type_of("test.waits")(waits)
    jobs = [desk.submit(type="test.waits", max_attempts=1)[0] for _ in range(20)]
    worker.start()
    wait_until(lambda: len(loops) == 20)
    assert sum(thread.name in ("job", "job-loop") for thread in threading.enumerate()) == 1
    assert [ended(job).status for job in jobs] == [Status.COMPLETED] * 20
    assert len(set(loops)) == 1


def sleeps_in_python() -> None:
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        time.sleep(0.01)


def waits_for_a_process() -> None:
    subprocess.run(["sleep", str(LONG)], check=False)


@pytest.mark.parametrize("block", [sleeps_in_python, waits_for_a_process])
def test_code_that_blocks_the_loop_ends_by_its_deadline_and_delays_no_job_that_comes(
    desk: Desk, worker: Hands, type_of: Any, block: Any
) -> None:
    begun, woken = threading.Event(), threading.Event()
    seen: list[Any] = []

    async def fellow(job: Any) -> None:
        begun.set()
        await asyncio.sleep(1.5)
        woken.set()

    async def blocks(job: Any) -> None:
        block()

    async def quick(job: Any) -> str:
        return "done"

    for name, function in {"test.fellow": fellow, "test.blocks": blocks, "test.quick": quick}.items():
        type_of(name)(function)
    (sharing,) = desk.submit(type="test.fellow", max_attempts=1)
    worker.start()
    assert begun.wait(10)
    (blocking,) = desk.submit(type="test.blocks", timeout=4.0, max_attempts=1)
    events.subscribe(events.LoopBlocked, seen.append)
    try:
        worker.start()
        wait_until(lambda: seen)
    finally:
        events.unsubscribe(events.LoopBlocked, seen.append)
    (later,) = desk.submit(type="test.quick", max_attempts=1)
    assert worker.run(later).result == "done"
    assert not woken.is_set() and fresh(blocking).status == Status.EXECUTING
    row = ended(blocking)
    assert (row.status, row.category) == (Status.DEAD, "timeout")
    assert ended(sharing).status == Status.COMPLETED, "the loop ran its job again"
    assert [event.job for event in seen] == [blocking.uid]


def test_a_job_that_came_before_the_block_was_seen_runs_in_another_loop(
    desk: Desk, worker: Hands, type_of: Any
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    async def blocks(job: Any) -> None:
        begun.set()
        go_on.wait(60)

    async def quick(job: Any) -> str:
        return "done"

    type_of("test.blocks")(blocks)
    type_of("test.quick")(quick)
    (blocking,) = desk.submit(type="test.blocks", max_attempts=1)
    worker.start()
    assert begun.wait(10)
    (caught,) = desk.submit(type="test.quick", max_attempts=1)
    assert worker.run(caught).result == "done"
    assert fresh(blocking).status == Status.EXECUTING
    go_on.set()
    assert ended(blocking).status == Status.COMPLETED
    assert fresh(caught).attempts_made == 1


def test_what_a_job_starts_ends_with_it_and_with_no_other_job(
    desk: Desk, worker: Hands, type_of: Any, tmp_path: Path
) -> None:
    """Its tasks, its blocking calls and its processes, also where it is interrupted."""
    alive: dict[str, Any] = {}
    interrupted = threading.Event()

    def call() -> None:
        try:
            sleeps_in_python()
        except BaseException:
            interrupted.set()
            raise

    async def starts(job: Any, name: str, leave: bool) -> None:
        process = await asyncio.create_subprocess_exec("sleep", str(LONG))
        alive[name] = process
        alive[f"{name}-task"] = asyncio.ensure_future(asyncio.sleep(LONG))
        if leave:
            alive[f"{name}-call"] = asyncio.ensure_future(asyncio.to_thread(call))
            await asyncio.sleep(0.1)
            return
        await process.wait()

    type_of("test.starts")(starts)
    (neighbour,) = desk.submit(type="test.starts", payload={"name": "neighbour", "leave": False}, max_attempts=1)
    worker.start()
    wait_until(lambda: "neighbour-task" in alive)
    (leaver,) = desk.submit(type="test.starts", payload={"name": "leaver", "leave": True}, max_attempts=1)
    assert worker.run(leaver).status == Status.COMPLETED
    assert alive["leaver-task"].cancelled() and interrupted.wait(10)
    (late,) = desk.submit(type="test.starts", payload={"name": "late", "leave": False}, timeout=0.5, max_attempts=1)
    assert worker.run(late).category == "timeout"
    wait_until(lambda: alive["late"].returncode is not None)
    assert alive["late-task"].cancelled()
    assert alive["neighbour"].returncode is None and not alive["neighbour-task"].done()
    worker.threads.cancel([(neighbour.pk, fresh(neighbour).delivery)])
    assert ended(neighbour).status == Status.CANCELLED
    wait_until(lambda: alive["neighbour"].returncode is not None)


async def stops_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)


async def exits_in_a_task() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    await asyncio.wait([asyncio.ensure_future(leave())])


async def exits_in_a_callback() -> None:
    def leave() -> None:
        raise SystemExit(3)

    asyncio.get_running_loop().call_soon(leave)
    await asyncio.sleep(0.05)


async def tampers() -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *args: None)
    with pytest.raises(RuntimeError):
        loop.close()


@pytest.mark.parametrize("harm", [stops_the_loop, exits_in_a_task, exits_in_a_callback, tampers])
def test_what_a_job_does_to_the_loop_harms_no_other(desk: Desk, worker: Hands, type_of: Any, harm: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    async def neighbour(job: Any) -> str:
        begun.set()
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        return "done"

    async def harms(job: Any) -> None:
        await harm()

    type_of("test.neighbour")(neighbour)
    type_of("test.harms")(harms)
    (other,) = desk.submit(type="test.neighbour", max_attempts=1)
    worker.start()
    assert begun.wait(10)
    (job,) = desk.submit(type="test.harms", max_attempts=1)
    assert worker.run(job).status == Status.COMPLETED
    go_on.set()
    assert ended(other).result == "done"


def test_names_are_resolved_in_threads_that_jobs_share(desk: Desk, worker: Hands, type_of: Any) -> None:
    async def resolves(job: Any) -> Any:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("localhost", 80, type=1)
        name, port = await loop.getnameinfo(("127.0.0.1", 80), 3)
        return [found[0][4][1], name, port]

    type_of("test.resolves")(resolves)
    (job,) = desk.submit(type="test.resolves", max_attempts=1)
    assert worker.run(job).result == [80, "127.0.0.1", "80"]
