"""A limiter at another server, for the length of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.test import override_settings

from quotas.runtime import connection


@contextmanager
def limiter_at(url: str, **more: Any) -> Iterator[None]:
    """The process's limiter uses the server at `url`. Its connections are closed after the settings are as before: a thread
    that settles late may open one at any time, and would keep the address of a server that is gone."""
    try:
        with override_settings(LIMITER_REDIS_URL=url, **more):
            connection.forget()
            yield
    finally:
        connection.forget()
