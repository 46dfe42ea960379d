"""`queues.testing` and `quotas.testing` as users' tests use them."""

from __future__ import annotations

from typing import Any

import pytest

from queues import registry, task
from queues.errors import InvalidJob
from queues.registry import JobContext
from queues.testing import isolated_registry, run_inline
from quotas import events
from quotas.engine.types import Limit
from quotas.testing import capture_events, memory_limiter


def test_a_task_runs_inline() -> None:
    with isolated_registry():

        @task(name="test.inline")
        def double(job: JobContext, number: int) -> int:
            if number < 0:
                raise ValueError("negative")
            return number * 2

        done = run_inline(double, number=4)
        assert (done.outcome, done.result) == ("succeeded", 8)
        failed = run_inline(double, number=-1)
        assert failed.outcome == "failed" and "negative" in failed.error
        with pytest.raises(InvalidJob):
            run_inline(double, number="four")
    assert registry.get("test.inline") is None


def test_events_are_captured_inside_the_block_only() -> None:
    changed = events.QueueChanged("q", "paused")
    with capture_events(events.QueueChanged) as captured:
        events.emit(changed)
        events.emit(events.LeaderChanged("d", 1))
    events.emit(changed)
    assert captured == [changed]


def test_a_limiter_without_a_server() -> None:
    limiter = memory_limiter(clock=lambda: 1_000_000)
    limits = [Limit("1", "mails", "user", "ada", "fixed_window", 1, window=60.0)]
    assert [limiter.check(limits).allowed for _ in range(2)] == [True, False]


def test_an_incomplete_job_type_is_refused_with_what_it_lacks() -> None:
    class Incomplete:
        name = "test.incomplete"

    class Complete(registry.JobType):
        name = "test.complete"

        def run(self, job: Any, payload: Any) -> Any: ...

    with isolated_registry():
        with pytest.raises(TypeError, match="lacks queue, needs_pool, trusted, delivery, redact, settle, validate"):
            registry.register(Incomplete())  # type: ignore[arg-type]
        registry.register(Complete())
        complete = registry.registered()["test.complete"]
        assert complete.validate({}, "") == [] and complete.delivery == "at_least_once"
        assert not registry.needs_pool("test.complete") and not registry.is_trusted("test.complete")
