"""A server that answers with errors is as away as one that does not answer, and comes back as that one does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from quotas.engine.accounts.accounts import Accounts
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.requests import CheckRequest
from quotas.engine.redis import pipeline as pipelined
from quotas.engine.redis.pipeline import Pipeline
from quotas.engine.types import AdmitRequest
from tests.integration.quotas.engine.limits.conftest import limit
from tests.support.refusing import STATES, busy, refusing
from tests.support.valkey import Server, run_server, valkey_binary, wait_for

OPEN = limit("open", limit=6, window=3600.0, on_redis_down="fail_open")
CLOSED = limit("closed", limit=6, window=3600.0)


@pytest.fixture(params=["valkey", "redis"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "redis":
        other: Server = request.getfixturevalue("redis7_server")
        binary = str(other.process.args[0])  # type: ignore[index]
    else:
        binary = valkey_binary()
    with run_server(binary, "--enable-debug-command", "yes") as server:
        yield server


@pytest.fixture
def client(own_server: Server) -> Iterator[redis.Redis]:
    with own_server.client() as made:
        yield made


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def resilient(client: redis.Redis, events: list[str]) -> ResilientLimiter:
    return ResilientLimiter(
        Limiter(client, timeout=0.1), probe_every=0.02, on_event=lambda kind, why: events.append(kind)
    )


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("state", STATES)
def test_checks_are_answered_by_the_fail_mode_until_it_serves_again(
    client: redis.Redis, resilient: ResilientLimiter, events: list[str], state: str, loaded: bool
) -> None:
    if loaded:
        assert not resilient.check([OPEN]).degraded
    with refusing(client, state):
        until = time.monotonic() + 0.3  # several probes, none of which may find that the server serves
        while time.monotonic() < until:
            assert resilient.check([OPEN]).degraded
            with pytest.raises(LimiterUnavailable):
                resilient.check([CLOSED])
            with pytest.raises(LimiterUnavailable):
                resilient.settle("unknown")
        assert events == ["unavailable"], "emitted once"
    wait_for(lambda: not resilient.check([OPEN]).degraded, 5.0)
    assert resilient.check([CLOSED])
    assert events == ["unavailable", "recovered"]


@pytest.mark.parametrize("state", STATES)
def test_every_way_to_the_server_says_that_it_is_away(client: redis.Redis, state: str) -> None:
    accounts, limiter = Accounts(client, timeout=0.5), Limiter(client, timeout=0.5)
    request = AdmitRequest(limits=(CLOSED,), cost={"requests": 1})

    async def over_a_pipeline() -> None:
        async def in_thread(work: Any) -> Any:
            return work()

        pipeline = Pipeline(limiter.transport, in_thread)
        try:
            await pipelined.check(limiter, pipeline, CheckRequest([CLOSED]))
        finally:
            pipeline.close()

    def ways() -> list[Any]:
        return [
            lambda: limiter.check([CLOSED]),
            lambda: limiter.check_many([CheckRequest([CLOSED])] * 3),
            lambda: accounts.admit(request),
            lambda: accounts.admit_many([request] * 3),
            lambda: asyncio.run(over_a_pipeline()),
        ]

    for loaded in (False, True):
        if loaded:
            for way in ways():
                way()
        with refusing(client, state):
            for way in ways():
                with pytest.raises(LimiterUnavailable):
                    way()


def test_a_server_busy_with_a_script(client: redis.Redis, resilient: ResilientLimiter, events: list[str]) -> None:
    assert not resilient.check([OPEN]).degraded
    with busy(client, 1.0):
        assert resilient.check([OPEN]).degraded
        with pytest.raises(LimiterUnavailable):
            resilient.check([CLOSED])
    wait_for(lambda: not resilient.check([OPEN]).degraded, 5.0)
    assert events[0] == "unavailable"


def test_a_password_that_is_set_later_and_a_wrong_one(own_server: Server, client: redis.Redis) -> None:
    limiter = Limiter(client, timeout=0.5)
    assert limiter.check([CLOSED])
    client.config_set("requirepass", "secret")
    limiter.transport.close()
    with pytest.raises(LimiterUnavailable):
        limiter.check([CLOSED])
    with own_server.client(password="wrong") as other, pytest.raises(LimiterUnavailable):
        Limiter(other, timeout=0.5).check([CLOSED])
    client.config_set("requirepass", "")
    assert limiter.check([CLOSED])


def test_no_connection_left(client: redis.Redis) -> None:
    limiter = Limiter(client, timeout=0.5)
    assert limiter.check([CLOSED])
    client.config_set("maxclients", "1")
    with pytest.raises(LimiterUnavailable):
        Limiter(client, timeout=0.5).check([CLOSED])
    client.config_set("maxclients", "100")
    assert Limiter(client, timeout=0.5).check([CLOSED])


def test_a_server_that_loads_its_data(client: redis.Redis, resilient: ResilientLimiter, events: list[str]) -> None:
    """A reload that takes seconds, during which it answers LOADING."""
    with client.pipeline(transaction=False) as pipeline:
        for n in range(3000):
            pipeline.set(f"k{n}", "x")
        pipeline.execute()
    assert not resilient.check([OPEN]).degraded
    client.config_set("key-load-delay", "1000")
    client.config_set("loading-process-events-interval-bytes", "1024")
    loading = threading.Thread(target=lambda: client.execute_command("DEBUG", "RELOAD"))
    loading.start()
    try:
        wait_for(lambda: resilient.check([OPEN], dry_run=True).degraded, 10.0)
        with pytest.raises(LimiterUnavailable):
            resilient.check([CLOSED])
    finally:
        loading.join()
    wait_for(lambda: not resilient.check([OPEN]).degraded, 10.0)
    assert (events[0], events[-1]) == ("unavailable", "recovered")


def test_a_cluster_that_has_lost_the_slot() -> None:
    with run_server(valkey_binary(), cluster=True) as server, server.client() as made:
        limiter = Limiter(made, timeout=0.5)
        assert limiter.check([CLOSED])
        with redis.Redis(host="127.0.0.1", port=server.port) as node:
            slot = int(node.execute_command("CLUSTER", "KEYSLOT", limiter.keys.tag))
            node.execute_command("CLUSTER", "DELSLOTS", slot)
            with pytest.raises(LimiterUnavailable):
                limiter.check([CLOSED])
            with pytest.raises(LimiterUnavailable):
                limiter.settle("unknown")
            node.execute_command("CLUSTER", "ADDSLOTS", slot)
        wait_for(lambda: _passes(limiter), 10.0)


def _passes(limiter: Limiter) -> bool:
    try:
        return bool(limiter.check([CLOSED]))
    except LimiterUnavailable:
        return False
