"""Taking deliveries off the belt: from this commit on they are this worker's, until the lease ends."""

from __future__ import annotations

from collections.abc import Sequence

from queues import config
from queues.deliveries import Claimed
from queues.lifecycle.delivery import claim as mark_claimed
from queues.models import Job
from queues.registry import JobContext
from queues.states import IN_FLIGHT_STAGES, Stage
from queues.worker.parcel import Delivery
from quotas.snapshot import resolve
from quotas.upstream.endpoint import AccountEndpoint, endpoint


def claim(deliveries: Sequence[Delivery], worker: str) -> list[Claimed]:
    """Those of `deliveries` that are still to be run, marked as running here; stale ones are passed over."""
    return [_claimed(job) for job in mark_claimed(dict(deliveries), worker)]


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


def _way(job: Job) -> AccountEndpoint | None:
    """The account that the job was admitted on; None where it needs none, or where it was taken away meanwhile."""
    if job.account_id is None or not job.account_lease:
        return None
    try:
        return endpoint(str(job.account_id))
    except KeyError:
        resolve.clear()  # newer than what this process has read
    try:
        return endpoint(str(job.account_id))
    except KeyError:
        return None


def cancelled(worker: str) -> list[tuple[int, int]]:
    """Deliveries of this worker whose job is to be cancelled."""
    rows = Job.objects.filter(
        stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING, worker=worker, cancel_requested_at__isnull=False
    )
    return list(rows.values_list("id", "delivery"))
