"""Sentinel promotes a replica; a server's memory, functions and scripts are flushed during calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis

from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import Decision
from quotas.runtime.redis_url import client as client_of
from quotas.runtime.redis_url import one_server
from tests.integration.quotas.engine.limits.conftest import limit
from tests.support.sentinel import Trio, run_trio
from tests.support.valkey import Server, wait_for

WIDE = limit("wide", limit=1_000_000, window=86400.0 * 365, on_redis_down="fail_open")


@pytest.fixture
def trio() -> Iterator[Trio]:
    with run_trio() as trio:
        yield trio


def test_checks_go_on_when_sentinel_promotes_the_replica(trio: Trio) -> None:
    events: list[str] = []
    limiter = Limiter(client_of(trio.url, socket_timeout=0.5, socket_connect_timeout=0.5), timeout=0.5)
    resilient = ResilientLimiter(limiter, probe_every=0.05, on_event=lambda kind, why: events.append(kind))
    for _ in range(10):
        assert not resilient.check([WIDE]).degraded
    with trio.replica.client() as replica:
        wait_for(lambda: replica.dbsize() == 2)
    trio.primary.process.kill()
    trio.primary.process.wait()
    during: list[Decision] = []
    wait_for(lambda: during.append(resilient.check([WIDE])) or not during[-1].degraded, 60)
    assert during[0].degraded and all(during), "every check was answered, by this process alone"
    assert trio.address() == trio.replica.port
    assert during[-1].limits[0].used == 11, "the replica had what was charged"
    assert events == ["unavailable", "recovered"]
    limiter.transport.close()


def test_a_demoted_primary_is_left(trio: Trio) -> None:
    """A server that has become a replica answers READONLY to a charge: connections go to the new primary."""
    limiter = Limiter(client_of(trio.url, socket_timeout=0.5, socket_connect_timeout=0.5), timeout=0.5)
    resilient = ResilientLimiter(limiter, probe_every=0.05)
    assert not resilient.check([WIDE]).degraded
    with redis.Redis(port=trio.port) as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", "sluice")
    wait_for(lambda: trio.address() == trio.replica.port, 60)
    with trio.primary.client() as primary:
        primary.replicaof("127.0.0.1", trio.replica.port)  # as Sentinel does in its own time
    wait_for(lambda: not resilient.check([WIDE]).degraded, 30)
    assert resilient.check([WIDE]).limits[0].used >= 2
    limiter.transport.close()


def test_nothing_fails_while_memory_functions_and_scripts_are_flushed(
    valkey_server: Server, valkey: redis.Redis
) -> None:
    limiter = Limiter(valkey, timeout=5.0)
    resilient = ResilientLimiter(limiter)
    flushes, answers, wrong = 20, [0], []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                decision = resilient.check([WIDE])
                if decision.degraded or not decision:
                    wrong.append(str(decision))
                answers[0] += 1
            except Exception as error:  # noqa: BLE001 - collected, and shown by the assertion
                wrong.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for n in range(flushes):
        seen = answers[0]
        wait_for(lambda seen=seen: answers[0] > seen + 20 or wrong, 30)  # type: ignore[misc]
        valkey.flushall()
        if n % 2:
            valkey.function_flush()
            valkey.script_flush()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    limiter.transport.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://127.0.0.1:26379",
        "redis+sentinel://localhost/mymaster",
        "redis+cluster://:6379",
        "redis+cluster://host:port",
    ],
)
def test_urls_that_are_none_are_named(url: str) -> None:
    with pytest.raises(ValueError, match="name of the primary|host:port"):
        client_of(url)


def test_a_cluster_is_reached_by_its_url(cluster_server: Server) -> None:
    url = f"redis+cluster://127.0.0.1:{cluster_server.port}"
    with client_of(url, socket_timeout=5.0) as client:
        limiter = Limiter(client)
        assert limiter.check([limit("c", limit=2, window=86400.0 * 365)])
        limiter.transport.close()
    with one_server(url, socket_timeout=5.0) as node:
        assert node.ping()
