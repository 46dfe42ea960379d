"""Jobs as JSON: rows of lists, whole jobs with their attempts, timelines and explanations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Prefetch, prefetch_related_objects

from queues import registry
from queues.models import DeadLetter, Job, JobDependency
from queues.selectors import explanation
from quotas.shapes import Page, Shape, field


class JobRow(Shape):
    """A job in a list. Needs `project`, `queue` and `batch` selected."""

    id: str = field("uid")
    type: str
    status: str
    project: str = field("project.slug")
    queue: str = field("queue.name")
    priority: int
    user: str
    keys: dict[str, str]
    batch: str | None
    cost: dict[str, int]
    max_attempts: int
    attempts_made: int
    reason: str
    run_at: datetime | None = field("not_before")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobPage(Page):
    results: list[JobRow]


class AttemptShape(Shape):
    number: int
    outcome: str
    category: str | None = field(blank_is_null=True)
    account: str | None = field(blank_is_null=True)
    status: int | None
    error: str | None = field(blank_is_null=True)
    counted: bool
    started_at: datetime | None
    ended_at: datetime


class JobAnswer(JobRow):
    """One job with payload, result, attempts and its open dead letter."""

    payload: dict[str, Any]
    timeout: float | None
    delivery: str = field("delivery_mode")
    callback_url: str | None = field(blank_is_null=True)
    idempotency_key: str | None
    replays: int
    after: list[str]
    attempts: list[AttemptShape]
    result: Any
    category: str | None = field(blank_is_null=True)
    error: str | None = field(blank_is_null=True)
    dead_letter: str | None


class Step(Shape):
    at: datetime
    state: str
    reason: str


class Wait(Shape):
    reason: str = field("code", help="A reason code, such as `policy_limit`.")
    name: str | None = field(blank_is_null=True, help="The policy, pool, queue or lane.")
    began_at: datetime
    ended_at: datetime = field(help="Now, for a wait that lasts.")
    seconds: float = field(digits=3)


class Timeline(Shape):
    results: list[Step]
    waits: list[Wait]


class Explanation(Shape):
    status: str
    waits_for: str | None
    until: datetime | None
    ahead: int
    estimated_start: datetime | None
    reason: str | None = field(help="The reason code of the present wait.")
    waits: list[Wait]
    waited: dict[str, float] = field(help="Seconds by reason code, longest first.")
    timeline: list[Step]


class Recent(Shape):
    """A job in the list of recent requests. Needs `project` and `queue` selected."""

    id: str = field("uid")
    type: str
    project: str = field("project.slug")
    queue: str = field("queue.name")
    priority: int
    status: str
    duration: float | None
    created_at: datetime
    finished_at: datetime | None


class RecentPage(Page):
    results: list[Recent]


def payload_of(job: Job) -> dict[str, Any]:
    """The job's payload without the members that its type hides."""
    return registry.redacted(job.type, job.payload)


def job_row(job: Job) -> dict[str, Any]:
    return JobRow.of(job, batch=_batch_of(job))


def parts_of_jobs() -> list[str | Prefetch[Any]]:
    """What `job_whole` shows beside a job's own columns, to be read for many jobs at once."""
    after = JobDependency.objects.order_by("pk").select_related("after").only("job_id", "after__uid")
    return [Prefetch("dependencies", after), "attempts", Prefetch("dead_letters", DeadLetter.objects.order_by("-pk"))]


def job_new(job: Job, queue: str) -> dict[str, Any]:
    """A job without a batch that was just accepted and waits for no other: nothing is read. `queue` is its queue's name."""
    return JobAnswer.of(job, queue=queue, batch=None, payload=payload_of(job), after=[], attempts=[], dead_letter=None)


def job_whole(job: Job) -> dict[str, Any]:
    prefetch_related_objects([job], *parts_of_jobs())
    letters = [letter.uid for letter in job.dead_letters.all()] if job.status == "dead" else []
    return JobAnswer.of(
        job,
        batch=_batch_of(job),
        payload=payload_of(job),
        after=[dependency.after.uid for dependency in job.dependencies.all()],
        attempts=job.attempts.all(),
        dead_letter=letters[0] if letters else None,
    )


def recent_job(job: Job) -> dict[str, Any]:
    ran = None
    if job.finished_at and job.started_at:
        ran = round(max((job.finished_at - job.started_at).total_seconds(), 0.0), 3)
    return Recent.of(job, duration=ran)


def explained(found: explanation.Explanation) -> dict[str, Any]:
    return Explanation.of(found, waited=rounded(found.waited))


def rounded(waits: dict[str, float]) -> dict[str, float]:
    """Seconds by reason code, in milliseconds' precision."""
    return {code: round(seconds, 3) for code, seconds in waits.items()}


def _batch_of(job: Job) -> str | None:
    return job.batch.uid if job.batch else None
