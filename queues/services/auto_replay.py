"""Replays dead letters of transient errors, if and as often as their queue's retry policy says."""

from __future__ import annotations

from datetime import datetime, timedelta

from queues import config
from queues.errors import AlreadyHandled
from queues.models import DeadLetter
from queues.services.dead_letters import replay
from quotas.engine.categories import TRANSIENT

ACTOR = "auto-replay"
SLICE = 100
"""Letters at a time, so that the dispatcher is not delayed."""


def replay_due(now: datetime) -> int:
    """Replay the letters whose time has come; returns how many. A paused queue's wait until it is resumed."""
    done = 0
    for queue in config.current().queues.values():
        if queue.retry.auto_replays == 0 or queue.paused:
            continue
        due = DeadLetter.objects.filter(
            queue_id=queue.id,
            handled_at=None,
            category__in=TRANSIENT,
            created_at__lte=now - timedelta(seconds=queue.retry.auto_replay_after),
            job__replays__lt=queue.retry.auto_replays,
        )
        for letter_id in due.order_by("pk").values_list("pk", flat=True)[:SLICE]:
            try:
                replay(letter_id, actor=ACTOR, reason="what it died of may have passed")
                done += 1
            except AlreadyHandled:
                continue  # an operator was faster
    return done
