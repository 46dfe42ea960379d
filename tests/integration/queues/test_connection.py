"""The clients of the queues' Redis after a failover behind one address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from rq.serializers import JSONSerializer

from queues import broker, connection, wakeups
from queues.worker.threaded import ThreadedWorker
from tests.support.forwarder import Forwarder, forwarder
from tests.support.valkey import Server, run_server, valkey_binary, wait_for


class Failover:
    """An address whose server is demoted, with another one to take over."""

    def __init__(self, old: Server, new: Server, address: Forwarder) -> None:
        self._old, self._new, self._address = old, new, address

    def happen(self) -> None:
        self._address.target = self._new.port
        with self._old.client() as server:
            server.execute_command("REPLICAOF", "127.0.0.1", str(self._new.port))

    def new(self) -> redis.Redis:
        return self._new.client()


@pytest.fixture
def failover(settings: Any) -> Iterator[Failover]:
    def forget() -> None:
        for cached in (connection.client, connection._hint_client, broker.belt):
            cached.cache_clear()
        connection._hints_paused_until = float("-inf")

    with ExitStack() as stack:
        old, new = (stack.enter_context(run_server(valkey_binary())) for _ in range(2))
        address = stack.enter_context(forwarder(old.port))
        settings.REDIS_URL = f"redis://127.0.0.1:{address.port}/0"
        forget()
        stack.callback(forget)
        yield Failover(old, new, address)


def test_wakeups_reach_the_new_primary(failover: Failover) -> None:
    wakeups.notify(unblock=True)
    assert wakeups.wait(1.0).unblock
    failover.happen()

    def arrived() -> bool:
        wakeups.notify(unblock=True)
        with failover.new() as server:
            return bool(server.llen(connection.key(wakeups.KEY)))

    wait_for(arrived, 15.0)
    wait_for(lambda: wakeups.wait(0.2).unblock, 15.0)


def test_a_worker_that_was_in_no_blocking_read_takes_from_the_new_primary(failover: Failover) -> None:
    worker = ThreadedWorker([broker.belt("io")], connection=connection.client(), serializer=JSONSerializer)
    assert worker.connection.ping()
    failover.happen()
    queue = broker.belt("io")
    with failover.new() as server:
        server.lpush(queue.key, "nothing-of-this-name")

        def taken() -> bool:
            try:
                worker._take(None)
            except redis.RedisError as error:
                worker._wait_for_redis(error, 0.01)
            return not server.llen(queue.key)

        wait_for(taken, 15.0)
