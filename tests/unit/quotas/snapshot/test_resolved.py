"""Resolved limits are kept until an override ends."""

from __future__ import annotations

from datetime import UTC, datetime

from quotas.engine.limits.packed import LimitSet
from quotas.models import Policy
from quotas.snapshot.policies import CompiledPolicy
from quotas.snapshot.resolved import MOST, ResolvedLimits


def policy(*ends: float | None) -> CompiledPolicy:
    row = Policy(pk=1, name="hourly", scope="user", algorithm="fixed_window", limit=1, window=60)
    overrides = [
        (None, f"u-{number}", 5, None if end is None else datetime.fromtimestamp(end, UTC))
        for number, end in enumerate(ends)
    ]
    return CompiledPolicy.of(row, overrides, 64)


def keep_twice(resolved: ResolvedLimits, *question: object) -> None:
    for _ in range(2):
        resolved.keep(question, ())


def test_limits_are_kept_when_their_question_comes_again() -> None:
    resolved = ResolvedLimits([])
    assert type(resolved.keep(("u",), ())) is tuple
    assert resolved.find(("u",), 0.0) is None
    kept = resolved.keep(("u",), ())
    assert type(kept) is LimitSet
    assert resolved.find(("u",), 0.0) is kept
    assert resolved.find(("v",), 0.0) is None


def test_each_end_of_an_override_has_all_limits_resolved_again() -> None:
    resolved = ResolvedLimits([policy(100.0, None), policy(200.0)])
    keep_twice(resolved, "u")
    for now, is_known in ((50.0, True), (99.9, True), (100.0, False), (150.0, True), (200.0, False), (1e12, True)):
        assert (resolved.find(("u",), now) is not None) is is_known, now
        keep_twice(resolved, "u")


def test_as_many_questions_are_kept_as_memory_allows() -> None:
    resolved = ResolvedLimits([])
    for number in range(3 * MOST):
        keep_twice(resolved, number)
    found = [number for number in range(3 * MOST) if resolved.find((number,), 0.0) is not None]
    assert found == list(range(2 * MOST, 3 * MOST))
