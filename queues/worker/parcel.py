"""What RQ carries: a list of deliveries, each a job's id and its fencing number."""

from __future__ import annotations

import zlib

from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob

Delivery = tuple[int, int]


class Parcel(RQJob):
    """An RQ job of which only what it carries is read: its other twenty fields say nothing to us, and cost more to
    restore than all else that RQ does for a parcel."""

    def refresh(self) -> None:
        data = self.connection.hget(self.key, "data")
        if data is None:
            raise NoSuchJobError(f"No such job: {self.key}")
        self.data = zlib.decompress(data)  # type: ignore[arg-type]


def run(deliveries: list[list[int]]) -> None:
    """Named by every parcel and called by none of our workers: they read its arguments."""
    raise RuntimeError("Parcels are run by Sluice's own workers: start them with `manage.py rqworker`.")


def deliveries(rq_job: RQJob) -> list[Delivery]:
    """The deliveries that an RQ job of ours carries."""
    return [(int(job_id), int(delivery)) for job_id, delivery in rq_job.args[0]]
