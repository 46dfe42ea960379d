"""Tells, once each, when a subject's use goes over a share of its limit."""

from __future__ import annotations

from collections.abc import Iterable

from quotas import events
from quotas.engine.types import LimitState
from quotas.models import ThresholdMark
from quotas.policies.compiled import CompiledPolicy


def watch(policy: CompiledPolicy, states: Iterable[LimitState]) -> int:
    """Compare with what was told; a use that fell below its mark (a reset, a new period) is told of again later.

    Returns how many crossings there were.
    """
    if not policy.warn_at:
        return 0
    marks = {(mark.project, mark.key): mark for mark in ThresholdMark.objects.filter(policy_id=policy.pk)}
    crossed = 0
    for state in states:
        if not state.limit:
            continue
        mark = marks.pop((state.partition, state.key), None)
        reached = max((share for share in policy.warn_at if state.used >= share * state.limit), default=0.0)
        told = mark.share if mark is not None else 0.0
        if reached > told:
            ThresholdMark.objects.update_or_create(
                policy_id=policy.pk, project=state.partition, key=state.key, defaults={"share": reached}
            )
            events.emit(
                events.ThresholdCrossed(
                    policy.name, state.key, reached, state.used, state.limit, project=state.partition
                )
            )
            crossed += 1
        elif reached < told and mark is not None:
            if reached:
                mark.share = reached
                mark.save(update_fields=["share"])
            else:
                mark.delete()
    if marks:  # nothing is used there any more
        ThresholdMark.objects.filter(pk__in=[mark.pk for mark in marks.values()]).delete()
    return crossed
