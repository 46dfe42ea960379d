"""Redis or Valkey: reachable, persistent, never evicting, its clock near ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import redis
from django.conf import settings

from controlplane.doctor.finding import Finding, error, ok, warning
from quotas.runtime.redis_url import one_server

OLDEST = (7, 0)
"""The first with function libraries."""
CLOCK_SECONDS = 5.0


def examine() -> Iterator[Finding]:
    yield from _server("redis", settings.REDIS_URL)
    if settings.LIMITER_REDIS_URL != settings.REDIS_URL:
        yield from _server("limiter redis", settings.LIMITER_REDIS_URL)


def _server(subject: str, url: str) -> Iterator[Finding]:
    try:
        client = one_server(url, socket_timeout=3.0, socket_connect_timeout=3.0, decode_responses=True)
        info: dict[str, Any] = client.info()
        seconds, micros = client.time()
    except redis.RedisError as problem:
        remedy = "Start `manage.py up`." if settings.EMBEDDED_REDIS else "Check REDIS_URL and the server."
        yield error(subject, f"{type(problem).__name__}: not reachable.", remedy)
        return
    yield _writes(subject, client)
    client.close()
    yield _version(subject, info)
    yield _persistence(subject, info)
    policy = info.get("maxmemory_policy", "")
    if policy == "noeviction":
        yield ok(subject, "evicts nothing")
    else:
        yield error(subject, f"maxmemory-policy is {policy}: counters may vanish.", "Set it to noeviction.")
    drift = abs(time.time() - (int(seconds) + int(micros) / 1e6))
    if drift > CLOCK_SECONDS:
        yield warning(subject, f"Its clock and ours differ by {drift:.0f} s.", "Run NTP on both machines.")
    else:
        yield ok(subject, f"clock within {max(drift, 0.001):.3f} s of ours")


def _writes(subject: str, client: redis.Redis) -> Finding:
    """Whether it takes writes: a server that answers PING may be full, a replica, or unable to write to disk."""
    try:
        client.set(f"{settings.REDIS_PREFIX}:doctor", "1", px=1000)
    except redis.ResponseError as problem:
        if str(problem).startswith("MOVED"):  # of a cluster, the node has answered
            return ok(subject, "serves its part of the cluster")
        remedy = "Free memory or raise maxmemory; free its disk; name the primary and no replica in the URL."
        return error(subject, f"It refuses writes: {problem}", remedy)
    except redis.RedisError as problem:
        return error(subject, f"{type(problem).__name__}: a write was not answered.", "Look at the server.")
    return ok(subject, "takes writes")


def _version(subject: str, info: dict[str, Any]) -> Finding:
    name = str(info.get("server_name", "redis")).capitalize()
    version = str(info.get(f"{name.lower()}_version") or info["redis_version"])
    numbers = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if numbers < OLDEST:
        return error(subject, f"{name} {version} is too old.", "Use Redis 7.0, Valkey 7.2 or newer.")
    return ok(subject, f"{name} {version}, {info.get('used_memory_human', '?')} in use")


def _persistence(subject: str, info: dict[str, Any]) -> Finding:
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status", "ok") != "ok":
            return error(subject, "The last write to its log failed.", "Look at its disk.")
        return ok(subject, "keeps a log of its writes")
    return warning(
        subject,
        "appendonly is off: a restart forgets rate windows and cooldowns. No job is lost.",
        "Set appendonly yes, appendfsync everysec.",
    )
