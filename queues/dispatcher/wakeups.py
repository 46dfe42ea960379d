"""The dispatcher's bell: what others ring when something is new, and where it sleeps between two cycles."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import redis
import structlog

from queues import connection

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Rings:
    """All that was rung since the last look."""

    grew: set[tuple[int, int, int, str]] = field(default_factory=set)
    again: set[tuple[int, int, int, str]] = field(default_factory=set)
    unblock: bool = False
    any: bool = False

    def add(self, raw: Any) -> None:
        """Take one ring. One that can't be read may have been any: everything is looked at then."""
        self.any = True
        try:
            message = json.loads(raw)
            groups = {
                (int(queue), int(priority), int(project), str(pool))
                for queue, priority, project, pool in message["groups"]
            }
            again, unblock = bool(message["again"]), bool(message["unblock"])
        except (ValueError, TypeError, KeyError):
            log.warning("dispatcher.unreadable_ring")
            self.unblock = True
            return
        (self.again if again else self.grew).update(groups)
        self.unblock |= unblock


def listen(seconds: float) -> Rings:
    """Sleep until somebody rings, at most `seconds`; then take all rings. Without Redis it only sleeps."""
    rings = Rings()
    client = connection.client()
    name = connection.key("bell")
    try:
        if seconds > 0.0005:
            first = client.blpop([name], timeout=max(round(seconds, 3), 0.001))  # type: ignore[arg-type]
            if first is None:
                return rings
            rings.add(first[1])
        for raw in client.lpop(name, connection.BELL_LENGTH) or []:  # type: ignore[union-attr]
            rings.add(raw)
    except redis.RedisError as error:
        log.warning("dispatcher.bell_silent", error=type(error).__name__)
        connection.drop_connections(client)
        time.sleep(min(max(seconds, 0.1), 0.5))
    return rings
