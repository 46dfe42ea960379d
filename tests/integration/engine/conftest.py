"""A limiter on a real server, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from quotas.engine.limiter import Limiter
from quotas.engine.types import Limit
from tests.valkey import cluster_server, redis7_server, valkey, valkey_server  # noqa: F401

START = 1_800_000_000_000_000
"""A moment in microseconds that is a multiple of an hour."""


class Clock:
    """Microseconds since the epoch, moved by hand."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += round(seconds * 1_000_000)


def limit(id: str = "p", algorithm: str = "fixed_window", **fields: object) -> Limit:
    given: dict[str, object] = {
        "id": id,
        "name": id,
        "scope": "user",
        "subject": "u",
        "algorithm": algorithm,
        "limit": 10,
        "window": 60.0,
    }
    if algorithm == "calendar":
        given |= {"period": "day", "window": 0.0}
    return Limit(**(given | fields))  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(
    valkey: redis.Redis,  # noqa: F811
    clock: Clock,
) -> Iterator[Limiter]:
    limiter = Limiter(valkey, clock=clock)
    yield limiter
    limiter.transport.close()
