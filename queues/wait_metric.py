"""Seconds that groups of jobs waited, by queue and reason: summed up in Redis, so that every process can export them."""

from __future__ import annotations

from collections.abc import Mapping

from queues import connection

NAME = "wait-seconds"


def add(seconds: Mapping[tuple[int, str], float]) -> None:
    """Add to the sums: {(queue, reason code): seconds}."""
    if not seconds:
        return
    with connection.client().pipeline(transaction=False) as pipeline:
        for (queue_id, code), amount in seconds.items():
            pipeline.hincrbyfloat(connection.key(NAME), f"{queue_id}:{code}", round(amount, 3))
        pipeline.execute()


def totals() -> dict[tuple[int, str], float]:
    """All sums since Redis was last empty."""
    found: dict[tuple[int, str], float] = {}
    raw: dict[bytes, bytes] = connection.client().hgetall(connection.key(NAME))  # type: ignore[assignment]
    for field, amount in raw.items():
        queue_id, _, code = field.decode().partition(":")
        found[int(queue_id), code] = float(amount)
    return found
