from collections.abc import Iterator

import pytest

from quotas.connection import accounts
from tests.integration.api.conftest import empty

__all__ = ["empty"]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    accounts.cache_clear()
    yield
