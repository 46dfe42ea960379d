"""A limiter on a real server, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.reference import ReferenceLimiter
from quotas.engine.types import Limit
from tests.support.valkey import Server, cluster_server, redis7_server, valkey, valkey_server  # noqa: F401

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


@pytest.fixture(params=["valkey", "redis7", "cluster"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of server in turn."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    """A client on an emptied server."""
    with redis.Redis(host="127.0.0.1", port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture
def on_server(server: Server, client: redis.Redis, clock: Clock) -> Iterator[Limiter]:
    """A limiter on each kind of server."""
    with server.client() as given:
        limiter = Limiter(given, clock=clock)
        yield limiter
        limiter.transport.close()


@pytest.fixture(params=["reference", "valkey", "redis7", "cluster"])
def limiter(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Limiter | ReferenceLimiter]:
    """Every limiter that keeps the contract."""
    if request.param == "reference":
        yield ReferenceLimiter(clock=clock)
        return
    server: Server = request.getfixturevalue(f"{request.param}_server")
    with server.client() as given:
        limiter = Limiter(given, clock=clock)
        limiter.transport.command("FLUSHALL")
        yield limiter
        limiter.transport.close()
