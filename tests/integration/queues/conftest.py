"""A desk on real SQL and a real Valkey, both empty; job types that do as the test says."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import redis

from queues import task
from queues.connection import client
from queues.errors import JobError
from queues.testing import isolated_registry
from quotas import clock
from quotas.rest.authentication import keyring
from tests.integration.queues.desk import Desk

real_now = clock.now


@task(name="test.echo")
def echo(job: Any, **payload: Any) -> dict[str, Any]:
    """Answers with its payload."""
    return {"attempt": job.attempt, **payload}


@task(name="test.fail")
def fail(job: Any, category: str = "server", retry_after: float | None = None) -> None:
    """Fails with the category of its payload."""
    raise JobError("asked to fail", category=category, retry_after=retry_after)


@task(name="test.once", delivery="at_most_once")
def once(job: Any) -> None:
    """Is delivered at most once."""


@task(name="test.secret", redact=("token",))
def secret(job: Any, token: str, city: str = "") -> None:
    """Has a member that no page shows."""


@pytest.fixture(autouse=True)
def empty(transactional_db: None, valkey: redis.Redis, settings: Any) -> Iterator[None]:
    settings.CALLBACK_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]  # as the embedded default has it
    client().connection_pool.disconnect()
    keyring.forget()
    Desk.renew_configuration()
    yield
    keyring.forget()
    Desk.renew_configuration()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """SQL's clock moves on by `desk.skip(seconds)`."""
    offset = timedelta()

    def skip(seconds: float) -> None:
        nonlocal offset
        offset += timedelta(seconds=seconds)

    def now() -> datetime:
        return real_now() + offset

    monkeypatch.setattr(clock, "now", now)
    monkeypatch.setattr(clock, "stamp", now)
    return Desk(skip)


@pytest.fixture
def type_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register functions as job types for one test."""

    def register(name: str, **options: Any) -> Any:
        return task(name=name, **options)

    with isolated_registry():
        yield register


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
