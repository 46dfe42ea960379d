"""Waking the dispatcher: `notify` says what is new, `wait` blocks the dispatcher until then.

A wake-up is a hint. A lost one only delays, since the dispatcher also reads SQL at intervals.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import redis
import structlog

from queues import connection, hops
from queues.states import GroupKey
from quotas import events

log = structlog.get_logger(__name__)

KEY = "wakeups"
MAX_PENDING = 1000
"""Wake-ups kept at most while no dispatcher reads them."""


def notify(groups: Iterable[GroupKey] = (), *, requeued: bool = False, unblock: bool = False) -> None:
    """Wake the dispatcher. `groups` have new jobs at their ends; with `requeued`, older jobs came back into them.

    `unblock` says that capacity may be free before its time (a settle, a reset, a resume). While Redis is unavailable the
    dispatcher finds the rows by itself, so the failure is logged and raises nothing.
    """
    found = [list(group) for group in groups]
    if hops.observer is not None and found:
        hops.observer(hops.COMMITTED)
    message = json.dumps({"groups": found, "requeued": requeued, "unblock": unblock})
    name = connection.key(KEY)
    connection.try_hint(lambda pipeline: pipeline.lpush(name, message).ltrim(name, 0, MAX_PENDING - 1))
    if hops.observer is not None and found:
        hops.observer(hops.PUBLISHED)


@dataclass(slots=True)
class Wakeups:
    """All wake-ups since the last `wait`."""

    appended: set[GroupKey] = field(default_factory=set)
    requeued: set[GroupKey] = field(default_factory=set)
    unblock: bool = False
    any: bool = False
    marked: bool = False
    """Redis has its memory: the key `connection.MARK` was there when they were read."""

    def add(self, raw: bytes) -> None:
        """Add one wake-up. One that can't be read may have meant anything: it unblocks all groups."""
        self.any = True
        try:
            message = json.loads(raw)
            groups = {
                GroupKey(int(queue), int(priority), int(project), str(pool))
                for queue, priority, project, pool in message["groups"]
            }
            requeued, unblock = bool(message["requeued"]), bool(message["unblock"])
        except (ValueError, TypeError, KeyError):
            log.warning("dispatcher.unreadable_wakeup")
            self.unblock = True
            return
        (self.requeued if requeued else self.appended).update(groups)
        self.unblock |= unblock


def wait(seconds: float) -> Wakeups:
    """Block until a wake-up arrives, at most `seconds`; then return all that are pending. Without Redis it only
    sleeps."""
    wakeups = Wakeups()
    client: Any = connection.client()
    name = connection.key(KEY)
    try:
        if seconds > 0.0005:
            first = client.blpop([name], timeout=max(round(seconds, 3), 0.001))
            if first is None:
                return wakeups
            if hops.observer is not None:
                hops.observer(hops.AWAKE)
            wakeups.add(first[1])
        with client.pipeline(transaction=False) as pipeline:
            pending, marked = pipeline.lpop(name, MAX_PENDING).exists(connection.key(connection.MARK)).execute()
        wakeups.marked = bool(marked)
        for raw in pending or []:
            wakeups.add(raw)
    except redis.RedisError as error:
        events.emit(events.ServiceUnavailable("dispatcher", "waiting for wake-ups", type(error).__name__))
        connection.drop_connections(client)
        time.sleep(min(max(seconds, 0.1), 0.5))
    return wakeups
