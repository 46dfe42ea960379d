"""Blocking checks: in order of arrival, one question at a time, never longer than asked."""

from __future__ import annotations

import threading

import redis

from quotas.engine.limiter import Limiter
from quotas.engine.types import Decision, Limit
from quotas.engine.waiting import WaitingLine
from tests.valkey import wait_for

from .conftest import limit


class Counting(Limiter):
    """A limiter that counts how often it was asked."""

    asked = 0

    def check(self, limits, **options) -> Decision:  # type: ignore[no-untyped-def, override]
        self.asked += 1
        return super().check(limits, **options)


def standing(line: WaitingLine) -> int:
    return sum(map(len, line._lines.values()))


def test_waiters_are_served_in_order_of_arrival_without_polling(valkey: redis.Redis) -> None:
    limiter = Counting(valkey)
    line = WaitingLine(limiter)
    one = limit("w", "token_bucket", limit=20, window=1.0, burst=1)
    assert line.check([one], max_wait=0)
    order: list[int] = []

    def ask(number: int) -> None:
        if line.check([one], max_wait=30):
            order.append(number)

    threads = []
    for number in range(10):
        thread = threading.Thread(target=ask, args=(number,))
        before = standing(line)
        thread.start()
        wait_for(lambda before=before, number=number: standing(line) > before or len(order) > number)  # type: ignore[misc]
        threads.append(thread)
    for thread in threads:
        thread.join()
    assert order == sorted(order) and len(order) == 10
    assert limiter.asked <= 1 + 3 * 10
    assert standing(line) == 0
    limiter.transport.close()


def test_a_wait_that_is_too_long_is_refused_at_once(valkey: redis.Redis) -> None:
    limiter = Counting(valkey)
    line = WaitingLine(limiter, sleep=lambda seconds: (_ for _ in ()).throw(AssertionError("slept")))
    one = limit("w", "fixed_window", limit=1, window=86400.0 * 30)
    assert line.check([one], max_wait=5)
    denied = line.check([one], max_wait=5)
    assert not denied and denied.retry_after and denied.retry_after > 5
    hopeless: Limit = limit("z", limit=0)
    assert line.check([hopeless], max_wait=5).retry_after is None
    assert limiter.asked == 3
    limiter.transport.close()
