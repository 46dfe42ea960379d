"""A process whose checks wait for capacity, in threads or on an event loop (DOOR `threads` or `loop`):
`python -m tests.integration.quotas.engine.limits.waiter PORT MAX_WAIT DOOR`.

Each line on standard input is a waiter's name and the subject whose limits it checks; who is served adds its name to
the list `served`.
"""

from __future__ import annotations

import sys
import threading

import redis

from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import Limit
from tests.integration.quotas.engine.limits.doors import open_door

RATE = 20
EVERYONE = Limit("all", "all", "global", "*", "token_bucket", RATE, window=1.0, burst=1)


def limits_of(user: str) -> list[Limit]:
    """A wide limit of the user's own, and one that all share."""
    return [Limit("user", "user", "user", user, "fixed_window", 1000, window=86400.0), EVERYONE]


def main() -> None:
    client = redis.Redis(port=int(sys.argv[1]))
    resilient = ResilientLimiter(Limiter(client, timeout=5.0))
    keys = resilient.limiter.keys
    door = open_door(sys.argv[3], resilient, resilient.ask, keys)

    def wait(name: str, user: str) -> None:
        decision = door.check(limits_of(user), max_wait=float(sys.argv[2]))
        client.rpush("served" if decision else "refused", name)

    for text in sys.stdin:
        threading.Thread(target=wait, args=text.split(), daemon=True).start()


if __name__ == "__main__":
    main()
