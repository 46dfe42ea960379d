"""Alerts as the API, webhooks and notices show them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.conf import settings

from controlplane.alerts.kinds import KINDS, NEXT
from controlplane.models import Alert
from quotas.shapes import Page, Shape, field


class AlertBody(Shape):
    id: str = field("uid")
    kind: str = field(choices=tuple(KINDS))
    subject: str
    project: str
    severity: Literal["info", "warning", "critical"]
    summary: str
    next: str = field(help="What to do about it.")
    url: str | None = field(help="Its page, where SLUICE_PUBLIC_URL is set.")
    facts: dict[str, Any]
    opened_at: datetime
    last_seen: datetime
    count: int
    acknowledged_at: datetime | None
    acknowledged_by: str
    resolved_at: datetime | None
    resolved_by: str


class AlertPage(Page):
    results: list[AlertBody]


def alert_shape(alert: Alert) -> dict[str, Any]:
    """An alert with what to do about it, and where."""
    return AlertBody.of(alert, next=NEXT.get(alert.kind, ""), url=link_of(alert))


def link_of(alert: Alert) -> str | None:
    """The address of the alert's page; None where the public address of this instance is not configured."""
    if not settings.PUBLIC_URL or alert.pk is None:
        return None
    return f"{settings.PUBLIC_URL}/admin/controlplane/alert/{alert.pk}/change/"
