"""Event loops of async functions, by the thread that each one runs in.

A loop that waits for something executes no Python instruction, so that an interrupt that was sent to its thread would
come when the wait is over. `wake` ends the wait; the loop's tasks are then cancelled, with their cleaning up.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

_loops: dict[int, asyncio.AbstractEventLoop] = {}


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end in a loop of its own; its value."""
    thread = threading.get_ident()
    try:
        with asyncio.Runner() as runner:
            _loops[thread] = runner.get_loop()
            return runner.run(coroutine)
    finally:
        _loops.pop(thread, None)


def wake(thread: int) -> None:
    """Let the loop of a thread look up, where it runs one."""
    loop = _loops.get(thread)
    if loop is not None:
        with suppress(RuntimeError):  # closed just now
            loop.call_soon_threadsafe(int)  # no Python code: what is raised in a callback would be swallowed there
