"""Finds jobs and queues that use a pool, a queue or a project, before it is removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.db.models import Q, QuerySet

from queues import registry
from queues.models import Batch, IntakePart, Job, Queue, Recurring
from queues.selectors import job_counts
from queues.services import cancel, removal
from queues.states import IN_FLIGHT_STAGES, LIVE_STAGES, Stage
from quotas.models import Policy, Pool, Project
from quotas.services import in_use
from quotas.services.in_use import Use

COUNTED = 10_000
"""Ended jobs that are counted exactly: the pages of queues and projects show them."""


def connect() -> None:
    """Have these uses found by all who remove."""
    in_use.register(Pool, _pool)
    in_use.register(Queue, _queue)
    in_use.register(Project, _project)


def waiting_for_queues_pool(queue: Queue) -> Iterable[Use]:
    """Jobs that name no pool of their own and were accepted while the queue had one."""
    yield from _unfinished(Job.objects.filter(queue=queue, pool=""))


def _pool(row: Pool) -> Iterator[Use]:
    if any(row.name in pools for pools in IntakePart.objects.values_list("pools", flat=True)):
        yield Use("jobs of a bulk that is being accepted; try again in a moment")
    queues = list(Queue.objects.filter(pool=row).values_list("pk", flat=True))
    yield from _unfinished(Job.objects.filter(Q(pool=row.name) | Q(pool="", queue__in=queues)), by_name=True)
    for recurring in Recurring.objects.all():
        if pool_of(recurring) == row.name:
            yield Use(f"recurring job {recurring.name} goes through it", named=True)


def pool_of(recurring: Recurring) -> str | None:
    """The pool that a recurring job's payload or type names."""
    job_type = registry.get(recurring.type)
    return job_type.pool(recurring.payload) if job_type is not None else None


def _queue(row: Queue) -> Iterator[Use]:
    if any(str(row.pk) in queues for queues in IntakePart.objects.values_list("queues", flat=True)):
        yield Use("jobs of a bulk that is being accepted; try again in a moment")
    for name in Policy.objects.filter(scope="queue", match=row.name).values_list("name", flat=True):
        yield Use(f"policy {name} is for it", named=True)
    yield from _kept(Job.objects.filter(queue=row))


def _project(row: Project) -> Iterator[Use]:
    if IntakePart.objects.filter(project=row).exists():
        yield Use("jobs of a bulk that is being accepted; try again in a moment")
    yield from _kept(Job.objects.filter(project=row))
    batches = Batch.objects.filter(project=row)
    if batches.exists():
        yield Use(_count(batches.count(), "batch", "batches"), lambda actor, reason: batches.delete(), "deletes them")


def _kept(jobs: QuerySet[Job]) -> Iterator[Use]:
    """Uses by jobs whose rows refer to what is to be removed, so that these have to go, too."""
    running = jobs.filter(stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING).count()
    if running:
        yield Use(f"{_count(running, 'job', 'jobs')} running; cancel them or let them end")
    yield from _unfinished(jobs.exclude(stage=Stage.RUNNING))
    ended = jobs.filter(stage=Stage.DONE)[: COUNTED + 1].count()
    if ended or _live(jobs):
        number = f"more than {COUNTED:,} ended jobs" if ended > COUNTED else _count(ended, "ended job", "ended jobs")
        what = f"{number} that retention keeps" if ended else ""
        yield Use(what, lambda actor, reason: removal.remove_all(jobs), "deletes them with their dead letters")


def _unfinished(jobs: QuerySet[Job], *, by_name: bool = False) -> Iterator[Use]:
    count = _live(jobs)
    if count:
        live = jobs.filter(stage__in=LIVE_STAGES)
        yield Use(
            _count(count, "unfinished job", "unfinished jobs"),
            lambda actor, reason: cancel.cancel_all(live, actor=actor, reason=reason),
            "cancels them",
            by_name=by_name,
        )


def _live(jobs: QuerySet[Job]) -> int:
    """Unfinished jobs, counted as the partial indexes have them: otherwise all ended jobs are read, too."""
    later = job_counts.waiting(jobs).filter(stage__in=(Stage.HELD, Stage.SCHEDULED))
    ready, in_flight = jobs.filter(stage=Stage.READY), jobs.filter(stage__in=IN_FLIGHT_STAGES)
    return ready.count() + later.count() + in_flight.count()


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
