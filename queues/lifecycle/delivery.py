"""Transitions of deliveries: released to the belt, claimed by a worker, finished by it; released again if the belt lost them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from queues.deliveries import Ended
from queues.lifecycle import sql
from queues.lifecycle.effects import Effects, apply, attempt_of_end
from queues.lifecycle.finish import finish_by_fate
from queues.lifecycle.table import transition
from queues.models import Job
from queues.payloads import kept
from queues.settlement import unused
from queues.states import CLAIM_EXPIRY, IN_FLIGHT_STAGES, AttemptOutcome, GroupKey, Stage, Status

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
_COMPLETE = sql.ArrayUpdate(
    given={"g_delivery": "integer", "g_worker": "text", "g_result": "jsonb"},
    changes=f"""
        "stage" = {int(Stage.DONE)}, "status" = '{Status.COMPLETED.value}', "reason" = '', "not_before" = NULL,
        "result" = g_result, "category" = '', "error" = '', "finished_at" = g_now, "lease_until" = NULL, "worker" = '',
        "account_lease" = '', "reservation" = '', "suspect" = FALSE""",
    fence=f'job."stage" = {int(Stage.RUNNING)} AND job."delivery" = g_delivery AND job."worker" = g_worker',
    returning='"id", "delivery", "finished_at"',
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


@transition(
    "finish",
    [Stage.RUNNING],
    {
        Stage.READY: (Status.PENDING, Status.RATE_LIMITED),
        Stage.SCHEDULED: (Status.PENDING, Status.RETRYING, Status.RATE_LIMITED),
        Stage.DONE: (Status.COMPLETED, Status.DEAD, Status.CANCELLED),
    },
    callers="worker",
    effects=["attempt", "timeline", "event", "wake-up", "dead letter", "dependants", "batch", "callback"],
)
def finish(ended: Sequence[Ended], worker: str) -> int:
    """Write how deliveries ended, many in one transaction; returns how many were still this worker's. A delivery that
    was declared lost changes nothing: its row no longer runs under that number.

    Owes the attempt, an event and a wake-up; for an end also its dependants, batch and callback, a dead letter for a
    dead job; a row of the timeline for all but completed and dead jobs. Leases are settled by the caller, before.
    """
    completed = [item for item in ended if _is_plain(item)]
    others = [item for item in ended if not _is_plain(item)]
    return (_complete(completed, worker) if completed else 0) + (finish_by_fate(others, worker) if others else 0)


def _is_plain(item: Ended) -> bool:
    """Whether it is completed and has no callback."""
    return item.result.outcome == AttemptOutcome.SUCCEEDED and not item.claimed.job.callback_url


def _complete(ended: Sequence[Ended], worker: str) -> int:
    """The short path of most ends: the job becomes completed whatever its other columns are, so no row is read before."""
    results = {(item.claimed.id, item.claimed.delivery): _result_text(item) for item in ended}
    rows = [(pk, delivery, worker, result) for (pk, delivery), result in results.items()]
    with transaction.atomic():
        written = _COMPLETE.run(rows)
        if not written:
            return 0
        done = {pk: delivery for pk, delivery, _ in written}
        now = sql.read_moment(written[0][2])
        effects = Effects(wake=True)
        for item in ended:
            if done.get(item.claimed.id) == item.claimed.delivery:
                effects.attempts.append(attempt_of_end(item, now))
                effects.changed.append(_completed(item.claimed.job, now))
        effects.ended = list(effects.changed)
        apply(effects, now)
    return len(done)


def _result_text(item: Ended) -> str | None:
    result = kept(item.result.result)
    return None if result is None else json.dumps(result)


def _completed(job: Job, now: datetime) -> Job:
    job = sql.duplicate(job)
    job.stage, job.status, job.reason, job.finished_at = Stage.DONE, Status.COMPLETED, "", now
    return job


LOST_BY_BELT = "released again: the belt had lost it"
QUEUE_PAUSED = "its queue was paused"


@transition(
    "release_again", [Stage.BELT], {Stage.READY: ()}, callers="reconciler, pause of a queue",
    effects=["wake-up", "settlement"],
)  # fmt: skip
def release_again(deliveries: Collection[tuple[int, int]], now: datetime, reason: str = LOST_BY_BELT) -> set[GroupKey]:
    """Make jobs ready again whose parcels are on no belt or whose queue is paused, by id and delivery number. The status
    stays. Owes a wake-up and the return of what was reserved. Returns their groups."""
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
            stage=Stage.READY, reason=reason, account_lease="", reservation=""
        )
        apply(effects, now)
    return effects.requeued
