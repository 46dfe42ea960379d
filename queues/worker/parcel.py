"""What RQ carries: a list of deliveries, each a job's id and its fencing number."""

from __future__ import annotations

from rq.job import Job as RQJob

Delivery = tuple[int, int]


def run(deliveries: list[list[int]]) -> None:
    """Named by every parcel and called by none of our workers: they read its arguments."""
    raise RuntimeError("Parcels are run by Sluice's own workers: start them with `manage.py rqworker`.")


def deliveries(rq_job: RQJob) -> list[Delivery]:
    """The deliveries that an RQ job of ours carries."""
    return [(int(job_id), int(delivery)) for job_id, delivery in rq_job.args[0]]
