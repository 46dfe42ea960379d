"""Alerts opened, seen again, acknowledged and ended. The notices that this causes are rows of the same transaction."""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.db.models import F

from controlplane.alerts import outbox
from controlplane.alerts.kinds import CONDITION, Trouble, rank
from controlplane.models import Alert, AlertNotice, AlertRule
from quotas import clock, events

MAX_SUMMARY = 500


def report(trouble: Trouble, times: int = 1) -> Alert:
    """Open an alert, or note on the open one that it was seen again. A higher severity is reported like a new alert."""
    with transaction.atomic():
        alert = _open_one(trouble)
        if alert is None:
            try:
                with transaction.atomic():
                    return _open(trouble, times)
            except IntegrityError:  # another process was first
                alert = _open_one(trouble)
                if alert is None:
                    raise
        return _seen_again(alert, trouble, times)


def refresh(alert: Alert, trouble: Trouble) -> None:
    """Update the figures of an open alert. Nothing is sent."""
    if alert.severity == trouble.severity and alert.summary != trouble.summary[:MAX_SUMMARY]:
        Alert.objects.filter(pk=alert.pk, resolved_at=None).update(
            summary=trouble.summary[:MAX_SUMMARY], facts=trouble.facts, last_seen=clock.now()
        )


def _open_one(trouble: Trouble) -> Alert | None:
    rows = Alert.objects.filter(kind=trouble.kind, subject=trouble.subject[:300], resolved_at=None)
    return rows.select_for_update().first()


def _open(trouble: Trouble, times: int) -> Alert:
    now = clock.now()
    alert = Alert.objects.create(
        kind=trouble.kind,
        subject=trouble.subject[:300],
        project=trouble.project,
        severity=trouble.severity,
        summary=trouble.summary[:MAX_SUMMARY],
        facts=trouble.facts,
        opened_at=now,
        last_seen=now,
        count=times,
    )
    _notify(alert, "raised")
    return alert


def _seen_again(alert: Alert, trouble: Trouble, times: int) -> Alert:
    worse = rank(trouble.severity) > rank(alert.severity)
    values: dict[str, object] = {"last_seen": clock.now(), "count": F("count") + times}
    if worse or rank(trouble.severity) == rank(alert.severity):
        values |= {"summary": trouble.summary[:MAX_SUMMARY], "facts": trouble.facts}
    if worse:
        values |= {"severity": trouble.severity, "acknowledged_at": None, "acknowledged_by": ""}
    Alert.objects.filter(pk=alert.pk).update(**values)
    alert.refresh_from_db()
    if worse:
        _notify(alert, "raised")
    return alert


def end(alert: Alert) -> bool:
    """End an alert whose problem is over. False if another process has ended it."""
    return _end(alert, "")


def resolve(alert: Alert, *, actor: str, reason: str) -> bool:
    """An operator ends it. Only something new opens it again."""
    with transaction.atomic():
        ended = _end(alert, actor)
        if ended:
            _audit(alert, "alert.resolve", actor, reason, {"resolved": False}, {"resolved": True})
    return ended


def acknowledge(alert: Alert, *, actor: str, reason: str) -> bool:
    """An operator works on it; it stays open until it is over. False if it was acknowledged before or is over."""
    with transaction.atomic():
        rows = Alert.objects.filter(pk=alert.pk, acknowledged_at=None, resolved_at=None)
        done = bool(rows.update(acknowledged_at=clock.now(), acknowledged_by=actor[:200]))
        if done:
            _audit(alert, "alert.acknowledge", actor, reason, {"acknowledged": False}, {"acknowledged": True})
    alert.refresh_from_db()
    return done


def _end(alert: Alert, by: str) -> bool:
    with transaction.atomic():
        rows = Alert.objects.filter(pk=alert.pk, resolved_at=None)
        ended = bool(rows.update(resolved_at=clock.now(), resolved_by=by[:200]))
        alert.refresh_from_db()
        if ended:
            _notify(alert, "resolved")
    return ended


def _asks(rule: AlertRule, alert: Alert) -> bool:
    """Whether the rule names the kind, or the alert is about a condition of its own."""
    return alert.kind in rule.when or (alert.kind == CONDITION and alert.facts.get("rule") == rule.name)


def _notify(alert: Alert, event: str) -> None:
    """Write notices for the rules that match, and emit the event."""
    rules = [rule for rule in AlertRule.objects.filter(enabled=True).defer("to") if _asks(rule, alert)]
    now = clock.now()
    AlertNotice.objects.bulk_create(
        outbox.write(AlertNotice(alert=alert, rule=rule, event=event, created_at=now, due_at=now)) for rule in rules
    )
    kind = events.AlertRaised if event == "raised" else events.AlertResolved
    events.emit(
        kind(alert.uid, alert.kind, alert.subject, alert.severity, alert.summary, alert.count, project=alert.project)
    )


def _audit(alert: Alert, verb: str, actor: str, reason: str, before: dict[str, bool], after: dict[str, bool]) -> None:
    events.emit(
        events.OperatorActed(
            actor, verb, f"alert:{alert.kind}/{alert.subject}", before, after, reason, project=alert.project
        )
    )
