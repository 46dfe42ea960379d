"""What a pool says about the gateway comes back as it was written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from controlplane import config
from quotas.snapshot import resolve

pytestmark = pytest.mark.django_db


def document(sticky: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "providers": [{"name": "p", "base_url": "https://api.example.com"}],
        "pools": [{"name": "llm", "provider": "p", "sticky": sticky}],
    }


@pytest.mark.parametrize(
    ("sticky", "is_sticky", "by_prefix"), [(False, False, False), (True, True, False), ("prefix", True, True)]
)
def test_a_pool_is_sticky_by_key_or_by_prefix(sticky: Any, is_sticky: bool, by_prefix: bool) -> None:
    config.apply(yaml.safe_dump(document(sticky)), actor="test")
    (exported,) = yaml.safe_load(config.export())["pools"]
    assert exported.get("sticky", False) == sticky
    resolve.clear()
    found = resolve.snapshot().pools["llm"]
    assert (found.spec.sticky, found.sticky_by_prefix) == (is_sticky, by_prefix)


def test_another_word_is_a_mistake() -> None:
    with pytest.raises(config.ConfigInvalid, match="true, false or prefix"):
        config.apply(yaml.safe_dump(document("sometimes")), actor="test")
