"""Replays, edits and discards dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from queues import config, registry
from queues.errors import AlreadyHandled, InvalidJob, NotRetryable
from queues.lifecycle import operators as lifecycle
from queues.models import DeadLetter, Job
from queues.services.draft import KnownPools, ordering_key_of
from queues.states import Status
from queues.transactions import retry_after_deadlock
from quotas import clock, events


@retry_after_deadlock
def replay(
    letter_id: int,
    *,
    actor: str,
    reason: str = "",
    payload: Mapping[str, Any] | None = None,
    audited: bool = True,
) -> Job:
    """Requeue a dead job with its attempts reset; it keeps its id and is subject to the same quotas.

    `payload` replaces the job's; its dead letters keep the payload that failed. `audited`: write an audit entry, which
    a bulk action does once for all. Raises `AlreadyHandled`, `InvalidJob`.
    """
    with transaction.atomic():
        letter = _open_letter(letter_id)
        job = Job.objects.select_for_update(of=("self",)).select_related("project", "queue").get(pk=letter.job_id)
        changed: dict[str, Any] = {}
        if payload is not None and dict(payload) != job.payload:
            job_type = registry.get(job.type)
            errors = job_type.validate(payload, "/payload") if job_type else []
            if errors:
                raise InvalidJob(errors)
            changed = {"payload": dict(payload), "edits": job.edits + 1}
            if job_type is not None:
                changed |= _through_its_pool(job, job_type, payload)
        now = clock.now()
        _handle(letter, "replayed", actor, reason)
        before: dict[str, Any] = {"status": "dead", "category": letter.category}
        after: dict[str, Any] = {"status": "pending", "edited": bool(changed)}
        if changed:
            DeadLetter.objects.filter(job=job, payload__isnull=True).update(payload=job.payload)
            before["payload"] = registry.redacted(job.type, job.payload)
            after["payload"] = registry.redacted(job.type, changed["payload"])
        text = f"replayed by {actor}" + (f": {reason}" if reason else "")
        lifecycle.replay(job, text[:500], changed, now)
        if audited:
            events.emit(
                events.OperatorActed(
                    actor, "dead_letter.replay", f"job:{job.uid}", before, after, reason, project=job.project.slug
                )
            )
    return job


def _through_its_pool(job: Job, job_type: registry.JobType, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Pool, model, cost and ordering key of another payload. An estimated cost is estimated again, a given one stays."""
    own = config.current().queues[job.queue_id].pool
    named = job_type.pool(payload)
    if named:
        KnownPools().check(named, job.project.slug, "/payload/pool", f"There is no pool {named!r}.")
    before, pool = job_type.pool(job.payload) or own, named or own
    given = {unit: count for unit, count in job.cost.items() if unit != "tokens"}
    estimated = job_type.complete_cost(job.payload, before, given) == job.cost
    cost = job_type.complete_cost(payload, pool, given if estimated else dict(job.cost))
    model = job_type.model(payload, pool)
    return {
        "pool": named or "", "model": model, "cost": cost, "ordering_key": ordering_key_of(job.user, job.keys, model),
    }  # fmt: skip


def discard(letter_id: int, *, actor: str, reason: str = "", audited: bool = True) -> DeadLetter:
    """Settle a letter without another run; its job stays dead. Raises `AlreadyHandled`."""
    with transaction.atomic():
        letter = _open_letter(letter_id)
        _handle(letter, "discarded", actor, reason)
        if audited:
            events.emit(
                events.OperatorActed(
                    actor,
                    "dead_letter.discard",
                    f"job:{letter.job.uid}",
                    {"category": letter.category},
                    {"handled": "discarded"},
                    reason,
                    project=letter.project.slug,
                )  # fmt: skip
            )
    return letter


def letter_of(job: Job) -> DeadLetter:
    """The open dead letter of a dead job. Raises `NotRetryable` for one that is not dead, `AlreadyHandled`."""
    letter = DeadLetter.objects.filter(job=job, handled_at=None).order_by("-pk").first()
    if letter is None:
        if job.status == Status.DEAD:
            raise AlreadyHandled()
        raise NotRetryable(f"Only a dead job can be retried; this one is {job.status}.")
    return letter


def retry(job: Job, *, actor: str, reason: str = "") -> Job:
    """Replay a dead job by its own id. Raises as `letter_of` does."""
    return replay(letter_of(job).pk, actor=actor, reason=reason)


def _open_letter(letter_id: int) -> DeadLetter:
    letter = DeadLetter.objects.select_for_update(of=("self",)).select_related("job", "project").get(pk=letter_id)
    if letter.handled_at is not None:
        raise AlreadyHandled(f"The dead letter was {letter.handled_as} already.")
    return letter


def _handle(letter: DeadLetter, verdict: str, actor: str, reason: str) -> None:
    letter.handled_at = clock.now()
    letter.handled_by = actor[:200]
    letter.handled_as = verdict
    letter.handled_reason = reason[:500]
    letter.save(update_fields=["handled_at", "handled_by", "handled_as", "handled_reason"])
