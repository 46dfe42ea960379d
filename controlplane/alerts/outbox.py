"""The notices of alerts: their content, and sending them to a rule's address."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet

from controlplane.alerts import channels
from controlplane.alerts.kinds import KINDS, NEXT
from controlplane.alerts.presenter import alert_shape, link_of
from controlplane.models import Alert, AlertNotice, AlertRule
from quotas import clock, events
from quotas.models.encrypted import CredentialUnreadable
from quotas.runtime.outbox import Outbox
from quotas.times import rfc3339


class NoticeOutbox(Outbox[AlertNotice]):
    """Notices of alerts. Each rule is one receiver, and gets the notices of one alert in order."""

    model = AlertNotice

    def rows(self, receivers: Collection[str], tenants: Collection[int]) -> QuerySet[AlertNotice, AlertNotice]:
        earlier = AlertNotice.objects.filter(
            alert=OuterRef("alert"), rule=OuterRef("rule"), pk__lt=OuterRef("pk"), due_at__isnull=False
        )
        rows = AlertNotice.objects.exclude(Exists(earlier)).exclude(rule__in=[int(receiver) for receiver in receivers])
        return rows.select_related("alert", "rule")

    def receiver(self, row: AlertNotice) -> str:
        return str(row.rule_id)

    def deliver(self, row: AlertNotice) -> str:
        error = _deliver(row)
        if error:
            events.emit(events.NoticeFailed(row.rule.name, row.uid, error, row.tries + 1))
        return error

    def given_up(self, row: AlertNotice, error: str) -> None:
        events.emit(events.NoticeGivenUp(row.rule.name, row.uid, error))


notices = NoticeOutbox()


def send_test(rule: AlertRule, *, actor: str, reason: str) -> str:
    """Send a test notice at once. Returns the error; nothing is stored but the audit entry."""
    now = clock.now()
    alert = Alert(
        uid="test", kind="test", subject=rule.name, severity="info", summary="A test: nothing is wrong.",
        opened_at=now, last_seen=now, resolved_at=now, resolved_by=actor,
    )  # fmt: skip
    notice = write(AlertNotice(alert=alert, rule=rule, event="resolved", created_at=now))
    error = _deliver(notice)
    after = {"delivered": not error, **({"error": error} if error else {})}
    events.emit(events.OperatorActed(actor, "alert_rule.test", f"alert_rule:{rule.name}", None, after, reason))
    return error


def _deliver(notice: AlertNotice) -> str:
    """Try once; returns the error, or an empty text."""
    if not notice.document:  # created before contents were stored; stored from now on
        write(notice)
        AlertNotice.objects.filter(pk=notice.pk).update(title=notice.title, text=notice.text, document=notice.document)
    try:
        address = notice.rule.to.reveal()
        channels.deliver(address, notice.uid, notice.title, notice.text, notice.document)
    except channels.NotDelivered as refused:
        return str(refused)
    except CredentialUnreadable:
        return "the address can't be decrypted with the keys in SLUICE_CREDENTIAL_KEYS"
    return ""


def write(notice: AlertNotice) -> AlertNotice:
    """Store the notice's content, from its alert as it is now."""
    notice.title, notice.text, notice.document = title_of(notice), text_of(notice), document_of(notice)
    return notice


def title_of(notice: AlertNotice) -> str:
    alert = notice.alert
    word = "resolved" if notice.event == "resolved" else alert.severity
    return f"[{word}] {KINDS.get(alert.kind, alert.kind)}: {alert.subject}"


def text_of(notice: AlertNotice) -> str:
    alert = notice.alert
    lines = [
        alert.summary,
        f"Since {alert.opened_at:%Y-%m-%d %H:%M:%S} UTC, seen {alert.count} time{'s' * (alert.count != 1)}.",
    ]
    if notice.event == "resolved" and alert.resolved_at is not None:
        lines.append(f"Resolved at {alert.resolved_at:%Y-%m-%d %H:%M:%S} UTC.")
    elif alert.kind in NEXT:
        lines.append(f"Next: {NEXT[alert.kind]}")
    if link := link_of(alert):
        lines.append(link)
    return "\n".join(lines)


def document_of(notice: AlertNotice) -> dict[str, Any]:
    """What a webhook gets."""
    return {
        "type": f"alert.{notice.event}",
        "timestamp": rfc3339(notice.created_at),
        "data": alert_shape(notice.alert),
    }
