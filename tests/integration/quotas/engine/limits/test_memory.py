"""What limits cost the server: so much a subject, nothing for a denial, nothing without an end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.requests import CheckRequest
from quotas.engine.types import ALGORITHMS
from tests.integration.quotas.engine.limits.conftest import Clock, limit
from tests.support.valkey import Server, wait_for

FULL = 100_000
"""Subjects at 1,000 per hour in full use, for which 100 MB are enough."""
SIZES = [2_000, pytest.param(FULL, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
DENIALS = [20_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]


def used(client: redis.Redis) -> int:
    """Bytes that the server has taken, without what it keeps for its connections."""
    wait_for(lambda: client.info("memory")["lazyfree_pending_objects"] == 0, 60)
    client.execute_command("MEMORY", "PURGE")
    memory = client.info("memory")
    return int(memory["used_memory"]) - int(memory["mem_clients_normal"])


def kept(client: redis.Redis) -> int:
    """Bytes that all keys take, with their names, ends and values."""
    return sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter(count=1000))


@pytest.mark.parametrize("subjects", SIZES)
@pytest.mark.parametrize("algorithm", ["sliding_window", "sliding_window_counter", "token_bucket", "fixed_window"])
def test_subjects_in_full_use_fit(valkey_server: Server, valkey: redis.Redis, algorithm: str, subjects: int) -> None:
    clock = Clock()
    limiter = Limiter(valkey, clock=clock)
    limiter.check([limit("warm")])
    before = used(valkey)
    for part in (0, 19, 39, 59):  # from the first sub-bucket of the hour to the last: each ring is as long as it gets
        clock.now = Clock().now + part * 60 * 10**6
        for first in range(0, subjects, 1000):
            limiter.check_many(
                CheckRequest([limit("p", algorithm, subject=f"user-{n}", limit=1000, cost=250, window=3600.0)])
                for n in range(first, first + 1000)
            )
    one = limit("p", algorithm, subject="user-7", limit=1000, window=3600.0)
    assert algorithm == "token_bucket" or limiter.peek([one])[0].used == 1000
    grown = used(valkey) - before
    print(f"{algorithm}: {grown / subjects:.0f} bytes a subject, {grown * FULL / subjects / 1e6:.1f} MB for {FULL:,}")
    assert grown * FULL / subjects < 100e6
    limiter.transport.close()


@pytest.mark.parametrize("denials", DENIALS)
def test_denied_checks_add_nothing(valkey_server: Server, valkey: redis.Redis, denials: int) -> None:
    limiter = Limiter(valkey)
    full = [limit(algorithm, algorithm, limit=1, window=86400.0 * 30, lease_ttl=86400.0) for algorithm in ALGORITHMS]
    assert limiter.check(full)

    def deny(count: int) -> None:
        for first in range(0, count, 1000):
            # The same subject and ever new ones; the zero limit refuses those.
            asked = [[*full[:3], limit("z", limit=0, subject=f"{first}-{n}")] for n in range(500)] + [full] * 500
            assert not any(limiter.check_many(CheckRequest(limits) for limits in asked))

    deny(2000)  # buffers have their size
    keys, before, total = valkey.dbsize(), kept(valkey), used(valkey)
    deny(denials)
    assert valkey.dbsize() == keys
    print(f"{denials:,} denials: {kept(valkey) - before} bytes of keys, {used(valkey) - total} bytes in all")
    assert kept(valkey) - before < 1024
    assert used(valkey) - total < 2**20, "what the server's Lua and buffers take comes and goes"
    limiter.transport.close()


def test_every_key_of_every_call_has_an_end(on_server: Limiter, client: redis.Redis) -> None:
    limits = [limit(a, a, unit="tokens", cost=2) for a in ALGORITHMS]
    held = on_server.check(limits, token="t")
    assert held.reservation
    on_server.settle(held.reservation, {"tokens": 1})
    on_server.check([replace(one, subject="other") for one in limits], bypass=True)
    assert client.dbsize() > 10
    assert [key for key in client.scan_iter() if client.pttl(key) <= 0] == []
