"""Forecasts: of jobs that wait, of jobs that have not been submitted, of limits and of pools. Nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from queues import config
from queues.errors import FieldError, InvalidJob
from queues.lifecycle.sql import slices
from queues.models import Batch, Job
from queues.selectors.counter_uses import counter_key
from queues.selectors.exhaustion import PoolStanding
from queues.selectors.forecast import Bound, Forecast, Planned, jobs_forecast
from queues.selectors.targets import LimitTarget, Target, covers
from queues.selectors.what_if import NO_CHANGE, Change
from queues.services import draft
from queues.services.links import SLICE
from queues.specs import JobSpec
from queues.states import Stage
from queues.transactions import in_turns
from quotas import clock
from quotas.models import Project
from quotas.services import exhaustion
from quotas.services.exhaustion import Exhaustion
from quotas.snapshot import resolve
from quotas.snapshot.policies import PARTITIONED, CompiledPolicy

LAST = datetime(9000, 1, 1, tzinfo=UTC).timestamp()


def renew() -> None:
    """Compare the configuration in memory with SQL: a pause counts at once."""
    config.snapshot.expire()
    resolve.expire()


def of_jobs(target: Target, project: Project | None, what_if: Change = NO_CHANGE) -> Forecast:
    """Of a queue, a batch or a job; `project`: only of its jobs. Raises `LimiterUnavailable`."""
    special = target if isinstance(target, Batch | Job) else None
    found = jobs_forecast(covers(target, project), what_if, special=special)
    if isinstance(target, Job) and target.stage == Stage.RUNNING:
        return replace(found, starts_at=target.started_at)
    if found.jobs or not isinstance(target, Batch | Job) or target.finished_at is None:
        return found
    ended = target.finished_at
    started = target.first_started_at if isinstance(target, Job) else None
    return replace(found, done_at=ended, earliest=ended, latest=ended, starts_at=started)


def of_planned(
    jobs: Sequence[tuple[Project, JobSpec]], what_if: Change = NO_CHANGE, *, pointer: str = "/jobs"
) -> Forecast:
    """Of jobs that have not been submitted, as if they were submitted now. Raises `InvalidJob`, `LimiterUnavailable`."""
    now = clock.now()
    errors: list[FieldError] = []
    planned: list[Planned] = []
    awaited = _awaited(jobs)
    for position, (project, spec) in enumerate(in_turns(jobs)):
        try:
            planned.append(_planned(project, spec, awaited, f"{pointer}/{position}", now))
        except InvalidJob as error:
            errors += error.errors
    if errors:
        raise InvalidJob(errors)
    uids = {one.job.uid for one in planned}
    return jobs_forecast(lambda row, kind: row.uid in uids, what_if, more=planned)


Awaited = dict[tuple[int, str], tuple[int, int]]
"""By project and id of a job that others come after: its key in SQL and its stage."""


def _awaited(jobs: Sequence[tuple[Project, JobSpec]]) -> Awaited:
    uids = sorted({uid for _, spec in jobs for uid in spec.after})
    found: Awaited = {}
    for some in slices(uids, SLICE):
        rows = Job.objects.filter(uid__in=some).values_list("project_id", "uid", "pk", "stage")
        found.update(((project, uid), (pk, stage)) for project, uid, pk, stage in rows)
    return found


def _planned(project: Project, spec: JobSpec, awaited: Awaited, pointer: str, now: datetime) -> Planned:
    made = draft.draft_of(project, replace(spec, idempotency_key=None, unique_for=None, unique_key=None), pointer, now)
    found = [awaited.get((project.pk, uid)) for uid in spec.after]
    unknown = [
        FieldError(f"{pointer}/after/{place}", "There is no such job in this project.")
        for place, one in enumerate(found)
        if one is None
    ]
    if unknown:
        raise InvalidJob(unknown)
    return Planned(made.job, tuple(one[0] for one in found if one is not None and one[1] != Stage.DONE))


def of_limit(
    policy: CompiledPolicy, subject: str, partition: str, project: Project | None, what_if: Change = NO_CHANGE
) -> Forecast:
    """Of one subject's counter of a policy: when it is used up, and when the jobs that it limits are done."""
    now = clock.now()
    limit = policy.limit_for(subject, partition, 1, now.timestamp())
    target = LimitTarget(policy.name, subject, partition, counter_key(limit))
    found = jobs_forecast(covers(target, project), what_if)

    def changed(change: Change) -> Exhaustion:
        if policy.name not in change.limits:
            return exhaustion.of_policy(policy, subject, partition, now)
        tried = replace(policy, limit=change.limits[policy.name])
        return exhaustion.of_policy(tried, subject, partition, now, recorded=policy)

    return _with_exhaustion(found, changed, Bound("policy", policy.name, 1.0), now)


def of_pool(pool: str, project: Project | None, what_if: Change = NO_CHANGE) -> Forecast:
    """Of a pool: when its accounts are used up, and when the jobs that wait for it are done."""
    now = clock.now()
    found = jobs_forecast(covers(pool, project), what_if)
    standing = PoolStanding(pool, now)
    paused = resolve.pool_spec(pool).paused
    return _with_exhaustion(found, standing.exhaustion, Bound("paused" if paused else "pool", pool, 1.0), now)


def _with_exhaustion(
    found: Forecast, exhausted: Callable[[Change], Exhaustion], bound: Bound, now: datetime
) -> Forecast:
    """The forecast of the jobs with that of their quota. It `starts_at` the time at which the quota is available: now, or
    again after it is used up."""
    present = exhausted(NO_CHANGE)
    used_up = present.at is not None and present.at <= now.timestamp()
    return replace(
        found,
        starts_at=_moment(present.again_at),
        exhausted_at=_moment(present.at),
        binding=found.binding or ([bound] if used_up else []),
        what_if=[replace(one, exhausted_at=_moment(exhausted(one.change).at)) for one in found.what_if],
    )


def _moment(time: float | None) -> datetime | None:
    """None also for a time that no calendar has."""
    return None if time is None or time > LAST else datetime.fromtimestamp(time, UTC)


def partition_of(policy: CompiledPolicy, subject: str, project: str | None) -> str | None:
    """The slug by which the counters of the policy's subject are kept apart, empty where they are not; None if it is not
    known which project's counter is meant."""
    if policy.scope not in PARTITIONED:
        return ""
    return project or policy.project or (subject if policy.scope == "project" else "") or None
