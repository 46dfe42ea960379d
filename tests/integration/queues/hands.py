"""A worker's real threads in the test's own process: what is claimed runs and is settled as in `rqworker io`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from queues.models import Job
from queues.states import Stage
from queues.worker.completer import Completer
from queues.worker.thread_pool import JobThreadPool
from tests.integration.queues.conftest import wait_until
from tests.integration.queues.desk import Desk, Worker, fresh


class Hands:
    """The threads of one worker. `run` drives jobs through them to their end."""

    def __init__(self, desk: Desk, worker: Worker) -> None:
        self.desk, self.worker = desk, worker
        self.threads = JobThreadPool(worker.places, lambda ended: self.completer.ended(ended))
        self.completer = Completer(worker.report, self.threads.cancel, self.threads.job_ids)
        self.completer.start()

    def start(self) -> None:
        """Dispatch, claim and begin waiting jobs."""
        self.desk.cycle()
        self.threads.start(self.worker.claim())

    def run(self, job: Job, seconds: float = 20.0) -> Job:
        """Begin waiting jobs, and wait for the end of this attempt of `job`; the job as it is then."""
        self.start()
        wait_until(lambda: fresh(job).stage not in (Stage.BELT, Stage.RUNNING, Stage.READY), seconds)
        return fresh(job)


@contextmanager
def hands(desk: Desk, places: int = 4) -> Iterator[Hands]:
    made = Hands(desk, desk.worker(places=places))
    try:
        yield made
    finally:
        made.threads.drain(lambda since: True)
        made.completer.stop()
