"""Taking deliveries off the belt: from this commit on they are this worker's, until the lease ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction

from queues import config
from queues.announcement import announce
from queues.models import Job
from queues.registry import JobContext
from queues.rows import locked_jobs
from queues.states import IN_FLIGHT_STAGES, Stage, Status
from queues.worker.parcel import Delivery
from quotas import clock
from quotas.snapshot import resolve
from quotas.upstream.endpoint import Endpoint, endpoint

LEASE = timedelta(seconds=15)
"""How long a claim holds without a heartbeat; a third of it passes between two."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """One delivery in hand: the row as it was claimed, and what its run needs."""

    job: Job
    context: JobContext
    endpoint: Endpoint | None

    @property
    def id(self) -> int:
        return self.job.pk

    @property
    def delivery(self) -> int:
        return self.job.delivery


def claim(deliveries: Sequence[Delivery], worker: str) -> list[Claimed]:
    """Those of `deliveries` that are still to be run, marked as running here; stale ones are passed over."""
    wanted = dict(deliveries)
    with transaction.atomic():
        jobs = [job for job in locked_jobs(wanted, Stage.BELT) if job.delivery == wanted[job.pk]]
        now = clock.now()
        for job in jobs:
            job.attempts_made += 1
            job.started_at = now
            job.worker = worker
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE queues_job SET stage=%s, status=%s, worker=%s, lease_until=%s, started_at=%s,"
                " first_started_at=COALESCE(first_started_at, %s), attempts_made=%s, reason='' WHERE id=%s",
                [
                    (Stage.RUNNING, Status.EXECUTING, worker, now + LEASE, now, now, job.attempts_made, job.pk)
                    for job in jobs
                ],
            )
        announce(jobs, Status.EXECUTING, "")
    return [_claimed(job) for job in jobs]


def _claimed(job: Job) -> Claimed:
    cfg = config.current()
    if job.queue_id not in cfg.queues or job.project_id not in cfg.projects:
        config.snapshot.expire()  # newer than what this process has read
        cfg = config.current()
    queue, project = cfg.queues[job.queue_id], cfg.projects[job.project_id]
    way = _way(job)
    context = JobContext(
        id=job.uid,
        project=project.slug,
        queue=queue.name,
        user=job.user,
        keys=job.keys,
        attempt=job.attempts_made,
        max_attempts=job.max_attempts,
        timeout=job.timeout or queue.timeout,
        idempotency_key=f"{job.uid}-r{job.edits}" if job.edits else job.uid,
        lease=way,
    )
    return Claimed(job, context, way)


def _way(job: Job) -> Endpoint | None:
    """The account that the job was admitted on; None where it needs none, or where it was taken away meanwhile."""
    if job.account_id is None or not job.account_lease:
        return None
    try:
        return endpoint(str(job.account_id))
    except KeyError:
        resolve.forget()  # newer than what this process has read
    try:
        return endpoint(str(job.account_id))
    except KeyError:
        return None


def renew(worker: str, ids: Collection[int], now: datetime) -> int:
    """Hold on to the jobs `ids`, which run here; returns how many are this worker's.

    Not to all that SQL says is here: where the answer to a claim's commit was lost, nobody runs it.
    """
    return Job.objects.filter(id__in=ids, stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING, worker=worker).update(
        lease_until=now + LEASE
    )


def cancelled(worker: str) -> list[tuple[int, int]]:
    """Deliveries of this worker whose job is to be cancelled."""
    rows = Job.objects.filter(
        stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING, worker=worker, cancel_requested_at__isnull=False
    )
    return list(rows.values_list("id", "delivery"))
