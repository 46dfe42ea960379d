"""Log lines are written by a subscriber of events; code logs by itself only unexpected exceptions."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from controlplane.observability import log_subscriber, stream
from quotas import events
from quotas.testing import capture_events

ROOT = Path(__file__).resolve().parents[4]
SUBSCRIBER = "controlplane/observability/log_subscriber.py"
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
FAULTS = {"gateway.fault", "job.fault", "request.failed"}
"""Logged by a function that gets an exception from a handler."""
CATALOGUE = [
    kind
    for _, kind in inspect.getmembers(events, inspect.isclass)
    if issubclass(kind, events.Event) and kind is not events.Event
]
ELSEWHERE = {
    events.OperatorActed: "the audit trail",
    events.LimitsChecked: "the counters of checks",
    events.CallRejected: "the counters of calls",
    events.ProcessStarted: "starts what belongs beside a process",
}
"""Events that are neither logged nor streamed, with the subscriber that uses them."""


def direct_lines() -> Iterator[tuple[str, str, bool]]:
    """File, first argument, and whether it is in an `except` block, of each call of a logger outside the subscriber."""
    for app in ("controlplane", "queues", "quotas"):
        for path in sorted((ROOT / app).rglob("*.py")):
            tree = ast.parse(path.read_text())
            handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
            handled = {id(node) for handler in handlers for node in ast.walk(handler)}
            for node in ast.walk(tree):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="log" | "logger"), attr=level), args=[first, *_]
                    ):
                        if level in LEVELS and path != ROOT / SUBSCRIBER:
                            yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(first), id(node) in handled


def test_code_logs_nothing_but_exceptions() -> None:
    found = [(where, line) for where, line, handled in direct_lines() if not handled]
    assert [item for item in found if ast.literal_eval(item[1]) not in FAULTS] == []


def test_there_is_one_kind_of_logger() -> None:
    files = [path for app in ("controlplane", "queues", "quotas") for path in (ROOT / app).rglob("*.py")]
    assert [str(path) for path in files if "logging.getLogger(__name__)" in path.read_text()] == []


@pytest.mark.parametrize("kind", CATALOGUE)
def test_each_event_of_the_catalogue_has_a_use(kind: type[events.Event]) -> None:
    assert kind in stream.STREAMED or kind in log_subscriber.LINES or kind in ELSEWHERE


def test_a_line_has_the_name_and_the_fields_of_its_event() -> None:
    with structlog.testing.capture_logs() as lines:
        events.emit(events.WorkerStarted("w1", "io", 4))
        events.emit(events.ThreadStuck("01K", "tasks.slow", 12.5))
    assert lines == [
        {"event": "worker.started", "log_level": "info", "worker": "w1", "lane": "io", "slots": 4},
        {"event": "worker.thread_stuck", "log_level": "error", "job": "01K", "type": "tasks.slow", "seconds": 12.5},
    ]


def test_subscribers_come_and_go() -> None:
    with capture_events(events.JobsPruned) as pruned:
        events.emit(events.JobsPruned(3))
        events.emit(events.WorkerStopped("w1"))
    events.emit(events.JobsPruned(4))
    assert pruned == [events.JobsPruned(3)]
