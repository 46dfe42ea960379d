"""Jobs in threads, ended from outside: at their next instruction, and also where they only wait for something."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from queues import event_loops
from queues.deliveries import Ended
from queues.errors import JobCancelled, JobTimedOut
from queues.states import AttemptOutcome, Stage, Status
from queues.worker import job_loop
from queues.worker import thread_pool as thread_pool_module
from queues.worker.running import Running
from queues.worker.thread_pool import JobThreadPool
from tests.integration.queues.conftest import wait_until
from tests.integration.queues.desk import Desk, fresh
from tests.integration.queues.hands import hands

ASLEEP = 600.0


@pytest.mark.parametrize(
    ("why", "outcome"), [(JobCancelled, AttemptOutcome.CANCELLED), (JobTimedOut, AttemptOutcome.FAILED)]
)
def test_an_async_task_that_waits_is_woken_up_and_cleans_up(
    desk: Desk, type_of: Any, why: type[BaseException], outcome: AttemptOutcome
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
    threads = JobThreadPool(1, ended.append)
    threads.start(worker.claim())
    wait_until(lambda: ended)
    threads.drain(lambda since: True)
    assert (ended[0].result.outcome, ended[0].result.category) == (AttemptOutcome.FAILED, "timeout")


async def _ignores_interrupts_in_a_call(job: Any) -> None:
    await sync_to_async(_sleep_on)()


def _sleep_on() -> None:
    until = time.monotonic() + ASLEEP
    while time.monotonic() < until:
        time.sleep(0.01)


def _waits_for_a_process(job: Any) -> None:
    subprocess.run(["sleep", str(ASLEEP)], check=False)


def _forks_and_waits(job: Any) -> None:
    subprocess.run(["sh", "-c", f"sleep {ASLEEP} & wait"], check=False)


@pytest.mark.parametrize("by", [_ignores_interrupts_in_a_call, _waits_for_a_process, _forks_and_waits])
def test_what_does_not_heed_the_first_interrupt_ends_by_a_later_one(desk: Desk, type_of: Any, by: Any) -> None:
    type_of("test.ignores_interrupts")(by)
    (job,) = desk.submit(type="test.ignores_interrupts", timeout=0.2, max_attempts=1)
    with hands(desk, places=1) as worker:
        assert worker.run(job).category == "timeout"
        assert worker.threads.lost == 0


def test_a_coroutine_that_catches_everything_is_kept_where_nobody_collects_it(
    desk: Desk, type_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would end it by an exception, which it catches, and go round in it for ever."""
    monkeypatch.setattr(thread_pool_module, "STUCK_AFTER", 0.3)
    before = len(job_loop.abandoned)
    release = threading.Event()

    async def ignores_interrupts(job: Any) -> None:
        while not release.is_set():
            with contextlib.suppress(BaseException):
                await asyncio.sleep(ASLEEP)

    type_of("test.ignores_interrupts")(ignores_interrupts)
    (job,) = desk.submit(type="test.ignores_interrupts", timeout=0.2, max_attempts=1)
    try:
        with hands(desk, places=1) as worker:
            assert worker.run(job).category == "timeout"
            assert worker.threads.lost == 1
            assert not worker.threads.wait_for_slot(0.1), "its slot is lost"
        wait_until(lambda: len(job_loop.abandoned) == before + 1)
    finally:
        release.set()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_coroutine_that_its_own_loop_abandons_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loops, "_abandoned", [])
    begun, release = threading.Event(), threading.Event()

    async def ignores_interrupts() -> None:
        begun.set()
        while not release.is_set():
            with contextlib.suppress(BaseException):
                await asyncio.sleep(ASLEEP)

    def run() -> None:
        with contextlib.suppress(JobTimedOut):
            event_loops.run(ignores_interrupts())

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(10)

    def has_ended() -> bool:
        event_loops.interrupt(thread.ident or 0, JobTimedOut)
        thread.join(0.3)
        return not thread.is_alive()

    wait_until(has_ended)
    assert event_loops.abandoned() == 1
    release.set()
    monkeypatch.undo()
    gc.collect()


def test_a_thread_that_goes_on_counts_as_lost_until_it_is_gone(
    desk: Desk, type_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_pool_module, "STUCK_AFTER", 0.3)
    release = threading.Event()

    def ignores_interrupts(job: Any) -> None:
        while not release.is_set():
            with contextlib.suppress(BaseException):
                time.sleep(0.01)

    type_of("test.ignores_interrupts")(ignores_interrupts)
    (job,) = desk.submit(type="test.ignores_interrupts", timeout=0.2, max_attempts=1)
    with hands(desk, places=1) as worker:
        assert worker.run(job).category == "timeout"
        assert worker.threads.lost == 1
        assert not worker.threads.wait_for_slot(0.1), "its slot is lost"
        release.set()
        assert worker.threads.wait_for_slot(10)
        assert worker.threads.lost == 0


def test_a_vital_thread_that_ends_ends_its_process() -> None:
    code = (
        "import time; from queues.worker.vital_thread import VitalThread\n"
        "VitalThread(lambda: 1 / 0, 'completer', lambda: print('said', flush=True)).start(); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 70
    assert "worker.thread_died" in done.stdout and "said" in done.stdout


def test_a_vital_thread_ends_its_process_also_where_its_last_words_fail() -> None:
    code = (
        "import time; from queues.worker.vital_thread import VitalThread\n"
        "VitalThread(lambda: exit(0), 'deadlines', lambda: 1 / 0).start(); time.sleep(60)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30).returncode == 70


@pytest.mark.parametrize(
    ("settle", "delivery", "waits"),
    [
        (None, "at_least_once", False),
        (None, "at_most_once", True),
        ("before_next", "at_least_once", True),
        ("in_groups", "at_most_once", False),
    ],
)
def test_the_next_job_starts_before_or_after_the_last_end_is_written(
    desk: Desk, type_of: Any, settle: str | None, delivery: str, waits: bool
) -> None:
    started: list[str] = []

    def note(job: Any) -> None:
        started.append(job.id)

    type_of("test.noted", settle=settle, delivery=delivery)(note)
    first, second = desk.submit(type="test.noted"), desk.submit(type="test.noted")
    worker = desk.worker(places=2)
    desk.cycle()
    ended: list[Ended] = []
    threads = JobThreadPool(1, ended.append)
    threads.start(worker.claim())
    wait_until(lambda: len(ended) == (1 if waits else 2))
    if waits:
        assert not threads.wait_for_slot(0.2)
        assert started == [first[0].uid]
        threads.written([(ended[0].claimed.id, ended[0].claimed.delivery)])
        wait_until(lambda: len(ended) == 2)
    assert started == [first[0].uid, second[0].uid]
    assert threads.drain(lambda since: True) == []


@pytest.mark.parametrize(
    ("delivery", "settle", "ahead"),
    [
        ("at_least_once", None, True),
        ("at_least_once", "before_next", False),
        ("at_most_once", None, False),
        ("at_most_once", "in_groups", False),
    ],
)
def test_quick_jobs_are_claimed_before_a_slot_is_free_for_them(
    desk: Desk, type_of: Any, delivery: str, settle: str | None, ahead: bool
) -> None:
    go = threading.Event()
    type_of("test.quick")(lambda job: None)
    type_of("test.slow", delivery=delivery, settle=settle)(lambda job: go.wait(ASLEEP) and None)
    for _ in range(60):
        desk.submit(type="test.quick")
    for _ in range(5):
        desk.submit(type="test.slow")
    worker = desk.worker(places=65)
    desk.cycle()
    found = worker.claim()
    slow = [claimed for claimed in found if claimed.job.type == "test.slow"]
    quick = [claimed for claimed in found if claimed.job.type == "test.quick"]
    ended: list[Ended] = []
    threads = JobThreadPool(4, ended.append)
    try:
        threads.start(quick)
        wait_until(lambda: len(ended) == len(quick))
        threads.start(slow[:4])
        assert threads.wait_for_slot(0.1) is ahead, "all slots are busy"
        threads.start(slow[4:])
        assert len(threads.job_ids()) == 5
        wait_until(lambda: not threads.wait_for_slot(0.01))  # the jobs are slow ones now
    finally:
        go.set()
    wait_until(lambda: len(ended) >= 64)
    threads.written([(item.claimed.id, item.claimed.delivery) for item in ended])
    wait_until(lambda: len(ended) == 65)
    assert {item.result.outcome for item in ended} == {AttemptOutcome.SUCCEEDED}
    threads.drain(lambda since: True)


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
@pytest.mark.parametrize("stops", [False, True], ids=["stays", "stops"])
def test_a_delivery_without_a_slot_is_returned_unharmed(desk: Desk, type_of: Any, delivery: str, stops: bool) -> None:
    """RolnickLab/antenna#1323, saleor/saleor#16488: a job waits behind a long one in one worker while another is idle."""
    go, begun = threading.Event(), threading.Event()

    def long(job: Any) -> None:
        begun.set()
        go.wait(ASLEEP)

    type_of("test.long")(long)
    type_of("test.behind", delivery=delivery)(lambda job: None)
    desk.submit(type="test.long", priority=1)
    (behind,) = desk.submit(type="test.behind")
    worker = desk.worker()
    desk.cycle()
    ended: list[Ended] = []
    threads = JobThreadPool(1, ended.append)
    try:
        threads.start(sorted(worker.claim(), key=lambda item: item.job.type, reverse=True))
        assert begun.wait(10)
        if stops:
            assert [item.job.type for item in threads.drain(lambda since: True)] == ["test.long"]
        wait_until(lambda: len(ended) == 1)
        assert threads.job_ids() == {item.id for item in worker.claimed_jobs} - {behind.pk}
        worker.settle([ended[0].claimed], ended[0].result)
        job = fresh(behind)
        assert (job.stage, job.status, job.attempts_counted, job.returns) == (Stage.READY, Status.PENDING, 0, 0)
        other = desk.worker("w2")
        desk.cycle()
        other.run(other.claim())
        assert fresh(behind).status == Status.COMPLETED
    finally:
        go.set()
        threads.drain(lambda since: True)


def test_a_parcel_is_claimed_as_far_as_slots_are_free(desk: Desk, type_of: Any) -> None:
    go = threading.Event()
    type_of("test.long")(lambda job: go.wait(ASLEEP) and None)
    desk.submit(3, type="test.long")
    worker = desk.worker()
    desk.cycle()
    ended: list[Ended] = []
    threads = JobThreadPool(4, ended.append)
    try:
        assert threads.room() == 4
        threads.start(worker.claim())
        assert threads.room() == 1
    finally:
        go.set()
    wait_until(lambda: len(ended) == 3)
    assert threads.room() > 4, "quick jobs are claimed beyond the slots"
    threads.drain(lambda since: True)


def test_slow_jobs_are_claimed_for_free_slots_only(desk: Desk, type_of: Any) -> None:
    type_of("test.slow")(lambda job: time.sleep(0.4))
    for _ in range(4):
        desk.submit(type="test.slow")
    worker = desk.worker(places=4)
    desk.cycle()
    ended: list[Ended] = []
    threads = JobThreadPool(4, ended.append)
    threads.start(worker.claim())
    assert not threads.wait_for_slot(0.1)
    assert threads.wait_for_slot(10)
    wait_until(lambda: len(ended) == 4)
    threads.drain(lambda since: True)


def test_an_unknown_order_of_settling_is_refused(type_of: Any) -> None:
    with pytest.raises(TypeError, match="settle"):
        type_of("test.noted", settle="later")(lambda job: None)
