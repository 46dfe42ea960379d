"""Emits one event when a subject's use crosses a share of its limit.

The crossings are kept in SQL, so that a restart does not repeat them. An event is emitted again after a reset, in a new
period of a fixed window or a calendar quota, and when a use that had fallen below a share crosses it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from quotas import clock, events
from quotas.engine.keys import SHOWN
from quotas.engine.types import LimitState
from quotas.models import ThresholdMark
from quotas.snapshot.policies import CompiledPolicy


def watch(policy: CompiledPolicy, states: Iterable[LimitState], now: datetime | None = None) -> int:
    """Compare with the crossings that were emitted. Returns how many are new."""
    if not policy.warn_at:
        return 0
    now = now or clock.now()
    marks = {(mark.project, mark.key): mark for mark in ThresholdMark.objects.filter(policy_id=policy.pk)}
    crossed = 0
    for state in states:
        capacity = policy.capacity(state.limit)
        if not capacity:
            continue
        mark = marks.pop((state.partition, state.key), None)
        reached = max((share for share in policy.warn_at if state.used >= share * capacity), default=0.0)
        if mark is not None and mark.since < _begin(state, now):
            mark.delete()
            mark = None
        emitted = mark.share if mark is not None else 0.0
        if reached > emitted:
            ThresholdMark.objects.update_or_create(
                policy_id=policy.pk, project=state.partition, key=state.key, defaults={"share": reached}
            )
            events.emit(
                events.ThresholdCrossed(policy.name, state.key, reached, state.used, capacity, project=state.partition)
            )
            crossed += 1
        elif reached < emitted and mark is not None:
            if reached:
                mark.share = reached
                mark.save(update_fields=["share"])
            else:
                mark.delete()
    if marks:  # nothing is used there any more
        ThresholdMark.objects.filter(pk__in=[mark.pk for mark in marks.values()]).delete()
    return crossed


def _begin(state: LimitState, now: datetime) -> datetime:
    """When the present period began; for limits without periods the dawn of time."""
    if state.algorithm not in ("fixed_window", "calendar"):
        return datetime.min.replace(tzinfo=now.tzinfo)
    return now + timedelta(seconds=state.reset_after - state.window)


def forget(policies: Iterable[CompiledPolicy], project: str | None = None, key: str | None = None) -> None:
    """Emit the crossings of these subjects again when they happen: their counters were reset."""
    marks = ThresholdMark.objects.filter(policy__in=[policy.pk for policy in policies])
    if project is not None:
        marks = marks.filter(project__in=["", project])
    if key is not None:
        marks = marks.filter(key=key[:SHOWN])
    marks.delete()
