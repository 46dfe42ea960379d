"""Instances for the acceptance tests: one that they share, and one of each shape for a module.

A module says with a constant `PLAN` how the instance of `embedded`, `separate` or `either` is started.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.plans import SHARED, SHARED_CONFIGURATION
from tests.acceptance.pools import Pools, pools_deployed
from tests.integration.controlplane.simulator.process import Simulator
from tests.support.product import Product
from tests.support.shapes import BOTH, BOTH_IF_LONG, EMBEDDED, SEPARATE, Deployment, Plan, deployed


@pytest.fixture(scope="session")
def shared() -> Iterator[Deployment]:
    """One instance for a whole test process, with a simulated provider. Don't break it, and don't count on being alone:
    use projects, queues and pools of your own."""
    with Simulator("--rpm", "60000") as simulator, deployed(EMBEDDED, SHARED) as deployment:
        deployment.apply(SHARED_CONFIGURATION.format(provider=simulator.base_url))
        yield deployment


@pytest.fixture(scope="session")
def product(shared: Deployment) -> Product:
    """A client of the shared instance."""
    return shared.product


@pytest.fixture(scope="module")
def embedded(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """An instance of the module's own with everything embedded."""
    with deployed(EMBEDDED, _plan(request)) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def separate(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """An instance of the module's own on a PostgreSQL and a Redis of its own; for tests that are marked `postgres`."""
    with deployed(SEPARATE, _plan(request)) as deployment:
        yield deployment


@pytest.fixture(scope="module", params=BOTH)
def either(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """Both shapes, one after the other."""
    with deployed(request.param, _plan(request)) as deployment:
        yield deployment


@pytest.fixture(scope="module", params=BOTH_IF_LONG)
def either_if_long(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """Both shapes, the separate one in the long tier only."""
    with deployed(request.param, _plan(request)) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    """An instance of the module's own with pools of every kind, and their providers."""
    with pools_deployed() as made:
        yield made


@pytest.fixture
def fresh() -> Iterator[Deployment]:
    """An embedded instance of the test's own: break it as you like."""
    with deployed(EMBEDDED, Plan()) as deployment:
        yield deployment


def _plan(request: pytest.FixtureRequest) -> Plan:
    plan: Plan = getattr(request.module, "PLAN", Plan())
    return plan
