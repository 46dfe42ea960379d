"""The belts: short RQ queues, one for each worker lane. An RQ job is a parcel of deliveries (a job's id and number)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer

from queues.connection import client

Delivery = tuple[int, int]
"""A job's id and its delivery number, the fencing token."""
RUN = "queues.broker.run"
"""The function that a parcel names in RQ. Our workers read its arguments instead of calling it."""


@lru_cache(maxsize=4)
def belt(lane: str) -> Queue:
    """The RQ queue of a lane. Its jobs carry ids and delivery numbers only, as JSON."""
    return Queue(lane, connection=client(), serializer=JSONSerializer, default_timeout=-1)


def enqueue(lane: str, parcels: Iterable[tuple[str, Sequence[Delivery]]], *, at_front: bool = False) -> None:
    """Put parcels, by id, on the lane's belt."""
    queue = belt(lane)
    queue.enqueue_many(
        [
            queue.prepare_data(
                cast("Any", RUN),
                args=cast("tuple[()]", ([list(delivery) for delivery in deliveries],)),
                job_id=parcel_id,
                timeout=-1,
                result_ttl=0,
                failure_ttl=0,
                ttl=None,
                description="parcel",
                at_front=at_front,
            )
            for parcel_id, deliveries in parcels
        ]
    )


class Parcel(RQJob):
    """An RQ job of which only the deliveries are read: to restore its other twenty fields costs more than all else that
    RQ does for a parcel."""

    def refresh(self) -> None:
        data = cast("bytes | None", self.connection.hget(self.key, "data"))
        if data is None:
            raise NoSuchJobError(f"No such job: {self.key}")
        self.data = zlib.decompress(data)


def run(deliveries: list[list[int]]) -> None:
    """Named by every parcel and called by none of our workers: they read its arguments."""
    raise RuntimeError("Parcels are run by Sluice's own workers: start them with `manage.py rqworker`.")


def split(parcel: RQJob, size: int) -> list[Delivery]:
    """Leave the first `size` deliveries in the parcel; returns the others. One that can't be read stays as it is."""
    try:
        deliveries = deliveries_of(parcel)
    except Exception:  # noqa: BLE001 - claiming it says so
        return []
    left = deliveries[size:]
    if left:
        parcel.args = [deliveries[:size]]
    return left


def deliveries_of(parcel: RQJob) -> list[Delivery]:
    """The deliveries that a parcel carries."""
    return [(int(job_id), int(delivery)) for job_id, delivery in parcel.args[0]]
