"""Dead letters, groups of them, and actions on many, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from queues.models import DeadLetter
from queues.selectors.dead_letters import traceback_of
from quotas.shapes import Page, Shape, field


class DeadLetterAnswer(Shape):
    """Needs `job`, `project` and `queue` selected."""

    id: str = field("uid")
    job: str = field("job.uid")
    project: str = field("project.slug")
    queue: str = field("queue.name")
    type: str
    category: str
    severity: str
    fingerprint: str
    error: str
    attempts: int
    created_at: datetime
    handled_at: datetime | None
    handled_by: str | None = field(blank_is_null=True)
    handled_as: str | None = field(blank_is_null=True)


class DeadLetterPage(Page):
    results: list[DeadLetterAnswer]


class DeadLetterWhole(DeadLetterAnswer):
    traceback: str | None = field(help="Of the last attempt that left one.")


class DeadLetterGroup(Shape):
    fingerprint: str
    category: str
    severity: str
    type: str
    count: int
    first_at: datetime
    last_at: datetime
    example: str
    error: str


class DeadLetterGroupPage(Page):
    results: list[DeadLetterGroup]


class BulkAction(Shape):
    id: str = field("uid")
    verb: str
    filter: dict[str, Any]
    total: int
    done: int
    skipped: int
    finished_at: datetime | None


class BulkPreview(Shape):
    """The dead letters that an action on many would cover; nothing is changed."""

    dry_run: bool
    total: int


def dead_letter_whole(letter: DeadLetter) -> dict[str, Any]:
    return DeadLetterWhole.of(letter, traceback=traceback_of(letter))
