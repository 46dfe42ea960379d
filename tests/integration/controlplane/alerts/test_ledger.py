"""Alerts from events: one row while it lasts, a notice for each rule that matches, and no emitter is delayed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, transaction

from controlplane.alerts import records, summaries
from controlplane.alerts.subscriber import WRITES, Recorder
from controlplane.models import Alert, AlertNotice, AuditEntry
from controlplane.observability.stream import entry_of
from quotas import events
from quotas.testing import capture_events
from tests.integration.controlplane.alerts.conftest import rule

pytestmark = pytest.mark.django_db(transaction=True)
OPEN = events.AccountChanged("llm", "a1", "available", "open", "too many failures", 60.0)
DIED = events.JobDied("j", "batch", "http.request", "l", "auth", "critical", project="acme")


@pytest.fixture
def emitted() -> Any:
    """The events about alerts that are emitted."""
    with capture_events(events.AlertRaised, events.AlertResolved) as captured:
        yield captured


def test_the_same_trouble_is_one_alert_and_one_notice(emitted: Any) -> None:
    asked, _ = rule(), rule("other", when=("queue_backlog",))
    recorder = Recorder()
    for _ in range(3):
        recorder.receive(OPEN)
    recorder.receive(events.AccountChanged("llm", "a2", "available", "open", "tripped"))
    first, second = Alert.objects.order_by("pk")
    assert (first.kind, first.subject, first.severity, first.count) == ("breaker_opened", "llm/a1", "warning", 3)
    assert (second.subject, second.count) == ("llm/a2", 1)
    assert "too many failures" in first.summary and "60 s" in first.summary
    assert [(notice.alert_id, notice.rule_id, notice.event) for notice in AlertNotice.objects.order_by("pk")] == [
        (first.pk, asked.pk, "raised"),
        (second.pk, asked.pk, "raised"),
    ]
    assert [(event.kind, event.subject, event.count) for event in emitted] == [
        ("breaker_opened", "llm/a1", 1),
        ("breaker_opened", "llm/a2", 1),
    ]


def test_it_is_the_real_bus_that_they_come_from() -> None:
    events.emit(events.AccountChanged("llm", "a9", "available", "disabled", "auth"))
    alert = Alert.objects.get()
    assert (alert.kind, alert.severity) == ("account_auth_failed", "critical")


@pytest.mark.parametrize(
    ("event", "kind", "subject", "severity"),
    [
        (OPEN, "breaker_opened", "llm/a1", "warning"),
        (events.AccountChanged("llm", "a1", "available", "disabled", "auth"), "account_auth_failed", "llm/a1", "critical"),
        (events.PoolLimited("llm", "a1", "rate_limited", 30.0), "all_accounts_limited", "llm", "critical"),
        (events.ThresholdCrossed("day", "acme", 0.6, 6, 10, project="acme"), "quota_threshold", "day/acme", "info"),
        (events.ThresholdCrossed("day", "u1", 0.8, 8, 10, project="acme"), "quota_threshold", "day/acme/u1", "warning"),
        (events.ThresholdCrossed("all", "*", 0.95, 95, 100), "quota_threshold", "all/*", "critical"),
        (DIED, "dead_letter_critical", "acme/batch", "critical"),
    ],
)  # fmt: skip
def test_what_is_a_trouble(event: events.Event, kind: str, subject: str, severity: str) -> None:
    Recorder().receive(event)
    alert = Alert.objects.get()
    assert (alert.kind, alert.subject, alert.severity, alert.project) == (kind, subject, severity, event.project)


@pytest.mark.parametrize(
    "event",
    [
        events.AccountChanged("llm", "a1", "available", "disabled", "an operator's reason"),
        events.AccountChanged("llm", "a1", "open", "available"),
        events.JobDied("j", "batch", "t", "l", "server", "warning", project="acme"),
    ],
)
def test_what_is_none(event: events.Event) -> None:
    Recorder().receive(event)
    assert not Alert.objects.exists()


def test_an_alert_that_gets_worse_is_sent_again_and_one_that_gets_better_is_not() -> None:
    rule()
    for share in (0.6, 0.8, 0.6, 0.95):
        records.report(summaries.threshold("day", "acme", "acme", share, int(share * 100), 100))
    alert = Alert.objects.get()
    assert (alert.severity, alert.count, alert.facts["share"]) == ("critical", 4, 0.95)
    assert AlertNotice.objects.count() == 3


def test_a_trouble_after_its_end_is_a_new_alert(emitted: Any) -> None:
    rule()
    trouble = summaries.auth_failed("llm", "a1")
    assert records.end(records.report(trouble))
    records.report(trouble)
    assert [alert.resolved_at is None for alert in Alert.objects.order_by("pk")] == [False, True]
    assert [notice.event for notice in AlertNotice.objects.order_by("pk")] == ["raised", "resolved", "raised"]
    assert [entry_of(event).name for event in emitted] == ["alert.raised", "alert.resolved", "alert.raised"]  # type: ignore[union-attr]


def test_what_is_rolled_back_was_no_trouble() -> None:
    recorder = Recorder()
    try:
        with transaction.atomic():
            recorder.receive(DIED)
            raise RuntimeError("the job's end is taken back")
    except RuntimeError:
        assert not Alert.objects.exists()
    with transaction.atomic():
        recorder.receive(DIED)
        assert not Alert.objects.exists(), "after the transaction, so that it locks no row of it"
    assert Alert.objects.exists()


def test_a_storm_is_counted_and_not_written_one_by_one(django_assert_max_num_queries: Any) -> None:
    now = [0.0]
    recorder = Recorder(monotonic=lambda: now[0])
    with django_assert_max_num_queries(WRITES * 12):
        for _ in range(2000):
            recorder.receive(DIED)
    assert Alert.objects.get().count == WRITES
    now[0] += 1.0
    recorder.receive(DIED)
    assert Alert.objects.get().count == 2001


def test_sql_that_refuses_to_write_does_not_fail_the_emitter(caplog: pytest.LogCaptureFixture) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("a read-only connection is set up with SQLite's pragma")
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only = 1")
    try:
        Recorder().receive(OPEN)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA query_only = 0")
    assert not Alert.objects.exists()
    assert any("alert.unwritten" in str(record.msg) for record in caplog.records)


def test_many_at_once_open_one() -> None:
    rule()
    trouble = summaries.auth_failed("llm", "a1")
    barrier = threading.Barrier(6)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            barrier.wait()
            for _ in range(5):
                records.report(trouble)
        except BaseException as error:  # noqa: BLE001 - collected, and shown by the assertion
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert Alert.objects.get().count == 30
    assert AlertNotice.objects.count() == 1


def test_operators_acknowledge_and_resolve_with_their_name_in_the_trail() -> None:
    rule()
    alert = records.report(summaries.auth_failed("llm", "a1"))
    assert records.acknowledge(alert, actor="user:eve", reason="on it")
    assert not records.acknowledge(alert, actor="user:bob", reason="me too")
    assert (alert.acknowledged_by, alert.resolved_at) == ("user:eve", None)
    assert records.resolve(alert, actor="user:eve", reason="new key")
    assert not records.resolve(alert, actor="user:eve", reason="again")
    assert alert.resolved_by == "user:eve"
    assert [(entry.verb, entry.reason) for entry in AuditEntry.objects.order_by("pk")] == [
        ("alert.acknowledge", "on it"),
        ("alert.resolve", "new key"),
    ]
