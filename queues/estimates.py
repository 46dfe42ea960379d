"""Estimates when a job starts and a batch ends, from the rate and the windows of the limit that binds; None if unknown.

Measured rates alone mislead under a window: fifty jobs that start within a minute say nothing about the next hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from django.db.models import Count, Q, QuerySet

from queues.models import Job
from queues.states import Stage
from queues.wait_reasons import GroupWait
from quotas import clock
from quotas.snapshot import resolve
from quotas.snapshot.policies import CompiledPolicy

PERIODS = {"day": 86_400.0, "week": 7 * 86_400.0, "month": 31 * 86_400.0}
MEASURED = 60.0
"""Seconds: windows up to this length show in the rate that is measured."""


def start_of(job: Job, wait: GroupWait, rate: float, ahead: int) -> datetime | None:
    """When `job` starts whose group's wait is `wait`, with `ahead` jobs before it that end at `rate` a second."""
    first = wait.until
    if first is None:
        return None
    policy = _policy(wait)
    if policy is None:
        return _through_pool(wait, first, 1 + ahead, rate, job.cost)
    same = _of_subject(policy, job)
    if same is None:
        return None
    before = Job.objects.filter(same, stage=Stage.READY, id__lt=job.pk).count()
    if policy.algorithm == "concurrency":
        return _at_rate(first, before, rate)
    return _nth(policy, job, first, before)


def end_of(rows: QuerySet[Job], left: int, found: Sequence[GroupWait], rate: float) -> datetime | None:
    """When the last of `rows` is done, of which `left` have not ended; `found` are the waits of their groups."""
    at_rate = _at_rate(clock.now(), left, rate)
    if not found:
        return at_rate
    ends = []
    for wait in found:
        end = _end_under(rows, left, wait, rate)
        if end is None:
            return None
        ends.append(end)
    return max([*ends, *([at_rate] if at_rate is not None else [])])


def _end_under(rows: QuerySet[Job], left: int, wait: GroupWait, rate: float) -> datetime | None:
    first = wait.until
    example = rows.filter(stage=Stage.READY).order_by("-id").first()
    if first is None or example is None:
        return None
    policy = _policy(wait)
    if policy is None:
        return _through_pool(wait, first, left, rate, example.cost)
    if policy.algorithm == "concurrency":
        return _at_rate(first, left, rate)
    if policy.scope == "user":
        users = dict(rows.filter(stage=Stage.READY).order_by().values_list("user").annotate(Count("id")))
        ends = [_nth(policy, example, first, count - 1, subject=user) for user, count in users.items()]
        return None if None in ends else max(end for end in ends if end is not None)
    same = _of_subject(policy, example)
    if same is None:
        return None
    before = Job.objects.filter(same, stage=Stage.READY, id__lt=example.pk).count()
    return _nth(policy, example, first, before)


def _policy(wait: GroupWait) -> CompiledPolicy | None:
    named = wait.reason.startswith("policy ")
    return resolve.snapshot().policies.get(wait.binding or "") if named else None


def _of_subject(policy: CompiledPolicy, job: Job) -> Q | None:
    """Jobs that share `job`'s counter; None if the rows don't say."""
    match policy.scope:
        case "user":
            return Q(project_id=job.project_id, user=job.user)
        case "project":
            return Q(project_id=job.project_id)
        case "queue":
            return Q(queue_id=job.queue_id)
        case "global":
            return Q()
    return None


def _nth(policy: CompiledPolicy, job: Job, first: datetime, before: int, subject: str | None = None) -> datetime | None:
    """The start of a job with `before` others of its subject ahead, the first of which starts at `first`."""
    cost = int(job.cost.get(policy.unit, 1 if policy.unit == "requests" else 0))
    key = subject if subject is not None else job.user if policy.scope == "user" else ""
    project = job.project.slug if policy.project or policy.scope == "user" else ""
    limit = policy.limit_for(key, project, cost, clock.now().timestamp(), job.priority)
    if limit.limit is None or cost <= 0:
        return first
    if not limit.limit or cost > (policy.capacity(limit.limit) or 0):
        return None
    if policy.algorithm == "token_bucket":
        return first + timedelta(seconds=before * cost * policy.window / limit.limit)
    window = PERIODS.get(policy.period, 0.0) if policy.algorithm == "calendar" else policy.window
    return first + timedelta(seconds=before // (limit.limit // cost) * window)


def _through_pool(wait: GroupWait, first: datetime, left: int, rate: float, cost: Mapping[str, int]) -> datetime | None:
    config = resolve.snapshot().pools.get(wait.binding or "")
    limits = [limit for limit in config.spec.limits if limit.limit] if config is not None else []
    windows = [PERIODS.get(limit.period, limit.window) for limit in limits]
    if config is None or (max(windows, default=0.0) <= MEASURED and first <= clock.now() + timedelta(seconds=MEASURED)):
        return _at_rate(first, left, rate)
    accounts = sum(account.enabled for account in config.spec.accounts)
    rates = [
        accounts * limit.limit / cost.get(limit.unit, 1) / window
        for limit, window in zip(limits, windows, strict=True)
        if window and limit.limit and cost.get(limit.unit, 1)
    ]
    return _at_rate(first, left, min(rates, default=0.0))


def _at_rate(first: datetime, left: int, rate: float) -> datetime | None:
    if not left:
        return first
    return max(first, clock.now() + timedelta(seconds=left / rate)) if rate else None
