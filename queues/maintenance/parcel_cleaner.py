"""What dead workers leave on Redis: parcels that they took and never put away, and their names in RQ's registers.

Nothing is lost with them, since SQL knows every delivery; but nobody else would ever take them off.
"""

from __future__ import annotations

from datetime import datetime

import structlog
from rq.job import Job as RQJob
from rq.worker_registration import clean_worker_registry

from queues.broker import belt
from queues.connection import client
from queues.models import Job
from queues.states import IN_FLIGHT_STAGES, Stage

log = structlog.get_logger(__name__)

LANES = ("io", "cpu")
SLICE = 500
"""Parcels looked at in one go."""


def sweep(now: datetime) -> int:
    """Take off taken parcels that no released job names any more; returns how many.

    What a living worker took a moment ago is still named: its jobs count as released until it has claimed them.
    """
    gone = 0
    for lane in LANES:
        queue = belt(lane)
        clean_worker_registry(queue)
        taken = [raw.decode() for raw in client().lrange(queue.intermediate_queue_key, 0, SLICE - 1)]  # type: ignore[union-attr]
        if not taken:
            continue
        named = set(
            Job.objects.filter(stage__in=IN_FLIGHT_STAGES, stage=Stage.BELT, parcel__in=taken).values_list(
                "parcel", flat=True
            )
        )
        stale = [parcel for parcel in taken if parcel not in named]
        with client().pipeline(transaction=False) as pipeline:
            for parcel in stale:
                pipeline.lrem(queue.intermediate_queue_key, 1, parcel)
                pipeline.delete(RQJob.key_for(parcel))
            pipeline.execute()
        gone += len(stale)
    if gone:
        log.info("sweeper.parcels", count=gone)
    return gone
