"""The limiter's connection to Redis."""

from __future__ import annotations

from functools import lru_cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from quotas.engine.accounts import Accounts
from quotas.engine.limiter import Limiter

TIMEOUT = 0.1
"""Seconds for connecting and for an answer: a check is refused or degraded rather than waited for."""


@lru_cache(maxsize=1)
def limiter_redis() -> redis.Redis:
    """The process's client of `LIMITER_REDIS_URL`."""
    return redis.Redis.from_url(
        settings.LIMITER_REDIS_URL,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),  # a charge is never repeated blindly
        health_check_interval=0,
        max_connections=256,
    )


@lru_cache(maxsize=1)
def limiter() -> Limiter:
    """The process's limiter. Safe under threads."""
    return Limiter(limiter_redis(), prefix=settings.REDIS_PREFIX, timeout=TIMEOUT)


@lru_cache(maxsize=1)
def accounts() -> Accounts:
    """The process's engine of accounts. Safe under threads."""
    return Accounts(limiter_redis(), prefix=settings.REDIS_PREFIX, timeout=TIMEOUT)


def forget() -> None:
    """Open new connections at the next use: after a fork, the parent's sockets are the parent's."""
    accounts.cache_clear()
    limiter.cache_clear()
    limiter_redis.cache_clear()
