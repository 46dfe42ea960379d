"""Which rows a page shows: those that the person sees, of the project that the person has chosen to look at."""

from __future__ import annotations

from django.http import HttpRequest

from quotas.models import Project
from quotas.services.membership import project_ids as project_ids
from quotas.services.membership import visible as visible

CHOSEN = "sluice_project"
"""The session's entry for the project that the person has chosen to look at."""


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


def shown_slugs(request: HttpRequest) -> list[str] | None:
    """Slugs of the projects whose rows a list shows; None: of all. What is done to all that match is done to theirs."""
    shown = shown_projects(request)
    return None if shown is None else list(Project.objects.filter(pk__in=shown).values_list("slug", flat=True))


def choose_project(request: HttpRequest, given: str) -> None:
    """Note the choice; an empty text, or a project that the person does not see, means all."""
    request.session.pop(CHOSEN, None)
    if given.isdecimal() and visible(request.user, Project.objects.filter(pk=int(given)), "pk").exists():
        request.session[CHOSEN] = int(given)
