"""The two shapes in which an instance runs: everything embedded, and on a PostgreSQL and a Redis of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance, running
from tests.support.postgres import Cluster
from tests.support.servers import SEPARATELY, separate_servers
from tests.support.valkey import Server

EMBEDDED, SEPARATE = "embedded", "separate"
BOTH = [EMBEDDED, pytest.param(SEPARATE, marks=pytest.mark.postgres)]


class Place:
    """A running instance with what it stands on; `postgres` and `redis` only in the separate shape."""

    def __init__(self, instance: Instance, postgres: Cluster | None, redis: Server | None) -> None:
        self.instance = instance
        self.postgres = postgres
        self.redis = redis
        self.scratch = Path()
        """A directory that the test and its tasks share, where there is one."""

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Straight from SQL, with `?` for values: what no face can gloss over."""
        return self.instance.rows(query, *values)


@contextmanager
def placed(shape: str, *options: str, environ: Mapping[str, str] | None = None) -> Iterator[Place]:
    """A started instance of that shape."""
    with ExitStack() as stack:
        postgres, redis = None, None
        given = dict(environ or {})
        if shape == SEPARATE or SEPARATELY:
            postgres, redis = stack.enter_context(separate_servers())
            given |= {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
        instance = stack.enter_context(running(*options, environ=given))
        yield Place(instance, postgres, redis)
