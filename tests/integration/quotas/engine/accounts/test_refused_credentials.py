"""A refused credential: certain, or twice in a row for different requests; never for one request or one closed path."""

from __future__ import annotations

import pytest

from quotas.engine.dialects import read
from quotas.engine.learned import LearnedQuota
from quotas.engine.types import CallOutcome
from tests.integration.quotas.engine.accounts.conftest import OK, pool


def refused(target="", request="", **fields):
    return CallOutcome("auth", status=401, target=target, request=request, **fields)


def state_names(engine, spec):
    return [state.state for state in engine.accounts.states(spec)]


CERTAIN = read("openai", 401, {}, {"error": {"message": "Incorrect API key: sk-abcdefgh", "code": "invalid_api_key"}})


def test_a_certain_refusal_disables_the_account_once(engine):
    spec = pool(2)
    leases = [engine.take(spec).lease for _ in range(4)]
    transitions = [engine.settle(lease, CERTAIN).transition for lease in (leases[0], leases[2])]
    assert transitions == ["disabled", ""]
    state = engine.state(spec)
    assert (state.state, state.why) == ("disabled", "auth")
    assert "sk-abc" not in state.last_error
    assert {engine.take(spec).account_id for _ in range(3)} == {"a2"}
    engine.accounts.enable("a1")
    assert engine.state(spec).state == "available"


def test_two_requests_in_a_row_disable_it_and_one_does_not(engine):
    spec = pool(1)
    assert engine.call(spec, refused("GET /a", "j1"))[1].transition == ""
    assert engine.state(spec).health == 1.0, "the request's fault, as far as is known"
    assert engine.call(spec, refused("GET /b", "j2"))[1].transition == "disabled"
    assert engine.take(spec).disabled


def test_requests_that_are_not_named_differ_by_their_leases(engine):
    spec = pool(1)
    assert [engine.call(spec, refused())[1].transition for _ in range(2)] == ["", "disabled"]


@pytest.mark.parametrize("outcome", [OK, OK.__class__("ok", target="GET /c")])
def test_a_success_between_clears_it(engine, outcome):
    spec = pool(1)
    for number in range(6):
        assert engine.call(spec, refused(f"GET /{number}", f"j{number}"))[1].transition == ""
        engine.call(spec, outcome)
    assert engine.state(spec).state == "available"


@pytest.mark.parametrize(
    "between",
    [
        CallOutcome("rate_limited", status=429, retry_after=1.0),
        CallOutcome("validation"),
        CallOutcome("server"),
        CallOutcome("unknown"),
    ],
)
def test_what_is_no_success_clears_nothing(engine, clock, between):
    spec = pool(1)
    engine.call(spec, refused("GET /a", "j1"))
    engine.call(spec, between)
    clock.move(5)
    assert engine.call(spec, refused("GET /b", "j2"))[1].transition == "disabled"


def test_a_success_of_a_call_that_began_before_proves_nothing(engine, clock):
    spec = pool(1)
    old = engine.take(spec)
    clock.move(1)
    engine.call(spec, refused("GET /a", "j1"))
    engine.settle(old.lease, OK)
    assert engine.call(spec, refused("GET /b", "j2"))[1].transition == "disabled"


def test_one_request_disables_nobody_however_often_it_comes(engine):
    spec = pool(24)
    for _ in range(60):
        assert engine.call(spec, refused("GET /closed", "j1"))[1].transition == ""
    assert set(state_names(engine, spec)) == {"available"}


def test_a_path_that_is_closed_to_all_disables_nobody_however_many_ask_for_it(engine):
    spec = pool(24)
    for number in range(100):
        assert engine.call(spec, refused("GET /closed", f"j{number}"))[1].transition == ""
    assert set(state_names(engine, spec)) == {"available"}


def test_a_bad_key_is_found_by_what_succeeds_elsewhere(engine):
    """All call the same path; two of three keys are bad."""
    spec = pool(3)
    for number in range(12):
        admission = engine.take(spec)
        bad = admission.account_id in ("a1", "a2")
        engine.settle(
            admission.lease, refused("POST /v1", f"j{number}") if bad else CallOutcome("ok", target="POST /v1")
        )
    assert state_names(engine, spec) == ["disabled", "disabled", "available"]


def test_an_only_account_is_disabled_by_two_requests_for_one_path(engine):
    spec = pool(1)
    assert engine.call(spec, refused("POST /v1", "j1"))[1].transition == ""
    assert engine.call(spec, refused("POST /v1", "j2"))[1].transition == "disabled"


def test_refusals_of_calls_from_before_it_was_enabled_do_not_disable_it_again(engine, clock):
    spec = pool(1)
    old = [engine.take(spec).lease for _ in range(4)]
    clock.move(1)
    assert engine.settle(old[0], CERTAIN).transition == "disabled"
    engine.accounts.enable("a1")
    assert [engine.settle(lease, CERTAIN).transition for lease in old[1:]] == ["", "", ""]
    assert engine.state(spec).state == "available"
    clock.move(1)
    assert engine.call(spec, CERTAIN)[1].transition == "disabled"


def test_many_paths_leave_a_bounded_state(engine):
    spec = pool(3)
    for number in range(400):
        engine.call(spec, refused(f"GET /{number}", "j1"))
    assert engine.server.strlen(engine.accounts.plan(spec).state) < 5000


def test_another_account_is_taken_where_one_has_refused_the_request(engine):
    spec = pool(3)
    for name in ("a1", "a2", "a3"):
        assert {engine.take(spec, without=name).account_id for _ in range(6)} == {"a1", "a2", "a3"} - {name}
    engine.accounts.disable("a2")
    engine.accounts.disable("a3")
    assert engine.take(spec, without="a1").account_id == "a1", "nobody else is left"
    spare = pool(1, id="spare", name="spare")
    spare = spare.__class__(**{**{n: getattr(spare, n) for n in spare.__slots__}, "accounts": pool(("b1",)).accounts})
    assert engine.take(spec, without="a1", fallbacks=(spare,)).account_id == "b1"


def test_another_account_that_cools_down_is_waited_for(engine):
    spec = pool(2)
    engine.settle(engine.take(spec, without="a1").lease, CallOutcome("rate_limited", status=429, retry_after=30.0))
    denied = engine.take(spec, without="a1")
    assert not denied and denied.retry_after >= 30


def test_another_credential_begins_anew(engine, clock):
    spec = pool(1)
    late = [engine.take(spec).lease for _ in range(3)]
    learned = {"requests": LearnedQuota(limit=10, remaining=0, reset_after=600.0, kind="window")}
    engine.call(spec, CallOutcome("rate_limited", status=429, retry_after=600.0, learned=learned))
    assert not engine.take(spec)
    clock.move(1)
    engine.accounts.renew("a1")
    assert engine.take(spec)
    state = engine.state(spec)
    assert (state.state, state.health, state.learned) == ("available", 1.0, {})
    engine.settle(late[0], CallOutcome("rate_limited", status=429, retry_after=600.0, learned=learned))
    engine.settle(late[1], CERTAIN)
    engine.settle(late[2], refused("GET /a", "j1"))
    assert engine.state(spec).state == "available" and engine.take(spec)


def test_what_an_operator_has_disabled_stays_so_with_another_credential(engine):
    spec = pool(1)
    engine.accounts.disable("a1", "maintenance")
    engine.accounts.renew("a1")
    assert engine.state(spec).why == "maintenance"
