"""What an instance needs to work: SQL, Redis, a leading dispatcher, a worker, and no process that keeps dying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import redis
from django.conf import settings
from django.db import Error as SqlError
from django.db import connection
from django.db.models.functions import Now

from controlplane.supervisor import failing
from queues import liveness
from queues.models import Leadership
from quotas import clock
from quotas.runtime.redis_url import client

REDIS_PATIENCE = 1.0


@dataclass(frozen=True)
class Check:
    """One part. `problem` is empty if it works."""

    name: str
    problem: str = ""


def _sql() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return ""


def _redis(url: str) -> str:
    """Whether it takes writes: a server that is full, a replica, or can't write to its disk still answers PING."""
    server = client(url, socket_timeout=REDIS_PATIENCE, socket_connect_timeout=REDIS_PATIENCE)
    try:
        server.set(f"{settings.REDIS_PREFIX}:ready", "1", px=1000)
        return ""
    finally:
        server.close()


def _dispatcher() -> str:
    leads = Leadership.objects.filter(until__gt=Now()).exists()
    return "" if leads else "No dispatcher leads: start `manage.py dispatch`."


def _workers() -> str:
    fresh = liveness.alive(clock.now())
    if fresh.filter(lost_places=0).exists():
        return ""
    if fresh.exists():
        return "No worker takes jobs: each has a stuck thread and makes room for another one."
    return f"No worker has reported itself within {liveness.LOST_AFTER.seconds} s: start `manage.py rqworker`."


def failing_children() -> str:
    """The processes of a running `up` that keep dying."""
    path = settings.INSTANCE.failing_path
    return "; ".join(f"{one}, see {settings.INSTANCE.log_dir / one.name}.log" for one in failing.read(path))


def check() -> list[Check]:
    """Each part once, in the order in which they need each other; never raises for a part that is down."""
    urls = {"redis": settings.REDIS_URL}
    if settings.LIMITER_REDIS_URL != settings.REDIS_URL:
        urls["limiter_redis"] = settings.LIMITER_REDIS_URL
    parts: list[tuple[str, Callable[[], str]]] = [("sql", _sql)]
    parts += [(name, lambda url=url: _redis(url)) for name, url in urls.items()]  # type: ignore[misc]
    parts += [("dispatcher", _dispatcher), ("workers", _workers)]
    checks = [Check(name, _problem(part)) for name, part in parts]
    if dying := failing_children():
        checks.append(Check("processes", f"{dying}."))
    return checks


def _problem(part: Callable[[], str]) -> str:
    try:
        return part()
    except redis.ResponseError as error:
        return f"{_code(error)}: it answers with an error."
    except (SqlError, redis.RedisError) as error:
        # The class only: a driver's message may contain an address with its password.
        return f"{type(error).__name__}: not reachable."


def _code(error: redis.ResponseError) -> str:
    """What kind of error the server says (`MISCONF`), else the exception's class."""
    word = str(error).partition(" ")[0]
    return word if word.isupper() and word.isalpha() and word != "ERR" else type(error).__name__
