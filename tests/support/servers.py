"""A PostgreSQL and a Redis for an instance of its own, and whether all instances are to stand on such."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.migrated import migrated_postgres
from tests.support.postgres import Cluster, run_cluster
from tests.support.valkey import Server, run_server

SEPARATELY = os.environ.get("SLUICE_TEST_SHAPE") == "separate"
"""Set from outside: every instance that the tests start stands on servers of its own."""


@contextmanager
def separate_servers(*, migrated: bool = False) -> Iterator[tuple[Cluster, Server]]:
    """`migrated`: the PostgreSQL has the product's tables already."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server is installed")
    with ExitStack() as stack:
        postgres = stack.enter_context(
            run_cluster("max_connections=300", copy_of=migrated_postgres() if migrated else None)
        )
        redis = stack.enter_context(run_server(binary, "--appendonly", "yes", "--appendfsync", "everysec"))
        yield postgres, redis
