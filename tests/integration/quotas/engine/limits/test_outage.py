"""The server hangs, dies, comes back: answered within the budget, bounded, recovered."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from quotas.engine.errors import LimiterUnavailable
from quotas.engine.limits.fallback import ResilientLimiter
from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.requests import CheckRequest
from tests.integration.quotas.engine.limits.conftest import limit
from tests.support.valkey import Server, run_server, valkey_binary, wait_for

OPEN = limit("open", limit=6, window=3600.0, on_redis_down="fail_open")
CLOSED = limit("closed", limit=6, window=3600.0)


@pytest.fixture
def own_server() -> Iterator[Server]:
    with run_server(valkey_binary()) as server:
        yield server


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def resilient(own_server: Server, events: list[str]) -> Iterator[ResilientLimiter]:
    with own_server.client() as client:
        yield ResilientLimiter(
            Limiter(client, timeout=0.1), probe_every=0.05, on_event=lambda kind, why: events.append(kind)
        )


def test_a_hung_server_costs_one_timeout_and_recovery_is_by_itself(
    own_server: Server, resilient: ResilientLimiter, events: list[str]
) -> None:
    assert resilient.check([OPEN]).degraded is False
    own_server.process.send_signal(signal.SIGSTOP)
    answers = [resilient.check([OPEN]) for _ in range(20)]
    assert all(answer.degraded for answer in answers)
    assert sum(map(bool, answers)) == 6  # the policy's own limit, never unlimited
    with pytest.raises(LimiterUnavailable, match="closed"):
        resilient.check([OPEN, CLOSED])
    assert events == ["unavailable"]
    own_server.process.send_signal(signal.SIGCONT)
    wait_for(lambda: not resilient.check([OPEN], dry_run=True).degraded, 1.0)
    assert events == ["unavailable", "recovered"]


def test_callers_do_not_pile_up_on_a_hung_server(
    own_server: Server, resilient: ResilientLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resilient.check([OPEN])
    own_server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(LimiterUnavailable):
        resilient.check([CLOSED])
    waiting: list[int] = []
    most: list[int] = [0]
    exchange = resilient.limiter.transport.exchange

    def watched(payload: bytes, count: int = 1) -> list[object]:
        waiting.append(1)
        most.append(len(waiting))
        try:
            return exchange(payload, count)
        finally:
            waiting.pop()

    monkeypatch.setattr(resilient.limiter.transport, "exchange", watched)
    degraded: list[bool] = []

    def ask() -> None:
        degraded.extend(resilient.check([OPEN], dry_run=True).degraded for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(degraded) == 16 * 200 and all(degraded)
    assert max(most) <= 1, "only one caller at a time waits for the server"
    own_server.process.send_signal(signal.SIGCONT)


def test_a_dead_server_that_returns_empty_is_used_again(own_server: Server, resilient: ResilientLimiter) -> None:
    assert resilient.check([OPEN])
    own_server.process.kill()
    own_server.process.wait()
    assert resilient.check([OPEN]).degraded
    many = resilient.check_many([CheckRequest([OPEN]), CheckRequest([CLOSED])])
    assert isinstance(many[1], LimiterUnavailable) and not isinstance(many[0], LimiterUnavailable)
    with run_server(valkey_binary(), port=own_server.port):
        wait_for(lambda: not resilient.check([OPEN], dry_run=True).degraded, 2.0)
        assert resilient.check([OPEN]).limits[0].used == 1


def test_each_process_holds_its_share(own_server: Server) -> None:
    own_server.process.kill()
    own_server.process.wait()
    with own_server.client() as client:
        resilient = ResilientLimiter(Limiter(client, timeout=0.1), processes=lambda: 3)
        assert sum(bool(resilient.check([OPEN])) for _ in range(20)) == 2


def test_a_reservation_of_an_outage_is_settled_where_it_was_made(
    own_server: Server, resilient: ResilientLimiter
) -> None:
    tokens = limit("t", limit=100, unit="tokens", cost=40, on_redis_down="fail_open")
    own_server.process.send_signal(signal.SIGSTOP)
    held = resilient.check([tokens])
    assert held.degraded and held.reservation
    settled = resilient.settle(held.reservation, {"tokens": 10})
    assert settled and settled.refunded == {"tokens": 30}
    own_server.process.send_signal(signal.SIGCONT)


def test_a_check_whose_answer_was_lost_is_charged_once_by_its_token(own_server: Server) -> None:
    """The server runs what was sent to it though the caller has given up: a repetition finds the first answer."""
    with own_server.client() as client:
        limiter = Limiter(client, timeout=0.2)
        first = limit("warm", limit=5, window=3600.0)
        limiter.check([first])
        own_server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(LimiterUnavailable):
            limiter.check([CLOSED], token="order-7", token_body="b")
        own_server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: limiter_used(limiter) == 1, 15)
        again = limiter.check([CLOSED], token="order-7", token_body="b")
        assert again.allowed and again.replayed and again.limits[0].used == 1
        assert limiter_used(limiter) == 1
        limiter.transport.close()


def limiter_used(limiter: Limiter) -> int:
    try:
        return limiter.peek([CLOSED])[0].used
    except LimiterUnavailable:
        return -1


def test_many_callers_at_the_moment_of_a_hang(own_server: Server, events: list[str]) -> None:
    """Calls in progress wait for one timeout; all others are answered at once, within the policy's limit."""
    limits = limit("wide", limit=500, window=3600.0, on_redis_down="fail_open")
    with own_server.client() as client:
        resilient = ResilientLimiter(
            Limiter(client, timeout=0.1), probe_every=0.25, on_event=lambda kind, why: events.append(kind)
        )
        transport = resilient.limiter.transport
        hung, served, stop = [0], [0], threading.Event()
        exchange, lock = transport.exchange, threading.Lock()

        def watched(payload: bytes, count: int = 1) -> list[object]:
            try:
                replies = exchange(payload, count)
            except LimiterUnavailable:
                with lock:
                    hung[0] += 1
                raise
            with lock:
                served[0] += 1
            return replies

        transport.exchange = watched  # type: ignore[method-assign]
        degraded: list[bool] = []

        def ask() -> None:
            while not stop.is_set():
                decision = resilient.check([limits])
                if decision.degraded:
                    degraded.append(decision.allowed)

        threads = [threading.Thread(target=ask) for _ in range(32)]
        for thread in threads:
            thread.start()
        wait_for(lambda: served[0] >= 100)
        own_server.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: len(degraded) > 2000, 60)
        asked_in_vain = hung[0]
        stop.set()
        for thread in threads:
            thread.join()
        # Each caller waited once at most; after that one probe at a time.
        assert asked_in_vain <= 32 + 60 / 0.25
        assert sum(degraded) <= 500, "bounded by the policy's own limit"
        own_server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: not resilient.check([limits], dry_run=True).degraded, 1.0)
        assert events == ["unavailable", "recovered"]
        transport.close()
