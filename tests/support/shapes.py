"""The two shapes in which an instance runs: everything embedded, and on a PostgreSQL and a Redis of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.events import EventStream
from tests.support.instance import Instance, running
from tests.support.postgres import Cluster
from tests.support.product import Product
from tests.support.servers import SEPARATELY, separate_servers
from tests.support.valkey import Server

EMBEDDED, SEPARATE = "embedded", "separate"
BOTH = [EMBEDDED, pytest.param(SEPARATE, marks=pytest.mark.postgres)]
BOTH_IF_LONG = [EMBEDDED, pytest.param(SEPARATE, marks=(pytest.mark.postgres, pytest.mark.long))]
"""The second shape in the long tier only: where a test takes long and hardly depends on the shape."""


@dataclass(frozen=True)
class Plan:
    """How an instance is started: options of `up`, environment, and the configuration that is applied to it."""

    options: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    configuration: str = ""

    def variant(self, *options: str, **environ: str) -> Plan:
        """The same with other options of `up`, if any are given, and more environment."""
        return Plan(options or self.options, {**self.environ, **environ}, self.configuration)


@dataclass
class Deployment:
    """A running instance, a client of it, and its servers; `postgres` and `redis` only in the separate shape."""

    instance: Instance
    product: Product
    scratch: Path
    """A directory that the test and its tasks share."""
    postgres: Cluster | None = None
    redis: Server | None = None

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """From SQL, with `?` for values, without the product between."""
        return self.instance.rows(query, *values)

    def apply(self, configuration: str) -> None:
        self.instance.manage("apply", "-", stdin=configuration)

    def events(self, key: str | None = None, since: str = "") -> EventStream:
        return EventStream(self.instance, key, since)


@contextmanager
def deployed(shape: str, plan: Plan) -> Iterator[Deployment]:
    """A started and configured instance of that shape."""
    with ExitStack() as stack:
        postgres, redis = None, None
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-scratch-", dir="/tmp")))
        environ = {**plan.environ, "ACCEPTANCE_SCRATCH": str(scratch)}
        if shape == SEPARATE or SEPARATELY:
            postgres, redis = stack.enter_context(separate_servers(migrated=True))
            environ |= {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
        instance = stack.enter_context(running(*plan.options, environ=environ, migrated=True))
        product = stack.enter_context(Product.of(instance))
        deployment = Deployment(instance, product, scratch, postgres, redis)
        if plan.configuration:
            deployment.apply(plan.configuration)
        yield deployment
