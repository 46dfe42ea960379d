"""Finding what was released or started and is held by nobody: the belt forgot it, or its worker is gone.

Two kinds of orphans. On the belt: SQL says released, but no RQ queue holds its parcel (Redis lost its memory, a worker
died between taking and claiming, the dispatcher died between commit and enqueue). Running: its lease ran out. Both go
back to the front of their lane under a new delivery number, so that whoever still has the old one can settle nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.db import transaction

from queues import registry, settlement
from queues.announcement import announce
from queues.connection import Group, belt, client, key, ring
from queues.errors import LOST
from queues.models import Attempt, Job, Transition
from queues.services import dead_letters
from queues.states import IN_FLIGHT_STAGES, Outcome, Stage, Status
from queues.worker.settle import close

log = structlog.get_logger(__name__)

BELT_PATIENCE = timedelta(seconds=3)
"""A parcel may be on its way to the belt for so long."""
LEASE = timedelta(seconds=15)
LANES = ("io", "cpu")


def _held() -> set[str]:
    """The parcels that are on the belts."""
    held: set[str] = set()
    for lane in LANES:
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
        if self._watching_since is not None and now - self._watching_since >= LEASE:
            self._running(now)

    def after_loss(self) -> set[Group]:
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
    def _release_anew(orphans: set[tuple[int, int]]) -> set[Group]:
        if not orphans:
            return set()
        with transaction.atomic():
            rows = [
                job
                for job in Job.objects.filter(id__in=[pk for pk, _ in orphans], stage=Stage.BELT)
                .order_by("id")
                .select_for_update()
                if (job.pk, job.delivery) in orphans
            ]
            Job.objects.filter(id__in=[job.pk for job in rows]).update(
                stage=Stage.READY, reason="released anew: the belt had lost it", account_lease="", reservation=""
            )
        for job in rows:
            settlement.give_back(job, job.account_lease, job.reservation)
        back = {(job.queue_id, job.priority, job.project_id, job.pool) for job in rows}
        ring(back, again=True, unblock=True)
        log.warning("reconciler.belt_orphans", jobs=len(rows))
        return back

    def _running(self, now: datetime) -> None:
        with transaction.atomic():
            rows = list(
                Job.objects.filter(stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING, lease_until__lt=now)
                .order_by("id")
                .select_for_update()[:500]
            )
            if not rows:
                return
            attempts, steps, dead, ended = [], [], [], []
            leases: list[str] = []
            reservations: list[str] = []
            for job in rows:
                attempts.append(
                    Attempt(
                        job=job,
                        number=job.attempts_made,
                        delivery=job.delivery,
                        outcome=Outcome.LOST,
                        counted=False,
                        error="Its worker was lost.",
                        worker=job.worker,
                        dispatched_at=job.dispatched_at,
                        started_at=job.started_at,
                        ended_at=now,
                    )  # fmt: skip
                )
                job.losses += 1
                leases.append(job.account_lease)
                reservations.append(job.reservation)
                job.worker, job.lease_until, job.account_lease, job.reservation = "", None, "", ""
                if job.cancel_requested_at is not None:
                    job.stage, job.status, job.finished_at, job.reason = (
                        Stage.DONE,
                        Status.CANCELLED,
                        now,
                        f"{job.reason or 'cancelled'}, while it ran",
                    )
                    ended.append(job)
                elif job.delivery_mode == "at_most_once":
                    job.stage, job.status, job.finished_at, job.category = Stage.DONE, Status.DEAD, now, LOST
                    job.error = job.reason = "Its worker was lost, and it asked for at most one delivery."
                    dead.append(job)
                    ended.append(job)
                else:
                    job.stage, job.status, job.reason = Stage.READY, Status.PENDING, "its worker was lost"
                    job.not_before = now
                    job.suspect = job.suspect or registry.is_suspect(job.type, job.losses)
                if job.status != Status.DEAD:  # the timeline has that from the job itself
                    steps.append(Transition(job=job, at=now, state=job.status, reason=job.reason))
            Job.objects.bulk_update(
                rows,
                ["losses", "worker", "lease_until", "account_lease", "reservation", "stage", "status", "reason",
                 "suspect", "finished_at", "category", "error", "not_before"],
            )  # fmt: skip
            Attempt.objects.bulk_create(attempts)
            Transition.objects.bulk_create(steps)
            if dead:
                dead_letters.write(dead, now)
            close(ended, now)
            announce(rows)
        back = {(job.queue_id, job.priority, job.project_id, job.pool) for job in rows if job.stage == Stage.READY}
        settlement.settle_lost(leases, reservations)
        ring(back, again=True, unblock=True)
        log.warning("reconciler.lost_workers", jobs=len(rows))
