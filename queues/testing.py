"""For tests of code that uses queues: run a task inline, and isolate the registered job types.

from queues.testing import fresh_configuration, isolated_registry, run_inline
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from queues import config, registry
from queues.errors import InvalidJob
from queues.registry import JobContext, RunResult
from quotas import testing as quotas_testing

__all__ = ["capture_events", "fresh_configuration", "isolated_registry", "run_inline"]

capture_events = quotas_testing.capture_events


def run_inline(
    task: registry.JobType,
    *,
    project: str = "test",
    user: str = "",
    keys: Mapping[str, str] | None = None,
    attempt: int = 1,
    max_attempts: int = 1,
    timeout: float = 60.0,
    **payload: Any,
) -> RunResult:
    """Check `payload` and run the task once in this thread: no queue, no limits, no account, no retry.

    Returns the attempt's result: what a task raises is in it (`category`, `error`), as a worker would see it.
    Raises `InvalidJob` for a payload that a submission would refuse.

        assert run_inline(send_mail, to="a@example.org").outcome == "succeeded"
    """
    problems = task.validate(payload, "#/payload")
    if problems:
        raise InvalidJob(problems)
    context = JobContext(
        id="inline", project=project, queue=task.queue or "default", user=user, keys=dict(keys or {}), attempt=attempt,
        max_attempts=max_attempts, timeout=timeout, idempotency_key=f"inline-{attempt}",
    )  # fmt: skip
    return task.run(context, payload)


@contextmanager
def isolated_registry() -> Iterator[None]:
    """Job types registered or removed inside the block are as before after it."""
    before = registry.registered()
    try:
        yield
    finally:
        registry.restore(before)


def fresh_configuration() -> None:
    """Clear the configuration of quotas and queues from memory: the next use reads SQL."""
    quotas_testing.fresh_configuration()
    config.snapshot.clear()
