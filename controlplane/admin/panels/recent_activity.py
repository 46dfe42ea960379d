"""The last entries of the audit log."""

from __future__ import annotations

from typing import Any

from controlplane.models import AuditEntry


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    return {"entries": list(AuditEntry.objects.order_by("-pk")[:8])}
