"""One check against many limits: all or nothing, nothing written on denial, everything with an end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from quotas.engine.errors import IdempotencyConflict
from quotas.engine.limiter import CheckRequest, Limiter
from quotas.engine.types import ALGORITHMS

from .conftest import Clock, limit


def dump(client: redis.Redis) -> dict[bytes, tuple[bytes, int]]:
    return {key: (client.dump(key), client.pexpiretime(key)) for key in client.scan_iter(count=1000)}


def test_a_denied_check_charges_nothing_anywhere(limiter: Limiter, valkey: redis.Redis) -> None:
    wide = [limit(a, a, limit=100, scope="project") for a in ALGORITHMS]
    narrow = limit("narrow", "sliding_window", limit=1, scope="ip")
    assert limiter.check([narrow, *wide], reserve=False)
    before = dump(valkey)
    denied = limiter.check([narrow, *wide])
    assert not denied and denied.binding == "narrow" and denied.reservation is None
    assert [state.allowed for state in denied.limits] == [False] + [True] * len(wide)
    assert all(state.used == 1 for state in denied.limits)
    assert dump(valkey) == before


def test_peeks_and_denials_create_no_key(limiter: Limiter, valkey: redis.Redis) -> None:
    limits = [limit(a, a, limit=5, cost=6) for a in ALGORITHMS]
    assert limiter.check(limits).impossible
    assert limiter.check([limit("zero", limit=0)]).retry_after is None
    limiter.peek([replace(one, cost=1) for one in limits])
    limiter.check([replace(one, cost=0) for one in limits])
    assert valkey.dbsize() == 0


def test_every_key_has_an_end(limiter: Limiter, valkey: redis.Redis) -> None:
    limits = [limit(a, a, unit="tokens", cost=2) for a in ALGORITHMS]
    assert limiter.check(limits, token="t")
    keys = list(valkey.scan_iter())
    assert len(keys) == 2 * len(ALGORITHMS) + 2
    assert all(valkey.pttl(key) > 0 for key in keys)


def test_scopes_are_reported_in_order_and_the_longest_wait_binds(limiter: Limiter, clock: Clock) -> None:
    limits = [
        limit("g", "fixed_window", scope="global", limit=1, window=3600.0),
        limit("e", "token_bucket", scope="endpoint", limit=1, window=10.0),
        limit("i", "sliding_window", scope="ip", limit=1, window=60.0),
        limit("u", "fixed_window", scope="user", limit=None),
    ]
    assert limiter.check(limits)
    clock.move(1)
    denied = limiter.check(limits)
    assert [state.scope for state in denied.limits] == ["ip", "user", "endpoint", "global"]
    assert denied.binding == "g" and denied.retry_after == 3599
    assert denied.limits[1].remaining is None and denied.limits[1].allowed


def test_impossible_wins_over_every_wait(limiter: Limiter) -> None:
    limits = [limit("zero", limit=0), limit("small", "token_bucket", limit=3, cost=4)]
    denied = limiter.check(limits)
    assert denied.impossible and denied.binding == "small" and denied.retry_after is None


def test_shadow_never_denies_and_is_not_charged_above_its_limit(limiter: Limiter) -> None:
    shadow = limit("s", limit=1, mode="shadow")
    real = limit("r", limit=10)
    assert limiter.check([shadow, real])
    second = limiter.check([shadow, real])
    assert second.allowed
    assert [(s.allowed, s.used) for s in second.limits] == [(False, 1), (True, 2)]


def test_bypass_charges_what_fits(limiter: Limiter) -> None:
    tight, wide = limit("t", limit=1), limit("w", limit=10)
    assert limiter.check([tight, wide])
    passed = limiter.check([tight, wide], bypass=True)
    assert passed.allowed and passed.bypassed
    assert [(s.allowed, s.used) for s in passed.limits] == [(False, 1), (True, 2)]


def test_dry_run_answers_the_same_and_consumes_nothing(limiter: Limiter) -> None:
    one = limit("d", limit=2, cost=2)
    for _ in range(3):
        assert limiter.check([one], dry_run=True)
    assert limiter.check([one])
    assert not limiter.check([one], dry_run=True)


def test_a_token_is_charged_once_and_answered_alike(limiter: Limiter, clock: Clock) -> None:
    limits = [limit("a", unit="tokens", cost=3), limit("n", limit=None)]
    first = limiter.check(limits, token="k", token_body="b")
    clock.move(5)
    again = limiter.check(limits, token="k", token_body="b")
    assert again.replayed and replace(again, replayed=False) == first
    assert limiter.peek(limits)[0].used == 3
    with pytest.raises(IdempotencyConflict):
        limiter.check(limits, token="k", token_body="other")
    # The policies changed meanwhile: what is still there is answered as before.
    fewer = limiter.check([limit("new"), *limits], token="k", token_body="b")
    assert fewer.replayed and [s.policy for s in fewer.limits] == ["a", "n"]


def test_a_denial_is_not_remembered_by_its_token(limiter: Limiter, clock: Clock) -> None:
    one = limit("a", limit=1)
    assert limiter.check([one])
    assert not limiter.check([one], token="k")
    clock.move(60)
    assert limiter.check([one], token="k")


def test_many_checks_in_one_pipeline_survive_a_script_flush(limiter: Limiter, valkey: redis.Redis) -> None:
    requests = [CheckRequest([limit("a", limit=3)]) for _ in range(5)] + [CheckRequest([])]
    valkey.script_flush()
    assert [bool(d) for d in limiter.check_many(requests)] == [True] * 3 + [False] * 2 + [True]
    valkey.script_flush()
    assert not limiter.check([limit("a", limit=3)])


def test_a_worker_whose_clock_is_years_off_counts_calendar_days_by_the_server(valkey: redis.Redis) -> None:
    limiter = Limiter(valkey)
    limiter._ahead = -3 * 365 * 86400 * 10**6
    day = limit("d", "calendar", limit=2)
    many = limiter.check_many([CheckRequest([day])])
    assert many[0].allowed and 0 < many[0].limits[0].reset_after <= 86400
    limiter._ahead = 3 * 365 * 86400 * 10**6
    assert limiter.check([day]) and not limiter.check([day])
    limiter.transport.close()


def test_the_same_counter_twice_is_a_mistake(limiter: Limiter) -> None:
    with pytest.raises(ValueError, match="twice"):
        limiter.check([limit("a"), limit("a")])


def test_usage_lists_subjects_and_reset_clears_them(limiter: Limiter) -> None:
    limits = [limit("a", subject=f"user {n}", partition="acme") for n in range(7)] + [limit("b")]
    for one in limits:
        limiter.check([one])
    shown = list(limiter.usage([limit("a")], page=3))
    assert {(s.partition, s.key, s.used) for s in shown} == {("acme", f"user {n}", 1) for n in range(7)}
    assert limiter.reset(limits[:2]) == 2
    assert limiter.reset_policy("a") == 5
    assert list(limiter.usage([limit("a")])) == []
    assert limiter.peek([limit("b")])[0].used == 1


def test_the_index_is_bounded(limiter: Limiter, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quotas.engine.limiter.INDEX_SIZE", 20)
    limiter.check_many(CheckRequest([limit("a", subject=str(n))]) for n in range(50))
    assert valkey.zcard(limiter.keys.index(limit("a"))) == 20
