"""Finding what was released or started and is held by nobody: the belt forgot it, or its worker is gone.

Two kinds of orphans. On the belt: SQL says released, but no RQ queue holds its parcel (Redis lost its memory, a worker
died between taking and claiming, the dispatcher died between commit and enqueue). Running: its lease ran out. Both go
back to the front of their lane under a new delivery number, so that whoever still has the old one can settle nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from queues.broker import belt
from queues.connection import client, key
from queues.lifecycle.delivery import release_again
from queues.lifecycle.loss import lose
from queues.models import Job
from queues.states import CLAIM_EXPIRY, IN_FLIGHT_STAGES, WORKER_LANES, GroupKey, Stage
from quotas import clock

log = structlog.get_logger(__name__)

BELT_PATIENCE = timedelta(seconds=3)
"""A parcel may be on its way to the belt for so long."""


def _held() -> set[str]:
    """The parcels that are on the belts."""
    held: set[str] = set()
    for lane in WORKER_LANES:
        held.update(raw.decode() for raw in client().lrange(belt(lane).key, 0, -1))  # type: ignore[union-attr]
    return held


class Reconciler:
    """Remembers what was missing at the last look: an orphan is what is missing twice in a row."""

    def __init__(self) -> None:
        self._missing: set[tuple[int, int]] = set()
        self._last: datetime | None = None
        self._watching_since: datetime | None = None

    def run(self, now: datetime) -> None:
        # After a time without SQL nobody could renew: everyone gets a whole lease again before being given up.
        if self._last is None or now - self._last > timedelta(seconds=10):
            self._watching_since = now
        self._last = now
        self._belt(now)
        if self._watching_since is not None and now - self._watching_since >= CLAIM_EXPIRY:
            self._running(now)

    def after_loss(self) -> set[GroupKey]:
        """Where Redis has lost its memory, release anew at once all that it held: before anything newer, so that
        starts go on following submits. A mark that is gone tells it. Returns the groups into which something came."""
        if client().exists(key("belt")):
            return set()
        held = _held()
        lost = Job.objects.filter(stage__in=IN_FLIGHT_STAGES, stage=Stage.BELT).values_list("id", "delivery", "parcel")
        back = self._release_anew({(pk, delivery) for pk, delivery, parcel in lost if parcel not in held})
        client().set(key("belt"), "1")
        return back

    def _belt(self, now: datetime) -> None:
        released = list(
            Job.objects.filter(
                stage__in=IN_FLIGHT_STAGES, stage=Stage.BELT, dispatched_at__lt=now - BELT_PATIENCE
            ).values_list("id", "delivery", "parcel")
        )
        if not released:
            self._missing = set()
            return
        held = _held()
        missing = {(pk, delivery) for pk, delivery, parcel in released if parcel not in held}
        orphans = missing & self._missing
        self._missing = missing - orphans
        self._release_anew(orphans)

    @staticmethod
    def _release_anew(orphans: set[tuple[int, int]]) -> set[GroupKey]:
        if not orphans:
            return set()
        back = release_again(orphans, clock.now())
        log.warning("reconciler.belt_orphans", jobs=len(orphans))
        return back

    def _running(self, now: datetime) -> None:
        jobs = lose(now)
        if jobs:
            log.warning("reconciler.lost_workers", jobs=jobs)
