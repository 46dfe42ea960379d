"""The toolbar below a page's title: a context processor, which costs nothing where the toolbar is not shown."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from controlplane.admin.periods import PERIODS
from controlplane.api.events import STREAMS
from controlplane.observability.stream import NAMES
from quotas.admin.visibility import chosen_project, project_ids, visible
from quotas.models import Project
from quotas.moments import offset_of

MOST_PROJECTS = 500


def tools(request: HttpRequest) -> dict[str, Any]:
    return {"tools": SimpleLazyObject(lambda: _tools(request))}


def _tools(request: HttpRequest) -> dict[str, Any]:
    """The project picker is shown to people who see several projects."""
    projects: list[tuple[int, str]] = []
    if request.user.has_perm("quotas.view_project"):
        seen = visible(request.user, Project.objects.all(), "pk").order_by("slug")
        projects = list(seen.values_list("pk", "slug")[:MOST_PROJECTS])
    return {
        "events": _events(request),
        "event_names": " ".join(NAMES),
        "projects": projects if len(projects) > 1 else [],
        "chosen": chosen_project(request),
        "periods": list(PERIODS),
        "zone": timezone.get_current_timezone_name(),
        "offset": offset_of(timezone.now()),
    }


def _events(request: HttpRequest) -> str:
    """The address of the person's live events; empty if the server can't stream or the person may see none."""
    if not request.META.get(STREAMS):
        return ""
    address = "/api/v1/events"
    mine = project_ids(request.user)
    chosen = chosen_project(request)
    if mine is None and not request.user.has_perm("quotas.view_project"):
        return ""
    slug = Project.objects.filter(pk=chosen).values_list("slug", flat=True).first() if chosen is not None else None
    return f"{address}?{urlencode({'project': slug})}" if slug else address
