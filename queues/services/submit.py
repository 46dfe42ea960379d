"""Submits jobs. What these return is in SQL, committed with the caller's transaction, and is not lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from queues.errors import FieldError, InvalidJob
from queues.models import Job
from queues.services import intake
from queues.services.deadlock import retry_after_deadlock
from queues.services.draft import prepare
from queues.services.submission import Accepted, accept
from queues.specs import JobSpec, read_job
from quotas.models import Project


def submit_specs(
    project: Project, specs: Sequence[JobSpec], *, pointer: str = "", pointers: Sequence[str] | None = None
) -> list[Accepted]:
    """Accept all of `specs` or none. `pointer` is where the list is in the request, `pointers` where each one is.

    Raises `InvalidJob`, `QueueFull`, `QueueTooSmall`, `QueueDraining`, `IdempotencyKeyReused`, `BatchClosed`.
    """
    return _submit(project, specs, pointer, pointers)


@intake.retry_after_intake
@retry_after_deadlock
def _submit(project: Project, specs: Sequence[JobSpec], pointer: str, pointers: Sequence[str] | None) -> list[Accepted]:
    return accept(prepare(project, specs, pointer=pointer, pointers=pointers))


def submit(type: str, *, project: str, **fields: Any) -> Job:
    """Submit one job from Python; `fields` are those of `POST jobs`, `run_at` may be a `datetime` with its zone.
    Returns the `Job`, new or found.

    Raises `InvalidJob`, `UnknownJobType`, `QueueFull` and the other errors of this package.
    """
    if isinstance(fields.get("run_at"), datetime):
        fields["run_at"] = fields["run_at"].isoformat()
    spec = read_job(
        {"type": type, "project": project, **{name: value for name, value in fields.items() if value is not None}}
    )
    owner = Project.objects.filter(slug=project).first()
    if owner is None:
        raise InvalidJob([FieldError("/project", f"There is no project {project!r}.")])
    return submit_specs(owner, [spec])[0].job


__all__ = ["Accepted", "submit", "submit_specs"]
