"""The worker of the lane `io`: many jobs at once, each in a thread."""

from __future__ import annotations

import os
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError
from rq.job import Job as RQJob
from rq.queue import Queue

from queues.worker import claim
from queues.worker.bookkeeper import Bookkeeper
from queues.worker.crew import Crew
from queues.worker.hand_back import hand_back
from queues.worker.lean import LeanWorker
from queues.worker.parcel import deliveries
from queues.worker.report import Report

log = structlog.get_logger(__name__)

DEFAULT_PLACES = settings.CONCURRENCY


class ThreadedWorker(LeanWorker):
    """An RQ worker whose jobs run in a pool of threads. RQ's own bookkeeping per job is replaced by ours in SQL."""

    places = DEFAULT_PLACES

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        super().bootstrap(*args, **kwargs)
        self._crew = Crew(self.places, lambda ended: self._books.ended(ended))
        self._books = Bookkeeper(Report(self.name, self.lane, self.places), self._crew.cancel, self._crew.in_hand)
        self._books.start()
        log.info("worker.started", name=self.name, lane=self.lane, places=self.places)

    def ready_for_more(self) -> bool:
        return self._crew.wait_for_place(1.0)

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Claim a parcel's deliveries and hand them to the threads; does not wait for them."""
        try:
            claimed = claim.claim(deliveries(job), self.name)
        except DatabaseError as error:
            # Not claimed, not lost: the rows stay on the belt in SQL, and the reconciler releases them anew.
            log.warning("worker.claim_failed", error=type(error).__name__)
            return
        self._crew.take(claimed)
        self.recycling.taken += len(claimed)
        self.forget(job)

    def teardown(self) -> None:
        """Finish within the grace period, hand back the rest without charging an attempt."""
        left = self._crew.drain(self.in_a_hurry)
        # Too large, and not because somebody else asked: one of these may be the cause, and runs alone next time.
        blamed = not self.asked_to_stop and self.recycling.fat()
        self._books.stop()
        if left:
            returned = hand_back(left, self.name, suspect=blamed)
            log.warning("worker.handed_back", name=self.name, jobs=returned)
        super().teardown()
        log.info("worker.stopped", name=self.name)
        if left:
            # Threads that are still in a call would keep the process; what they bring is stale from now on.
            os._exit(0)
