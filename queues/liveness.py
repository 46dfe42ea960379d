"""The rule for whether a worker is alive, used by REST, admin, metrics, readiness, doctor and the dispatcher."""

from __future__ import annotations

from datetime import datetime

from django.db import connection
from django.db.models import QuerySet

from queues.lifecycle.sql import written
from queues.models import WorkerProcess
from queues.states import CLAIM_EXPIRY

LOST_AFTER = CLAIM_EXPIRY
"""A worker that has not sent a heartbeat for so long is lost, as its claims have expired by then."""


def is_alive(worker: WorkerProcess, now: datetime) -> bool:
    """Whether a worker that has not stopped sent its last heartbeat in time."""
    return worker.stopped_at is None and worker.seen_at > now - LOST_AFTER


ALIVE = '"stopped_at" IS NULL AND "seen_at" > %s'
"""The same in SQL, with the value of `oldest_beat`."""


def oldest_beat(now: datetime) -> datetime | str:
    """The time after which the last heartbeat of a worker that is alive was sent, as a statement takes it."""
    moment = now - LOST_AFTER
    return moment if connection.vendor == "postgresql" else written(moment)


def alive(now: datetime) -> QuerySet[WorkerProcess]:
    """The workers that are alive."""
    return WorkerProcess.objects.filter(stopped_at=None, seen_at__gt=now - LOST_AFTER)
