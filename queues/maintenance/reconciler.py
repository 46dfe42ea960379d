"""Recovers deliveries that were lost: with the belt's memory, or with their worker.

Two kinds. On the belt: released in SQL, but its parcel is on no belt (Redis lost its memory, a worker died between taking
and claiming, the dispatcher died between commit and enqueue). Running: its claim has expired. Both go back to the front
of their groups under a new delivery number, so that the old delivery can settle nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from queues.broker import belt
from queues.connection import MARK, client, key
from queues.lifecycle.delivery import QUEUE_PAUSED, release_again
from queues.lifecycle.loss import lose
from queues.models import Job
from queues.states import CLAIM_EXPIRY, IN_FLIGHT_STAGES, WORKER_LANES, GroupKey, Stage
from quotas import clock, events

BELT_PATIENCE = timedelta(seconds=3)
"""A parcel that was released so recently may not have arrived on the belt yet."""


def _parcels_on_belts() -> set[str]:
    """The ids of all parcels on the belts."""
    found: set[str] = set()
    for lane in WORKER_LANES:
        found.update(raw.decode() for raw in client().lrange(belt(lane).key, 0, -1))  # type: ignore[union-attr]
    return found


class Reconciler:
    """A parcel is lost if it is missing at two checks in a row."""

    def __init__(self) -> None:
        self._missing: set[tuple[int, int]] = set()
        self._last: datetime | None = None
        self._watching_since: datetime | None = None

    def run(self, now: datetime) -> None:
        # After a time without SQL no worker could renew its claims: all get a whole claim's time again.
        if self._last is None or now - self._last > timedelta(seconds=10):
            self._watching_since = now
        self._last = now
        self._belt(now)
        if self._watching_since is not None and now - self._watching_since >= CLAIM_EXPIRY:
            self._running(now)

    def after_loss(self) -> set[GroupKey]:
        """If Redis has lost its memory, which a missing mark shows, release the jobs of all lost parcels again: before
        newer ones, so that jobs still start in order. Returns their groups."""
        if client().exists(key(MARK)):
            return set()
        present = _parcels_on_belts()
        lost = Job.objects.filter(stage__in=IN_FLIGHT_STAGES, stage=Stage.BELT).values_list("id", "delivery", "parcel")
        back = self._release_again({(pk, delivery) for pk, delivery, parcel in lost if parcel not in present})
        client().set(key(MARK), "1")
        return back

    def _belt(self, now: datetime) -> None:
        on_belt = Job.objects.filter(stage__in=IN_FLIGHT_STAGES, stage=Stage.BELT).values_list(
            "id", "delivery", "parcel", "dispatched_at", "queue__paused_at"
        )
        released, paused = [], set()
        for pk, delivery, parcel, dispatched_at, paused_at in on_belt:
            if paused_at is not None:  # by a dispatcher that did not know of the pause yet
                paused.add((pk, delivery))
            elif dispatched_at is not None and dispatched_at < now - BELT_PATIENCE:
                released.append((pk, delivery, parcel))
        if paused:
            release_again(paused, now, QUEUE_PAUSED)
        if not released:
            self._missing = set()
            return
        present = _parcels_on_belts()
        missing = {(pk, delivery) for pk, delivery, parcel in released if parcel not in present}
        orphans = missing & self._missing
        self._missing = missing - orphans
        self._release_again(orphans)

    @staticmethod
    def _release_again(orphans: set[tuple[int, int]]) -> set[GroupKey]:
        if not orphans:
            return set()
        back = release_again(orphans, clock.now())
        events.emit(events.ParcelsRecovered(len(orphans)))
        return back

    def _running(self, now: datetime) -> None:
        jobs = lose(now)
        if jobs:
            events.emit(events.ClaimsExpired(jobs))
