"""Accounts on a real server, with a clock that the test moves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from quotas.engine.accounts.accounts import Accounts
from quotas.engine.accounts.view import AccountView
from quotas.engine.types import AccountSpec, Admission, AdmitRequest, CallOutcome, Limit, PoolSpec, Settled
from tests.integration.quotas.engine.limits.conftest import Clock
from tests.support.valkey import valkey, valkey_server  # noqa: F401


def bucket(limit: int | None = 60, unit: str = "requests", **fields: Any) -> Limit:
    """A token bucket per minute, as a pool's template."""
    given: dict[str, Any] = {
        "id": f"t-{unit}",
        "name": unit,
        "scope": "account",
        "subject": "",
        "algorithm": "token_bucket",
        "limit": limit,
        "unit": unit,
        "window": 60.0,
    }
    return Limit(**(given | fields))


def pool(accounts: int | tuple[str | AccountSpec, ...] = 1, *limits: Limit, **fields: Any) -> PoolSpec:
    """A pool of accounts a1, a2, ..."""
    names = tuple(f"a{n}" for n in range(1, accounts + 1)) if isinstance(accounts, int) else accounts
    specs = tuple(name if isinstance(name, AccountSpec) else AccountSpec(name, name) for name in names)
    return PoolSpec(**({"id": "llm", "name": "llm", "accounts": specs, "limits": limits} | fields))


RATE_LIMITED = CallOutcome("rate_limited", status=429)
SERVER = CallOutcome("server", status=500)
OK = CallOutcome("ok", status=200)


class Engine:
    """`Accounts` with shorthands, and the clock that it goes by."""

    def __init__(self, accounts: Accounts, clock: Clock, server: redis.Redis) -> None:
        self.accounts = accounts
        self.clock = clock
        self.server = server

    def take(self, spec: PoolSpec, **fields: Any) -> Admission:
        """Acquire an account."""
        return self.accounts.admit(AdmitRequest(pool=spec, **fields))

    def settle(self, lease: str | None, outcome: CallOutcome = OK) -> Settled:
        """Settle a lease that must be known."""
        assert lease is not None
        settled = self.accounts.settle(lease, outcome)
        assert settled is not None
        return settled

    def call(self, spec: PoolSpec, outcome: CallOutcome = OK, **fields: Any) -> tuple[str, Settled]:
        """Take an account that must be there, and settle at once."""
        admission = self.take(spec, **fields)
        assert admission, admission
        return str(admission.account_id), self.settle(admission.lease, outcome)

    def look(self, spec: PoolSpec, **fields: Any) -> list[AccountView]:
        """How each of the pool's accounts stands to a call."""
        return self.accounts.explain(AdmitRequest(pool=spec, **fields)).pools[0].accounts

    def state(self, spec: PoolSpec, account: int = 0) -> Any:
        """One account's state."""
        return self.accounts.states(spec)[account]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(valkey: redis.Redis, clock: Clock) -> Iterator[Engine]:  # noqa: F811
    accounts = Accounts(valkey, clock=clock, chance=random.Random(11))
    yield Engine(accounts, clock, valkey)
    accounts.transport.close()
