"""What the end of a call changes: units, cooldown, health, counters, learned quota, concurrency."""

from __future__ import annotations

import pytest

from quotas.engine.account_state import AccountState
from quotas.engine.dialects import read
from quotas.engine.learned import LearnedQuota
from quotas.engine.types import CallOutcome, ConcurrencySpec
from tests.integration.quotas.engine.accounts.conftest import OK, RATE_LIMITED, SERVER, bucket, pool


def limited(wait=None, **fields):
    return CallOutcome("rate_limited", status=429, retry_after=wait, **fields)


def remaining(engine, spec, cost):
    """Tokens that are left, found out by requesting more and more."""
    low, high = 0, cost
    while low < high:
        middle = (low + high + 1) // 2
        if engine.look(spec, cost={"tokens": middle})[0].available:
            low = middle
        else:
            high = middle - 1
    return low


# -- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "left"),
    [
        (CallOutcome("ok", usage={"tokens": 30}), 970),
        (CallOutcome("ok", usage={"tokens": 150}), 850),
        (OK, 900),
        (RATE_LIMITED, 1000),
        (CallOutcome("quota_exhausted"), 1000),
        (CallOutcome("validation", status=400), 1000),
        (CallOutcome("validation", status=400, usage={"tokens": 7}), 993),
        (SERVER, 900),
        (CallOutcome("timeout"), 900),
    ],
)
def test_units_are_reconciled_with_the_actual_use(engine, outcome, left):
    spec = pool(1, bucket(1000, "tokens"))
    lease = engine.take(spec, cost={"tokens": 100}).lease
    engine.settle(lease, outcome)
    engine.accounts.clear_cooldown("a1")
    assert remaining(engine, spec, 1000) == left


def test_the_first_settle_counts_and_the_answer_is_repeated_for_an_hour(engine, clock):
    spec = pool(1, bucket(1000, "tokens"))
    lease = engine.take(spec, cost={"tokens": 100}).lease
    first = engine.settle(lease, limited(7.0))
    again = engine.settle(lease, CallOutcome("ok", usage={"tokens": 900}))
    assert (again.repeated, again.outcome, again.cooldown) == (True, "rate_limited", first.cooldown)
    assert engine.state(spec).successes == 0
    assert engine.state(spec).errors == {"rate_limited": 1}


def test_an_unknown_lease_changes_nothing(engine):
    assert engine.accounts.settle("no-such-lease", OK) is None
    assert list(engine.server.scan_iter("*")) == []


def test_another_process_settles_as_well(engine, valkey, clock):
    from quotas.engine.accounts.accounts import Accounts

    chat = bucket(5, id="chat", scope="custom")
    spec = pool(1, bucket(1000, "tokens"), chat)
    lease = engine.take(spec, cost={"tokens": 100}, key="chat-1").lease
    other = Accounts(valkey, clock=clock)
    assert other.settle(lease, CallOutcome("ok", usage={"tokens": 40})).outcome == "ok"
    assert other.settle(lease, OK).repeated
    assert remaining(engine, spec, 1000) == 960
    other.transport.close()


def test_a_late_settle_counts_for_health_but_frees_no_second_slot(engine, clock):
    spec = pool(1, concurrency=ConcurrencySpec(1, 1, 1), lease_ttl=10.0)
    late = engine.take(spec)
    clock.move(11)
    now = engine.take(spec)
    assert engine.settle(late.lease, SERVER).outcome == "server"
    assert engine.state(spec).in_flight == 1
    assert engine.state(spec).errors == {"server": 1}
    assert not engine.take(spec)
    engine.settle(now.lease)
    assert engine.state(spec).in_flight == 0


# -- cooldown --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hint", [0.052, 1.0, 7.0, 120.0, 3000.0])
def test_a_providers_hint_is_never_shortened_and_lengthened_by_a_tenth_at_most(engine, hint):
    _, settled = engine.call(pool(1), limited(hint))
    assert hint <= settled.cooldown <= hint * 1.1 + 1e-6
    assert engine.take(pool(1)).retry_after == pytest.approx(settled.cooldown)


def test_a_cooldown_is_bounded_by_the_pools_maximum(engine):
    _, settled = engine.call(pool(1, cooldown_max=100.0), limited(99999.0))
    assert settled.cooldown == 100.0


def test_a_second_longer_cooldown_extends_and_a_shorter_one_does_not_shorten(engine, clock):
    spec = pool(1)
    leases = [engine.take(spec).lease for _ in range(3)]
    first = engine.settle(leases[0], limited(50.0)).cooldown
    assert engine.settle(leases[1], limited(5.0)).cooldown == first
    clock.move(10)
    longer = engine.settle(leases[2], limited(300.0)).cooldown
    assert longer >= 300
    clock.move(20)
    assert engine.take(spec).retry_after == pytest.approx(longer - 20)


def test_without_a_hint_the_default_doubles_with_each_refusal_in_a_row(engine, clock):
    spec = pool(1, cooldown_default=60.0)
    seen = []
    for _ in range(5):
        _, settled = engine.call(spec, RATE_LIMITED)
        seen.append(settled.cooldown)
        clock.move(settled.cooldown + 0.001)
    for wait, least in zip(seen, (60, 120, 240, 300, 300), strict=True):
        assert least <= wait <= least * 1.1
    engine.call(spec, OK)
    assert engine.call(spec, RATE_LIMITED)[1].cooldown <= 66


def test_quota_waits_longer(engine):
    assert 300 <= engine.call(pool(1), CallOutcome("quota_exhausted"))[1].cooldown <= 330


def test_refusals_of_calls_that_were_on_their_way_are_one_refusal(engine, clock):
    spec = pool(1)
    leases = [engine.take(spec).lease for _ in range(6)]
    clock.move(1)
    cooldowns = [engine.settle(lease, RATE_LIMITED).cooldown for lease in leases]
    assert max(cooldowns) <= 66


def test_a_late_success_does_not_end_a_cooldown(engine, clock):
    spec = pool(1)
    early, late = engine.take(spec), engine.take(spec)
    engine.settle(early.lease, limited(50.0))
    engine.settle(late.lease, OK)
    assert engine.take(spec).retry_after >= 50


def test_a_servers_own_hint_is_waited_for(engine):
    spec = pool(1)
    assert 4 <= engine.call(spec, CallOutcome("server", status=503, retry_after=4.0))[1].cooldown <= 4.4
    assert engine.state(spec).state == "cooling_down"


def test_a_refused_key_blocks_that_key_only(engine, clock):
    spec = pool(2)
    account, settled = engine.call(spec, limited(30.0, scope="key"), key="chat-1")
    assert settled.cooldown >= 30
    other = "a2" if account == "a1" else "a1"
    assert {engine.call(spec, key="chat-1")[0] for _ in range(3)} == {other}
    assert {engine.call(spec, key="chat-2")[0] for _ in range(4)} == {"a1", "a2"}
    engine.accounts.disable(other)
    denied = engine.take(spec, key="chat-1")
    assert denied.reasons == {"key": 1, "disabled": 1}
    assert denied.retry_after == pytest.approx(settled.cooldown)
    assert engine.state(spec, 0 if account == "a1" else 1).health == 1.0


def test_a_key_scope_without_a_key_is_the_accounts(engine):
    spec = pool(1)
    engine.call(spec, limited(30.0, scope="key"))
    assert engine.take(spec).reasons == {"cooldown": 1}


# -- health, counters ------------------------------------------------------------------------------------------------


def test_health_falls_with_failures_rises_with_successes_and_recovers_with_time(engine, clock):
    spec = pool(1, breaker=pool(1).breaker.__class__(failures=1000))
    for _ in range(5):
        engine.call(spec, SERVER)
    ill = engine.state(spec).health
    assert ill == pytest.approx(0.8**5)
    engine.call(spec, OK)
    assert engine.state(spec).health == pytest.approx(ill + 0.2 * (1 - ill))
    before = engine.state(spec).health
    clock.move(120)
    assert engine.state(spec).health == pytest.approx(1 - (1 - before) / 2)
    clock.move(3600)
    assert engine.state(spec).health == pytest.approx(1.0)


@pytest.mark.parametrize(
    "outcome",
    [CallOutcome("validation", status=400), CallOutcome("auth", status=403, scope="key"), CallOutcome("code")],
)
def test_callers_and_recipients_mistakes_touch_no_health(engine, outcome):
    spec = pool(1)
    for _ in range(20):
        assert engine.call(spec, outcome)[1].transition == ""
    state = engine.state(spec)
    assert (state.health, state.state) == (1.0, "available")
    assert state.errors == {outcome.category: 20}


def test_counters_and_times(engine, clock):
    spec = pool(1)
    engine.call(spec, CallOutcome("ok", latency=0.2))
    engine.call(spec, CallOutcome("ok", latency=1.2))
    clock.move(5)
    engine.call(spec, CallOutcome("timeout", error="read timed out"))
    state = engine.state(spec)
    assert (state.successes, state.errors, state.last_error) == (2, {"timeout": 1}, "read timed out")
    assert state.latency == pytest.approx(0.4)
    assert state.last_used == state.last_error_at == pytest.approx(clock.now / 1e6)


# -- learned quota ---------------------------------------------------------------------------------------------------


def answer(remaining, reset, limit=60, **more):
    headers = {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-reset-requests": reset,
    }
    return read("openai", 200, headers, **more)


def test_a_learned_bucket_is_held_where_none_is_configured(engine, clock):
    spec = pool(1)
    engine.call(spec, answer(4, "56s"))
    # Of a large bucket the last two are left alone: calls arrive with jitter.
    assert [bool(engine.take(spec)) for _ in range(3)] == [True, True, False]
    denied = engine.take(spec)
    assert denied.reasons == {"requests": 1}
    clock.move(denied.retry_after - 0.0001)
    assert not engine.take(spec)
    clock.move(0.0001)
    assert engine.take(spec)


def test_a_bucket_that_is_smaller_than_its_limit_is_seen_in_its_reset(engine, clock):
    spec = pool(1, pause_at=None)
    engine.call(spec, answer(9, "100ms", limit=600))
    clock.move(30)
    granted = sum(bool(engine.take(spec)) for _ in range(30))
    assert granted == 10


def test_configured_limits_come_before_learned_ones(engine):
    spec = pool(1, bucket(5))
    engine.call(spec, answer(0, "58s"))
    assert engine.take(spec)


def test_a_stepping_window_that_is_used_up_is_believed_beside_a_configured_limit(engine, clock):
    spec = pool(1, bucket(900))
    headers = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "0"}
    headers["x-ratelimit-reset"] = str(clock.now // 10**6 + 1200)
    engine.call(spec, read("github", 200, headers, now=clock.now / 1e6))
    denied = engine.take(spec)
    assert (denied.reasons, denied.retry_after) == ({"requests": 1}, pytest.approx(1200.0))
    clock.move(1200)
    assert engine.take(spec)


def test_an_older_answer_does_not_undo_a_newer_one(engine, clock):
    spec = pool(1)
    old = engine.take(spec)
    clock.move(1)
    new = engine.take(spec)
    engine.settle(new.lease, answer(5, "55s"))
    engine.settle(old.lease, answer(50, "10s"))
    assert engine.state(spec).learned["requests"].remaining <= 5


def test_calls_on_their_way_are_taken_off_what_is_learned(engine):
    spec = pool(1)
    leases = [engine.take(spec).lease for _ in range(5)]
    engine.settle(leases[0], answer(6, "54s"))
    assert engine.state(spec).learned["requests"].remaining == 2


def test_what_calls_take_beyond_their_estimate_is_kept_back_of_a_learned_bucket(engine, clock):
    spec = pool(1, pause_at=None)
    cost = {"tokens": 50}

    def reported(remaining: int, used: int) -> CallOutcome:
        quota = LearnedQuota(limit=60_000, remaining=remaining, reset_after=0.1, window=60.0, kind="bucket")
        return CallOutcome("ok", status=200, usage={"tokens": used}, learned={"tokens": quota})

    engine.call(spec, reported(100, 50), cost=cost)
    assert engine.take(spec, cost=cost), "estimates were right so far"
    clock.move(30)
    engine.call(spec, reported(100, 130), cost=cost)
    denied = engine.take(spec, cost=cost)
    assert denied.reasons == {"tokens": 1} and 0 < denied.retry_after < 0.1, "80 more are kept for it"
    for _ in range(300):
        clock.move(1)
        engine.call(spec, reported(5000, 50), cost=cost)
    engine.call(spec, reported(100, 50), cost=cost)
    assert engine.take(spec, cost=cost), "what has not been so for long is forgotten"


def test_a_learned_window_steps(engine, clock):
    spec = pool(1, pause_at=None)
    headers = {
        "x-ratelimit-limit": "3",
        "x-ratelimit-remaining": "1",
        "x-ratelimit-reset": str(clock.now // 10**6 + 40),
    }
    engine.call(spec, read("github", 200, headers, now=clock.now / 1e6))
    assert engine.take(spec)
    denied = engine.take(spec)
    assert denied.retry_after == pytest.approx(40.0)
    clock.move(40)
    assert sum(bool(engine.take(spec)) for _ in range(5)) == 3


def test_a_cost_above_a_learned_limit_is_impossible(engine):
    spec = pool(1)
    learned = {"tokens": LearnedQuota(limit=500, remaining=400, reset_after=10.0, window=60.0, kind="bucket")}
    engine.call(spec, CallOutcome("ok", learned=learned))
    assert engine.take(spec, cost={"tokens": 501}).impossible
    assert engine.take(spec, cost={"tokens": 300})


def test_malformed_learning_is_ignored(engine):
    learned = {"tokens": LearnedQuota(limit=2**60), "a\nb": LearnedQuota(limit=1), "x": LearnedQuota(-1, -5, -1.0)}
    engine.call(pool(1), CallOutcome("ok", learned=learned, usage={"tokens": -5, "x\ny": 3}, latency=float("nan")))
    assert engine.take(pool(1))


# -- adaptive concurrency --------------------------------------------------------------------------------------------


def batch(engine, clock, spec, good, bad, outcome=SERVER):
    changes = []
    for number in range(good + bad):
        clock.move(0.2)
        _, settled = engine.call(spec, OK if number < good else outcome)
        changes.append(settled.concurrency)
    return [change for change in changes if change]


def test_concurrency_moves_within_its_bounds_and_says_so(engine, clock):
    calm = pool(1).breaker.__class__(failures=1000)
    spec = pool(1, bucket(100000), concurrency=ConcurrencySpec(4, 2, 5), breaker=calm)
    assert batch(engine, clock, spec, 20, 0) == [(4, 5)]
    assert batch(engine, clock, spec, 20, 0) == []
    assert engine.state(spec).concurrency == 5
    assert batch(engine, clock, spec, 10, 10) == [(5, 4)]
    for _ in range(4):
        batch(engine, clock, spec, 10, 10)
    assert engine.state(spec).concurrency == 2
    assert batch(engine, clock, spec, 20, 0) == [(2, 3)]


def test_concurrency_goes_down_when_the_quota_is_nearly_used(engine, clock):
    spec = pool(1, bucket(20, window=3600.0), concurrency=ConcurrencySpec(10, 1, 16))
    assert batch(engine, clock, spec, 20, 0) == [(10, 8)]


# -- operating, restoring --------------------------------------------------------------------------------------------


def test_operators_clear_cooldowns(engine):
    spec = pool(1)
    engine.call(spec, limited(50.0))
    assert engine.accounts.clear_cooldown("a1")
    assert not engine.accounts.clear_cooldown("a1")
    assert engine.take(spec)


def test_after_a_loss_of_memory_states_are_restored_from_what_was_stored(engine, clock):
    spec = pool(4)
    leases = {admission.account_id: admission.lease for admission in (engine.take(spec) for _ in range(4))}
    engine.settle(leases["a1"], limited(500.0))
    engine.accounts.trip("a2", 300, "maintenance")
    engine.settle(leases["a3"], CallOutcome("auth", status=401, certain=True))
    stored = engine.accounts.states(spec)
    engine.server.flushall()
    clock.move(1)
    assert engine.accounts.restore(stored) == 3
    restored = engine.accounts.states(spec)
    assert [state.state for state in restored] == ["cooling_down", "open", "disabled", "available"]
    assert [state.until for state in restored] == [pytest.approx(state.until) for state in stored]
    assert [state.why for state in restored[1:3]] == ["maintenance", "auth"]
    assert engine.accounts.restore([AccountState("a1", "a1", "cooling_down", until=5.0)]) == 0
    assert engine.accounts.states(spec)[0].until == pytest.approx(stored[0].until)


def test_a_lease_that_was_never_used_leaves_no_trace(engine):
    spec = pool(1, bucket(1), bucket(100, "tokens"), concurrency=ConcurrencySpec(1, 1, 1))
    for _ in range(3):
        lease = engine.take(spec, cost={"tokens": 100}).lease
        assert engine.settle(lease, CallOutcome("unused")).cooldown == 0.0
    state = engine.state(spec)
    assert (state.in_flight, state.successes, state.errors, state.health) == (0, 0, {}, 1.0)


def refused_model(seconds: float = 30.0) -> CallOutcome:
    return CallOutcome("rate_limited", status=429, scope="model", retry_after=seconds)


def test_a_refused_model_holds_up_no_other_one(engine, clock):
    spec = pool(1)
    engine.call(spec, refused_model(30), model="large")
    denied = engine.take(spec, model="large")
    assert (denied.reasons, denied.retry_after) == ({"model": 1}, pytest.approx(30.0, abs=3.0))
    assert denied.retry_after >= 30.0, "never shortened"
    assert engine.take(spec, model="small") and engine.take(spec), "neither another one, nor a call that names none"
    state = engine.state(spec)
    assert state.state == "available" and state.health == 1.0 and set(state.models) == {"large"}
    clock.move(denied.retry_after)
    assert engine.take(spec, model="large") and not engine.state(spec).models


def test_a_refused_model_goes_on_at_another_account(engine):
    spec = pool(2)
    refused, _ = engine.call(spec, refused_model(), model="large")
    assert {engine.call(spec, model="large")[0] for _ in range(4)} == {"a1", "a2"} - {refused}
    assert {engine.call(spec, model="small")[0] for _ in range(4)} == {"a1", "a2"}


def test_a_refusal_about_a_model_that_nobody_named_is_the_accounts(engine):
    spec = pool(1)
    engine.call(spec, refused_model(30))
    assert engine.take(spec, model="large").reasons == {"cooldown": 1}


def test_a_shorter_refusal_of_a_model_does_not_end_a_longer_one(engine):
    spec = pool(1)
    first, second = engine.take(spec, model="m"), engine.take(spec, model="m")
    engine.settle(first.lease, refused_model(60))
    engine.settle(second.lease, refused_model(1))
    assert engine.take(spec, model="m").retry_after >= 60.0


def test_refused_models_are_bounded_and_cleared_with_the_cooldown(engine):
    spec = pool(1, cooldown_max=3600.0)
    for number in range(80):
        engine.call(spec, refused_model(100 + number), model=f"m{number}")
    assert len(engine.state(spec).models) == 64
    assert engine.accounts.clear_cooldown("a1") and not engine.state(spec).models
    assert engine.take(spec, model="m79")


@pytest.mark.parametrize("fields", [{}, {"key": "chat"}, {"model": "large"}])
def test_a_refusal_without_a_hint_is_waited_for_whatever_the_default(engine, fields):
    spec = pool(1, cooldown_default=0.0)
    scope = next(iter(fields), "account")
    assert engine.call(spec, CallOutcome("rate_limited", status=429, scope=scope), **fields)[1].cooldown >= 1.0
    assert not engine.take(spec, **fields)


def test_an_account_that_is_disabled_while_it_is_called_ends_its_calls(engine):
    spec = pool(2)
    taken = engine.take(spec)
    engine.accounts.disable(taken.account_id)
    assert engine.settle(taken.lease, OK).outcome == "ok"
    assert engine.accounts.states(spec)[int(taken.account_id[1:]) - 1].state == "disabled"
