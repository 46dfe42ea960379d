"""The controller of adaptive policies: moves each one's limit by what came of its calls. Of the one process that leads.

    outcomes, added up in Redis -> once an interval and with enough samples: worse, better or neither
    worse  -> down by `decrease`, at once; no step up for three intervals
    better -> up by `increase`, when it was better the last time too
    moved  -> SQL (`AdaptiveState`), where every process sees it within half a second; one event with the reason

Redis has only the outcomes that were not evaluated yet: if it loses its memory, the limits stay as they are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction

from quotas import clock, events
from quotas.models import AdaptiveState, ConfigVersion
from quotas.services import outcomes
from quotas.services.aimd import Outcomes, judge
from quotas.snapshot import resolve
from quotas.snapshot.policies import CompiledPolicy

CALM_INTERVALS = 3
"""Intervals after a step down in which there is no step up."""
STREAK = 2
"""Good intervals in a row before a step up."""
OLD = 60.0
"""Seconds for which outcomes wait for more of them, where they are fewer than a decision needs."""


@dataclass(slots=True)
class _Watched:
    """What the controller remembers of one policy."""

    since: float
    seen: Outcomes = field(default_factory=Outcomes)
    good: int = 0
    calm_until: float = 0.0


class Controller:
    """`run` is meant for every second. What it remembers is short-lived: another leader begins with new intervals."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._version = -1

    def run(self, moment: float | None = None) -> int:
        """Look at what has come in and move what is due; `moment` is `time.monotonic()`. Returns how many moved.

        Raises `LimiterUnavailable`.
        """
        moment = time.monotonic() if moment is None else moment
        snapshot = resolve.snapshot()
        if snapshot.version != self._version:
            AdaptiveState.objects.exclude(policy__in=[policy.pk for policy in snapshot.adaptive.values()]).delete()
            self._version = snapshot.version
        if not snapshot.adaptive:
            return 0
        self._watched = {name: seen for name, seen in self._watched.items() if name in snapshot.adaptive}
        for name in snapshot.adaptive:
            self._watched.setdefault(name, _Watched(moment))
        for (name, part), count in outcomes.counter.drain().items():
            if name in self._watched and part in Outcomes.__slots__:
                self._watched[name].seen.add(part, count)
        return sum(self._decide(policy, self._watched[name], moment) for name, policy in snapshot.adaptive.items())

    def seen(self, policy: str) -> Outcomes:
        """The outcomes of a policy's calls since it was last moved."""
        return self._watched[policy].seen

    def _decide(self, policy: CompiledPolicy, watched: _Watched, moment: float) -> bool:
        rule = policy.adaptive
        assert rule is not None and policy.limit is not None
        waited = moment - watched.since
        if waited < rule.interval or (watched.seen.seen < rule.samples and waited < OLD):
            return False
        seen, watched.seen, watched.since = watched.seen, Outcomes(), moment
        if seen.seen < rule.samples:
            return False  # too few to say anything, and too old to wait for more
        verdict = judge(rule, seen)
        limit = policy.limit
        watched.good = watched.good + 1 if verdict.direction > 0 else 0
        if verdict.direction < 0:
            watched.calm_until = moment + CALM_INTERVALS * rule.interval
            limit = rule.lower(limit)
        elif watched.good >= STREAK and moment >= watched.calm_until:
            limit = rule.higher(limit)
        if limit == policy.limit:
            return False
        move(policy, limit, verdict.why)
        return True


def move(policy: CompiledPolicy, limit: int, why: str) -> None:
    """Move an adaptive policy's limit, in force everywhere within half a second, and emit the event."""
    assert policy.configured is not None and policy.limit is not None
    with transaction.atomic():
        AdaptiveState.objects.update_or_create(
            policy_id=policy.pk,
            defaults={
                "configured": policy.configured,
                "effective": limit,
                "why": why[:500],
                "changed_at": clock.now(),
            },
        )
        ConfigVersion.announce_move()
        events.emit(events.LimitAdapted(policy.name, policy.limit, limit, why, project=policy.project))
    resolve.expire()


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an adaptive policy's limit is, between which bounds, since when and why."""

    configured: int
    effective: int
    floor: int
    ceiling: int
    why: str = ""
    since: datetime | None = None


def standings() -> dict[str, Standing]:
    """Each adaptive policy's, by name; one query where there are any."""
    adaptive = resolve.snapshot().adaptive
    if not adaptive:
        return {}
    states = {state.policy_id: state for state in AdaptiveState.objects.all()}
    found = {}
    for name, policy in adaptive.items():
        rule, state = policy.adaptive, states.get(policy.pk)
        assert rule is not None and policy.configured is not None and policy.limit is not None
        moved = state is not None and state.configured == policy.configured
        found[name] = Standing(
            policy.configured,
            policy.limit,
            rule.floor,
            rule.ceiling,
            state.why if state is not None and moved else "",
            state.changed_at if state is not None and moved else None,
        )
    return found
