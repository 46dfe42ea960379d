"""The two shapes in which an instance runs: everything embedded, and on a PostgreSQL and a Redis of its own."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from tests.acceptance.instance import Instance, running
from tests.postgres import Cluster, run_cluster
from tests.valkey import Server, run_server

EMBEDDED, SEPARATE = "embedded", "separate"
BOTH = [EMBEDDED, pytest.param(SEPARATE, marks=pytest.mark.postgres)]


class Place:
    """A running instance with what it stands on; `postgres` and `redis` only in the separate shape."""

    def __init__(self, instance: Instance, postgres: Cluster | None, redis: Server | None) -> None:
        self.instance = instance
        self.postgres = postgres
        self.redis = redis

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Straight from SQL, with `?` for values: what no face can gloss over."""
        if self.postgres is not None:
            with psycopg.connect(self.postgres.url, options="-c TimeZone=UTC") as connection:
                return connection.execute(query.replace("?", "%s"), values).fetchall()  # type: ignore[arg-type]
        with sqlite3.connect(self.instance.data_dir / "sluice.sqlite3", timeout=30) as connection:
            return connection.execute(query, values).fetchall()


@contextmanager
def placed(shape: str, *options: str, environ: Mapping[str, str] | None = None) -> Iterator[Place]:
    """A started instance of that shape."""
    with ExitStack() as stack:
        postgres, redis = None, None
        given = dict(environ or {})
        if shape == SEPARATE:
            binary = shutil.which("redis-server")
            if binary is None:
                pytest.skip("no redis-server is installed")
            postgres = stack.enter_context(run_cluster("max_connections=300"))
            redis = stack.enter_context(run_server(binary, "--appendonly", "yes", "--appendfsync", "everysec"))
            given |= {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
        instance = stack.enter_context(running(*options, environ=given))
        yield Place(instance, postgres, redis)
