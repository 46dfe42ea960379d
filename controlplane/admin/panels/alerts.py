"""Open alerts, the most severe first."""

from __future__ import annotations

from typing import Any

from controlplane.alerts.kinds import SEVERITIES
from controlplane.models import Alert
from quotas.models import Project

ROWS = 5
READ = 200


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    rows = Alert.objects.filter(resolved_at=None)
    if projects is not None:
        rows = rows.filter(project__in=Project.objects.filter(pk__in=projects).values("slug"))
    found = list(rows.order_by("-pk")[:READ])
    found.sort(key=lambda alert: (alert.acknowledged_at is not None, -SEVERITIES.index(alert.severity)))
    return {"alerts": found[:ROWS], "more": max(0, len(found) - ROWS)}
