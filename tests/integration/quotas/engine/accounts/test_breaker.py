"""The circuit breaker: opens on outages only, lets exactly its probes through, and ignores the results of earlier calls."""

from __future__ import annotations

import pytest

from quotas.engine.types import BreakerSpec, CallOutcome
from tests.integration.quotas.engine.accounts.conftest import OK, RATE_LIMITED, SERVER, pool

BREAKER = BreakerSpec(failures=3, window=60.0, open_for=30.0, probes=1)


def open_breaker(engine, spec):
    for _ in range(spec.breaker.failures):
        settled = engine.call(spec, SERVER)[1]
    assert settled.transition == "opened"


@pytest.mark.parametrize("category", ["server", "network", "timeout"])
def test_it_opens_at_so_many_failures_within_the_window(engine, category):
    spec = pool(1, breaker=BREAKER)
    assert [engine.call(spec, CallOutcome(category))[1].transition for _ in range(3)] == ["", "", "opened"]
    denied = engine.take(spec)
    assert (denied.reasons, denied.retry_after) == ({"breaker_open": 1}, 30.0)
    assert engine.state(spec).state == "open"
    assert engine.state(spec).until == 30.0


def test_failures_outside_the_window_do_not_count(engine, clock):
    spec = pool(1, breaker=BREAKER)
    for _ in range(6):
        assert engine.call(spec, SERVER)[1].transition == ""
        clock.move(31)


def test_a_few_failures_among_many_successes_are_no_outage(engine, clock):
    spec = pool(1, breaker=BREAKER)
    for _ in range(10):
        for _ in range(9):
            engine.call(spec, OK)
        assert engine.call(spec, SERVER)[1].transition == ""
        clock.move(1)


def test_a_total_outage_after_many_successes_opens_it_soon(engine, clock):
    """The share of failures within the window would be a fifth only after 75 calls."""
    spec = pool(1, breaker=BREAKER)
    for _ in range(300):
        engine.call(spec, OK)
    assert [engine.call(spec, SERVER)[1].transition for _ in range(6)] == [""] * 5 + ["opened"]


def test_failures_in_a_row_are_counted_anew_after_a_success(engine, clock):
    spec = pool(1, breaker=BREAKER)
    for _ in range(300):
        engine.call(spec, OK)
    for _ in range(4):
        for _ in range(5):
            assert engine.call(spec, SERVER)[1].transition == ""
        engine.call(spec, OK)


@pytest.mark.parametrize(
    "outcome",
    [
        RATE_LIMITED,
        CallOutcome("validation", status=400),
        CallOutcome("auth", status=403, scope="key"),
        CallOutcome("unknown"),
    ],
)
def test_nothing_else_moves_it(engine, outcome):
    spec = pool(1, breaker=BREAKER)
    leases = [engine.take(spec).lease for _ in range(6)]
    assert "opened" not in {engine.settle(lease, outcome).transition for lease in leases}


@pytest.mark.parametrize("strategy", ["health", "round_robin"])
def test_callers_that_cancel_touch_neither_health_nor_breaker(engine, clock, strategy):
    spec = pool(1, breaker=BREAKER, strategy=strategy)
    engine.call(spec, CallOutcome("timeout", error="the provider's own"))
    before = engine.state(spec)
    for _ in range(30):
        engine.call(spec, CallOutcome("unknown"))
    after = engine.state(spec)
    assert (after.health, after.state, after.last_error) == (before.health, "available", "the provider's own")
    engine.call(spec, SERVER)
    assert engine.call(spec, SERVER)[1].transition == "opened"
    clock.move(30)
    assert engine.settle(engine.take(spec).lease, CallOutcome("unknown")).transition == ""
    probe = engine.take(spec)
    assert probe.probe, "a probe whose caller cancelled decides nothing and frees its slot"
    assert engine.settle(probe.lease, OK).transition == "closed"


def test_one_probe_at_a_time_decides(engine, clock):
    spec = pool(1, breaker=BREAKER)
    open_breaker(engine, spec)
    clock.move(30)
    assert engine.state(spec).state == "half_open"
    probe = engine.take(spec)
    assert probe.probe
    assert engine.take(spec).reasons == {"probing": 1}
    assert engine.settle(probe.lease, SERVER).transition == "opened"
    assert engine.take(spec).retry_after == 30.0
    clock.move(30)
    assert engine.settle(engine.take(spec).lease, OK).transition == "closed"
    assert engine.state(spec).state == "available"
    assert not engine.take(spec).probe


def test_a_probe_goes_first_so_that_the_account_comes_back(engine, clock):
    spec = pool(3, breaker=BREAKER, strategy="health")
    engine.accounts.trip("a2", 30)
    clock.move(30)
    probe = engine.take(spec)
    assert (probe.account_id, probe.probe) == ("a2", True)
    assert engine.take(spec).account_id != "a2"


def test_several_probes_all_have_to_succeed(engine, clock):
    spec = pool(1, breaker=BreakerSpec(failures=1, open_for=10.0, probes=2))
    open_breaker(engine, spec)
    clock.move(10)
    first, second = engine.take(spec), engine.take(spec)
    assert first.probe
    assert second.probe
    assert not engine.take(spec)
    assert engine.settle(first.lease, OK).transition == ""
    assert engine.settle(second.lease, OK).transition == "closed"


def test_a_probe_that_is_never_settled_expires_and_another_one_goes(engine, clock):
    spec = pool(1, breaker=BREAKER, lease_ttl=20.0)
    open_breaker(engine, spec)
    clock.move(30)
    lost = engine.take(spec)
    denied = engine.take(spec)
    assert 0 < denied.retry_after <= 20
    clock.move(20)
    another = engine.take(spec)
    assert another.probe
    assert engine.settle(lost.lease, SERVER).transition == ""
    assert engine.settle(another.lease, OK).transition == "closed"


def test_late_results_of_old_calls_neither_close_nor_open_it(engine, clock):
    spec = pool(1, breaker=BREAKER)
    old = [engine.take(spec).lease for _ in range(8)]
    for lease in old[:3]:
        last = engine.settle(lease, SERVER)
    assert last.transition == "opened"
    clock.move(5)
    assert engine.settle(old[3], OK).transition == ""
    assert engine.settle(old[4], SERVER).transition == ""
    assert engine.take(spec).retry_after == 25.0
    clock.move(25)
    assert engine.settle(engine.take(spec).lease, OK).transition == "closed"
    for lease in old[5:]:
        assert engine.settle(lease, SERVER).transition == ""
    assert engine.state(spec).state == "available"


def test_a_probe_that_is_refused_shows_that_the_server_works(engine, clock):
    spec = pool(1, breaker=BREAKER)
    open_breaker(engine, spec)
    clock.move(30)
    assert engine.settle(engine.take(spec).lease, RATE_LIMITED).transition == "closed"
    assert engine.take(spec).reasons == {"cooldown": 1}


def test_operators_trip_and_close(engine, clock):
    spec = pool(1, breaker=BREAKER)
    assert engine.accounts.trip("a1", 500, "maintenance, 9–10 h")
    assert engine.accounts.states(spec)[0].why == "maintenance, 9–10 h"
    assert engine.take(spec).retry_after == 500.0
    assert engine.accounts.close("a1")
    assert not engine.accounts.close("a1")
    assert engine.take(spec)
