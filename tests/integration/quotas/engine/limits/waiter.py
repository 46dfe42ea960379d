"""A process whose checks wait for capacity, in threads or on an event loop (DOOR `threads` or `loop`):
`python -m tests.integration.quotas.engine.limits.waiter PORT MAX_WAIT DOOR`.

Each line on standard input is a waiter's name and the subject whose limits it checks. The name of each that is served is
added to the list `served`, before the next one in the queue is called.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import redis

from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import Decision, Limit
from tests.integration.quotas.engine.limits.doors import open_door

RATE = 20
EVERYONE = Limit("all", "all", "global", "*", "token_bucket", RATE, window=1.0, burst=1)


def limits_of(user: str, name: str = "user") -> list[Limit]:
    """A wide limit of the user's own, and one that all share."""
    return [Limit("user", name, "user", user, "fixed_window", 1000, window=86400.0), EVERYONE]


class Recording(ResilientLimiter):
    """A limiter that lists the waiters whose limits it charged, by the name of their first limit."""

    def check(self, limits: Sequence[Limit], **options: Any) -> Decision:
        decision = super().check(limits, **options)
        if decision and not options.get("dry_run"):
            self.limiter.transport.command("RPUSH", "served", limits[0].name)
        return decision


def main() -> None:
    client = redis.Redis(port=int(sys.argv[1]))
    resilient = Recording(Limiter(client, timeout=5.0))
    keys = resilient.limiter.keys
    door = open_door(sys.argv[3], resilient, resilient.ask, keys)

    def wait(name: str, user: str) -> None:
        if not door.check(limits_of(user, name), max_wait=float(sys.argv[2])):
            client.rpush("refused", name)

    for text in sys.stdin:
        threading.Thread(target=wait, args=text.split(), daemon=True).start()


if __name__ == "__main__":
    main()
