"""The processes that run jobs: threads on the lane `io`, one forked process per job on the lane `cpu`."""

from __future__ import annotations

from typing import Any


def worker_for_lane(queues: Any, **options: Any) -> Any:
    """The worker class of a lane, for django-rq's `WORKER_CLASS`. A worker has exactly one RQ queue: with several,
    RQ takes jobs off without an intermediate list, and one that dies in between loses what it took."""
    from queues.worker.forking import ForkingWorker
    from queues.worker.threaded import ThreadedWorker

    if len(queues) != 1:
        raise ValueError("A worker has exactly one lane.")
    return (ForkingWorker if queues[0].name == "cpu" else ThreadedWorker)(queues, **options)
