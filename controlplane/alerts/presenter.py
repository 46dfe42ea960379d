"""Alerts as the API, webhooks and notices show them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from controlplane.alerts.kinds import KINDS
from quotas.shapes import Page, Shape, field


class AlertBody(Shape):
    id: str = field("uid")
    kind: str = field(choices=tuple(KINDS))
    subject: str
    project: str
    severity: Literal["info", "warning", "critical"]
    summary: str
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
