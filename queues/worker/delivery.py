"""A delivery's beginning and end in a worker: claims the deliveries of a parcel, completes those that have ended.

The engine is settled first, since other jobs wait for the capacity; then SQL is written. While SQL is unavailable that is
repeated. A result that can't be written is replaced by a failure of the job's code, so that it stops neither its worker
nor the deliveries that ended with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections
from rq.job import Job as RQJob

from queues import config
from queues.broker import Delivery, deliveries_of
from queues.deliveries import Claimed, Ended
from queues.lifecycle.delivery import claim as mark_claimed
from queues.lifecycle.delivery import finish
from queues.models import Job
from queues.registry import JobContext, RunResult
from queues.settlement import settle_engine
from queues.states import IN_FLIGHT_STAGES, AttemptOutcome, Stage
from queues.task_errors import described
from quotas import events
from quotas.engine.types import CallOutcome
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


def complete(ended: Sequence[Ended], worker: str) -> None:
    """Complete `ended`, which ran in `worker`. Returns when that is done; raises nothing that one of them causes."""
    _write(_settle_engine(ended), worker)


def _settle_engine(ended: Sequence[Ended]) -> list[Ended]:
    if not any(item.claimed.job.account_lease or item.claimed.job.reservation for item in ended):
        return list(ended)  # nothing was reserved for them
    try:
        return settle_engine(ended)
    except Exception:
        if len(ended) > 1:
            return [settled for item in ended for settled in _settle_engine([item])]
        log.exception("worker.engine_unsettled", job=ended[0].claimed.job.uid)
        _settle_as_unknown(ended[0])
        return list(ended)


def _settle_as_unknown(item: Ended) -> None:
    """Charge the estimate and return what the delivery had reserved."""
    plain = replace(item.result, upstream=CallOutcome("unknown"), actual={})
    try:
        settle_engine([Ended(item.claimed, plain)])
    except Exception:  # its lease expires by itself
        log.exception("worker.engine_unsettled", job=item.claimed.job.uid)


def _write(ended: Sequence[Ended], worker: str) -> None:
    wait = 0.1
    while True:
        try:
            finish(ended, worker)
            return
        except (OperationalError, InterfaceError) as error:
            # Only now: checking before each write whether the connection works would cost a round trip each.
            close_old_connections()
            events.emit(
                events.ServiceUnavailable("worker", f"the ends of {len(ended)} deliveries", type(error).__name__)
            )
            time.sleep(wait)
            wait = min(wait * 2, 2.0)
        except Exception as error:
            if len(ended) > 1:
                for item in ended:
                    _write([item], worker)
                return
            job = ended[0].claimed.job
            log.exception("worker.unsettled", job=job.uid)
            if ended[0].result.category == "code" and ended[0].result.final:
                return  # its claim expires, and the reconciler finds it
            ended = [Ended(ended[0].claimed, _unwritable(error))]


def _unwritable(error: Exception) -> RunResult:
    text = f"How it ended can't be stored: {described(error)}"[:2000]
    return RunResult(AttemptOutcome.FAILED, category="code", error=text, final=True)
