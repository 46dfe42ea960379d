"""The line of tools below a page's title: a context processor, which costs nothing where the line is not shown."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from controlplane.admin.periods import PERIODS
from quotas.admin.visibility import chosen_project, visible
from quotas.models import Project

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
        "projects": projects if len(projects) > 1 else [],
        "chosen": chosen_project(request),
        "periods": list(PERIODS),
    }
