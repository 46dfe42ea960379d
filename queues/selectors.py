"""Reading: jobs, batches, queues, dead letters, statistics. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Count, Max, Min, QuerySet

from queues import accepted_parts, config, estimates, liveness, registry
from queues import wait_reasons as waits
from queues.models import Attempt, Batch, DeadLetter, Job, Queue, Transition
from queues.selectors_ready import ready_since
from queues.states import FINAL, IN_FLIGHT_STAGES, WAITING_STAGES, Stage, Status
from quotas import clock
from quotas.engine.priorities import band
from quotas.models import Account, Pool, Project

RATE_SPAN = timedelta(seconds=60)
STORY_SPAN = timedelta(minutes=5)
STORY_LENGTH = 1000


def timeline(job: Job) -> list[dict[str, Any]]:
    """Every step of a job's life, oldest first: `{"at", "state", "reason"}`."""
    steps: list[tuple[datetime, int, str, str]] = [(job.created_at, 0, Status.PENDING, "accepted")]
    for step in Transition.objects.filter(job=job):
        steps.append((step.at, 2, step.state, step.reason))
    # The last death is in the job's own row; those before a replay are in their dead letters.
    deaths = DeadLetter.objects.filter(job=job).order_by("pk").values_list("created_at", "category", "error")
    for at, category, error in list(deaths)[: -1 if job.status == Status.DEAD else None]:
        steps.append((at, 3, Status.DEAD, f"{category}: {error}"[:500]))
    released = [attempt.dispatched_at for attempt in Attempt.objects.filter(job=job) if attempt.dispatched_at]
    if job.stage in IN_FLIGHT_STAGES and job.dispatched_at is not None:
        released.append(job.dispatched_at)
    waits_ended = dict(_ended_waits(steps, released))
    for attempt in Attempt.objects.filter(job=job):
        if attempt.started_at is not None:
            where = f" on account {attempt.account}" if attempt.account else ""
            after = _after(waits_ended, attempt.dispatched_at)
            steps.append((attempt.started_at, 1, Status.EXECUTING, f"attempt {attempt.number}{where}{after}"[:500]))
        if attempt.outcome in ("failed", "lost"):
            steps.append(
                (
                    attempt.ended_at,
                    1,
                    "failed",
                    f"attempt {attempt.number}: {attempt.category or attempt.outcome}: {attempt.error}"[:500],
                )
            )
    if job.stage == Stage.RUNNING and job.started_at is not None:
        after = _after(waits_ended, job.dispatched_at)
        steps.append((job.started_at, 1, Status.EXECUTING, f"attempt {job.attempts_made}{after}"[:500]))
    if job.status in (Status.COMPLETED, Status.DEAD) and job.finished_at is not None:
        steps.append((job.finished_at, 3, job.status, job.reason))
    return [
        {"at": at, "state": str(state), "reason": reason}
        for at, _, state, reason in sorted(steps, key=lambda step: step[:2])
    ]


def _after(waits_ended: Mapping[datetime, str], released: datetime | None) -> str:
    """What the step of a start says of the wait before it."""
    text = waits_ended.get(released) if released is not None else None
    return f"; {text}" if text else ""


NOTABLE = timedelta(seconds=1)
"""Shorter waits are not shown on a timeline."""


def _ended_waits(
    steps: list[tuple[datetime, int, str, str]], released: list[datetime]
) -> Iterator[tuple[datetime, str]]:
    """For each release to a worker how long the job had been queued, and what last held it where that was recorded."""
    for at in sorted(released):
        before = [step for step in steps if step[0] <= at]
        if not before:
            continue
        last = max(before, key=lambda step: step[:2])
        entries = [step for step in before if step[2] != Status.RATE_LIMITED]
        begun = max(entries, key=lambda step: step[:2])[0] if entries else last[0]
        if at - begun < NOTABLE:
            continue
        held = f"; last held by {last[3]}" if last[2] == Status.RATE_LIMITED else ""
        yield at, f"released after {_span(at - begun)} in the queue{held}"


def _span(time: timedelta) -> str:
    """`7 s`, `18 min 23 s`, `2 h 5 min`."""
    seconds = round(time.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def explain(job: Job) -> dict[str, Any]:
    """What a job waits for, until when, in plain words: `waits_for`, `until`, `ahead`, `estimated_start`, `timeline`.

    `estimated_start` is None where only somebody's doing helps (a pause, an empty pool), or where nothing has ended
    lately to reckon with.
    """
    wait = _wait(job)
    ahead = 0
    if job.stage == Stage.READY:
        ahead = Job.objects.filter(
            stage=Stage.READY,
            queue_id=job.queue_id,
            priority=job.priority,
            project_id=job.project_id,
            pool=job.pool,
            id__lt=job.pk,
        ).count()
    return {
        "status": job.status,
        "waits_for": wait.what,
        "until": wait.until,
        "ahead": ahead,
        "estimated_start": _estimated_start(job, wait, ahead),
        "timeline": timeline(job),
    }


@dataclass(frozen=True, slots=True)
class Wait:
    """What holds a job back. `foreseen`: it passes with time or with other jobs' ends."""

    what: str | None = None
    until: datetime | None = None
    foreseen: bool = False
    in_turn: bool = False
    """It needs a slot that another job occupies now."""
    group: dict[str, object] | None = None
    """What holds the job's whole group (`queues.wait_reasons`)."""


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
    rate = rate_of(Job.objects.filter(queue_id=job.queue_id, project_id=job.project_id), STORY_SPAN)
    if wait.group is not None:
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
    return _wait_in_line(job)


def _wait_in_line(job: Job) -> Wait:
    """From the rows themselves: what a process remembers of a queue may be older than its pause."""
    queue = Queue.objects.get(pk=job.queue_id)
    if queue.paused_at is not None:
        return Wait(f"queue {queue.name} to be resumed: {queue.paused_reason}")
    if queue.concurrency == 0:
        return Wait(f"queue {queue.name} to run anything: its concurrency is 0")
    if (missing := _missing_pool(job, queue)) is not None:
        return Wait(missing)
    for told in waits.read_group_waits([(job.queue_id, job.priority, job.project_id, job.pool)]):
        until = told["until"]
        if not isinstance(until, float):
            return Wait(str(told["reason"]))
        return Wait(str(told["reason"]), datetime.fromtimestamp(until, tz=UTC), foreseen=True, group=told)
    if queue.concurrency is not None:
        busy = Job.objects.filter(stage__in=IN_FLIGHT_STAGES, queue_id=queue.pk).count()
        if busy >= queue.concurrency:
            return Wait(f"a place in queue {queue.name}, which runs {queue.concurrency} at once", None, True, True)
    lane = "cpu" if job.suspect else queue.lane
    alive = liveness.alive(clock.now()).filter(lane=lane)
    if not alive.exists():
        return Wait(f"a worker of the lane {lane}: none is alive")
    return Wait("its turn", foreseen=True)


def _missing_pool(job: Job, queue: Queue) -> str | None:
    """Which pool is not there that the job needs; only a change of configuration helps then."""
    if job.pool and not Pool.objects.filter(name=job.pool).exists():
        return f"pool {job.pool}, which does not exist: create it, or cancel the job"
    if not job.pool and queue.pool_id is None and registry.needs_pool(job.type):
        return f"a pool: neither the job nor queue {queue.name} names one; give the queue a pool, or cancel the job"
    if (name := job.pool or (queue.pool.name if queue.pool else "")) and not _accounts_of(name).exists():
        return f"an account of pool {name}, which has none"
    return None


def _accounts_of(pool: str) -> QuerySet[Account]:
    return Account.objects.filter(pool__name=pool)


def rate_of(rows: QuerySet[Job], within: timedelta = RATE_SPAN) -> float:
    """Jobs of `rows` that ended within that time, per second, since the first of them."""
    now = clock.now()
    ended = rows.filter(stage=Stage.DONE, finished_at__gt=now - within)
    found = ended.aggregate(count=Count("id"), first=Min("finished_at"))
    if not found["count"]:
        return 0.0
    span = max((now - found["first"]) / timedelta(seconds=1), 1.0)
    return found["count"] / span


def batch_facts(batch: Batch) -> dict[str, Any]:
    """`total`, `totals` by status, `rate` per second, `binding` (what holds it back now), `eta`: when the last job ends
    by the binding limit's own rate and windows, None where that is unknown."""
    counted = dict(batch.jobs.order_by().values_list("status").annotate(count=Count("id")))
    totals = {status: counted.get(status, 0) + batch.pruned.get(status, 0) for status in Status.values}
    totals[Status.PENDING] += accepted_parts.waiting_of(batch)
    left = sum(count for status, count in totals.items() if status not in FINAL)
    rate = rate_of(Job.objects.filter(batch=batch)) if left else 0.0
    binding, eta = None, None
    if left:
        groups = list(
            Job.objects.filter(batch=batch, stage=Stage.READY)
            .order_by()
            .values_list("queue_id", "priority", "project_id", "pool")
            .distinct()[:10]
        )
        told = waits.read_group_waits(groups)
        binding = str(told[0]["reason"]) if told else None
        if binding is None and groups:
            paused = Queue.objects.filter(pk__in=[group[0] for group in groups], paused_at__isnull=False).first()
            binding = f"queue {paused.name} is paused" if paused is not None else None
        if binding is None or told:
            pace = rate_of(Job.objects.filter(batch=batch), STORY_SPAN)
            eta = estimates.end_of(Job.objects.filter(batch=batch), left, told, pace)
    return {
        "total": sum(totals.values()),
        "totals": totals,
        "rate": round(rate, 3),
        "eta": eta,
        "binding": binding,
    }


def depths(project: Project | None = None) -> dict[str, dict[str, int]]:
    """Waiting jobs by queue and priority band (`high`, `normal`, `low`), with `retry` and `in_flight`."""
    names = {spec.id: spec.name for spec in config.current().queues.values()}
    found = {name: {"high": 0, "normal": 0, "low": 0, "retry": 0, "in_flight": 0} for name in sorted(names.values())}
    waiting = Job.objects.filter(stage__in=WAITING_STAGES)
    flying = Job.objects.filter(stage__in=IN_FLIGHT_STAGES)
    if project is not None:
        waiting, flying = waiting.filter(project=project), flying.filter(project=project)
    for queue_id, priority, status, count in (
        waiting.order_by().values_list("queue_id", "priority", "status").annotate(count=Count("id"))
    ):
        row = found[names[queue_id]]
        row[band(priority)] += count
        if status == Status.RETRYING:
            row["retry"] += count
    for queue_id, count in flying.order_by().values_list("queue_id").annotate(count=Count("id")):
        found[names[queue_id]]["in_flight"] += count
    return found


def queue_facts(queue: Queue, project: Project | None = None) -> dict[str, Any]:
    """Depth by priority, jobs in flight, seconds since the oldest ready job became ready (`oldest_age`), rates in and
    out per second over a minute."""
    now = clock.now()
    jobs = Job.objects.filter(queue=queue)
    if project is not None:
        jobs = jobs.filter(project=project)
    waiting = jobs.filter(stage__in=WAITING_STAGES)
    by_priority = {"high": 0, "normal": 0, "low": 0}
    for priority, count in waiting.order_by().values_list("priority").annotate(count=Count("id")):
        by_priority[band(priority)] += count
    oldest = ready_since(jobs).get(queue.pk)
    recent = created_after(jobs, now - RATE_SPAN).count()
    return {
        "waiting": sum(by_priority.values()),
        "by_priority": by_priority,
        "in_flight": jobs.filter(stage__in=IN_FLIGHT_STAGES).count(),
        "oldest_age": (now - oldest) / timedelta(seconds=1) if oldest else None,
        "rate_in": round(recent / RATE_SPAN.total_seconds(), 3),
        "rate_out": round(rate_of(jobs), 3),
        **how_it_went(jobs, now),
        "dead_letters": DeadLetter.objects.filter(
            queue=queue, handled_at=None, **({"project": project} if project else {})
        ).count(),
    }


def how_it_went(jobs: QuerySet[Job], now: datetime) -> dict[str, Any]:
    """Of the last of `jobs` that ended within `STORY_SPAN`: seconds of waiting and running (`p50`, `p95`), and the
    shares that completed and that died. None where there are none."""
    ended = jobs.filter(stage=Stage.DONE, finished_at__gt=now - STORY_SPAN).order_by("-finished_at")
    rows = list(
        ended.values_list("status", "created_at", "first_started_at", "started_at", "finished_at")[:STORY_LENGTH]
    )
    waits = [max((first - made).total_seconds(), 0.0) for _, made, first, _, _ in rows if first]
    runs = [max((end - begun).total_seconds(), 0.0) for _, _, _, begun, end in rows if begun and end]
    decided = [status for status, *_ in rows if status != Status.CANCELLED]
    completed = sum(status == Status.COMPLETED for status in decided)
    return {
        "wait": _spread(waits),
        "run": _spread(runs),
        "success_rate": round(completed / len(decided), 4) if decided else None,
        "failure_rate": round(1 - completed / len(decided), 4) if decided else None,
    }


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    values.sort()
    return {f"p{share}": round(values[min(len(values) * share // 100, len(values) - 1)], 3) for share in (50, 95)}


OUT_OF_ORDER = timedelta(minutes=2)
"""By so much a job with a lower id may at most be the younger one: what is accepted together has the time of its beginning."""


def created_after(rows: QuerySet[Job], moment: datetime) -> QuerySet[Job]:
    """Those of `rows` that were accepted behind `moment`, without reading all that are older."""
    return rows.filter(created_at__gt=moment, id__gt=_id_floor(moment - OUT_OF_ORDER))


def _id_floor(edge: datetime) -> int:
    """An id below those since `edge`, found in a few steps over the primary key: the table has no index by time."""
    newest = Job.objects.order_by("-id").values_list("id", flat=True).first() or 0
    step = 1024
    floor = newest
    while floor > 0:
        floor = max(newest - step, 0)
        at = Job.objects.filter(id__lte=floor).order_by("-id").values_list("created_at", flat=True).first()
        if at is None or at < edge:
            break
        step *= 2
    return floor


def job_counts(project: Project | None = None) -> dict[str, int]:
    """Jobs by status, over all that is kept."""
    rows = Job.objects.all() if project is None else Job.objects.filter(project=project)
    counted = dict(rows.order_by().values_list("status").annotate(count=Count("id")))
    return {status: counted.get(status, 0) for status in Status.values}


def open_letters(project: Project | None = None) -> int:
    """Dead letters that nobody has handled."""
    rows = DeadLetter.objects.filter(handled_at=None)
    return (rows if project is None else rows.filter(project=project)).count()


def traceback_of(letter: DeadLetter) -> str | None:
    """The traceback of the last attempt before the letter that left one."""
    told = Attempt.objects.filter(job=letter.job_id, ended_at__lte=letter.created_at).exclude(traceback="")
    return told.order_by("-number").values_list("traceback", flat=True).first()


def letter_groups(rows: QuerySet[DeadLetter], *, below: int | None = None, count: int = 500) -> list[dict[str, Any]]:
    """Letters that failed alike: count, first and last time, an example. In the order of their first letters, whose
    ids are `first`, newest first and `below` that one only."""
    grouped = (
        rows.order_by()
        .values("fingerprint", "category", "severity", "type")
        .annotate(
            count=Count("id"), first_at=Min("created_at"), last_at=Max("created_at"), first=Min("id"), example=Max("id")
        )
    )  # fmt: skip
    if below is not None:
        grouped = grouped.filter(first__lt=below)
    grouped = grouped.order_by("-first")[:count]
    examples = {row.pk: row for row in DeadLetter.objects.filter(pk__in=[group["example"] for group in grouped])}
    return [
        {**group, "error": examples[group["example"]].error, "example": examples[group["example"]].uid}
        for group in grouped
    ]
