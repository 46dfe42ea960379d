"""The largest groups of open dead letters; not those that operators ignore."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Max

from queues import redaction
from queues.models import DeadLetter
from queues.selectors.ignored_failures import without_ignored
from quotas import clock


def figures(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    letters = DeadLetter.objects.filter(handled_at=None)
    if projects is not None:
        letters = letters.filter(project__in=projects)
    groups = (
        without_ignored(letters, clock.now())
        .order_by()
        .values("fingerprint", "category", "severity", "type")
        .annotate(count=Count("pk"), last=Max("created_at"), newest=Max("pk"))
        .order_by("-count")[:6]
    )
    errors = dict(DeadLetter.objects.filter(pk__in=[group["newest"] for group in groups]).values_list("pk", "error"))
    return {
        "groups": [
            {**group, "error": redaction.hide_in_text(errors.get(group["newest"], "")[:1000])} for group in groups
        ]
    }
