"""The limiter's connection to Redis."""

from __future__ import annotations

from functools import lru_cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT = 0.1
"""Seconds for connecting and for an answer: a check is refused or degraded rather than waited for."""


@lru_cache(maxsize=4)
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),  # a charge is never repeated blindly
        health_check_interval=0,
        max_connections=256,
    )


def limiter_redis() -> redis.Redis:
    """A client of `LIMITER_REDIS_URL`, one for each process and address."""
    return _client(settings.LIMITER_REDIS_URL)


def forget() -> None:
    """Open new connections at the next use: after a fork, the parent's sockets are the parent's."""
    _client.cache_clear()
