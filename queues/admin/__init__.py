"""Pages for queues and what is in them; one file per noun."""

from queues.admin import (
    batch,
    bulk_action,
    dead_letter,
    job,
    queue,
    recurring,
    retry_policy,
    row_action_runner,
    worker,
)

__all__ = [
    "batch",
    "bulk_action",
    "dead_letter",
    "job",
    "queue",
    "recurring",
    "retry_policy",
    "row_action_runner",
    "worker",
]
