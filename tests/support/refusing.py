"""States of a real server in which it answers with errors, and the ways out of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

SLOW = """
local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end
local till = now() + ARGV[1]
while now() < till do end
"""
Enter = Callable[[redis.Redis], None]


def _configured(name: str, refusing: str, serving: str) -> tuple[Enter, Enter]:
    return lambda client: client.config_set(name, refusing), lambda client: client.config_set(name, serving)


def _no_more_commands(client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "default", "-@all", "+acl", "+config", "+ping", "+client")


def _all_commands(client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "default", "+@all")


STATES: dict[str, tuple[Enter, Enter]] = {
    "OOM": _configured("maxmemory", "1", "0"),
    "READONLY": (
        lambda client: client.execute_command("REPLICAOF", "127.0.0.1", "1"),
        lambda client: client.execute_command("REPLICAOF", "NO", "ONE"),
    ),
    "MASTERDOWN": (
        lambda client: (
            client.config_set("replica-serve-stale-data", "no"),
            client.execute_command("REPLICAOF", "127.0.0.1", "1"),
        )[1],
        lambda client: (
            client.execute_command("REPLICAOF", "NO", "ONE"),
            client.config_set("replica-serve-stale-data", "yes"),
        )[1],
    ),
    "NOREPLICAS": _configured("min-replicas-to-write", "1", "0"),
    "NOPERM": (_no_more_commands, _all_commands),
}


@contextmanager
def refusing(client: redis.Redis, state: str) -> Iterator[None]:
    """The server answers with that error while the block runs."""
    enter, leave = STATES[state]
    enter(client)
    try:
        yield
    finally:
        leave(client)


@contextmanager
def busy(client: redis.Redis, seconds: float) -> Iterator[None]:
    """The server runs a script that takes so long, and answers BUSY meanwhile."""
    client.config_set("busy-reply-threshold", "10")
    port = client.connection_pool.connection_kwargs["port"]

    def run() -> None:
        with redis.Redis(host="127.0.0.1", port=port, socket_timeout=None) as own:
            own.eval(SLOW, 0, str(seconds * 1000))

    running = threading.Thread(target=run)
    running.start()
    try:
        deadline = time.monotonic() + 10
        while not _is_busy(client):
            assert time.monotonic() < deadline
        yield
    finally:
        running.join()


def _is_busy(client: redis.Redis) -> bool:
    try:
        client.get("x")
    except redis.ResponseError as error:
        return "BUSY" in str(error) or "busy" in str(error)
    return False
