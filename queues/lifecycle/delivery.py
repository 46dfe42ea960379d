"""Transitions of deliveries: released to the belt, claimed by a worker, released again if the belt has lost them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from queues.lifecycle import sql
from queues.lifecycle.effects import Effects, apply
from queues.lifecycle.table import transition
from queues.models import Job
from queues.settlement import unused
from queues.states import CLAIM_EXPIRY, IN_FLIGHT_STAGES, GroupKey, Stage, Status

_RELEASE = sql.ArrayUpdate(
    given={
        "g_delivery": "integer", "g_parcel": "text", "g_account": "bigint", "g_lease": "text", "g_reservation": "text",
    },
    changes=f"""
        "stage" = {int(Stage.BELT)}, "delivery" = g_delivery, "parcel" = g_parcel, "dispatched_at" = g_now,
        "account_id" = g_account, "account_lease" = g_lease, "reservation" = g_reservation""",
    fence=f'job."stage" = {int(Stage.READY)} AND job."delivery" = g_delivery - 1',
)  # fmt: skip
_CLAIM = sql.ArrayUpdate(
    given={"g_delivery": "integer", "g_worker": "text"},
    changes=f"""
        "stage" = {int(Stage.RUNNING)}, "status" = '{Status.EXECUTING.value}', "reason" = '', "worker" = g_worker,
        "attempts_made" = "attempts_made" + 1, "started_at" = g_now, "lease_until" = g_until,
        "first_started_at" = coalesce("first_started_at", g_now)""",
    fence=f'job."stage" = {int(Stage.BELT)} AND job."delivery" = g_delivery',
    returning=sql.ALL_COLUMNS,
    lasts=CLAIM_EXPIRY,
)


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
def release(releases: Sequence[Release]) -> set[int]:
    """Mark admitted jobs as on the belt; inside the transaction that fences the leader. Jobs that were cancelled or
    released meanwhile are skipped. Returns the jobs that were marked; the caller enqueues their parcels."""
    return {
        pk
        for (pk,) in _RELEASE.run(
            [
                (item.job_id, item.delivery, item.parcel, item.account_id, item.account_lease, item.reservation)
                for item in releases
            ]
        )
    }


@transition("claim", [Stage.BELT], {Stage.RUNNING: (Status.EXECUTING,)}, callers="worker", effects=["event"])
def claim(deliveries: Mapping[int, int], worker: str) -> list[Job]:
    """Mark the deliveries {job: number} as running in `worker`; stale ones are skipped. Owes an event."""
    with transaction.atomic():
        rows = _CLAIM.run([(pk, number, worker) for pk, number in deliveries.items()])
        jobs = [sql.job_of(row) for row in rows]
        if jobs:
            apply(Effects(changed=jobs), _started_at(jobs[0]))
    return jobs


def _started_at(job: Job) -> datetime:
    assert job.started_at is not None
    return job.started_at


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
