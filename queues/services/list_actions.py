"""Actions on many queues and recurring jobs."""

from __future__ import annotations

from django.db.models import Q

from queues.models import Queue, Recurring, RetryPolicy
from queues.services import queue_actions
from quotas.permissions import ACT_ON_QUEUES, SEE_PAYLOADS
from quotas.services import deletion, row_actions, switches
from quotas.services.row_actions import RowAction, has


def connect() -> None:
    row_actions.register(
        RowAction(
            model=Queue, name="pause", title="Pause queues", act=queue_actions.pause, allowed=has(ACT_ON_QUEUES),
            only=Q(paused_at=None), others="already paused",
        ),
        RowAction(
            model=Queue, name="resume", title="Resume queues", act=queue_actions.resume, allowed=has(ACT_ON_QUEUES),
            only=Q(paused_at__isnull=False) | Q(draining_at__isnull=False), others="running",
        ),
        *switches.actions(Recurring, SEE_PAYLOADS),
        *(deletion.action(model) for model in (Queue, Recurring, RetryPolicy)),
    )  # fmt: skip
