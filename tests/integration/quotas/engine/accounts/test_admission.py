"""One step for both sides: an account with its capacity and the caller's limits, or neither, and until when."""

from __future__ import annotations

import pytest

from quotas.engine.learned import LearnedQuota
from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import AccountSpec, AdmitRequest, CallOutcome, ConcurrencySpec, Limit
from tests.integration.quotas.engine.accounts.conftest import OK, RATE_LIMITED, bucket, pool


def used(engine, key_part):
    return {key: engine.server.get(key) for key in engine.server.scan_iter(f"*{key_part}*")}


def test_an_account_is_given_with_its_capacity(engine):
    spec = pool(1, bucket(2))
    first, second, third = (engine.take(spec) for _ in range(3))
    assert (first.account_id, first.account, first.pool) == ("a1", "a1", "llm")
    assert first.expires_in == spec.lease_ttl
    assert first.lease != second.lease
    assert not third
    assert third.retry_after == 30.0
    assert (third.bound_by, third.binding, third.reasons) == ("pool", "llm", {"requests": 1})


def test_retrying_at_the_stated_time_passes_and_before_it_fails(engine, clock):
    spec = pool(3, bucket(6), bucket(600, "tokens"))
    while engine.take(spec, cost={"tokens": 170}):
        pass
    denied = engine.take(spec, cost={"tokens": 170})
    clock.move(denied.retry_after - 0.000002)
    assert not engine.take(spec, cost={"tokens": 170})
    clock.move(0.000002)
    assert engine.take(spec, cost={"tokens": 170})


def test_the_earliest_time_is_the_least_over_accounts_of_the_most_over_causes(engine, clock):
    spec = pool(2, bucket(1))
    for wait in (100.0, 40.0):
        engine.call(spec, CallOutcome("rate_limited", retry_after=wait))
    denied = engine.take(spec)
    # a2's bucket refills after 60 s, its cooldown (at most a tenth longer than 40 s) ends before that.
    assert denied.retry_after == 60.0
    assert denied.reasons == {"cooldown": 1, "requests": 1}
    clock.move(59.9)
    assert engine.take(spec).retry_after == pytest.approx(0.1)
    clock.move(0.1)
    assert engine.take(spec).account_id == "a2"


def test_the_reported_remaining_is_the_minimum_over_all_causes(engine, clock):
    """Nine accounts, each blocked by another cause, each for another time."""
    causes = {
        "cooldown": 100.0, "breaker": 90.0, "window": 80.0, "bucket": 70.0, "probe": 60.0, "chat": 50.0, "step": 40.0,
        "learned": 30.0, "flight": 20.0,
    }  # fmt: skip
    templates = (
        bucket(1, id="w", unit="windows", algorithm="fixed_window", window=86400.0),
        bucket(100, id="b", unit="tokens", window=100.0),
        bucket(1, id="c", unit="chats", scope="custom", algorithm="fixed_window", window=86400.0),
    )
    spec = pool(tuple(causes), *templates, lease_ttl=60.0, concurrency=ConcurrencySpec(5, 1, 5), pause_at=None)
    cost = {"requests": 1, "windows": 0, "tokens": 50, "chats": 0}

    def one(name, **fields):
        return pool((name,), *templates, lease_ttl=fields.pop("ttl", 60.0), concurrency=spec.concurrency, **fields)

    def refuse(name, wait, **fields):
        taken = engine.take(one(name), cost={"tokens": 0}, **fields)
        scope = "key" if fields else "account"
        return engine.settle(taken.lease, CallOutcome("rate_limited", retry_after=wait, scope=scope)).cooldown

    expected = {}
    expected["cooldown"] = refuse("cooldown", causes["cooldown"])
    expected["chat"] = refuse("chat", causes["chat"], key="chat-1")
    expected["breaker"] = causes["breaker"]
    engine.accounts.trip("breaker", causes["breaker"])
    engine.accounts.trip("probe", 0.001)
    expected["bucket"] = 50.0
    assert engine.take(one("bucket"), cost={"tokens": 100}, key="chat-9")
    for unit, name in (("step", "step"), ("learned", "learned")):
        kind, wait = ("window", causes[name]) if unit == "step" else ("bucket", causes[name])
        quota = {"limit": 60, "remaining": 0, "reset_after": wait, "window": 60.0 if kind == "bucket" else wait}
        if kind == "bucket":
            quota["window"] = 60 * wait  # one call in `wait` seconds
        taken = engine.take(one(name), cost={"tokens": 0}, key="chat-9")
        engine.settle(taken.lease, CallOutcome("ok", learned={"requests": LearnedQuota(**quota, kind=kind)}))
        expected[name] = wait
    for _ in range(5):
        assert engine.take(one("flight", ttl=causes["flight"]), cost={"tokens": 0}, key="chat-9")
    expected["flight"] = causes["flight"]
    clock.move(0.002)
    assert engine.take(one("probe"), cost={"tokens": 0}, key="chat-9").probe
    expected["probe"] = 60.0
    del causes["window"]  # covered by the caller's side below
    whole = pool(tuple(causes), *templates, lease_ttl=60.0, concurrency=spec.concurrency, pause_at=None)
    waits = {view.id: view.wait for view in engine.look(whole, cost=cost, key="chat-1")}
    assert waits.keys() == expected.keys()
    for name in waits:
        # `concurrency` is the soonest that a call may end, never later than its lease.
        assert waits[name] == pytest.approx(expected[name], abs=0.01) or (name == "flight" and waits[name] <= 20.0), (
            name
        )
    start = clock.now
    left = dict(waits)
    while left:
        denied = engine.take(pool(tuple(left), *templates, lease_ttl=60.0, concurrency=spec.concurrency, pause_at=None),
                             cost=cost, key="chat-1")  # fmt: skip
        passed = (clock.now - start) / 1e6
        soonest = min(left, key=left.get)
        if soonest != "flight":
            assert denied.retry_after == pytest.approx(left[soonest] - passed, abs=0.001), (soonest, denied.reasons)
        del left[soonest]
        clock.move(1.5)


def test_callers_limits_and_pool_are_charged_together_or_not_at_all(engine):
    mine = Limit("p", "mine", "user", "u", "fixed_window", 1, window=60.0)
    spec = pool(1, bucket(2))
    request = AdmitRequest(limits=[mine], pool=spec)
    assert engine.accounts.admit(request)
    before = {key: engine.server.dump(key) for key in engine.server.scan_iter("*:l:*")}
    denied = engine.accounts.admit(request)
    assert (denied.bound_by, denied.binding, denied.limits[0].used) == ("limit", "mine", 1)
    assert {key: engine.server.dump(key) for key in engine.server.scan_iter("*:l:*")} == before
    other = Limit("p", "mine", "user", "v", "fixed_window", 5, window=60.0)
    assert engine.accounts.admit(AdmitRequest(limits=[other], pool=spec))
    full = engine.accounts.admit(AdmitRequest(limits=[other], pool=spec))
    assert (full.bound_by, full.limits[0].used) == ("pool", 1)


def test_denied_by_both_the_longer_wait_is_reported(engine):
    mine = Limit("p", "mine", "user", "u", "fixed_window", 1, window=3600.0)
    spec = pool(1, bucket(1))
    assert engine.accounts.admit(AdmitRequest(limits=[mine], pool=spec))
    denied = engine.accounts.admit(AdmitRequest(limits=[mine], pool=spec))
    assert (denied.bound_by, denied.retry_after) == ("limit", 3600.0)


def test_without_a_pool_only_limits_are_held(engine):
    mine = Limit("p", "mine", "user", "u", "fixed_window", 1, window=60.0)
    admitted = engine.accounts.admit(AdmitRequest(limits=[mine]))
    assert admitted
    assert admitted.lease is None
    assert not engine.accounts.admit(AdmitRequest(limits=[mine]))


def test_a_token_without_a_pool_is_charged_once(engine):
    own = bucket(10, id="p1", name="gate", scope="project", subject="acme")
    first = engine.accounts.admit(AdmitRequest(limits=(own,), token="job.1"))
    again = engine.accounts.admit(AdmitRequest(limits=(own,), token="job.1"))
    other = engine.accounts.admit(AdmitRequest(limits=(own,), token="job.2"))
    assert (first.allowed, again.allowed, again.replayed) == (True, True, True)
    assert [answer.limits[0].remaining for answer in (first, again, other)] == [9, 9, 8]


def test_a_callers_estimate_is_a_reservation_for_the_limiter_to_settle(engine, valkey, clock):
    mine = Limit("p", "mine", "user", "u", "fixed_window", 1000, unit="tokens", cost=400, window=60.0)
    admission = engine.accounts.admit(AdmitRequest(limits=[mine], pool=pool(1)))
    limiter = Limiter(valkey, clock=clock)
    settled = limiter.settle(admission.reservation, {"tokens": 100})
    assert settled.refunded == {"tokens": 300}
    assert limiter.peek([mine])[0].used == 100


def test_a_cost_above_every_capacity_is_impossible_and_charges_nothing(engine):
    spec = pool(2, bucket(600, "tokens"))
    denied = engine.take(spec, cost={"tokens": 601})
    assert (denied.impossible, denied.retry_after, denied.bound_by) == (True, None, "pool")
    assert not used(engine, ":l:")


def test_a_limit_of_zero_never_passes_but_is_not_impossible(engine):
    denied = engine.take(pool(1, bucket(0)))
    assert (denied.impossible, denied.disabled, denied.retry_after) == (False, False, None)


def test_disabled_pools(engine):
    spec = pool(())
    assert engine.take(spec).disabled
    spec = pool(2)
    engine.accounts.disable("a1")
    assert engine.take(spec).account_id == "a2"
    engine.accounts.disable("a2")
    denied = engine.take(spec)
    assert (denied.disabled, denied.retry_after, denied.reasons) == (True, None, {"disabled": 2})
    engine.accounts.enable("a1")
    assert engine.take(spec).account_id == "a1"
    off = pool((AccountSpec("a9", "a9", enabled=False),))
    assert engine.take(off).disabled


def test_a_paused_pool_waits_without_end(engine):
    denied = engine.take(pool(2, paused=True))
    assert (denied.retry_after, denied.reasons, denied.disabled) == (None, {"paused": 2}, False)


def test_calls_in_flight_are_bounded_and_expire(engine, clock):
    spec = pool(1, concurrency=ConcurrencySpec(2, 1, 4), lease_ttl=30.0)
    first = engine.take(spec)
    engine.take(spec)
    denied = engine.take(spec)
    assert denied.reasons == {"concurrency": 1}
    assert 0 < denied.retry_after <= 30
    engine.settle(first.lease)
    assert engine.take(spec)
    assert not engine.take(spec)
    clock.move(30.1)
    assert engine.state(spec).in_flight == 0
    assert engine.take(spec)


def test_priorities_that_wait_from_the_threshold_on(engine, clock):
    spec = pool(1, bucket(10), pause_at=0.8, pause="low")
    for _ in range(8):
        assert engine.take(spec, priority=8)
    low = engine.take(spec, priority=8)
    assert (low.reasons, low.retry_after) == ({"paused": 1}, 6.0)
    assert engine.state(spec).state == "paused"
    assert engine.take(spec, priority=5)
    assert engine.take(spec, priority=1)
    assert engine.take(spec, priority=1).reasons == {"requests": 1}
    clock.move(24.0)
    assert engine.state(spec).state == "available"
    assert engine.take(spec, priority=9)
    assert engine.take(spec, priority=9)
    assert engine.state(spec).state == "paused"


@pytest.mark.parametrize(
    ("pause", "priorities"),
    [("low", {7, 8, 9}), ("normal", set(range(4, 10))), ("all", set(range(10)))],
)
def test_pause_names_the_priorities(engine, pause, priorities):
    spec = pool(1, bucket(10), pause_at=0.5, pause=pause)
    for _ in range(5):
        engine.take(spec, priority=0)
    waiting = {
        priority for priority in range(10) if "paused" in {view.reason for view in engine.look(spec, priority=priority)}
    }
    assert waiting == priorities


def test_a_small_limit_is_not_paused_away(engine):
    spec = pool(1, bucket(1), pause_at=0.8)
    assert engine.take(spec, priority=9)


def test_a_token_is_admitted_once(engine):
    spec = pool(2, bucket(5))
    first = engine.take(spec, token="job-1")
    again = engine.take(spec, token="job-1")
    assert (again.lease, again.account_id, again.replayed) == (first.lease, first.account_id, True)
    assert engine.take(spec, token="job-2").lease != first.lease
    assert sum(state.in_flight for state in engine.accounts.states(spec)) == 2


def test_what_was_given_back_is_charged_when_it_is_asked_for_again(engine):
    spec = pool(1, bucket(100, "tokens"))
    first = engine.take(spec, cost={"tokens": 60}, token="job.1")
    assert engine.take(spec, cost={"tokens": 60}, token="job.1").lease == first.lease
    engine.accounts.forget("job.1")
    engine.settle(first.lease, CallOutcome("unused"))
    again = engine.take(spec, cost={"tokens": 60}, token="job.1")
    assert (again.allowed, again.replayed) == (True, False)
    assert not engine.take(spec, cost={"tokens": 60})


def test_many_in_one_pipeline(engine):
    spec = pool(2, bucket(2))
    answers = engine.accounts.admit_many([AdmitRequest(pool=spec) for _ in range(6)])
    assert [bool(answer) for answer in answers] == [True] * 4 + [False] * 2
    settled = engine.accounts.settle_many([(answer.lease, OK) for answer in answers[:4]] + [("unknown", OK)])
    assert [one.outcome if one else None for one in settled] == ["ok"] * 4 + [None]
    assert engine.accounts.admit_many([]) == []
    assert engine.accounts.settle_many([]) == []


def test_fallback_pools_in_order(engine):
    first = pool(1, bucket(1))
    second = pool(("b1",), bucket(1), id="two", name="two")
    third = pool(("c1",), bucket(1, window=600.0), id="three", name="three")
    chain = {"fallbacks": (second, third)}
    taken = [engine.take(first, **chain) for _ in range(4)]
    assert [one.account_id for one in taken] == ["a1", "b1", "c1", None]
    assert [one.pool for one in taken[:3]] == ["llm", "two", "three"]
    assert taken[3].retry_after == 60.0
    assert taken[3].reasons == {"requests": 3}


def test_a_fallback_takes_over_from_a_disabled_pool(engine):
    first, second = pool(1), pool(("b1",), id="two", name="two")
    engine.accounts.disable("a1")
    assert engine.take(first, fallbacks=(second,)).account_id == "b1"


def test_sticky_keys_stay_while_they_can(engine, clock):
    spec = pool(3, bucket(3), sticky=True)
    home = engine.take(spec, key="conversation").account_id
    engine.take(spec, key="other")
    assert {engine.take(spec, key="conversation").account_id for _ in range(2)} == {home}
    moved = engine.take(spec, key="conversation").account_id
    assert moved != home
    clock.move(60)
    assert engine.take(spec, key="conversation").account_id == moved


def test_limits_per_key(engine, clock):
    chat = bucket(1, window=1.0, id="chat", scope="custom")
    group = bucket(2, window=60.0, id="group", scope="custom", subject="-*,@*")
    spec = pool(1, bucket(30, window=1.0), chat, group)
    assert engine.take(spec, key="7")
    denied = engine.take(spec, key="7")
    assert (denied.reasons, denied.retry_after) == ({"key": 1}, 1.0)
    assert engine.take(spec, key="8")
    for _ in range(2):
        assert engine.take(spec, key="-100")
        clock.move(1)
    assert engine.take(spec, key="-100").retry_after == pytest.approx(28.0)
    clock.move(1)
    assert engine.take(spec, key="7")
    assert engine.take(spec)


def test_explain_says_why_not_and_until_when_and_charges_nothing(engine, clock):
    spec = pool(4, bucket(6))
    engine.call(spec, CallOutcome("rate_limited", retry_after=20.0))
    engine.accounts.trip("a2", 45)
    engine.accounts.disable("a3")
    before = {key: engine.server.dump(key) for key in engine.server.scan_iter("*")}
    views = engine.look(spec, cost={"requests": 1})
    assert [view.reason for view in views] == ["cooldown", "breaker_open", "disabled", ""]
    assert [view.chosen for view in views] == [False, False, False, True]
    assert 20 <= views[0].wait <= 22
    assert (views[1].wait, views[2].wait, views[3].wait) == (45.0, None, 0.0)
    assert {key: engine.server.dump(key) for key in engine.server.scan_iter("*")} == before


def test_every_skip_is_counted_with_its_reason(engine):
    spec = pool(2, bucket(2))
    engine.call(spec, RATE_LIMITED)
    engine.take(spec)
    engine.take(spec)
    engine.take(spec)
    a1, a2 = engine.accounts.states(spec)
    assert a1.skips == {"cooldown": 3}
    assert a2.skips == {"requests": 1}


def test_every_key_has_a_time_to_live_and_the_tag(engine):
    mine = Limit("p", "mine", "user", "u", "sliding_window", 10, unit="tokens", window=60.0)
    spec = pool(2, bucket(5), sticky=True, concurrency=ConcurrencySpec(2, 1, 4))
    request = AdmitRequest(limits=[mine], pool=spec, key="k", token="t", cost={"tokens": 5})
    first = engine.accounts.admit(request)
    engine.settle(
        first.lease, CallOutcome("rate_limited", scope="key", learned={"tokens": LearnedQuota(limit=5, remaining=1)})
    )
    engine.call(spec, RATE_LIMITED)
    keys = list(engine.server.scan_iter("*"))
    assert len(keys) > 8
    assert all(key.startswith(b"{sl}:") for key in keys)
    assert {key for key in keys if engine.server.pttl(key) <= 0} == set()


def test_odd_ids_and_keys_do_not_mix(engine):
    odd = pool(("a:b", "a b", "{x}", "a\nb"), bucket(1))
    assert len({engine.take(odd).account_id for _ in range(4)}) == 4
    assert not engine.take(odd)
    assert {state.id: state.skips for state in engine.accounts.states(odd)}["a\nb"] == {"requests": 1}


def test_large_pools_choose_among_a_sample_and_weigh_all_when_it_is_busy(engine):
    spec = pool(150, bucket(1))
    taken = [engine.take(spec).account_id for _ in range(150)]
    assert len(set(taken)) == 150
    denied = engine.take(spec)
    assert (denied.retry_after, denied.reasons) == (60.0, {"requests": 150})


def test_a_sticky_key_finds_its_account_in_a_large_pool_too(engine):
    spec = pool(150, sticky=True)
    first = {key: engine.take(spec, key=key).account_id for key in ("c1", "c2", "c3")}
    for _ in range(5):
        assert {key: engine.take(spec, key=key).account_id for key in first} == first
