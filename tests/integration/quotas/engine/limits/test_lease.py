"""Prepaid leases: memory speed, and never a unit above the limit, whichever process dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.prepaid import PrepaidLease, take
from quotas.engine.types import Limit
from tests.integration.quotas.engine.limits.conftest import Clock, limit
from tests.support.valkey import Server

ROOT = Path(__file__).parents[5]
SHARED = Limit("shared", "shared", "project", "p", "sliding_window", 20_000, window=86400.0)
SPEND = """
import sys, redis
from quotas.engine.limits.prepaid import PrepaidLease
from quotas.engine.limits.limiter import Limiter
from tests.integration.quotas.engine.limits.test_lease import SHARED
lease = PrepaidLease(Limiter(redis.Redis(port=int(sys.argv[1]))), [SHARED], units=500)
die_after, spent = int(sys.argv[2]), 0
while lease.spend():
    spent += 1
    if spent == die_after:
        print(spent, flush=True)
        sys.stdin.readline()
lease.close()
print(spent, flush=True)
"""


def used(limiter: Limiter, one: Limit) -> int:
    return limiter.peek([one])[0].used


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "sliding_window_counter", "token_bucket"])
def test_the_whole_limit_can_be_spent_and_no_more(limiter: Limiter, algorithm: str) -> None:
    one = limit("a", algorithm, limit=1000, window=3600.0)
    lease = PrepaidLease(limiter, [one], units=100)
    assert sum(bool(lease.spend()) for _ in range(1500)) == 1000
    assert used(limiter, one) == 1000


def test_what_was_not_spent_is_refunded(limiter: Limiter) -> None:
    one = limit("a", limit=100_000, window=3600.0, cost=2)
    with PrepaidLease(limiter, [one], units=400) as lease:
        assert all(lease.spend() for _ in range(777))
        assert used(limiter, one) >= 2 * 777
    assert used(limiter, one) == 2 * 777


def test_a_block_does_not_outlive_the_window_it_was_charged_in(
    limiter: Limiter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quotas.engine.limits.prepaid.time.monotonic", lambda: clock.now / 1e6)
    one = limit("a", limit=10_000, window=60.0)
    lease = PrepaidLease(limiter, [one], units=50, ttl=600)
    for _ in range(3):
        assert lease.spend()
    clock.now = -(-clock.now // 60_000_000 + 1) * 60_000_000 if clock.now % 60_000_000 else clock.now + 60_000_000
    assert lease.spend()
    lease.close()
    assert used(limiter, one) == 1


def test_near_the_limit_fewer_are_taken_and_then_none(limiter: Limiter) -> None:
    one = limit("a", limit=30, window=3600.0)
    assert take(limiter, [one], 20)[0] == 20
    assert take(limiter, [one], 20)[0] == 10
    units, denied = take(limiter, [one], 20)
    assert units == 0 and not denied and denied.retry_after


def test_concurrency_can_not_be_prepaid(limiter: Limiter) -> None:
    with pytest.raises(ValueError, match="concurrency"):
        PrepaidLease(limiter, [limit("c", "concurrency")])


def test_eight_processes_three_of_them_killed(valkey_server: Server, valkey: redis.Redis) -> None:
    def start(die_after: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SPEND, str(valkey_server.port), str(die_after)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    doomed = [start(500 + 100 * n) for n in range(3)]
    others = [start(0) for _ in range(5)]
    spent = 0
    for process in doomed:
        assert process.stdout
        line = process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        spent += int(line)
    for process in others:
        spent += int(process.communicate(timeout=60)[0].splitlines()[-1])
    print(f"{spent:,} of 20,000 spent")
    assert 0.9 * 20_000 <= spent <= 20_000
