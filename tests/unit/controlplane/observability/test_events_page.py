"""docs/events.md lists every event that is streamed, with its data, and every event that is logged."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from controlplane.observability.log_subscriber import LINES
from controlplane.observability.stream import NAMES, entry_of
from quotas import events

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "events.md").read_text()
CODE = re.compile(r"`([\w.]+)`")
ROWS = [row.strip("|").split("|") for row in PAGE.splitlines() if row.startswith("| `")]
STREAMED = {name: row for row in ROWS if len(row) == 3 for name in CODE.findall(row[0])}
LOGGED = {CODE.findall(row[0])[0]: row for row in ROWS if len(row) == 4}
STATES = ("available", "cooling_down", "open", "half_open", "disabled", "paused")

EXAMPLES: list[events.Event] = [
    *(
        events.JobChanged("j", "q", "t", status)
        for status in ("executing", "completed", "retrying", "rate_limited", "pending", "cancelled")
    ),
    events.JobsSubmitted("q", 3),
    events.JobDied("j", "q", "t", "l", "code", "critical"),
    events.LimitDenied("p", "user", "k", 1.0),
    events.CallEnded("c", 0.0, "p", "POST", "/", "", "", "", "a", 500, "server", 1, 0.0, 0.1, 0.0, None, False, {}, {}),
    events.LimitBypassed("p", "a"),
    events.ThresholdCrossed("p", "k", 0.8, 8, 10),
    events.LimitAdapted("p", 1, 2, "w"),
    events.LimiterDegraded("e"),
    events.LimiterRecovered(1.0),
    events.SettlementDelayed("w", "e"),
    *(events.AccountChanged("p", "a", "available", state) for state in STATES[1:]),
    events.AccountChanged("p", "a", "paused", "available"),
    events.AccountChanged("p", "a", "open", "available"),
    events.PoolLimited("p", "a"),
    events.ConcurrencyChanged("p", "a", 1, 2),
    *(events.QueueChanged("q", state) for state in ("paused", "draining", "running")),
    events.AlertRaised("a", "k", "s", "warning", "t", 1),
    events.AlertResolved("a", "k", "s", "warning", "t", 1),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: repr(event)[:60])
def test_a_streamed_event_is_on_the_page_with_its_data(event: events.Event) -> None:
    entry = entry_of(event)
    assert entry is not None
    assert entry.name in STREAMED
    row = STREAMED[entry.name]
    if "as `account.available`" in row[2]:
        row = STREAMED["account.available"]
    assert entry.data.keys() <= set(CODE.findall(row[2]))


def test_the_page_names_no_other_event() -> None:
    assert STREAMED.keys() == {entry.name for event in EXAMPLES if (entry := entry_of(event)) is not None} | {
        "job.dead"
    }


def test_browsers_listen_for_every_event() -> None:
    assert sorted(NAMES) == sorted(STREAMED)


@pytest.mark.parametrize("kind", LINES)
def test_a_logged_event_is_on_the_page_with_its_fields(kind: type[events.Event]) -> None:
    level, name = LINES[kind]
    own = [field.name for field in fields(kind) if field.name != "project"]
    assert (LOGGED[name][1].strip(), CODE.findall(LOGGED[name][3])) == (level, own)


def test_the_page_names_no_other_line() -> None:
    assert LOGGED.keys() == {name for _, name in LINES.values()}
