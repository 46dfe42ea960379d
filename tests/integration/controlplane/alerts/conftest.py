"""Rows of a pool, rules, and a receiver on a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controlplane.alerts.kinds import KINDS
from controlplane.models import AlertRule
from quotas.models import Account, Pool, Provider
from tests.support.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def pool(db: None) -> Pool:
    provider = Provider.objects.create(name="sim", dialect="openai", base_url="http://127.0.0.1")
    pool = Pool.objects.create(name="llm", provider=provider)
    for name in ("a1", "a2"):
        Account.objects.create(pool=pool, name=name, credential=f"sk-{name}")
    return pool


def rule(name: str = "ops", to: str = "webhook+http://127.0.0.1:1/", when: tuple[str, ...] = tuple(KINDS)) -> AlertRule:
    return AlertRule.objects.create(name=name, when=list(when), to=to)
