"""Puts admitted jobs on the belt: one fenced transaction in SQL, then parcels for RQ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import transaction

from queues import broker, config, hops
from queues.dispatcher.group_cursor import Candidate
from queues.dispatcher.leader import Leader
from queues.ids import new_id
from queues.lifecycle.delivery import Release
from queues.lifecycle.delivery import release as mark_released
from quotas.engine.types import Admission

PARCEL_SIZE = 20
"""Deliveries in one RQ job at most."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A candidate that was admitted, with what was reserved for it."""

    candidate: Candidate
    admission: Admission

    @property
    def delivery(self) -> int:
        """The fencing number of this release."""
        return self.candidate.delivery + 1


def lane_for(candidate: Candidate) -> str:
    """The worker lane: its queue's, but `cpu` for a suspect, which runs alone in a forked process."""
    queue = config.current().queues[candidate.queue_id]
    return "cpu" if candidate.suspect else queue.lane


def release(leader: Leader, granted: Sequence[Granted], workers: dict[str, int]) -> list[Granted]:
    """Mark `granted` as on the belt and put them there. `workers` counts worker processes by lane.

    Returns those that were no longer ready (cancelled meanwhile): the caller releases their admissions. Raises
    `LeadershipLost`; nothing is written then.
    """
    parcels = list(_parcels(granted, workers))
    with transaction.atomic():
        leader.fence()
        written = mark_released(
            [
                Release(
                    item.candidate.id,
                    item.delivery,
                    parcel_id,
                    _int(item.admission.account_id),
                    item.admission.lease or "",
                    item.admission.reservation or "",
                )
                for parcel_id, _, items in parcels
                for item in items
            ]
        )
    if hops.observer is not None:
        hops.observer(hops.RELEASED)
    _enqueue(
        (parcel_id, lane, [item for item in items if item.candidate.id in written])
        for parcel_id, lane, items in parcels
    )
    if hops.observer is not None:
        hops.observer(hops.ENQUEUED)
    return [item for item in granted if item.candidate.id not in written]


def _int(value: str | None) -> int | None:
    return None if value is None else int(value)


def _parcels(granted: Sequence[Granted], workers: dict[str, int]) -> Iterable[tuple[str, str, list[Granted]]]:
    """Split by lane, evenly over the lane's workers; a forked process gets one delivery each."""
    by_lane: dict[str, list[Granted]] = {}
    for item in granted:
        by_lane.setdefault(lane_for(item.candidate), []).append(item)
    for lane, items in by_lane.items():
        share = -(-len(items) // max(workers.get(lane, 1), 1))
        size = 1 if lane == "cpu" else min(max(share, 1), PARCEL_SIZE)
        for start in range(0, len(items), size):
            yield new_id(), lane, items[start : start + size]


def _enqueue(parcels: Iterable[tuple[str, str, list[Granted]]]) -> None:
    """Enqueue the parcels in RQ. If Redis is unavailable, the reconciler finds the rows whose parcels are on no belt."""
    by_lane: dict[str, list[tuple[str, list[broker.Delivery]]]] = {}
    for parcel_id, lane, items in parcels:
        if items:
            deliveries = [(item.candidate.id, item.delivery) for item in items]
            by_lane.setdefault(lane, []).append((parcel_id, deliveries))
    for lane, found in by_lane.items():
        broker.enqueue(lane, found)
