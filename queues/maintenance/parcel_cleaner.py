"""Removes what dead workers leave in Redis: parcels that they took, and their names in RQ's registries.

No job is lost with these, since every delivery is in SQL.
"""

from __future__ import annotations

from datetime import datetime

from rq.job import Job as RQJob
from rq.worker_registration import clean_worker_registry

from queues.broker import belt
from queues.connection import client
from queues.models import Job
from queues.states import IN_FLIGHT_STAGES, Stage
from quotas import events

LANES = ("io", "cpu")
SLICE = 500
"""Parcels checked at a time."""


def sweep(now: datetime) -> int:
    """Remove taken parcels that no released job names any more; returns how many.

    A parcel that a live worker took a moment ago is still named: its jobs are released until it has claimed them.
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
        events.emit(events.ParcelsRemoved(gone))
    return gone
