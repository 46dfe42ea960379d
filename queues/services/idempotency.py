"""Which job answers a submission already: by its idempotency key, for as long as that job is kept, or by `unique_for`.

A key is stored with the job that was made for it. Where `unique_for` found another job instead, the key is stored in a
row of its own, so that it means that job also after it has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from queues.errors import IdempotencyKeyReused
from queues.lifecycle.sql import MAX_PARAMETERS, one_of
from queues.models import AnsweredKey, Job
from queues.specs import JobSpec
from queues.states import LIVE_STAGES
from quotas.models import Project


def known(project: Project, keys: Sequence[str]) -> dict[str, tuple[Job, str]]:
    """Job and hash of the request, by key, for those of the keys that were used before."""
    found: dict[str, tuple[Job, str]] = {}
    if keys:
        for answered in AnsweredKey.objects.filter(project=project, key__in=one_of(keys)).select_related("job"):
            found[answered.key] = answered.job, answered.request_hash
        for job in Job.objects.filter(project=project, idempotency_key__in=one_of(keys)):
            found[job.idempotency_key or ""] = job, job.request_hash
    return found


def existing(project: Project, specs: Sequence[JobSpec], pointers: Sequence[str]) -> dict[str, Job]:
    """Jobs that were accepted before under the keys of `specs`. Raises `IdempotencyKeyReused`."""
    found = known(project, [spec.idempotency_key for spec in specs if spec.idempotency_key])
    for spec, pointer in zip(specs, pointers, strict=True):
        answer = found.get(spec.idempotency_key or "")
        if answer is not None and answer[1] != spec.digest:
            raise IdempotencyKeyReused(f"{pointer or 'This request'}: the idempotency key was used with another body.")
    return {key: job for key, (job, _) in found.items()}


def remember(project: Project, answered: Sequence[tuple[str, str, Job]]) -> None:
    """Note with which job a key (with the hash of its request) was answered."""
    AnsweredKey.objects.bulk_create(
        (AnsweredKey(project=project, key=key, request_hash=digest, job=job) for key, digest, job in answered),
        batch_size=MAX_PARAMETERS,
    )


def live_duplicates(unique_keys: Iterable[str], now: datetime) -> dict[str, Job]:
    """The waiting and running jobs that `unique_for` would duplicate, by unique key; of several the oldest."""
    found: dict[str, Job] = {}
    keys = sorted(set(unique_keys))
    if keys:
        live = Job.objects.filter(unique_key__in=one_of(keys), unique_key__isnull=False, stage__in=LIVE_STAGES)
        for job in live.filter(unique_until__gt=now).order_by("id"):
            found.setdefault(job.unique_key or "", job)
    return found
