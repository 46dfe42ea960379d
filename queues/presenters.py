"""Presents rows and selectors' answers as JSON, in the contract's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from django.db.models import Prefetch, prefetch_related_objects

from queues import registry
from queues.models import Attempt, Batch, DeadLetter, Job, JobDependency, Queue, WorkerProcess
from queues.selectors.batches import batch_progress
from queues.selectors.dead_letters import DeadLetterGroup
from queues.selectors.explanation import Explanation
from queues.selectors.queues import QueueFacts
from queues.selectors.timeline import Step
from queues.selectors.wait_history import Span, of_batch
from quotas.models import Project
from quotas.times import rfc3339


def payload_of(job: Job) -> dict[str, Any]:
    """The job's payload without the members that its type hides."""
    return registry.redacted(job.type, job.payload)


def job_row(job: Job) -> dict[str, Any]:
    """A job in a list. Needs `project`, `queue` and `batch` selected."""
    return {
        "id": job.uid,
        "type": job.type,
        "status": job.status,
        "project": job.project.slug,
        "queue": job.queue.name,
        "priority": job.priority,
        "user": job.user,
        "keys": job.keys,
        "batch": job.batch.uid if job.batch else None,
        "cost": job.cost,
        "max_attempts": job.max_attempts,
        "attempts_made": job.attempts_made,
        "reason": job.reason,
        "run_at": rfc3339(job.not_before),
        "created_at": rfc3339(job.created_at),
        "started_at": rfc3339(job.started_at),
        "finished_at": rfc3339(job.finished_at),
    }


def attempt_shape(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "category": attempt.category or None,
        "account": attempt.account or None,
        "status": attempt.status,
        "error": attempt.error or None,
        "counted": attempt.counted,
        "started_at": rfc3339(attempt.started_at),
        "ended_at": rfc3339(attempt.ended_at),
    }


def parts_of_jobs() -> list[str | Prefetch[Any]]:
    """What `job_whole` shows beside a job's own columns, to be read for many jobs at once."""
    after = JobDependency.objects.order_by("pk").select_related("after").only("job_id", "after__uid")
    return [Prefetch("dependencies", after), "attempts", Prefetch("dead_letters", DeadLetter.objects.order_by("-pk"))]


def as_new(job: Job) -> Job:
    """A job that was just accepted and waits for no other: it has nothing that `parts_of_jobs` would read."""
    job._prefetched_objects_cache = {  # type: ignore[attr-defined]  # what `prefetch_related_objects` sets
        "dependencies": JobDependency.objects.none(),
        "attempts": Attempt.objects.none(),
        "dead_letters": DeadLetter.objects.none(),
    }
    return job


def job_whole(job: Job) -> dict[str, Any]:
    """One job with payload, result, attempts and its open dead letter."""
    prefetch_related_objects([job], *parts_of_jobs())
    letters = [letter.uid for letter in job.dead_letters.all()] if job.status == "dead" else []
    return {
        **job_row(job),
        "payload": payload_of(job),
        "timeout": job.timeout,
        "delivery": job.delivery_mode,
        "callback_url": job.callback_url or None,
        "idempotency_key": job.idempotency_key,
        "replays": job.replays,
        "after": [dependency.after.uid for dependency in job.dependencies.all()],
        "attempts": [attempt_shape(attempt) for attempt in job.attempts.all()],
        "result": job.result,
        "category": job.category or None,
        "error": job.error or None,
        "dead_letter": letters[0] if letters else None,
    }


def batch_shape(batch: Batch) -> dict[str, Any]:
    progress = batch_progress(batch)
    return {
        "id": batch.uid,
        "name": batch.name,
        "project": batch.project.slug,
        "open": batch.open,
        "then": batch.then.uid if batch.then else None,
        **asdict(progress),
        "eta": rfc3339(progress.eta),
        "created_at": rfc3339(batch.created_at),
        "finished_at": rfc3339(batch.finished_at),
    }


def queue_shape(queue: Queue, facts: QueueFacts, project: Project | None = None) -> dict[str, Any]:
    """A queue as the platform sees it, or as a project does: a pool that is for others has no name there."""
    theirs = queue.pool is not None and (
        project is None or queue.pool.projects is None or project.slug in queue.pool.projects
    )
    return {
        "name": queue.name,
        "state": queue.state,
        "reason": queue.paused_reason or queue.draining_reason or None,
        "max_size": queue.max_size,
        "timeout": queue.timeout,
        "concurrency": queue.concurrency,
        "lane": queue.lane,
        "pool": queue.pool.name if queue.pool and theirs else None,
        "retry_policy": queue.retry_policy.name if queue.retry_policy else None,
        **{name: value for name, value in asdict(facts).items() if name != "recent"},
        **asdict(facts.recent),
    }


def steps_shape(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """A timeline."""
    return [{"at": rfc3339(step.at), "state": step.state, "reason": step.reason} for step in steps]


def waits_shape(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """What a job waited for: reason codes with names and times."""
    return [
        {
            "reason": span.code,
            "name": span.name or None,
            "began_at": rfc3339(span.began_at),
            "ended_at": rfc3339(span.ended_at),
            "seconds": round(span.seconds, 3),
        }
        for span in spans
    ]


def batch_detail(batch: Batch) -> dict[str, Any]:
    """One batch, with the seconds that its groups waited by reason code."""
    waits = {code: round(seconds, 3) for code, seconds in of_batch(batch).items()}
    return {**batch_shape(batch), "waits": waits}


def explanation_shape(found: Explanation) -> dict[str, Any]:
    return {
        "status": found.status,
        "waits_for": found.waits_for,
        "until": rfc3339(found.until),
        "ahead": found.ahead,
        "estimated_start": rfc3339(found.estimated_start),
        "reason": found.reason,
        "waits": waits_shape(found.waits),
        "waited": {code: round(seconds, 3) for code, seconds in found.waited.items()},
        "timeline": steps_shape(found.timeline),
    }


def dead_letter_group_shape(group: DeadLetterGroup) -> dict[str, Any]:
    shown = {name: value for name, value in asdict(group).items() if name != "first"}
    return {**shown, "first_at": rfc3339(group.first_at), "last_at": rfc3339(group.last_at)}


def dead_letter_shape(letter: DeadLetter) -> dict[str, Any]:
    """Needs `job`, `project` and `queue` selected."""
    return {
        "id": letter.uid,
        "job": letter.job.uid,
        "project": letter.project.slug,
        "queue": letter.queue.name,
        "type": letter.type,
        "category": letter.category,
        "severity": letter.severity,
        "fingerprint": letter.fingerprint,
        "error": letter.error,
        "attempts": letter.attempts,
        "created_at": rfc3339(letter.created_at),
        "handled_at": rfc3339(letter.handled_at),
        "handled_by": letter.handled_by or None,
        "handled_as": letter.handled_as or None,
    }


def worker_shape(worker: WorkerProcess, alive: bool) -> dict[str, Any]:
    return {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "queues": [worker.lane],
        "state": "stopped" if worker.stopped_at else "alive" if alive else "lost",
        "places": worker.places,
        "busy": worker.busy,
        "lost_places": worker.lost_places,
        "jobs_done": worker.jobs_done,
        "jobs_failed": worker.jobs_failed,
        "success_rate": round(1 - worker.jobs_failed / worker.jobs_done, 4) if worker.jobs_done else None,
        "rate": round(worker.jobs_done / max((worker.seen_at - worker.started_at).total_seconds(), 1.0), 3),
        "started_at": rfc3339(worker.started_at),
        "last_seen": rfc3339(worker.seen_at),
    }
