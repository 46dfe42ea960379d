"""One check against many limits: all or nothing, by every limiter alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quotas.engine.errors import IdempotencyConflict
from quotas.engine.limits.limiter import Limiter
from quotas.engine.limits.reference import ReferenceLimiter
from tests.integration.quotas.engine.limits.conftest import Clock, limit


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


def test_a_sliding_window_holds_small_and_huge_counts_side_by_side(on_server: Limiter, clock: Clock) -> None:
    model = ReferenceLimiter(clock=clock)
    for number, cost in enumerate((1, 70_000, 3, 2**40, 5, 65_535, 65_536, 7, 2**50, 1)):
        one = limit("ring", "sliding_window", limit=2**52, cost=cost, unit="tokens")
        for each in (on_server, model):
            decision = each.check([one], reserve=True)
            assert decision and decision.reservation
            if number % 3 == 2:
                each.settle(decision.reservation, {"tokens": cost // 2})
        assert on_server.peek([one]) == model.peek([one])
        clock.move((0.4, 1.0, 7.0, -2.0)[number % 4])
    for _ in range(70):
        one = limit("ring", "sliding_window", limit=2**52, cost=2**52, unit="tokens")
        assert on_server.peek([one]) == model.peek([one])
        clock.move(1.0)
