"""Claims the deliveries of a parcel for a worker, and reads which of its claims are to be cancelled."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections
from rq.job import Job as RQJob

from queues import config
from queues.broker import Delivery, deliveries_of
from queues.deliveries import Claimed
from queues.lifecycle.delivery import claim as mark_claimed
from queues.models import Job
from queues.registry import JobContext
from queues.states import IN_FLIGHT_STAGES, Stage
from quotas import events
from quotas.snapshot import resolve
from quotas.upstream.endpoint import AccountEndpoint, endpoint

log = structlog.get_logger(__name__)


def claim_parcel(parcel: RQJob, worker: str) -> list[Claimed] | None:
    """Claim the deliveries of a parcel for this worker; None if they could not be claimed. Nothing is lost then: the
    rows stay on the belt in SQL, and the reconciler releases them again. Raises nothing, so that no parcel stops a
    worker.
    """
    try:
        wanted = deliveries_of(parcel)
    except Exception as error:  # noqa: BLE001 - not written by our dispatcher, or damaged
        log.error("worker.parcel_unreadable", parcel=parcel.id, error=type(error).__name__)
        return []
    try:
        return claim(wanted, worker)
    except (DatabaseError, InterfaceError) as error:
        events.emit(events.ServiceUnavailable("worker", "claiming deliveries", type(error).__name__))
    except Exception:
        log.exception("worker.claim_failed", deliveries=len(wanted))
    close_old_connections()
    return None


def claim(deliveries: Sequence[Delivery], worker: str) -> list[Claimed]:
    """Mark `deliveries` as running here, except stale ones. Returns those that were claimed."""
    return [_claimed(job) for job in mark_claimed(dict(deliveries), worker)]


def _claimed(job: Job) -> Claimed:
    cfg = config.current()
    if job.queue_id not in cfg.queues or job.project_id not in cfg.projects:
        config.snapshot.expire()  # newer than what this process has read
        cfg = config.current()
    queue, project = cfg.queues[job.queue_id], cfg.projects[job.project_id]
    account_endpoint = _endpoint(job)
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
        lease=account_endpoint,
    )
    return Claimed(job, context, account_endpoint, job.id, job.delivery)


def _endpoint(job: Job) -> AccountEndpoint | None:
    """The account that the job was admitted on; None if it needs none, or if the account was removed meanwhile."""
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


def cancel_requests(worker: str) -> list[tuple[int, int]]:
    """Deliveries of this worker whose job is to be cancelled."""
    rows = Job.objects.filter(
        stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING, worker=worker, cancel_requested_at__isnull=False
    )
    return list(rows.values_list("id", "delivery"))
