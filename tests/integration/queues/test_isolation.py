"""Nothing that a task leaves behind reaches the next job: no context, no thread-local, no connection, no loop."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.db import connection, transaction
from django.utils import timezone, translation

from queues import registry
from queues.models import Job
from queues.states import Status
from quotas.models import Project
from tests.integration.queues.conftest import wait_until
from tests.integration.queues.desk import Desk
from tests.integration.queues.hands import Hands, hands

variable = contextvars.ContextVar("variable", default="clean")
local = threading.local()


@pytest.fixture
def worker(desk: Desk) -> Iterator[Hands]:
    """One slot, so that one job follows the other in it."""
    with hands(desk, places=1) as made:
        yield made


def pollute() -> None:
    variable.set("used")
    local.value = "used"
    timezone.activate("Asia/Tokyo")
    translation.activate("de")
    decimal.getcontext().prec = 3
    structlog.contextvars.bind_contextvars(customer="acme")
    asyncio.set_event_loop(asyncio.new_event_loop())


def seen() -> dict[str, Any]:
    try:
        loop = repr(asyncio.get_event_loop_policy().get_event_loop())
    except RuntimeError:
        loop = "none"
    return {
        "variable": variable.get(),
        "local": getattr(local, "value", "clean"),
        "timezone": timezone.get_current_timezone_name(),
        "language": translation.get_language(),
        "precision": decimal.getcontext().prec,
        "structlog": structlog.contextvars.get_contextvars(),
        "loop": loop,
    }


CLEAN = {
    "variable": "clean",
    "local": "clean",
    "timezone": "UTC",
    "language": "en-us",
    "precision": 28,
    "structlog": {},
    "loop": "none",
}


def finished(worker: Hands, type: str, project: str = "acme") -> Any:
    (job,) = worker.desk.submit(type=type, project=project, max_attempts=1)
    row = worker.run(job)
    assert row.status == Status.COMPLETED, row.error
    return row.result


async def apollute() -> None:
    pollute()
    await sync_to_async(pollute)()


@pytest.mark.parametrize("by", [pollute, apollute])
def test_what_a_task_sets_reaches_no_other_job(desk: Desk, worker: Hands, type_of: Any, by: Any) -> None:
    type_of("test.pollute")(lambda job: by())
    type_of("test.seen")(lambda job: seen())

    async def aseen(job: Any) -> Any:
        return [seen() | {"loop": "none"}, await sync_to_async(seen)()]

    type_of("test.aseen")(aseen)
    finished(worker, "test.pollute")
    assert finished(worker, "test.seen", "other") == CLEAN
    assert finished(worker, "test.aseen", "other") == [CLEAN, CLEAN]


def test_what_a_task_of_ours_finds_is_clean_too(desk: Desk, worker: Hands, type_of: Any) -> None:
    """In the thread of a slot itself, where no user's code runs: its context is fresh all the same."""
    type_of("test.seen")(lambda job: seen())
    kind: Any = registry.get("test.seen")
    kind.trusted = True
    type_of("test.pollute")(lambda job: variable.set("used") and None)
    polluter: Any = registry.get("test.pollute")
    polluter.trusted = True
    finished(worker, "test.pollute")
    assert finished(worker, "test.seen")["variable"] == "clean"


def leave_autocommit_off() -> None:
    transaction.set_autocommit(False)
    Project.objects.count()


def leave_a_block_open() -> None:
    transaction.atomic().__enter__()
    Project.objects.filter(slug="acme").update(name="never")


def begin_by_hand() -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE quotas_project SET name = 'never' WHERE slug = 'acme'")


def break_a_block() -> None:
    transaction.atomic().__enter__()
    connection.needs_rollback = True


def close_in_a_block() -> None:
    transaction.atomic().__enter__()
    connection.close()


def close_beneath() -> None:
    Project.objects.count()
    connection.connection.close()


def fail_in_a_block() -> None:
    leave_a_block_open()
    raise SystemExit(1)


LEFT = [
    leave_autocommit_off, leave_a_block_open, begin_by_hand, break_a_block, close_in_a_block, close_beneath,
    fail_in_a_block,
]  # fmt: skip


def count() -> int:
    return Project.objects.filter(name="never").count()


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("called", ["directly", "from a loop", "through a pool"])
@pytest.mark.parametrize("leave", LEFT)
def test_a_connection_that_a_task_has_spoilt_serves_nobody_else(
    desk: Desk, worker: Hands, type_of: Any, leave: Any, called: str, trusted: bool
) -> None:
    desk.pool("llm")
    options = {"pool": "llm"} if called == "through a pool" else {}

    async def aleave(job: Any) -> None:
        await sync_to_async(leave)()

    async def acount(job: Any) -> int:
        return await Project.objects.filter(name="never").acount()

    type_of("test.leave", **options)(aleave if called == "from a loop" else lambda job: leave())
    type_of("test.count", **options)(acount if called == "from a loop" else lambda job: count())
    for name in ("test.leave", "test.count"):
        kind: Any = registry.get(name)
        kind.trusted = trusted
    (job,) = desk.submit(type="test.leave", max_attempts=1)
    row = worker.run(job)
    assert row.status == (Status.DEAD if leave is fail_in_a_block else Status.COMPLETED), row.error
    for _ in range(2):
        assert finished(worker, "test.count") == 0, "what was not committed is gone"
    Project.objects.create(slug="free", name="nobody holds the lock to write")


def test_connections_of_a_job_end_with_it(desk: Desk, worker: Hands, type_of: Any) -> None:
    opened: list[Any] = []

    def opens(job: Any) -> None:
        Project.objects.count()
        opened.append(connection.connection)

    async def aopens(job: Any) -> None:
        await sync_to_async(opens)(job)

    type_of("test.opens")(opens)
    type_of("test.aopens")(aopens)
    finished(worker, "test.opens")
    finished(worker, "test.aopens")
    first, second = opened
    assert first is not second
    wait_until(lambda: all(is_closed(raw) for raw in opened))


def is_closed(raw: Any) -> bool:
    try:
        raw.cursor().execute("SELECT 1")
    except Exception as error:  # noqa: BLE001 - which one depends on the database
        return "closed" in str(error)
    return False


def test_one_job_s_blocking_call_does_not_hold_up_another_loop(desk: Desk, type_of: Any) -> None:
    """By asgiref's rules all loops of a process would share one thread for their synchronous calls."""
    blocked, release = threading.Event(), threading.Event()

    async def blocks(job: Any) -> None:
        await sync_to_async(lambda: (blocked.set(), release.wait(30)))()

    async def counts(job: Any) -> int:
        return await Project.objects.acount()

    type_of("test.blocks")(blocks)
    type_of("test.counts")(counts)
    with hands(desk) as worker:
        (blocking,) = desk.submit(type="test.blocks")
        worker.start()
        assert blocked.wait(10)
        assert finished(worker, "test.counts") == 1
        assert Job.objects.get(pk=blocking.pk).status == Status.EXECUTING
        release.set()


def test_clients_of_caches_are_closed_with_the_context(desk: Desk, worker: Hands, type_of: Any) -> None:
    closed: list[str] = []

    def opens(job: Any) -> None:
        cache: Any = caches["default"]
        cache.close = lambda **options: closed.append(job.id)

    type_of("test.cache")(opens)
    (job,) = desk.submit(type="test.cache")
    worker.run(job)
    assert closed == [job.uid]
