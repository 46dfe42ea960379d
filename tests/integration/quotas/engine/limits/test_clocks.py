"""One clock: callers an hour off change nothing, and a server whose time steps back neither gives nor locks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import ALGORITHMS
from tests.integration.quotas.engine.limits.conftest import Clock, limit


@contextmanager
def off_by(hours: int) -> Iterator[None]:
    """This machine's clock is wrong by some hours."""
    with pytest.MonkeyPatch.context() as patch:
        real = time.time_ns
        patch.setattr(time, "time_ns", lambda: real() + hours * 3600 * 10**9)
        yield


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_callers_an_hour_off_share_one_limit(client: redis.Redis, algorithm: str) -> None:
    one = limit("p", algorithm, limit=9, window=86400.0 * 365)
    callers = [Limiter(client) for _ in range(3)]
    passed, seen = 0, []
    for _ in range(4):
        for caller, hours in zip(callers, (-1, 0, 1), strict=True):
            with off_by(hours):
                decision = caller.check([one])
            passed += decision.allowed
            seen.append(decision.limits[0])
    assert passed == 9
    resets = [state.reset_after for state in seen[9:]]
    assert max(resets) - min(resets) < 1800, "each of them gets the server's own time"
    for caller in callers:
        caller.transport.close()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_step_back_of_five_seconds(limiter: Limiter, clock: Clock, algorithm: str) -> None:
    one = limit("p", algorithm, limit=10, window=60.0, lease_ttl=60.0)
    clock.move(30)
    assert sum(bool(limiter.check([one])) for _ in range(6)) == 6
    clock.move(-5)
    assert sum(bool(limiter.check([one])) for _ in range(10)) == 4, "no quota is given away"
    denied = limiter.check([one])
    assert denied.retry_after is not None and denied.retry_after <= 86400 + 5
    clock.move(denied.retry_after)
    assert limiter.check([one]), "and no caller is locked out"


def test_mixtures_stay_all_or_nothing_over_a_step_back(limiter: Limiter, clock: Clock) -> None:
    limits = [limit(algorithm, algorithm, limit=5) for algorithm in ALGORITHMS]
    clock.move(30)
    assert sum(bool(limiter.check(limits)) for _ in range(3)) == 3
    clock.move(-5)
    assert sum(bool(limiter.check(limits)) for _ in range(5)) == 2
    assert {state.used for state in limiter.peek(limits)} == {5}
