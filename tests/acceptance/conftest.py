"""Instances for the acceptance tests: one that they share, and fresh ones for those that break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.jobs_client import JobsClient
from tests.acceptance.jobs_client import jobs_client as open_jobs_client
from tests.support.instance import Instance, running


@pytest.fixture(scope="session")
def shared_instance() -> Iterator[Instance]:
    """One instance for a whole test process. Don't hurt it, and make projects, queues and pools of your own."""
    with running() as instance:
        yield instance


@pytest.fixture
def fresh_instance() -> Iterator[Instance]:
    """An instance of the test's own, started and ready: kill what you like."""
    with running() as instance:
        yield instance


@pytest.fixture(scope="session")
def jobs_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobsClient]:
    """One instance with the tests' own job types, for all that only use it."""
    with open_jobs_client(tmp_path_factory.mktemp("scratch")) as made:
        yield made
