"""What the fast path needs from SQL, in memory: callers and limits.

A fresh entry needs no SQL. A thread renews an entry when it is half as old as it may become, so a busy server never
waits. An entry that is too old, after a time without calls, is read before the call is answered. If SQL hangs, callers
continue after MAX_WAIT seconds with the old entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from controlplane.http.threads import Threads
from quotas.rest.authentication import KEY_TTL, STALE, keyring
from quotas.rest.caller import Caller
from quotas.snapshot.config import ConfigSnapshot, configuration
from quotas.snapshot.freshness import LOOK_EVERY, MAX_WAIT, PROMISE

T = TypeVar("T")


class HotCache:
    """One event loop's view of callers and configuration."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._looks: dict[str, asyncio.Future[Any]] = {}

    async def caller(self, token: str) -> Caller | None:
        """The caller of a key; None if the key is unknown. Raises SQL's error if nothing is known about the key."""
        known, age = keyring.peek(token)
        if known is not None and age < KEY_TTL / 2:
            return known
        look = self._look(token, lambda: keyring.find(token, KEY_TTL / 2))
        if known is not None and age < KEY_TTL:
            return known
        if known is None or age >= STALE:
            return await asyncio.shield(look)
        return await self._within_patience(look, known)

    async def configuration(self) -> ConfigSnapshot:
        """The snapshot of policies. Raises SQL's error if there is none yet."""
        known, age = configuration.peek()
        if known is not None and age < LOOK_EVERY:
            return known
        look = self._look("", configuration.get)
        if known is None:
            return await asyncio.shield(look)
        return known if age < PROMISE else await self._within_patience(look, known)

    def _look(self, name: str, find: Callable[[], T]) -> asyncio.Future[T]:
        """One query at a time for each name."""
        look = self._looks.get(name)
        if look is None:
            look = self._looks[name] = asyncio.ensure_future(_awaited(self._threads.short(find)))
            look.add_done_callback(lambda done: self._ended(name, done))
        return look

    def _ended(self, name: str, look: asyncio.Future[Any]) -> None:
        self._looks.pop(name, None)
        if not look.cancelled():
            look.exception()  # callers that waited have got the error; in the background, the next query tries again

    @staticmethod
    async def _within_patience(look: asyncio.Future[T], known: T) -> T:
        await asyncio.wait({look}, timeout=MAX_WAIT)
        return look.result() if look.done() and not look.cancelled() and look.exception() is None else known


async def _awaited(work: Awaitable[T]) -> T:
    return await work
