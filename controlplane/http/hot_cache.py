"""What the hot calls need of SQL, from memory: who calls, and which limits there are.

Nothing here waits for SQL while what is known is young. It is renewed by a thread when it is half as old as it may
get, so that a busy server never waits; what has grown too old (nobody called for a while) is waited for. Where SQL
hangs, callers go on after PATIENCE seconds with what there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from controlplane.http.threads import Threads
from quotas.rest.authentication import FRESH, STALE, keyring
from quotas.rest.caller import Caller
from quotas.snapshot.config import ConfigSnapshot, configuration
from quotas.snapshot.freshness import LOOK_EVERY, PATIENCE, PROMISE


class HotCache:
    """One event loop's view of callers and configuration."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._looks: dict[str, asyncio.Future[Any]] = {}

    async def caller(self, token: str) -> Caller | None:
        """Whose key this is; None: nobody's. Raises what SQL raises where the key is not known at all."""
        held, age = keyring.peek(token)
        if held is not None and age < FRESH / 2:
            return held
        look = self._look(token, lambda: keyring.find(token, FRESH / 2))
        if held is not None and age < FRESH:
            return held
        if held is None or age >= STALE:
            return await asyncio.shield(look)
        return await self._within_patience(look, held)

    async def configuration(self) -> ConfigSnapshot:
        """The snapshot of policies. Raises what SQL raises where there is none yet."""
        held, age = configuration.peek()
        if held is not None and age < LOOK_EVERY:
            return held
        look = self._look("", configuration.get)
        if held is None:
            return await asyncio.shield(look)
        return held if age < PROMISE else await self._within_patience(look, held)

    def _look(self, name: str, find: Callable[[], Any]) -> asyncio.Future[Any]:
        """One look at a time for each name."""
        look = self._looks.get(name)
        if look is None:
            look = self._looks[name] = asyncio.ensure_future(_awaited(self._threads.short(find)))
            look.add_done_callback(lambda done: self._ended(name, done))
        return look

    def _ended(self, name: str, look: asyncio.Future[Any]) -> None:
        self._looks.pop(name, None)
        if not look.cancelled():
            look.exception()  # whoever waited for it has it; in the background the next look tries again

    @staticmethod
    async def _within_patience(look: asyncio.Future[Any], held: Any) -> Any:
        await asyncio.wait({look}, timeout=PATIENCE)
        return look.result() if look.done() and not look.cancelled() and look.exception() is None else held


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work
