from collections.abc import Iterator

import pytest

from quotas.runtime.connection import accounts
from tests.integration.quotas.api.conftest import empty

__all__ = ["empty"]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    accounts.cache_clear()
    yield
