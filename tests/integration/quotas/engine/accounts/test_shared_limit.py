"""Several accounts limited until the same second: a suspicion, which one call at a time ends or confirms."""

from __future__ import annotations

import pytest

from quotas.engine.types import CallOutcome
from tests.integration.quotas.engine.accounts.conftest import OK, SERVER, pool


def limited(wait, **fields):
    return CallOutcome("rate_limited", status=429, retry_after=wait, **fields)


def suspect(engine, spec, wait=900.0, count=3):
    """Let the first accounts of the pool be refused until the same second; returns the transitions."""
    leases = [engine.take(spec) for _ in range(count)]
    return [engine.settle(one.lease, limited(wait)).transition for one in leases]


@pytest.mark.parametrize("size", [4, 5, 6])
def test_it_is_only_a_suspicion_and_the_others_are_tried_one_at_a_time(engine, clock, size):
    spec = pool(size)
    assert suspect(engine, spec) == ["", "", ""]
    first = engine.take(spec)
    assert first.allowed
    denied = engine.take(spec)
    assert not denied
    assert denied.reasons == {"cooldown": 3} | {"probing": size - 3}
    assert denied.retry_after <= 1.0
    engine.settle(first.lease, OK)
    others = {engine.take(spec).account_id for _ in range(3 * (size - 3))}
    assert len(others) == size - 3, "a success ends it, and all that were not refused are free again"
    assert [state.state for state in engine.accounts.states(spec)].count("available") == size - 3


def test_a_refusal_until_the_same_time_confirms_it(engine, clock):
    spec = pool(6)
    suspect(engine, spec, 40.0)
    clock.move(0.2)
    settled = engine.settle(engine.take(spec).lease, limited(39.8))
    assert settled.transition == "pool_limited"
    denied = engine.take(spec)
    assert denied.reasons == {"cooldown": 6}
    assert 38 < denied.retry_after <= 44
    assert engine.accounts.states(spec)[5].state == "cooling_down"
    clock.move(44)
    assert engine.take(spec)


def test_a_wait_given_in_seconds_from_now_confirms_it_a_little_later(engine, clock):
    spec = pool(6)
    suspect(engine, spec, 60.0)
    trial = engine.take(spec)
    clock.move(7)
    assert engine.settle(trial.lease, limited(60.0)).transition == "pool_limited"


@pytest.mark.parametrize("outcome", [limited(5.0), limited(3000.0), limited(None), SERVER, CallOutcome("unknown")])
def test_what_is_no_answer_about_the_limit_neither_ends_nor_confirms_it(engine, clock, outcome):
    spec = pool(6)
    suspect(engine, spec)
    trial = engine.take(spec)
    assert engine.settle(trial.lease, outcome).transition == ""
    another = engine.take(spec)
    assert another.allowed, "the next one tries"
    assert not engine.take(spec)
    engine.settle(another.lease, OK)
    assert engine.take(spec)


def test_a_call_that_was_never_made_or_never_settled_gives_its_turn_back(engine, clock):
    spec = pool(5, lease_ttl=20.0)
    suspect(engine, spec)
    engine.settle(engine.take(spec).lease, CallOutcome("unused"))
    assert engine.take(spec).allowed
    assert not engine.take(spec)
    clock.move(20)
    assert engine.take(spec).allowed


def test_calls_that_were_out_already_confirm_it_at_once(engine, clock):
    spec = pool(6)
    leases = [engine.take(spec).lease for _ in range(6)]
    transitions = []
    for lease in leases:
        transitions.append(engine.settle(lease, limited(40.0)).transition)
        clock.move(0.1)
    assert transitions == ["", "", "", "pool_limited", "", ""], "one alert"


def test_a_success_in_between_keeps_it_from_being_suspected(engine, clock):
    spec = pool(6)
    for _ in range(2):
        engine.call(spec, limited(900.0))
        clock.move(0.2)
        engine.call(spec, OK)
        clock.move(0.2)
    engine.call(spec, limited(900.0))
    free = [engine.take(spec) for _ in range(3)]
    assert all(free)


def test_a_dialect_that_can_prove_it_needs_no_confirmation(engine, clock):
    spec = pool(4)
    assert engine.call(spec, limited(30.0, scope="pool"))[1].transition == "pool_limited"
    assert engine.take(spec).reasons == {"cooldown": 4}


def test_accounts_refused_each_for_itself_block_nobody_else(engine, clock):
    spec = pool(4)
    leases = [engine.take(spec).lease for _ in range(4)]
    for lease, wait in zip(leases[:3], (10.0, 50.0, 90.0), strict=True):
        assert engine.settle(lease, limited(wait)).transition == ""
    assert engine.take(spec)
    assert engine.settle(leases[3], limited(70.0)).transition == "pool_limited"
    assert 10 <= engine.take(spec).retry_after <= 11


@pytest.mark.parametrize("size", [2, 3])
def test_where_all_are_refused_nobody_is_left_to_try_and_each_cools_down_for_itself(engine, clock, size):
    spec = pool(size)
    assert suspect(engine, spec, 30.0, size)[-1] == "pool_limited"
    assert engine.accounts.clear_cooldown("a1")
    assert engine.take(spec).account_id == "a1"


def test_an_operator_ends_a_suspicion(engine):
    spec = pool(6)
    suspect(engine, spec)
    assert engine.take(spec)
    assert not engine.take(spec)
    assert engine.accounts.clear_pool_cooldown(spec)
    assert engine.take(spec) and engine.take(spec)


def test_waits_above_the_pools_maximum_are_not_taken_for_one_moment(engine, clock):
    spec = pool(6, cooldown_max=60.0)
    leases = [engine.take(spec).lease for _ in range(3)]
    for lease, wait in zip(leases, (500.0, 5000.0, 9000.0), strict=True):
        engine.settle(lease, limited(wait))
    assert engine.take(spec) and engine.take(spec)


def test_a_confirmed_limit_lasts_no_longer_than_the_pools_maximum(engine, clock):
    spec = pool(6, cooldown_max=60.0)
    suspect(engine, spec, 5000.0)
    assert engine.settle(engine.take(spec).lease, limited(5000.0)).transition == "pool_limited"
    clock.move(60.1)
    assert engine.take(spec)
