"""Small numbers in the navigation."""

from __future__ import annotations

from django.http import HttpRequest

from queues.models import DeadLetter
from quotas.admin.visibility import visible

MOST = 1000


def open_letters(request: HttpRequest) -> str | None:
    """How many dead letters wait for somebody; nothing where there are none."""
    rows = visible(request.user, DeadLetter.objects.filter(handled_at=None), "project").order_by()
    count = rows[:MOST].count()
    if not count:
        return None
    return f"{MOST}+" if count == MOST else str(count)
