"""Use over time, in SQL: for each policy and subject the highest use seen in each minute, hour and day, and how often it
was refused.

The same sampling checks thresholds. Where Redis lost its memory, calendar quotas continue from their last sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from quotas import clock
from quotas.engine.errors import LimiterUnavailable
from quotas.engine.limits.periods import boundaries
from quotas.engine.limits.requests import CheckRequest
from quotas.engine.types import LimitState
from quotas.models import Project, UsageRollup
from quotas.runtime.connection import limiter
from quotas.services import active_subjects, denials, thresholds
from quotas.services.usage import Selection, usage
from quotas.snapshot import resolve
from quotas.snapshot.policies import CompiledPolicy

SUBJECTS = 2000
"""Recent subjects of a policy that are sampled, beside those that were noted as touched."""
RETENTION = {"minute": timedelta(days=2), "hour": timedelta(days=60), "day": timedelta(days=730)}
SPANS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
Bucket = tuple[int, str, datetime, str, str]
"""(policy, resolution, start, project, key)."""
Subject = tuple[int, str, str]
"""(policy, project, key)."""


class Sampler:
    """Of the one process that leads. `sample` is meant for every few seconds."""

    def __init__(self) -> None:
        self._highest: dict[Bucket, int] = {}
        self._pruned: datetime | None = None

    def sample(self, now: datetime | None = None) -> int:
        """Read all counters once. Returns how many rows were written. Raises `LimiterUnavailable`."""
        now = now or clock.now()
        starts = {resolution: start_of(resolution, now) for resolution in RETENTION}
        self._highest = {bucket: used for bucket, used in self._highest.items() if bucket[2] == starts[bucket[1]]}
        rows: list[UsageRollup] = []
        noted = _noted(active_subjects.counter.drain())
        for policy in resolve.snapshot().policies.values():
            states = usage(Selection(policy=policy.name), most=SUBJECTS)
            states += _states(policy, noted.get(policy.name, set()) - {(one.partition, one.key) for one in states})
            thresholds.watch(policy, states, now)
            rows += self._rows(policy, states, starts)
        _upsert(rows, ["used", "limit"])
        refused = _refusals(starts, denials.counter.drain())
        _upsert(refused, ["denied"])
        self._prune(now)
        return len(rows) + len(refused)

    def _rows(
        self, policy: CompiledPolicy, states: Iterable[LimitState], starts: dict[str, datetime]
    ) -> Iterable[UsageRollup]:
        for state in states:
            for resolution, start in starts.items():
                bucket = (policy.pk, resolution, start, state.partition, state.key)
                known = self._highest.get(bucket)
                if known is not None and state.used <= known:
                    continue
                self._highest[bucket] = state.used
                yield UsageRollup(
                    policy_id=policy.pk,
                    resolution=resolution,
                    start=start,
                    project=state.partition,
                    key=state.key,
                    used=state.used,
                    limit=state.limit,
                )

    def _prune(self, now: datetime) -> None:
        hour = start_of("hour", now)
        if self._pruned == hour:
            return
        self._pruned = hour
        for resolution, age in RETENTION.items():
            UsageRollup.objects.filter(resolution=resolution, start__lt=now - age).delete()


def _noted(counts: Iterable[tuple[str, ...]]) -> dict[str, set[tuple[str, str]]]:
    """{policy's name: {(project, key)}}"""
    noted: dict[str, set[tuple[str, str]]] = {}
    for name, project, key in counts:
        if key:
            noted.setdefault(name, set()).add((project, key))
    return noted


def _states(policy: CompiledPolicy, subjects: Iterable[tuple[str, str]]) -> list[LimitState]:
    """The present state of subjects that are known by name."""
    now = resolve.snapshot().now()
    asked = [CheckRequest([policy.limit_for(key, project, 0, now)], dry_run=True) for project, key in sorted(subjects)]
    states: list[LimitState] = []
    for start in range(0, len(asked), 500):
        for decision in limiter().check_many(asked[start : start + 500]):
            if isinstance(decision, LimiterUnavailable):
                raise decision
            states += [state for state in decision.limits if state.used]
    return states


def _upsert(rows: list[UsageRollup], columns: list[str]) -> None:
    UsageRollup.objects.bulk_create(
        rows,
        batch_size=500,
        update_conflicts=True,
        update_fields=columns,
        unique_fields=["policy", "resolution", "start", "project", "key"],
    )


def _refusals(starts: dict[str, datetime], counts: Mapping[tuple[str, ...], int]) -> list[UsageRollup]:
    """The present buckets' rows with the refusals added that were counted since the last sample."""
    if not counts:
        return []
    known = resolve.snapshot().policies
    refused: dict[Subject, int] = {}
    limits: dict[int, int | None] = {}
    for (name, project, key), count in counts.items():
        if name in known:
            refused[known[name].pk, project, key] = count
            limits[known[name].pk] = known[name].limit
    keys = sorted({key for _, _, key in refused})
    rows = []
    for resolution, start in starts.items():
        before: dict[Subject, int] = {}
        for at in range(0, len(keys), 500):
            found = UsageRollup.objects.filter(resolution=resolution, start=start, key__in=keys[at : at + 500])
            before |= {
                (policy, project, key): denied
                for policy, project, key, denied in found.values_list("policy_id", "project", "key", "denied")
            }
        for subject, count in refused.items():
            policy, project, key = subject
            rows.append(
                UsageRollup(
                    policy_id=policy,
                    resolution=resolution,
                    start=start,
                    project=project,
                    key=key,
                    denied=before.get(subject, 0) + count,
                    limit=limits[policy],
                )
            )
    return rows


def start_of(resolution: str, moment: datetime) -> datetime:
    """The start of the minute, hour or day (UTC) that `moment` lies in."""
    moment = moment.astimezone(UTC).replace(second=0, microsecond=0)
    if resolution == "minute":
        return moment
    return moment.replace(minute=0) if resolution == "hour" else moment.replace(minute=0, hour=0)


def _ended_before(row: UsageRollup, moment: datetime | None) -> bool:
    return moment is not None and row.start + SPANS[row.resolution] <= moment


def restore_calendars() -> int:
    """Charge calendar quotas with what was used in the present period, where Redis knows of nothing. Returns how many.

    For when Redis has lost its memory; what was used since the last sample is lost with it.
    """
    restored = 0
    snapshot = resolve.snapshot()
    now = snapshot.now()
    made = dict(Project.objects.values_list("slug", "created_at"))
    for policy in snapshot.policies.values():
        if policy.algorithm != "calendar" or policy.limit is None:
            continue
        _, start, _, _ = boundaries(policy.period, policy.timezone, int(now * 1e6))
        begun = datetime.fromtimestamp(start / 1e6, UTC)
        anew = datetime.fromtimestamp(policy.counted_since, UTC)
        rows = list(UsageRollup.objects.filter(policy_id=policy.pk, start__gte=begun))
        followed = {row.project for row in rows if _ended_before(row, made.get(row.project))}
        used: dict[tuple[str, str], int] = {}
        for row in rows:
            begins = max(anew, made[row.project]) if row.project in followed else anew
            if row.start < start_of("minute", begins):
                continue  # counted under another definition, or for a deleted project with the same slug
            subject = (row.project, row.key)
            used[subject] = max(used.get(subject, 0), row.used)
        for (project, key), count in used.items():
            (state,) = limiter().peek([policy.limit_for(key, project, 0, now)])
            if state.used:
                continue
            charge: dict[str, Any] = {"reserve": False}
            limit = policy.limit_for(key, project, min(count, state.limit or 0), now)
            restored += bool(limiter().check([limit], **charge))
    return restored
