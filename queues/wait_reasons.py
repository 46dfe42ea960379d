"""Telling why something waits: on the job's own row, and for whole groups in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from queues import connection
from queues.announcement import announce
from queues.dispatcher.candidate import Candidate, GroupKey
from queues.models import Job, Transition
from queues.states import Stage, Status
from quotas.engine.types import Admission

WORTH_TELLING = 1.0
"""Seconds: a job that waits for less stays `pending`; writing each short wait would cost more than the wait."""
TOLD_FOR = 120
"""Seconds that a group's wait is kept in Redis."""


CAUSES = {"paused": "held for higher priorities or paused"}
"""The engine's reasons where their own name would mislead."""


@dataclass(frozen=True, slots=True)
class Denied:
    """A candidate that may not run yet. `seconds` is None where only a change by somebody helps."""

    candidate: Candidate
    admission: Admission

    @property
    def seconds(self) -> float | None:
        return self.admission.retry_after


def describe(admission: Admission) -> str:
    """In plain words what binds."""
    if admission.bound_by == "limit":
        return f"policy {admission.binding}"
    if admission.disabled:
        return f"pool {admission.binding}: every account is disabled"
    causes = ", ".join(
        f"{count} × {CAUSES.get(reason, reason.replace('_', ' '))}"
        for reason, count in sorted(admission.reasons.items())
    )
    return f"pool {admission.binding}: no account is free ({causes})" if causes else f"pool {admission.binding}"


def defer(denied: Sequence[Denied], now: datetime) -> None:
    """Write onto the rows of `denied` that they are held back, by what and until when.

    Only rows whose story changes are written, and only waits of a second and more.
    """
    told = [item for item in denied if item.seconds is None or item.seconds >= WORTH_TELLING]
    if not told:
        return
    with transaction.atomic():
        rows = {
            job.pk: job
            for job in Job.objects.filter(id__in=[item.candidate.id for item in told], stage=Stage.READY)
            .order_by("id")
            .select_for_update()
            .only("id", "uid", "type", "queue_id", "project_id", "status", "reason")
        }
        steps = []
        for item in told:
            job = rows.get(item.candidate.id)
            if job is None:
                continue
            what = describe(item.admission)
            if job.status == Status.RATE_LIMITED and job.reason.startswith(what):
                continue
            until = "" if item.seconds is None else f", until {_clock_time(now + timedelta(seconds=item.seconds))}"
            job.status, job.reason = Status.RATE_LIMITED, f"{what}{until}"[:500]
            steps.append(Transition(job=job, at=now, state=Status.RATE_LIMITED, reason=job.reason))
        if steps:
            Job.objects.bulk_update([step.job for step in steps], ["status", "reason"])
            Transition.objects.bulk_create(steps)
            announce(step.job for step in steps)


def _clock_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def field_of(group: GroupKey) -> str:
    return ":".join(str(part) for part in group)


def tell_groups(denied: Sequence[Denied]) -> None:
    """Leave each group's present wait in Redis, for explanations and batches; a hint that runs out by itself."""
    if not denied:
        return
    at = time.time()
    mapping = {
        field_of(item.candidate.group): json.dumps(
            {
                "reason": describe(item.admission),
                "binding": item.admission.binding,
                "until": None if item.seconds is None else at + item.seconds,
                "at": at,
            }
        )
        for item in denied
    }
    name = connection.key("waits")
    with connection.client().pipeline(transaction=False) as pipeline:
        pipeline.hset(name, mapping=mapping)  # type: ignore[arg-type]
        pipeline.expire(name, TOLD_FOR)
        pipeline.execute()


def told(groups: Sequence[GroupKey]) -> list[dict[str, object]]:
    """What was last told of those of the groups that something binds, in their order; nothing where Redis is away."""
    raws = connection.read_hints("waits", [field_of(group) for group in groups])
    return [wait for raw in raws if raw is not None and _holds(wait := json.loads(raw))]


def _holds(wait: dict[str, Any]) -> bool:
    """Whether it was told in the last `TOLD_FOR` seconds, of a time that isn't over."""
    now = time.time()
    return now - wait["at"] <= TOLD_FOR and (wait["until"] is None or wait["until"] >= now - 5)
