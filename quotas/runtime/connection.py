"""The limiter's connection to Redis."""

from __future__ import annotations

import time
from functools import lru_cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from quotas import events
from quotas.engine.accounts.accounts import Accounts
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.wait_queue import WaitQueue
from quotas.engine.limits.waiting_threads import WaitingChecks
from quotas.runtime.redis_url import client

_patience: float | None = None


def be_patient(seconds: float = 2.0) -> None:
    """For processes in which no caller waits for an answer (dispatcher, workers): a slow Redis is no outage there."""
    global _patience
    _patience = seconds
    forget()


def _timeout() -> float:
    """Seconds for connecting and for an answer."""
    return _patience if _patience is not None else settings.LIMITER_TIMEOUT


@lru_cache(maxsize=1)
def limiter_redis() -> redis.Redis | RedisCluster:
    """The process's client of `LIMITER_REDIS_URL`. Raises LimiterUnavailable where a cluster names no nodes yet."""
    try:
        return client(
            settings.LIMITER_REDIS_URL,
            socket_timeout=_timeout(),
            socket_connect_timeout=_timeout(),
            retry=Retry(NoBackoff(), 0),  # a charge is never repeated blindly
            health_check_interval=0,
            max_connections=256,
        )
    except redis.RedisError as error:
        raise LimiterUnavailable(type(error).__name__) from error


@lru_cache(maxsize=1)
def limiter() -> ResilientLimiter:
    """The process's limiter, which answers by each policy's own rule where Redis is unavailable. Safe under threads."""
    inner = Limiter(limiter_redis(), prefix=settings.REDIS_PREFIX, timeout=_timeout())
    return ResilientLimiter(inner, processes=lambda: settings.LIMITER_PROCESSES, on_event=_Outage().report)


@lru_cache(maxsize=1)
def waiting_checks() -> WaitingChecks:
    """Blocking checks, in order of arrival in all processes together."""
    resilient = limiter()
    keys = resilient.limiter.keys
    return WaitingChecks(resilient, WaitQueue(resilient.ask, keys), keys=keys)


class _Outage:
    """Emits one event when Redis becomes unavailable, and one when it is back."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def report(self, kind: str, why: str) -> None:
        if kind == "unavailable":
            self._since = time.monotonic()
            events.emit(events.LimiterDegraded(why))
        else:
            events.emit(events.LimiterRecovered(time.monotonic() - self._since))


@lru_cache(maxsize=1)
def accounts() -> Accounts:
    """The process's engine of accounts. Safe under threads."""
    return Accounts(limiter_redis(), prefix=settings.REDIS_PREFIX, timeout=_timeout())


def forget() -> None:
    """Open new connections at the next use: after a fork, the parent's sockets are the parent's."""
    accounts.cache_clear()
    waiting_checks.cache_clear()
    limiter.cache_clear()
    limiter_redis.cache_clear()
