"""Claiming a parcel that came off the belt; what can't be claimed stops no worker."""

from __future__ import annotations

import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections
from rq.job import Job as RQJob

from queues.deliveries import Claimed
from queues.worker.claim import claim
from queues.worker.parcel import deliveries

log = structlog.get_logger(__name__)


def take_over(parcel: RQJob, worker: str) -> list[Claimed] | None:
    """The deliveries of a parcel that are this worker's from now on; None where they could not be claimed.

    Then nothing is lost: the rows stay on the belt in SQL, and the reconciler releases them anew.
    """
    try:
        wanted = deliveries(parcel)
    except Exception as error:  # not written by our dispatcher, or damaged
        log.error("worker.parcel_unreadable", parcel=parcel.id, error=type(error).__name__)
        return []
    try:
        return claim(wanted, worker)
    except (DatabaseError, InterfaceError) as error:
        log.warning("worker.claim_failed", error=type(error).__name__)
    except Exception:
        log.exception("worker.claim_failed", deliveries=len(wanted))
    close_old_connections()
    return None
