"""The same on every kind of server, after its scripts are flushed, and when its clock steps back."""

from __future__ import annotations

import pytest

from quotas.engine.accounts.accounts import Accounts
from quotas.engine.learned import LearnedQuota
from quotas.engine.types import AdmitRequest, CallOutcome, ConcurrencySpec, Limit
from tests.integration.quotas.engine.accounts.conftest import bucket, pool
from tests.integration.quotas.engine.limits.conftest import Clock
from tests.support.valkey import cluster_server, redis7_server, valkey_server  # noqa: F401

MINE = Limit("p", "mine", "user", "u", "sliding_window", 1000, unit="tokens", cost=10, window=60.0)
POOL = pool(
    3,
    bucket(6),
    bucket(900, "tokens", algorithm="sliding_window"),
    bucket(2, id="chat", scope="custom", algorithm="fixed_window"),
    bucket(5, id="slots", algorithm="concurrency", lease_ttl=30.0),
    sticky=True,
    concurrency=ConcurrencySpec(4, 1, 8),
)


@pytest.fixture(params=["valkey_server", "redis7_server", "cluster_server"])
def server(request):
    found = request.getfixturevalue(request.param)
    with found.client() as client:
        client.flushall()
        yield found


def test_a_whole_round_on_every_server(server):
    with server.client() as client:
        accounts = Accounts(client)
        request = AdmitRequest(limits=[MINE], pool=POOL, cost={"tokens": 10}, key="chat", token="t", priority=8)
        first = accounts.admit(request)
        assert first
        assert accounts.admit(request).lease == first.lease
        client.function_flush()
        assert accounts.settle(first.lease, CallOutcome("rate_limited", retry_after=5.0, scope="key")).cooldown >= 5
        client.function_flush()
        moved = accounts.admit(AdmitRequest(pool=POOL, cost={"tokens": 10}, key="chat"))
        assert moved.account_id != first.account_id
        learned = {"tokens": LearnedQuota(limit=900, remaining=5, reset_after=9.0, window=60.0, kind="bucket")}
        assert accounts.settle(moved.lease, CallOutcome("ok", usage={"tokens": 3}, learned=learned)).outcome == "ok"
        accounts.trip("a1", 9)
        states = accounts.states(POOL)
        assert next(state.state for state in states) == "open"
        assert len(accounts.explain(AdmitRequest(pool=POOL, cost={"tokens": 1}, key="chat")).pools[0].accounts) == 3
        accounts.transport.close()


def test_time_that_steps_back_neither_locks_out_nor_gives_away(engine, clock: Clock):
    spec = pool(1, bucket(60), concurrency=ConcurrencySpec(3, 1, 3), lease_ttl=20.0)
    for _ in range(3):
        assert engine.take(spec)
    clock.move(-5)
    assert engine.take(spec).reasons == {"concurrency": 1}
    clock.move(26)
    assert engine.take(spec)
    engine.call(spec, CallOutcome("rate_limited", retry_after=10.0))
    clock.move(-5)
    assert 10 <= engine.take(spec).retry_after <= 16.1
    clock.move(16.1)
    assert engine.take(spec)
