"""A process whose threads wait for capacity: `python -m tests.integration.quotas.engine.limits.waiter PORT MAX_WAIT`.

Each line on standard input is a waiter's name and the subject whose limits it asks for; who is served adds its name to
the list `served`.
"""

from __future__ import annotations

import sys
import threading

import redis

from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.wait_queue import WaitQueue
from quotas.engine.limits.waiting import WaitingLine
from quotas.engine.types import Limit

RATE = 20
EVERYONE = Limit("all", "all", "global", "*", "token_bucket", RATE, window=1.0, burst=1)


def limits_of(user: str) -> list[Limit]:
    """A wide limit of the user's own, and one that all share."""
    return [Limit("user", "user", "user", user, "fixed_window", 1000, window=86400.0), EVERYONE]


def main() -> None:
    client = redis.Redis(port=int(sys.argv[1]))
    resilient = ResilientLimiter(Limiter(client, timeout=5.0))
    keys = resilient.limiter.keys
    line = WaitingLine(resilient, WaitQueue(resilient.ask, keys), keys=keys)

    def wait(name: str, user: str) -> None:
        decision = line.check(limits_of(user), max_wait=float(sys.argv[2]))
        client.rpush("served" if decision else "refused", name)

    for text in sys.stdin:
        threading.Thread(target=wait, args=text.split(), daemon=True).start()


if __name__ == "__main__":
    main()
