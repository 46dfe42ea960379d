"""Job types for instances under test: `SLUICE_TASK_MODULES=tests.acceptance.tasks`."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from queues import JobError, task

SCRATCH = Path(os.environ.get("ACCEPTANCE_SCRATCH", "/nonexistent"))
"""A directory that the test and its tasks share."""


def note(name: str, text: str) -> None:
    """One line into a file of the scratch directory; whole also where many processes write."""
    with open(SCRATCH / name, "a") as file:
        file.write(f"{text}\n")


@task(name="t.echo", redact=("password",))
def echo(job: Any, text: str = "", password: str = "") -> dict[str, Any]:
    """Answers at once."""
    return {"text": text, "attempt": job.attempt}


@task(name="t.sleep")
def sleep(job: Any, seconds: float = 0.1) -> None:
    """Takes its time, interruptible between two short naps."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))


@task(name="t.asleep")
async def asleep(job: Any, text: str) -> str:
    """An async function."""
    import asyncio

    await asyncio.sleep(0.01)
    return text


@task(name="t.stubborn")
def stubborn(job: Any, seconds: float = 60.0) -> None:
    """Blocks in one long C call that only a signal interrupts."""
    time.sleep(seconds)


@task(name="t.once", delivery="at_most_once")
def once(job: Any, seconds: float = 30.0) -> None:
    """Is delivered at most once."""
    note("once", f"{job.id} {job.attempt}")
    sleep.function(job, seconds)


@task(name="t.counted")
def counted(job: Any) -> None:
    """Notes each of its runs."""
    note("counted", job.id)


@task(name="t.acounted")
async def acounted(job: Any) -> None:
    """The same, in the event loop of its worker."""
    note("counted", job.id)


@task(name="t.settled", settle="before_next")
def settled(job: Any) -> None:
    """The same; its end is written before another job takes its slot."""
    note("counted", job.id)


@task(name="t.once_counted", delivery="at_most_once")
def once_counted(job: Any) -> None:
    """The same, delivered at most once."""
    note("counted", job.id)


@task(name="t.fail")
def fail(job: Any, category: str = "server", times: int = 1_000_000) -> str:
    """Fails in its first `times` attempts."""
    if job.attempt <= times:
        raise JobError("fails as asked", category=category)
    return "at last"


@task(name="t.until")
def until(job: Any, name: str) -> str:
    """Fails for as long as a file of this name isn't in the scratch directory."""
    if not (SCRATCH / name).exists():
        raise JobError("it is not there", category="server")
    return "it is there"


@task(name="t.log")
def log(job: Any) -> None:
    """Writes a line."""
    logging.getLogger("acceptance").warning("a line of a task")


@task(name="t.exit")
def leave(job: Any) -> None:
    """Poison: ends the process without a word."""
    os._exit(7)


@task(name="t.leave-quietly")
def leave_quietly(job: Any) -> None:
    """Ends the process as if all were well."""
    os._exit(0)


@task(name="t.ignores-interrupts")
def ignore_interrupts(job: Any, times: int = 1_000_000) -> None:
    """Catches what is to end it, so many times."""
    note("pids", str(os.getpid()))
    for _ in range(times):
        try:
            while True:
                time.sleep(0.01)
        except BaseException:  # noqa: BLE001 - the task that is tested catches everything
            note("caught", job.id)
    while True:
        time.sleep(0.01)


@task(name="t.children")
def children(job: Any, seconds: float = 600.0) -> None:
    """Starts processes and waits for them where no interrupt reaches it."""
    subprocess.run(["sh", "-c", f"sleep {seconds:g} & echo $! >> {SCRATCH}/{job.id}; wait"], check=False)


@task(name="t.terminate")
def terminate(job: Any) -> int | None:
    """Ends a process that it has started as `multiprocessing` does, in the way of everybody."""
    for _ in range(20):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(5)
        status = child.exitcode
        child.kill()
        if status != -signal.SIGTERM:
            break
    return status


@task(name="t.copy")
def copies(job: Any) -> str:
    """Forks, and both come back."""
    pid = os.fork()
    if pid == 0:
        return "the copy"
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


@task(name="t.untidy")
def untidy(job: Any) -> None:
    """Leaves a transaction open, its output closed, and a time zone that is not ours."""
    from django.db import transaction
    from django.utils import timezone

    timezone.activate("Asia/Tokyo")
    transaction.atomic().__enter__()
    sys.stdout.close()


@task(name="t.rows")
def rows(job: Any) -> int:
    """Reads SQL."""
    from quotas.models import Project

    return Project.objects.count()


@task(name="t.arows")
async def arows(job: Any) -> int:
    """Reads SQL from a loop."""
    from quotas.models import Project

    return await Project.objects.acount()


@task(name="t.segfault")
def segfault(job: Any) -> None:
    """Poison: reads where nothing is."""
    ctypes.string_at(0)


@task(name="t.hungry")
def hungry(job: Any, megabytes: int = 2000) -> None:
    """Poison: takes memory and never frees it."""
    kept = []
    for _ in range(megabytes // 8):
        kept.append(bytearray(os.urandom(1024)) * 8192)
        time.sleep(0.01)
    time.sleep(600)


@task(name="t.mark")
def mark(job: Any, name: str) -> None:
    """Leaves a line, so that its runs can be counted."""
    note(name, f"{job.id} {job.attempt} {time.time():.3f}")


def _die_before_the_kick() -> None:
    """In a web process of a test that requests it: killed between the commit of a submit and the dispatcher's kick."""
    from queues.lifecycle import effects

    real = effects.notify

    def notify(*args: Any, **options: Any) -> None:
        trap = SCRATCH / "die-before-the-kick"
        if trap.exists():
            trap.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args, **options)

    effects.notify = notify


if SCRATCH.exists() and "controlplane.web" in sys.orig_argv:
    _die_before_the_kick()
