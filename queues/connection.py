"""The Redis clients of the queues: one for commands that must succeed, one for hints."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import redis
from django.conf import settings

from quotas import events


@lru_cache(maxsize=1)
def client() -> redis.Redis:
    """The process's client. Commands fail after 5 s; nothing is repeated blindly."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=2, health_check_interval=0)


def drop_connections(server: redis.Redis) -> None:
    """Connect again for the next command, after one that failed: an address that is moved to another server in a failover
    keeps its open connections to the old one, which answers READONLY from then on."""
    server.connection_pool.disconnect(inuse_connections=False)


MARK = "belt"
"""A key that is missing only where Redis has lost its memory."""
HINT_TIMEOUT = 0.25
"""Seconds that a caller waits at most for a hint to be sent or read: its job is accepted already."""
HINT_PAUSE = 1.0
"""Seconds without a try after one that failed: where Redis does not answer, not every caller waits to find that out."""
_hints_paused_until = float("-inf")


@lru_cache(maxsize=1)
def _hint_client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=HINT_TIMEOUT, socket_connect_timeout=HINT_TIMEOUT, health_check_interval=0
    )


def try_hint(add_commands: Callable[[Any], object]) -> list[Any] | None:
    """Run the commands that `add_commands` puts into a pipeline, which nothing depends on. Their answers; None if
    Redis is unavailable, which is found out within `HINT_TIMEOUT`."""
    global _hints_paused_until
    if time.monotonic() < _hints_paused_until:
        return None
    server = _hint_client()
    try:
        with server.pipeline(transaction=False) as pipeline:
            add_commands(pipeline)
            return pipeline.execute()
    except redis.RedisError as error:
        _hints_paused_until = time.monotonic() + HINT_PAUSE
        drop_connections(server)
        events.emit(events.ServiceUnavailable("hints", "a hint to the dispatcher", type(error).__name__))
        return None


def server_time() -> float:
    """Redis's own time, in seconds since 1970."""
    seconds, micros = client().time()
    return float(seconds) + micros / 1e6


def read_hints(name: str, fields: Sequence[str]) -> tuple[list[bytes | None], float]:
    """Fields of a hash, and Redis's time; None for each field if Redis is unavailable."""
    answers = try_hint(lambda pipeline: pipeline.hmget(key(name), list(fields)).time()) if fields else None
    if answers is None:
        return [None] * len(fields), 0.0
    values, (seconds, micros) = answers
    return values, float(seconds) + micros / 1e6


def key(name: str) -> str:
    return f"{settings.REDIS_PREFIX}:{name}"
