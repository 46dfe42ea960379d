"""Small numbers in the navigation."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

from controlplane.models import Alert
from queues.models import DeadLetter
from quotas.admin.visibility import project_ids, visible

MOST = 10_000


def open_letters(request: HttpRequest) -> str:
    """The number of open dead letters; empty if there are none."""
    return _counted(visible(request.user, DeadLetter.objects.filter(handled_at=None), "project"))


def open_alerts(request: HttpRequest) -> str:
    """The number of open alerts; empty if there are none. Members of a project have few, and see them in the list."""
    return "" if project_ids(request.user) is not None else _counted(Alert.objects.filter(resolved_at=None))


def _counted(rows: QuerySet[Any]) -> str:
    count = rows.order_by()[: MOST + 1].count()
    return "" if not count else f"{MOST:,}+" if count > MOST else f"{count:,}"
