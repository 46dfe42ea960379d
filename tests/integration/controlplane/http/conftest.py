"""The front door on real SQL and a real Valkey. Its threads have connections of their own, so rows are committed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from django.conf import settings

from quotas.rest.authentication import keyring
from quotas.runtime import connection
from quotas.snapshot import resolve
from tests.integration.controlplane.http.asgi import Door


@pytest.fixture
def store() -> Iterator[redis.Redis]:
    """The server that the settings name, by their own address, emptied."""
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushall()
        yield client


@pytest.fixture(autouse=True)
def empty(transactional_db: None, store: redis.Redis) -> Iterator[None]:
    connection.forget()
    resolve.clear()
    keyring.forget()
    yield
    resolve.clear()
    keyring.forget()


@pytest.fixture
def door(empty: None) -> Iterator[Door]:
    made = Door()
    yield made
    made.close()
