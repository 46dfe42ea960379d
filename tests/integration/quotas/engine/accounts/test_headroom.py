"""Headroom in daily use: limits used to their last unit, several budgets at once, many callers, answers that mislead."""

from __future__ import annotations

import threading

import pytest

from quotas.engine.accounts.accounts import Accounts
from quotas.engine.dialects import read
from quotas.engine.learned import LearnedQuota
from quotas.engine.types import AdmitRequest, CallOutcome
from tests.integration.quotas.engine.accounts.conftest import OK, bucket, pool


def openai(status=200, body=None, retry_after=None, **budgets):
    fields = {} if retry_after is None else {"retry-after": retry_after}
    for unit, figures in budgets.items():
        for name, value in zip(("limit", "remaining", "reset"), figures, strict=True):
            fields[f"x-ratelimit-{name}-{unit}"] = value
    return read("openai", status, fields, body)


@pytest.mark.parametrize("algorithm", ["token_bucket", "fixed_window", "sliding_window"])
def test_a_limit_is_used_to_its_last_unit_and_not_beyond(engine, algorithm):
    spec = pool(1, bucket(10, algorithm=algorithm), bucket(1_000, "tokens", algorithm=algorithm), pause_at=None)
    assert sum(bool(engine.take(spec, cost={"tokens": 100})) for _ in range(20)) == 10


def test_a_learned_window_is_used_to_its_last_unit(engine, clock):
    fields = {"x-ratelimit-limit": "30", "x-ratelimit-remaining": "7"}
    fields["x-ratelimit-reset"] = str(clock.now // 10**6 + 60)
    spec = pool(1, dialect="github", pause_at=None)
    engine.call(spec, read("github", 200, fields, now=clock.now / 1e6))
    assert sum(bool(engine.take(spec)) for _ in range(20)) == 7


def test_the_call_itself_counts_and_no_account_beyond_its_limit_is_picked_at_random(engine):
    spec = pool(2, bucket(1_000, "tokens"), pause_at=None)
    taken = [engine.take(spec, cost={"tokens": 600}).account_id for _ in range(4)]
    assert taken[:2] == ["a1", "a2"] and taken[2:] == [None, None]


@pytest.mark.parametrize("learned", [False, True])
def test_callers_at_once_do_not_pass_together_what_passes_one_by_one(valkey, learned):
    accounts = Accounts(valkey)
    limits = () if learned else (bucket(1_000, "tokens", window=3600.0),)
    spec = pool(1, *limits, pause_at=None)
    if learned:
        lease = accounts.admit(AdmitRequest(pool=spec, model="m")).lease or ""
        accounts.settle(lease, openai(tokens=("1000", "1000", "0s"), requests=("1000", "1000", "0s")))
    granted = []

    def call():
        granted.append(bool(accounts.admit(AdmitRequest(pool=spec, model="m", cost={"tokens": 400}))))

    threads = [threading.Thread(target=call) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accounts.transport.close()
    assert sum(granted) == 2


def test_what_a_fallback_used_is_counted_at_the_fallback(engine):
    first, second = pool(1, bucket(100, "tokens")), pool(("b1",), bucket(1_000, "tokens"), id="two", name="two")
    assert engine.take(first, cost={"tokens": 100})
    lease = engine.take(first, fallbacks=(second,), cost={"tokens": 50}).lease
    engine.settle(lease, CallOutcome("ok", usage={"tokens": 1_000}))
    denied = engine.take(first, fallbacks=(second,), cost={"tokens": 50})
    assert denied.reasons == {"tokens": 2}


@pytest.mark.parametrize("dialect", ["openai", "azure"])
def test_figures_that_stand_for_unknown_hold_nothing(engine, dialect):
    fields = {"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}
    spec = pool(1, dialect=dialect)
    engine.call(spec, read(dialect, 200, fields), model="m")
    assert engine.take(spec, model="m", cost={"tokens": 1_000_000}) and engine.state(spec).learned == {}


def test_of_two_budgets_the_one_that_is_used_up_holds(engine, clock):
    spec = pool(1, pause_at=None)
    answer = openai(429, requests=("200", "0", "6m0s"), tokens=("40000", "39000", "1s"))
    _, settled = engine.call(spec, answer, model="m")
    assert 360 <= settled.cooldown <= 396
    assert engine.take(spec, model="m", cost={"tokens": 100}).retry_after >= 360


def test_a_request_that_does_not_fit_now_passes_at_the_time_that_the_provider_states(engine, clock):
    spec = pool(1, pause_at=None)
    words = "Rate limit reached for big in organization org-1 on tokens per min (TPM): "
    words += "Limit 500000, Used 442231, Requested 249686. Please try again in 23.03s."
    body = {"error": {"message": words, "code": "rate_limit_exceeded"}}
    answer = openai(429, body, tokens=("500000", "57769", "53.068s"))
    asked = {"model": "big", "cost": {"tokens": 249_686}}
    _, settled = engine.call(spec, answer, **asked)
    assert 23.03 <= settled.cooldown <= 25.4
    denied = engine.take(spec, **asked)
    assert not denied.impossible and denied.retry_after == pytest.approx(settled.cooldown)
    clock.move(denied.retry_after)
    assert engine.take(spec, **asked)
    assert not engine.take(spec, **asked), "the next one of that size goes by the level again"


@pytest.mark.parametrize("unit", ["requests", "tokens"])
def test_azures_other_spelling_of_a_reset_is_a_wait(engine, unit):
    fields = {f"x-rate-limit-reset-{unit}": "55", "x-ratelimit-remaining-requests": "49"}
    _, settled = engine.call(pool(1, dialect="azure", cooldown_default=5.0), read("azure", 429, fields), model="m")
    assert 55 <= settled.cooldown <= 60.5


@pytest.mark.parametrize("remaining", [0, 100, 5_000, 9_000])
@pytest.mark.parametrize("reset", [0.2, 6.0, 60.0, 600.0, 86_400.0])
def test_no_wait_is_longer_than_the_reset_while_nothing_else_is_used(engine, clock, remaining, reset):
    spec = pool(1, pause_at=None)
    quota = LearnedQuota(limit=10_000, remaining=remaining, reset_after=reset, window=60.0, kind="bucket")
    engine.call(spec, CallOutcome("ok", learned={"tokens": quota}, resource=""), cost={"tokens": 10})
    for cost in (1, 900, 9_000, 10_000):
        found = engine.look(spec, cost={"tokens": cost})[0]
        assert found.wait is not None and found.wait <= max(reset, 60.0) + 0.001


def test_headroom_is_that_of_the_model_that_is_asked_for(engine):
    spec = pool(2, strategy="most_headroom", pause_at=None)
    low, high = openai(tokens=("1000", "50", "57s")), openai(tokens=("1000", "950", "3s"))
    for model, first, second in (("large", low, high), ("small", high, low)):
        for answer, name in ((first, "a1"), (second, "a2")):
            engine.settle(engine.take(pool((name,)), model=model, cost={"tokens": 10}).lease, answer)
    assert engine.take(spec, model="large", cost={"tokens": 10}).account_id == "a2"
    assert engine.take(spec, model="small", cost={"tokens": 10}).account_id == "a1"


def test_a_refusal_with_much_left_waits_as_it_says_and_no_longer(engine, clock):
    spec = pool(1)
    fields = {"retry-after": "1", "x-ratelimit-remaining-requests": "45", "x-ratelimit-remaining-tokens": "90000"}
    _, settled = engine.call(spec, read("azure", 429, fields), model="m")
    clock.move(settled.cooldown)
    assert engine.take(spec, model="m", cost={"tokens": 5_000})


def test_input_and_output_budgets_hold_by_themselves(engine):
    fields = {}
    for name, remaining in (("input-tokens", "9000"), ("output-tokens", "0")):
        fields[f"anthropic-ratelimit-{name}-limit"] = "10000"
        fields[f"anthropic-ratelimit-{name}-remaining"] = remaining
        fields[f"anthropic-ratelimit-{name}-reset"] = "2026-01-01T00:01:00Z"
    fields["date"] = "Thu, 01 Jan 2026 00:00:00 GMT"
    spec = pool(1, pause_at=None)
    engine.call(spec, read("anthropic", 200, fields, now=1767225600.0), model="m")
    asked = {"input_tokens": 500, "output_tokens": 100}
    assert engine.take(spec, model="m", cost=asked).reasons == {"output_tokens": 1}
    assert engine.take(spec, model="m", cost={"input_tokens": 500})


def test_a_call_that_ran_over_its_budget_ends_and_the_next_one_waits(engine, clock):
    spec = pool(1, bucket(1_000, "tokens", algorithm="fixed_window"), pause_at=None)
    lease = engine.take(spec, cost={"tokens": 10}).lease
    clock.move(1)
    assert engine.settle(lease, CallOutcome("ok", usage={"tokens": 1_200})).outcome == "ok"
    assert engine.take(spec, cost={"tokens": 1}).reasons == {"tokens": 1}
    assert engine.take(spec).reasons == {"tokens": 1}
    clock.move(60)
    engine.call(spec, OK)
