"""Whose rows a person sees: members of projects see theirs, everybody else who may look sees all.

The same rule as the API's for the admin's session (`quotas.rest.authentication.AdminSession`).
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from django.http import HttpRequest

from quotas.models import Project

M = TypeVar("M", bound=Model)
_NOTED = "_sluice_project_ids"
CHOSEN = "sluice_project"
"""The session's entry for the project that the person has chosen to look at."""


def project_ids(user: Any) -> list[int] | None:
    """Primary keys of the projects that `user` is bound to; None: not bound."""
    if user.is_superuser or not user.is_authenticated:
        return None
    if not hasattr(user, _NOTED):
        setattr(user, _NOTED, list(user.sluice_projects.values_list("pk", flat=True)) or None)
    noted: list[int] | None = getattr(user, _NOTED)
    return noted


def visible(user: Any, rows: QuerySet[M], lookup: str) -> QuerySet[M]:
    """`rows` of the projects that `user` sees; `lookup` leads from a row to its project."""
    mine = project_ids(user)
    return rows if mine is None else rows.filter(**{f"{lookup}__in": mine})


def chosen_project(request: HttpRequest) -> int | None:
    """The primary key of the project that the person has chosen to look at. None: all that they see.

    It narrows lists and figures; it gives no access.
    """
    chosen = request.session.get(CHOSEN)
    if chosen is None:
        return None
    mine = project_ids(request.user)
    return chosen if mine is None or chosen in mine else None


def shown_projects(request: HttpRequest) -> list[int] | None:
    """Primary keys of the projects whose figures are shown: the chosen one, else all that the person sees."""
    chosen = chosen_project(request)
    return project_ids(request.user) if chosen is None else [chosen]


def choose_project(request: HttpRequest, given: str) -> None:
    """Note the choice; an empty text, or a project that the person does not see, means all."""
    request.session.pop(CHOSEN, None)
    if given.isdecimal() and visible(request.user, Project.objects.filter(pk=int(given)), "pk").exists():
        request.session[CHOSEN] = int(given)
