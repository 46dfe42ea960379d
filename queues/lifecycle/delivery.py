"""Transitions of deliveries: released to the belt, claimed by a worker, released again if the belt has lost them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from queues.lifecycle import sql
from queues.lifecycle.effects import Effects
from queues.lifecycle.perform import apply
from queues.lifecycle.table import transition
from queues.models import Job
from queues.settlement import unused
from queues.states import CLAIM_EXPIRY, IN_FLIGHT_STAGES, GroupKey, Stage, Status
from quotas import clock

_RELEASED = ("stage", "delivery", "parcel", "dispatched_at", "account_id", "account_lease", "reservation")
_CLAIMED = (
    "stage", "status", "worker", "lease_until", "started_at", "first_started_at", "attempts_made", "reason",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Release:
    """One admitted job: its new delivery number, the parcel that carries it, and what was reserved for it."""

    job_id: int
    delivery: int
    parcel: str
    account_id: int | None
    account_lease: str
    reservation: str


@transition("release", [Stage.READY], {Stage.BELT: ()}, callers="dispatcher")
def release(releases: Sequence[Release], now: datetime) -> set[int]:
    """Mark admitted jobs as on the belt; inside the transaction that fences the leader. Jobs that were cancelled or
    released meanwhile are skipped. Returns the jobs that were marked; the caller enqueues their parcels."""
    ready = dict(sql.locked(("id", "delivery"), [item.job_id for item in releases], Stage.READY))
    rows = [
        (
            item.job_id,
            {
                "stage": Stage.BELT,
                "delivery": item.delivery,
                "parcel": item.parcel,
                "dispatched_at": now,
                "account_id": item.account_id,
                "account_lease": item.account_lease,
                "reservation": item.reservation,
            },
        )
        for item in releases
        if ready.get(item.job_id) == item.delivery - 1
    ]
    sql.write_values(_RELEASED, rows)
    return {pk for pk, _ in rows}


@transition("claim", [Stage.BELT], {Stage.RUNNING: (Status.EXECUTING,)}, callers="worker", effects=["event"])
def claim(deliveries: Mapping[int, int], worker: str) -> list[Job]:
    """Mark the deliveries {job: number} as running in `worker`; stale ones are skipped. Owes an event."""
    with transaction.atomic():
        jobs = [job for job in sql.locked_jobs(deliveries, Stage.BELT) if job.delivery == deliveries[job.pk]]
        now = clock.now()
        for job in jobs:
            job.stage, job.status, job.reason, job.worker = Stage.RUNNING, Status.EXECUTING, "", worker
            job.attempts_made += 1
            job.started_at, job.lease_until = now, now + CLAIM_EXPIRY
            job.first_started_at = job.first_started_at or now
        sql.write_jobs(_CLAIMED, jobs)
        apply(Effects(changed=jobs), now)
    return jobs


def renew(worker: str, ids: Collection[int], now: datetime) -> int:
    """Renew the claims on the jobs `ids`, which run in `worker`; returns how many it still has.

    Only those that it names: no worker runs a claim whose commit was not answered.
    """
    return Job.objects.filter(id__in=ids, stage__in=IN_FLIGHT_STAGES, stage=Stage.RUNNING, worker=worker).update(
        lease_until=now + CLAIM_EXPIRY
    )


@transition("release_again", [Stage.BELT], {Stage.READY: ()}, callers="reconciler", effects=["wake-up", "settlement"])
def release_again(deliveries: Collection[tuple[int, int]], now: datetime) -> set[GroupKey]:
    """Make jobs ready again whose parcels are on no belt, by id and delivery number. The status stays. Owes a wake-up and
    the return of what was reserved. Returns their groups."""
    with transaction.atomic():
        jobs = [
            job
            for job in Job.objects.filter(id__in=[pk for pk, _ in deliveries], stage=Stage.BELT)
            .order_by("id")
            .select_for_update()
            if (job.pk, job.delivery) in deliveries
        ]
        effects = Effects(requeued={job.group for job in jobs}, unblock=True)
        for job in jobs:
            effects.settlements += unused(job)
        Job.objects.filter(id__in=[job.pk for job in jobs]).update(
            stage=Stage.READY, reason="released again: the belt had lost it", account_lease="", reservation=""
        )
        apply(effects, now)
    return effects.requeued
