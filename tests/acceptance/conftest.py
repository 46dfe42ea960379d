"""Instances for the acceptance tests: one that they share, and fresh ones for those that break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.counter import Counter
from tests.acceptance.counter import counter as open_counter
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
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counter]:
    """One instance with the tests' own job types, for all that only use it."""
    with open_counter(tmp_path_factory.mktemp("scratch")) as made:
        yield made
