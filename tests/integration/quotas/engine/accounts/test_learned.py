"""Learned quotas: whose they are, how fast they refill, and that none of them forbids anything for ever."""

from __future__ import annotations

import pytest

from quotas.engine.dialects import read
from quotas.engine.learned import LearnedQuota
from quotas.engine.types import CallOutcome
from tests.integration.quotas.engine.accounts.conftest import OK, bucket, pool


def quota(remaining, limit=10_000, reset=50.0, unit="tokens", kind="bucket", window=60.0, **fields):
    """An answer that states one quota; `fields` are the outcome's."""
    found = LearnedQuota(limit, remaining, reset, window, kind)
    return CallOutcome(**({"category": "ok", "status": 200} | fields), learned={unit: found})


def openai(status=200, requests=None, tokens=None, body=None, **headers):
    """An answer of OpenAI: (limit, remaining, reset) by unit."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    for unit, figures in (("requests", requests), ("tokens", tokens)):
        for name, value in zip(("limit", "remaining", "reset"), figures or (), strict=False):
            fields[f"x-ratelimit-{name}-{unit}"] = str(value)
    return read("openai", status, fields, body)


def exact(engine, clock, spec, before=0.1, **fields):
    """The wait that a denial reports: at that time the same call passes, and not `before` seconds earlier."""
    denied = engine.take(spec, **fields)
    assert not denied and denied.retry_after is not None, denied
    views = engine.look(spec, **fields)
    assert min(view.wait for view in views if view.wait is not None) == pytest.approx(denied.retry_after)
    clock.move(denied.retry_after - before)
    assert not engine.take(spec, **fields), "it passed before its time"
    clock.move(before)
    assert engine.take(spec, **fields), "it was still blocked at the time that was reported"
    return denied


# -- whose a quota is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bucket", "window"])
def test_a_model_that_is_used_up_holds_up_no_other_one(engine, kind):
    spec = pool(1)
    engine.call(spec, quota(0, kind=kind, resource=""), model="large")
    assert engine.take(spec, model="large", cost={"tokens": 100}).reasons == {"tokens": 1}
    assert engine.take(spec, model="small", cost={"tokens": 100})
    assert engine.take(spec, cost={"tokens": 100}), "nor a call that names none"


def test_a_good_answer_for_one_model_does_not_free_another(engine):
    spec = pool(1)
    engine.call(spec, quota(0, resource=""), model="large")
    engine.call(spec, quota(9_900, reset=1.0, resource=""), model="small")
    assert engine.take(spec, model="large", cost={"tokens": 100}).reasons == {"tokens": 1}
    assert engine.take(spec, model="small", cost={"tokens": 5_000})


def test_a_quota_of_the_account_holds_for_every_model(engine):
    spec = pool(1)
    engine.call(spec, quota(0, resource=None), model="large")
    for model in ("large", "small", ""):
        assert engine.take(spec, model=model, cost={"tokens": 100}).reasons == {"tokens": 1}
    engine.call(spec, quota(9_000, reset=6.0, resource=""), model="small", cost={"tokens": 0})
    assert engine.take(spec, model="small", cost={"tokens": 100}).reasons == {"tokens": 1}, "one frees not the other"


def test_calls_that_name_no_model_share_a_quota_of_their_own(engine):
    spec = pool(1)
    engine.call(spec, quota(0, resource=""))
    assert engine.take(spec, cost={"tokens": 100}).reasons == {"tokens": 1}
    assert engine.take(spec, model="small", cost={"tokens": 100})
    assert engine.state(spec).learned["tokens"].remaining == 0


def github(clock, resource, remaining, status=200, body=None):
    fields = {"x-ratelimit-limit": "30", "x-ratelimit-remaining": str(remaining), "x-ratelimit-resource": resource}
    fields["x-ratelimit-reset"] = str(clock.now // 10**6 + 50)
    return read("github", status, fields, body, now=clock.now / 1e6)


@pytest.mark.parametrize("status", [200, 403])
def test_githubs_resources_are_apart_and_the_answer_names_them(engine, clock, status):
    spec = pool(1, dialect="github")
    body = {"message": "API rate limit exceeded"} if status == 403 else None
    engine.call(spec, github(clock, "search", 0, status, body), model="search")
    assert not engine.take(spec, model="search")
    assert engine.take(spec) and engine.take(spec, model="graphql")
    engine.call(spec, github(clock, "core", 0, status, body))
    assert not engine.take(spec) and not engine.take(spec, model="core"), "core is what a call without a resource uses"
    assert engine.take(spec, model="graphql")


def test_a_resource_is_learned_from_the_answer_of_a_call_that_did_not_name_it(engine, clock):
    spec = pool(1, dialect="github")
    engine.call(spec, github(clock, "search", 0))
    assert engine.take(spec), "core has said nothing"
    assert engine.take(spec, model="search").reasons == {"requests": 1}


def test_units_in_flight_are_taken_off_their_own_model_only(engine):
    spec = pool(1)
    for _ in range(3):
        engine.take(spec, model="large", cost={"tokens": 1_000})
    lease = engine.take(spec, model="small", cost={"tokens": 100}).lease
    engine.take(spec, model="small", cost={"tokens": 100})
    engine.settle(lease, quota(9_000, reset=6.0, resource="", usage={"tokens": 100}))
    assert engine.state(spec).learned["tokens"].models["small"].remaining == 8_900
    engine.call(spec, quota(9_000, reset=6.0, usage={"tokens": 0}))
    assert engine.state(spec).learned["tokens"].remaining == 9_000 - 3_100, "all models count against the account"


def test_models_are_shown_beside_the_account(engine):
    spec = pool(1)
    engine.call(spec, quota(700, resource=""), model="large")
    engine.call(spec, quota(800))
    shown = engine.state(spec).learned["tokens"]
    assert shown.remaining == 800
    assert shown.models["large"].limit == 10_000 and shown.models["large"].remaining == 700


def test_models_are_bounded_and_the_least_used_one_is_dropped(engine, clock):
    spec = pool(1)
    for number in range(60):
        engine.call(spec, quota(0, resource="", reset=3600.0, window=3600.0), model=f"m{number}")
        clock.move(0.01)
        engine.take(spec, model="m0", cost={"tokens": 0})
    kept = engine.state(spec).learned["tokens"].models
    assert len(kept) == 32 and {"m0", "m59"} <= kept.keys() and "m5" not in kept
    size = engine.server.strlen("{sl}:a:s:a1")
    assert size < 8_000, size


def test_a_models_quota_survives_in_the_lease_of_another_process(engine, valkey, clock):
    from quotas.engine.accounts.accounts import Accounts

    spec = pool(1)
    lease = engine.take(spec, model="large", cost={"tokens": 10}).lease
    other = Accounts(valkey, clock=clock)
    other.settle(lease, quota(0, resource=""))
    other.transport.close()
    assert not engine.take(spec, model="large", cost={"tokens": 10})
    assert engine.take(spec, model="small", cost={"tokens": 10})


def test_clearing_a_cooldown_frees_models_too(engine):
    spec = pool(1)
    engine.call(spec, quota(0, resource=""), model="large")
    assert engine.accounts.clear_cooldown("a1")
    assert engine.take(spec, model="large", cost={"tokens": 100})


# -- bounds now, not for ever ----------------------------------------------------------------------------------------


def test_a_cost_up_to_the_stated_limit_waits(engine, clock):
    spec = pool(1, pause_at=None)
    engine.call(spec, openai(tokens=(10_000, 0, "50s")))
    denied = engine.take(spec, cost={"tokens": 9_900})
    assert not denied.impossible and 40 <= denied.retry_after <= 50.001
    assert engine.take(spec, cost={"tokens": 10_001}).impossible, "above what the provider states"
    exact(engine, clock, spec, cost={"tokens": 9_900})


@pytest.mark.parametrize("remaining", [0, 1, 250])
@pytest.mark.parametrize("reset", ["2020-01-01T00:00:00Z", None])
def test_a_reset_in_the_past_makes_no_small_capacity(engine, clock, remaining, reset):
    fields = {
        "anthropic-ratelimit-tokens-limit": "40000",
        "anthropic-ratelimit-tokens-remaining": str(remaining),
    }
    fields["anthropic-ratelimit-tokens-reset"] = reset or "2026-01-01T00:00:00Z"
    now = None if reset is None else clock.now / 1e6
    spec = pool(1, pause_at=None)
    engine.call(spec, read("anthropic", 200, fields, now=now))
    for cost in (100, 9_900, 39_999, 40_000):
        denied = engine.take(spec, cost={"tokens": cost})
        assert not denied.impossible
        if not denied:
            assert denied.retry_after is not None and denied.retry_after <= 60
        else:
            engine.settle(denied.lease, CallOutcome("unused"))


@pytest.mark.parametrize("kind", ["bucket", "window"])
@pytest.mark.parametrize(
    "figures",
    [
        {"limit": None, "remaining": 0, "reset": 30.0},
        {"limit": None, "remaining": 5, "reset": None},
        {"limit": 1_000, "remaining": 0, "reset": None, "window": None},
        {"limit": 1_000, "remaining": 0, "reset": None, "window": 60.0},
        {"limit": 1_000, "remaining": 0, "reset": 0.0},
        {"limit": 1_000, "remaining": 3, "reset": 0.001},
        {"limit": 1_000, "remaining": 999, "reset": 86_400.0, "window": None},
        {"limit": 1_000, "remaining": 0, "reset": 20.0},
    ],
)
@pytest.mark.parametrize("priority", [5, 9])
def test_whatever_is_stated_a_cost_below_the_limit_passes_at_the_time_reported(engine, clock, kind, figures, priority):
    spec = pool(1, pause_at=0.8)
    engine.call(spec, quota(kind=kind, **{"window": 60.0, **figures}))
    for cost in (1, 500, 1_000):
        denied = engine.take(spec, cost={"tokens": cost}, priority=priority)
        assert not denied.impossible
        if not denied:
            assert denied.retry_after is not None, "no wait without an end"
            clock.move(denied.retry_after)
            assert engine.take(spec, cost={"tokens": cost}, priority=priority)


def test_a_limit_that_nobody_has_confirmed_for_long_forbids_nothing(engine, clock):
    spec = pool(1)
    engine.call(spec, quota(0, limit=500, reset=10.0))
    assert engine.take(spec, cost={"tokens": 501}).impossible
    clock.move(3601)
    assert engine.take(spec, cost={"tokens": 501}), "the plan may have been raised since: the provider decides"


def test_a_small_bucket_is_still_seen_in_its_reset(engine, clock):
    spec = pool(1, pause_at=None)
    engine.call(spec, openai(requests=(600, 9, "100ms")))
    clock.move(30)
    assert sum(bool(engine.take(spec)) for _ in range(30)) == 10


def test_a_bucket_that_seems_small_pauses_no_priority_for_ever(engine, clock):
    spec = pool(1, pause_at=0.8)
    engine.call(spec, openai(requests=(600, 0, "1s")))
    exact(engine, clock, spec, priority=9)


def test_operators_limits_still_say_never(engine):
    assert engine.take(pool(1, bucket(500, "tokens")), cost={"tokens": 501}).impossible


# -- how fast it refills ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "cost", "wait"),
    [
        ((10_000, 0, "2m59.56s"), 9_900, 177.8),
        ((10_000, 0, "2m59.56s"), 1_000, 18.0),
        ((10_000, 5_000, "2m0s"), 9_900, 117.6),
        ((10_000, 0, "1m0s"), 5_000, 30.0),
        ((200, 0, "33m20s"), 20, 220.0),
        ((200, 0, "24h0m0s"), 1, 1296.0),
    ],
)
def test_the_refill_is_what_limit_remaining_and_reset_say(engine, clock, figures, cost, wait):
    spec = pool(1, pause_at=None)
    engine.call(spec, openai(tokens=figures))
    assert exact(engine, clock, spec, cost={"tokens": cost}).retry_after == pytest.approx(wait, rel=0.01)


def test_too_little_missing_is_no_proof_of_a_slow_refill(engine, clock):
    spec = pool(1, pause_at=None)
    engine.call(spec, openai(tokens=(18_000, 17_997, "7.66s")))
    assert engine.take(spec, cost={"tokens": 17_000})
    assert engine.take(spec, cost={"tokens": 3_000}).retry_after < 10


def test_other_dialects_refill_as_they_say(engine, clock):
    fields = {
        "anthropic-ratelimit-tokens-limit": "40000",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "2026-01-01T00:04:00Z",
        "date": "Thu, 01 Jan 2026 00:00:00 GMT",
    }
    spec = pool(1, pause_at=None)
    engine.call(spec, read("anthropic", 200, fields, now=1767225600.0))
    assert engine.take(spec, cost={"tokens": 10_000}).retry_after == pytest.approx(60, abs=0.1)


# -- an explicit wait ------------------------------------------------------------------------------------------------


def refused(kind="bucket", scope="account", resource=None, wait=10.0, reset=900.0, **fields):
    return quota(
        0, limit=100, reset=reset, unit="requests", kind=kind, window=None, category="rate_limited", status=429,
        retry_after=wait, scope=scope, resource=resource, **fields,
    )  # fmt: skip


@pytest.mark.parametrize("priority", [1, 9])
@pytest.mark.parametrize("kind", ["bucket", "window"])
@pytest.mark.parametrize(("scope", "resource"), [("account", None), ("account", ""), ("model", ""), ("key", None)])
def test_an_explicit_wait_outranks_the_reset_that_came_with_it(engine, clock, kind, scope, resource, priority):
    spec = pool(1)
    _, settled = engine.call(spec, refused(kind, scope, resource), model="large", key="chat")
    assert 10 <= settled.cooldown <= 11
    asked = {"model": "large", "key": "chat", "priority": priority}
    denied = engine.take(spec, **asked)
    assert denied.retry_after == pytest.approx(settled.cooldown)
    view = engine.look(spec, **asked)[0]
    assert view.wait == pytest.approx(settled.cooldown)
    state = engine.state(spec)
    assert state.until is None or state.until <= settled.cooldown + 0.001
    exact(engine, clock, spec, **asked)


def test_after_an_explicit_wait_the_level_counts_again(engine, clock):
    spec = pool(1, pause_at=None)
    _, settled = engine.call(spec, refused("bucket"))
    clock.move(settled.cooldown)
    assert engine.state(spec).state == "available"
    assert engine.take(spec)
    assert not engine.take(spec), "one finds out, the others don't come with it all at once"


def test_a_wait_that_is_the_reset_itself_is_no_other_wait(engine, clock):
    spec = pool(1, pause_at=None)
    both = {
        "requests": LearnedQuota(limit=60, remaining=0, reset_after=5.0, window=60.0, kind="bucket"),
        "tokens": LearnedQuota(limit=1_000, remaining=0, reset_after=60.0, window=60.0, kind="bucket"),
    }
    engine.call(spec, CallOutcome("rate_limited", status=429, retry_after=5.0, learned=both))
    assert engine.take(spec, cost={"tokens": 900}).retry_after > 50


def test_what_remains_is_believed_beside_an_explicit_wait(engine, clock):
    spec = pool(1, pause_at=None)
    answer = quota(500, limit=1_000, reset=900.0, window=900.0, kind="window", category="rate_limited",
                   status=429, retry_after=10.0)  # fmt: skip
    engine.call(spec, answer, cost={"tokens": 10})
    assert engine.take(spec, cost={"tokens": 600}).retry_after == pytest.approx(900.0)


# -- units without an estimate ---------------------------------------------------------------------------------------


def test_what_had_no_estimate_is_charged_and_holds_the_next_call(engine, clock):
    spec = pool(1, bucket(1_000, "tokens"), pause_at=None)
    engine.call(spec, CallOutcome("ok", usage={"tokens": 5_000}))
    denied = exact(engine, clock, spec)
    assert denied.reasons == {"tokens": 1} and denied.retry_after == pytest.approx(240, abs=1)


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window", "fixed_window", "sliding_window_counter"])
@pytest.mark.parametrize("stated", [{}, {"tokens": 0}])
def test_every_algorithm_charges_what_had_no_estimate(engine, clock, algorithm, stated):
    spec = pool(1, bucket(1_000, "tokens", algorithm=algorithm), pause_at=None)
    engine.call(spec, CallOutcome("ok", usage={"tokens": 5_000}), cost=stated)
    assert engine.take(spec).reasons == {"tokens": 1}
    assert engine.take(spec, cost={"tokens": 1}).reasons == {"tokens": 1}
    assert engine.take(spec, cost={"tokens": 0}), "a call that states 0 is charged nothing"


def test_counters_stay_apart_whichever_of_them_had_an_estimate(engine):
    spec = pool(1, bucket(100, "tokens"), bucket(50), bucket(10, "images"))
    engine.call(spec, CallOutcome("ok", usage={"images": 10}), cost={"requests": 3})
    assert engine.take(spec).reasons == {"images": 1}
    assert engine.take(spec, cost={"images": 0, "tokens": 100, "requests": 47})
    assert engine.take(spec, cost={"images": 0, "tokens": 0, "requests": 1}).reasons == {"requests": 1}


def test_a_key_limit_without_an_estimate_is_charged_too(engine, valkey, clock):
    from quotas.engine.accounts.accounts import Accounts

    spec = pool(1, bucket(100, "tokens", scope="custom", id="chat"))
    lease = engine.take(spec, key="chat-1").lease
    other = Accounts(valkey, clock=clock)
    other.settle(lease, CallOutcome("ok", usage={"tokens": 300}))
    other.transport.close()
    assert engine.take(spec, key="chat-1").reasons == {"key": 1}
    assert engine.take(spec, key="chat-2")


def test_a_refused_call_without_an_estimate_is_charged_nothing(engine):
    spec = pool(1, bucket(1_000, "tokens"))
    engine.call(spec, CallOutcome("validation", status=400))
    engine.call(spec, OK)
    assert engine.take(spec, cost={"tokens": 1_000})


def test_use_without_an_estimate_is_taken_off_what_is_learned(engine):
    spec = pool(1)
    engine.call(spec, quota(1_000, limit=1_000, reset=0.0))
    engine.call(spec, CallOutcome("ok", usage={"tokens": 900}))
    assert engine.take(spec, cost={"tokens": 500}).reasons == {"tokens": 1}


# -- exact times, for priorities that wait early ---------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["token_bucket", "fixed_window", "sliding_window"])
@pytest.mark.parametrize("used", [8, 9, 10])
@pytest.mark.parametrize("priority", [1, 8])
def test_the_time_of_a_configured_limit_holds_for_the_priority_that_asks(engine, clock, algorithm, used, priority):
    spec = pool(1, bucket(10, algorithm=algorithm), pause_at=0.8, pause="low")
    for _ in range(used):
        assert engine.take(spec, priority=1)
        clock.move(0.3)
    if not engine.take(spec, priority=priority):
        exact(engine, clock, spec, priority=priority)


@pytest.mark.parametrize("resource", [None, ""])
@pytest.mark.parametrize(
    "stated",
    [
        {"remaining": 0, "reset": 60.0},
        {"remaining": 100, "reset": 59.0},
        {"remaining": 1_500, "reset": 50.0},
        {"remaining": 0, "reset": 30.0, "kind": "window"},
        {"remaining": 1_500, "reset": 30.0, "kind": "window"},
        {"remaining": 0, "reset": 1_000.0},
        {"remaining": 0, "reset": 5.0},
    ],
)
@pytest.mark.parametrize("cost", [1, 300, 9_500])
@pytest.mark.parametrize("priority", [5, 8])
def test_the_time_of_a_learned_quota_holds_for_the_priority_that_asks(engine, clock, stated, cost, priority, resource):
    spec = pool(2, pause_at=0.8, pause="low")
    leases = [engine.take(spec).lease for _ in range(2)]
    for lease in leases:
        engine.settle(lease, quota(**stated, resource=resource))
    if not engine.take(spec, cost={"tokens": cost}, priority=priority):
        exact(engine, clock, spec, cost={"tokens": cost}, priority=priority)
