"""The Redis of the queues: the belt, the dispatcher's bell, what the dispatcher tells of waits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache

import redis
import structlog
from django.conf import settings
from rq import Queue
from rq.serializers import JSONSerializer

log = structlog.get_logger(__name__)

BELL_LENGTH = 1000
"""Rings kept at most: a lost one only delays, since the dispatcher looks by itself as well."""


@lru_cache(maxsize=1)
def client() -> redis.Redis:
    """The process's client. Commands fail after 5 s; nothing is repeated blindly."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=2, health_check_interval=0)


def drop_connections(server: redis.Redis) -> None:
    """Connect anew for the next command, after one that failed: an address that is moved to another server in a failover
    keeps its open connections to the old one, which answers READONLY from then on."""
    server.connection_pool.disconnect(inuse_connections=False)


HINT_TIMEOUT = 0.25
"""Seconds that a caller waits at most for what is a hint only: its job is accepted already."""
SILENCE = 1.0
"""Seconds without a try after one that failed: where Redis hangs, not each caller finds that out anew."""
_silent_until = float("-inf")


@lru_cache(maxsize=1)
def _hurried() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=HINT_TIMEOUT, socket_connect_timeout=HINT_TIMEOUT, health_check_interval=0
    )


def server_time() -> float:
    """Redis's own time, in seconds since 1970."""
    seconds, micros = client().time()  # type: ignore[misc]
    return float(seconds) + micros / 1e6


def read_hints(name: str, fields: Sequence[str]) -> tuple[list[bytes | None], float]:
    """Fields of a hash, and Redis's time; None for each field where Redis is away, which is found out within
    `HINT_TIMEOUT`."""
    global _silent_until
    if not fields or time.monotonic() < _silent_until:
        return [None] * len(fields), 0.0
    hurried = _hurried()
    try:
        with hurried.pipeline(transaction=False) as pipeline:
            pipeline.hmget(key(name), list(fields))
            pipeline.time()
            values, (seconds, micros) = pipeline.execute()
        return values, float(seconds) + micros / 1e6
    except redis.RedisError as error:
        _silent_until = time.monotonic() + SILENCE
        drop_connections(hurried)
        log.warning("hints.unread", error=type(error).__name__)
        return [None] * len(fields), 0.0


@lru_cache(maxsize=4)
def belt(lane: str) -> Queue:
    """The short RQ queue of a lane. Its jobs carry ids and delivery numbers only, as JSON."""
    return Queue(lane, connection=client(), serializer=JSONSerializer, default_timeout=-1)


def key(name: str) -> str:
    return f"{settings.REDIS_PREFIX}:{name}"


Group = tuple[int, int, int, str]
"""Queue, priority, project, pool: what the dispatcher draws from."""


def ring(groups: Iterable[Group] = (), *, again: bool = False, unblock: bool = False) -> None:
    """Wake the dispatcher. `groups` have something new; `again`: something older came back into them.

    `unblock` says that capacity may be free before its time (a settle, a reset, a resume). A ring is a hint: where
    Redis is away the dispatcher finds the rows by itself, so its absence is logged and no error.
    """
    global _silent_until
    if time.monotonic() < _silent_until:
        return
    message = json.dumps({"groups": [list(group) for group in groups], "again": again, "unblock": unblock})
    hurried = _hurried()
    try:
        with hurried.pipeline(transaction=False) as pipeline:
            pipeline.lpush(key("bell"), message)
            pipeline.ltrim(key("bell"), 0, BELL_LENGTH - 1)
            pipeline.execute()
    except redis.RedisError as error:
        _silent_until = time.monotonic() + SILENCE
        drop_connections(hurried)
        log.warning("bell.unheard", error=type(error).__name__)
