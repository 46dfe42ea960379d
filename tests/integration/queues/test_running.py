"""Jobs in threads, ended from outside: at their next instruction, and also where they only wait for something."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from queues.errors import JobCancelled, JobTimedOut
from queues.states import Outcome
from queues.worker.crew import Crew
from queues.worker.running import Running
from queues.worker.settle import Ended
from tests.integration.queues.conftest import wait_until
from tests.integration.queues.desk import Desk

ASLEEP = 600.0


@pytest.mark.parametrize(("why", "outcome"), [(JobCancelled, Outcome.CANCELLED), (JobTimedOut, Outcome.FAILED)])
def test_an_async_task_that_waits_is_woken_up_and_cleans_up(
    desk: Desk, type_of: Any, why: type[BaseException], outcome: Outcome
) -> None:
    waits, cleaned = threading.Event(), threading.Event()

    async def asleep(job: Any) -> None:
        try:
            asyncio.get_running_loop().call_soon(waits.set)  # the last thing before the loop's own wait
            await asyncio.sleep(ASLEEP)
        finally:
            await asyncio.sleep(0)  # the loop still runs
            cleaned.set()

    type_of("test.asleep")(asleep)
    desk.submit(type="test.asleep")
    worker = desk.worker()
    desk.cycle()
    (claimed,) = worker.claim()
    running, ends = Running(claimed), []
    thread = threading.Thread(target=lambda: ends.append(running.run()))
    thread.start()
    assert waits.wait(10)
    running.interrupt(why)
    thread.join(ASLEEP / 10)
    assert not thread.is_alive()
    assert cleaned.is_set()
    assert ends[0].outcome == outcome
    assert ends[0].category == ("timeout" if why is JobTimedOut else "")


def test_the_deadline_of_an_async_task_is_kept(desk: Desk, type_of: Any) -> None:
    async def asleep(job: Any) -> None:
        await asyncio.sleep(ASLEEP)

    type_of("test.asleep")(asleep)
    desk.submit(type="test.asleep", timeout=0.2)
    worker = desk.worker()
    desk.cycle()
    ended: list[Ended] = []
    crew = Crew(1, ended.append)
    crew.take(worker.claim())
    wait_until(lambda: ended)
    crew.drain(lambda since: True)
    assert (ended[0].result.outcome, ended[0].result.category) == (Outcome.FAILED, "timeout")
