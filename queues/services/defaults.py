"""The seven queues and the retry policy that a new installation begins with."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from queues.models import Queue, RetryPolicy

# (max_size, timeout in seconds, concurrency, lane, help)
QUEUES: dict[str, dict[str, Any]] = {
    "embeddings": {"max_size": 100_000, "timeout": 60.0, "concurrency": 50},
    "agent_tasks": {"max_size": 10_000, "timeout": 600.0, "concurrency": 20},
    "exports": {"max_size": 1_000, "timeout": 3600.0, "concurrency": 2},
    "batch": {"max_size": 100_000, "timeout": 600.0, "concurrency": None},
    "notifications": {"max_size": 50_000, "timeout": 30.0, "concurrency": None},
    "cleanup": {"max_size": 1_000, "timeout": 600.0, "concurrency": 2},
    "health_checks": {"max_size": 1_000, "timeout": 30.0, "concurrency": 5},
}


def create_defaults() -> None:
    """Make what is missing; what an operator changed stays as it is."""
    with transaction.atomic():
        standard, _ = RetryPolicy.objects.get_or_create(
            name="standard",
            defaults={"strategy": "smart", "initial": 1.0, "max": 60.0, "max_attempts": 5, "jitter": 0.1},
        )
        for name, fields in QUEUES.items():
            Queue.objects.get_or_create(name=name, defaults={**fields, "retry_policy": standard})
