"""Estimates when a job starts, from the rate and the windows of the limit that binds; None if unknown.

Measured rates alone mislead under a window: fifty jobs that start within a minute say nothing about the next hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from django.db.models import Count, Max, Q, QuerySet

from queues.models import Job
from queues.simulation.counters import LENGTHS, NOTHING, Use, counter_of
from queues.states import Stage
from queues.wait_reasons import GroupWait
from quotas import clock
from quotas.engine.limits.capacity import capacity_of
from quotas.snapshot import resolve
from quotas.snapshot.policies import CompiledPolicy

MEASURED = 60.0
"""Seconds: windows up to this length show in the rate that is measured."""
USERS = 5
"""Under a limit of users: those with the most jobs, one of whom is served last."""


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
        return at_rate(first, before, rate)
    return _nth(policy, job, first, before)


def last_starts(ready: QuerySet[Job], wait: GroupWait | None) -> list[Job]:
    """Those of a group's `ready` jobs of which one starts last: the last one, or that of each user under a limit of
    users. `wait` is the group's."""
    policy = _policy(wait) if wait is not None else None
    if policy is None or policy.scope != "user":
        return list(ready.order_by("-id")[:1])
    most = ready.order_by().values("user").annotate(last=Max("id"), count=Count("id")).order_by("-count")[:USERS]
    return list(Job.objects.filter(pk__in=[row["last"] for row in most]))


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


def _nth(policy: CompiledPolicy, job: Job, first: datetime, before: int) -> datetime | None:
    """The start of a job with `before` others of its subject ahead, the first of which starts at `first`: the limit is
    simulated as in a forecast, but with jobs that all cost as much."""
    cost = int(job.cost.get(policy.unit, 1 if policy.unit == "requests" else 0))
    key = job.user if policy.scope == "user" else ""
    project = job.project.slug if policy.project or policy.scope == "user" else ""
    limit = policy.limit_for(key, project, cost, clock.now().timestamp(), job.priority)
    if limit.limit is None or cost <= 0:
        return first
    if not limit.limit or cost > (policy.capacity(limit.limit) or 0):
        return None
    moment, capacity = first.timestamp(), capacity_of(limit.algorithm, limit.limit, limit.burst) or limit.limit
    if policy.algorithm == "token_bucket":
        counter = counter_of(limit, Use(((moment, float(capacity - cost)),)), moment)
        return first + timedelta(seconds=counter.charge(moment, (before + 1) * cost, capacity))
    jobs = limit.limit // cost  # in each window
    counter = counter_of(replace(limit, limit=jobs), NOTHING, moment)
    return first + timedelta(seconds=counter.charge(moment, before + 1, jobs))


def _through_pool(wait: GroupWait, first: datetime, left: int, rate: float, cost: Mapping[str, int]) -> datetime | None:
    config = resolve.snapshot().pools.get(wait.binding or "")
    limits = [limit for limit in config.spec.limits if limit.limit] if config is not None else []
    windows = [LENGTHS.get(limit.period, limit.window) for limit in limits]
    if config is None or (max(windows, default=0.0) <= MEASURED and first <= clock.now() + timedelta(seconds=MEASURED)):
        return at_rate(first, left, rate)
    accounts = sum(account.enabled for account in config.spec.accounts)
    rates = [
        accounts * limit.limit / cost.get(limit.unit, 1) / window
        for limit, window in zip(limits, windows, strict=True)
        if window and limit.limit and cost.get(limit.unit, 1)
    ]
    return at_rate(first, left, min(rates, default=0.0))


def at_rate(first: datetime, left: int, rate: float) -> datetime | None:
    """When `left` jobs have passed at `rate` a second, the first of them not before `first`."""
    if not left:
        return first
    return max(first, clock.now() + timedelta(seconds=left / rate)) if rate else None
