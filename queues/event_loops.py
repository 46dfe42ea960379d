"""Event loops of single async functions, each in the thread of its job, with a thread of its own for blocking calls.

For what a worker's shared event loop can't run: a process of its own, and a plain function that returns an awaitable.

A loop that waits for something executes no Python instruction, so that an interrupt that was sent to its thread would
come when the wait is over. `interrupt` ends the wait; the loop's tasks are then cancelled, with their cleaning up.

What is synchronous in an async function (Django's ORM above all) runs by asgiref's rules in one thread of the process,
for all loops together. Here each loop has its own such thread, so that a call that blocks is the trouble of its own
job, and no connection is shared by two jobs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from asgiref.sync import ThreadSensitiveContext

from queues.call_threads import CallThreads, raise_in


@dataclass(frozen=True, slots=True)
class _Running:
    loop: asyncio.AbstractEventLoop
    sync: CallThreads


_loops: dict[int, _Running] = {}
_abandoned: list[object] = []
"""Tasks of loops that ended without them, since they catch whatever is to end them. Kept for the life of the process:
Python ends a coroutine that nothing refers to by an exception, and one that catches that, too, would go round for ever
in whichever thread collects it."""


def abandoned() -> int:
    """Tasks that no interrupt has ended; only the end of the process gets rid of them."""
    return len(_abandoned)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end in a loop of its own; its value."""
    thread = threading.get_ident()
    sync = CallThreads()
    sensitive, context = ThreadSensitiveContext(executor=sync), copy_context()
    try:
        with asyncio.Runner() as runner:
            _loops[thread] = _Running(runner.get_loop(), sync)
            return runner.run(_within(sensitive, coroutine), context=context)
    finally:
        # Not by the coroutine: if it is abandoned, it is ended outside its context, or never.
        context.run(_finish, sensitive.__aexit__(None, None, None))  # type: ignore[no-untyped-call]
        running = _loops.pop(thread, None)
        if running is not None:
            _abandoned.extend(asyncio.all_tasks(running.loop))
        sync.end()


async def _within(sensitive: ThreadSensitiveContext, coroutine: Coroutine[Any, Any, Any]) -> Any:
    await sensitive.__aenter__()  # type: ignore[no-untyped-call]
    return await coroutine


def _finish(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that waits for nothing."""
    with suppress(StopIteration):
        coroutine.send(None)


def interrupt(thread: int, why: type[BaseException]) -> None:
    """Raise `why` in a thread at its next Python instruction; where it runs a loop, let that look up, and raise it in
    the synchronous call that the loop waits for."""
    raise_in(thread, why)
    running = _loops.get(thread)
    if running is not None:
        running.sync.interrupt(why)
        with suppress(RuntimeError):  # closed just now
            running.loop.call_soon_threadsafe(int)  # no Python code: what is raised in a callback is swallowed there
