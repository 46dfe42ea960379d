"""Small numbers in the navigation."""

from __future__ import annotations

from django.http import HttpRequest

from controlplane.models import Alert
from queues.models import DeadLetter
from quotas.admin.visibility import project_ids, visible

MOST = 1000


def open_letters(request: HttpRequest) -> str | None:
    """How many dead letters wait for somebody; nothing where there are none."""
    rows = visible(request.user, DeadLetter.objects.filter(handled_at=None), "project").order_by()
    count = rows[:MOST].count()
    if not count:
        return None
    return f"{MOST}+" if count == MOST else str(count)


def open_alerts(request: HttpRequest) -> str | None:
    """How many alerts are open; nothing where there are none. A project's members have few, and see them in the list."""
    if project_ids(request.user) is not None:
        return None
    count = Alert.objects.filter(resolved_at=None).order_by()[:MOST].count()
    if not count:
        return None
    return f"{MOST}+" if count == MOST else str(count)
