"""What a job waits for, until when, and when it will probably start."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import QuerySet

from queues import estimates, liveness, reason_codes, registry, wait_reasons
from queues.models import Batch, Job, Queue
from queues.selectors.jobs import RECENT_SPAN, rate_of
from queues.selectors.timeline import Step, timeline
from queues.selectors.wait_history import Span, seconds_by_code, spans_of, waits_in
from queues.states import FINAL, IN_FLIGHT_STAGES, Stage
from queues.wait_reasons import GroupWait
from quotas import clock
from quotas.models import Account, Pool


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a job waits for, in plain words. `estimated_start` is None if only an operator can help (a pause, an empty
    pool), or if nothing has ended lately from which to estimate."""

    status: str
    waits_for: str | None
    until: datetime | None
    ahead: int
    """Jobs before it in its group."""
    estimated_start: datetime | None
    timeline: list[Step]
    reason: str | None
    """The reason code of the present wait (`queues.reason_codes`)."""
    waits: list[Span]
    """What it has waited for until now."""
    waited: dict[str, float]
    """Seconds by reason code."""


def explain(job: Job) -> Explanation:
    wait = _wait(job)
    ahead = _ahead(job)
    spans = spans_of(job)
    waits = waits_in(spans)
    return Explanation(
        status=job.status,
        waits_for=wait.what,
        until=wait.until,
        ahead=ahead,
        estimated_start=_estimated_start(job, wait, ahead),
        timeline=timeline(job, spans),
        reason=reason_codes.of_jobs([job]).get(job.pk, (None, ""))[0],
        waits=waits,
        waited=seconds_by_code(waits),
    )


def estimated_start(job: Job) -> datetime | None:
    """When the job will probably start, as `explain` says."""
    return _estimated_start(job, _wait(job), _ahead(job))


def _ahead(job: Job) -> int:
    if job.stage != Stage.READY:
        return 0
    group = job.group._asdict()
    return Job.objects.filter(stage=Stage.READY, id__lt=job.pk, **group).count()


@dataclass(frozen=True, slots=True)
class Wait:
    """What a job waits for. `foreseen`: the wait ends with time or with other jobs."""

    what: str | None = None
    until: datetime | None = None
    foreseen: bool = False
    in_turn: bool = False
    """It needs a slot that another job occupies now."""
    group: GroupWait | None = None
    """The wait of the job's whole group."""


def _estimated_start(job: Job, wait: Wait, ahead: int) -> datetime | None:
    if job.stage == Stage.SCHEDULED:
        return wait.until
    if job.stage == Stage.BELT:
        return clock.now()
    if job.stage != Stage.READY or not wait.foreseen:
        return None
    now = clock.now()
    start = max(wait.until or now, now)
    before = ahead + wait.in_turn
    if not before:
        return start
    rate = rate_of(Job.objects.filter(queue_id=job.queue_id, project_id=job.project_id), RECENT_SPAN)
    if wait.group is not None and wait.until is not None:
        return estimates.start_of(job, wait.group, rate, ahead)
    return max(start, now + timedelta(seconds=before / rate)) if rate else None


def _wait(job: Job) -> Wait:
    match job.stage:
        case Stage.DONE | Stage.RUNNING:
            return Wait()
        case Stage.BELT:
            return Wait("a free thread of a worker", foreseen=True)
        case Stage.HELD:
            batch = Batch.objects.filter(then=job).values_list("uid", flat=True).first()
            if batch is not None:
                return Wait(f"batch {batch} to be complete")
            left = job.dependencies.exclude(after__status__in=FINAL).values_list("after__uid", flat=True)[:5]
            return Wait(f"jobs {', '.join(left)}")
        case Stage.SCHEDULED:
            return Wait(job.reason.removeprefix("waits for ") or "its time", job.not_before, foreseen=True)
    return _wait_of_ready(job)


def _wait_of_ready(job: Job) -> Wait:
    """From the rows: the configuration in memory may be older than a pause of the queue."""
    queue = Queue.objects.get(pk=job.queue_id)
    if queue.paused_at is not None:
        return Wait(f"queue {queue.name} to be resumed: {queue.paused_reason}")
    if queue.concurrency == 0:
        return Wait(f"queue {queue.name} to run anything: its concurrency is 0")
    if (missing := _missing_pool(job, queue)) is not None:
        return Wait(missing)
    limit = wait_reasons.read_group_waits([job.group]).get(job.group)
    if limit is not None:
        return Wait(limit.reason, limit.until, foreseen=limit.until is not None, group=limit)
    if queue.concurrency is not None:
        busy = Job.objects.filter(stage__in=IN_FLIGHT_STAGES, queue_id=queue.pk).count()
        if busy >= queue.concurrency:
            return Wait(f"a slot in queue {queue.name}, which runs {queue.concurrency} at once", None, True, True)
    lane = "cpu" if job.suspect else queue.lane
    alive = liveness.alive(clock.now()).filter(lane=lane)
    if not alive.exists():
        return Wait(f"a worker of the lane {lane}: none is alive")
    return Wait("its turn", foreseen=True)


def _missing_pool(job: Job, queue: Queue) -> str | None:
    """The pool that the job needs and that is missing; only a change of configuration helps then."""
    if job.pool and not Pool.objects.filter(name=job.pool).exists():
        return f"pool {job.pool}, which does not exist: create it, or cancel the job"
    if not job.pool and queue.pool_id is None and registry.needs_pool(job.type):
        return f"a pool: neither the job nor queue {queue.name} names one; give the queue a pool, or cancel the job"
    if (name := job.pool or (queue.pool.name if queue.pool else "")) and not _accounts_of(name).exists():
        return f"an account of pool {name}, which has none"
    return None


def _accounts_of(pool: str) -> QuerySet[Account]:
    return Account.objects.filter(pool__name=pool)
