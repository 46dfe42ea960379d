"""Codes for why jobs wait, by group, with label, meaning and remedy.

A group is the jobs that wait for the same causes: of one queue, priority, project and pool. The cause is read from the
rows and from the dispatcher's last report, never guessed; without a report the group waits for its turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from queues import liveness, registry, wait_reasons
from queues.models import Job, Queue
from queues.states import IN_FLIGHT_STAGES, GroupKey, Stage, Status
from queues.wait_reasons import GroupWait
from quotas import clock
from quotas.models import Account, Pool


@dataclass(frozen=True, slots=True)
class Reason:
    """`label` and what it `means`, and what one can do about it (`remedy`)."""

    label: str
    means: str
    remedy: str


REASONS: dict[str, Reason] = {
    "dependency": Reason("other jobs", "Jobs or a batch that it comes after have not ended.", "Look at those jobs."),
    "scheduled": Reason("its time", "Its start time has not come.", "Wait, or cancel it and submit it anew."),
    "retry_backoff": Reason("retry delay", "Its last attempt failed; the next one has a delay.", "Look at the error."),
    "queue_paused": Reason("queue paused", "Its queue is paused.", "Resume the queue."),
    "queue_concurrency": Reason(
        "queue concurrency", "Its queue runs as many jobs at once as it may.", "Raise the queue's concurrency."
    ),
    "no_pool": Reason("no pool", "It needs a pool, and none is named or the named one is missing.", "Set the pool."),
    "no_account": Reason("no account", "Its pool has no account.", "Add an account to the pool."),
    "pool_paused": Reason("pool paused", "Its pool is paused.", "Resume the pool."),
    "accounts_disabled": Reason("accounts disabled", "Every account of its pool is disabled.", "Enable an account."),
    "policy_limit": Reason(
        "policy limit", "A policy's limit is used up.", "Raise the limit, add an override or reset its counters."
    ),
    "account_cooldown": Reason("cooldown", "Accounts are cooling down.", "Wait, or clear the cooldown."),
    "account_breaker": Reason(
        "breaker open", "Circuit breakers of accounts are open.", "Look at the account's errors."
    ),
    "account_limit": Reason("account limit", "The accounts' own limits are used up.", "Wait, or add an account."),
    "account_concurrency": Reason(
        "account concurrency", "The accounts have as many calls in flight as they may.", "Add an account."
    ),
    "priority_hold": Reason(
        "reserved for higher priority",
        "The rest of a quota is reserved for higher priorities.",
        "Raise the priority or the limit.",
    ),
    "no_dispatcher": Reason("no dispatcher", "No dispatcher runs, so that nothing is released.", "Start a dispatcher."),
    "limiter_unavailable": Reason(
        "limits unavailable", "Redis, which counts the limits, does not answer.", "Look at Redis."
    ),
    "no_worker": Reason("no worker", "No worker of its lane is alive.", "Start workers."),
    "worker_slot": Reason("worker slot", "It is admitted and waits for a worker's thread.", "Add workers."),
    "turn": Reason("its turn", "Jobs before it, or of other projects, are served first.", "Wait."),
}


def by_group(groups: Iterable[GroupKey]) -> dict[GroupKey, tuple[str, str]]:
    """The code and, where there is one, the name of what blocks each group's ready jobs."""
    keys = list(dict.fromkeys(groups))
    queues = {queue.pk: queue for queue in Queue.objects.select_related("pool").filter(pk__in={key[0] for key in keys})}
    pools = {pool.name: pool for pool in Pool.objects.all()}
    stocked = set(Account.objects.values_list("pool__name", flat=True).distinct())
    alive = set(liveness.alive(clock.now()).values_list("lane", flat=True))
    waits = wait_reasons.read_group_waits(keys)
    found: dict[GroupKey, tuple[str, str]] = {}
    for key in keys:
        queue = queues[key[0]]
        name = key[3] or (queue.pool.name if queue.pool else "")
        found[key] = (
            _stopped(queue)
            or _of_pool(name, pools, stocked)
            or _of_wait(waits.get(key))
            or (("queue_concurrency", queue.name) if _is_full(queue) else None)
            or (("no_worker", queue.lane) if queue.lane not in alive else ("turn", ""))
        )
    return found


def _stopped(queue: Queue) -> tuple[str, str] | None:
    if queue.paused_at is not None:
        return "queue_paused", queue.name
    return ("queue_concurrency", queue.name) if queue.concurrency == 0 else None


def _is_full(queue: Queue) -> bool:
    if queue.concurrency is None:
        return False
    return Job.objects.filter(stage__in=IN_FLIGHT_STAGES, queue_id=queue.pk).count() >= queue.concurrency


def _of_pool(name: str, pools: Mapping[str, Pool], stocked: set[str]) -> tuple[str, str] | None:
    if not name:
        return None
    if name not in pools:
        return "no_pool", name
    if name not in stocked:
        return "no_account", name
    return ("pool_paused", name) if pools[name].paused_at is not None else None


def _of_wait(wait: GroupWait | None) -> tuple[str, str] | None:
    return None if wait is None else (wait.code, wait.binding or "")


def of_jobs(jobs: Iterable[Job]) -> dict[int, tuple[str, str]]:
    """By primary key, the code and name of what blocks each of `jobs`; those that don't wait are left out."""
    rows = list(jobs)
    ready = {job.pk: job.group for job in rows if job.stage == Stage.READY}
    groups = by_group(ready.values()) if ready else {}
    found: dict[int, tuple[str, str]] = {}
    for job in rows:
        if job.stage == Stage.READY:
            group = groups[ready[job.pk]]
            needs = group[0] in ("turn", "no_worker") and not job.pool and job.queue.pool_id is None
            found[job.pk] = ("no_pool", "") if needs and registry.needs_pool(job.type) else group
        elif job.stage == Stage.HELD:
            found[job.pk] = ("dependency", "")
        elif job.stage == Stage.SCHEDULED:
            found[job.pk] = ("retry_backoff" if job.status == Status.RETRYING else "scheduled", "")
        elif job.stage == Stage.BELT:
            found[job.pk] = ("worker_slot", "")
    return found
