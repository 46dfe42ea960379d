"""Who calls: an API key or a session of the admin, as views see it in `request.auth`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from django.db.models import Model, QuerySet
from rest_framework.request import Request

from quotas.models import Project
from quotas.permissions import SEE_PAYLOADS
from quotas.rest.pointers import FieldError
from quotas.rest.problems import InvalidRequest, NotFound

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Caller:
    """`project` is the one that the caller is bound to; None: the platform, which sees every project."""

    name: str
    project: Project | None
    scopes: frozenset[str]
    key_id: int | None = None
    """The API key's primary key; None for a session."""
    permissions: frozenset[str] | None = None
    """Of a session: what the person's roles allow. None for a key, whose scopes say everything."""

    projects: frozenset[str] = frozenset()
    """Slugs of a person's projects, where a view shows all of them and the request names none."""

    is_authenticated = True

    @property
    def is_platform(self) -> bool:
        return self.project is None

    @property
    def project_slug(self) -> str:
        """The bound project's slug; empty for the platform."""
        return self.project.slug if self.project is not None else ""

    def may(self, scope: str) -> bool:
        return scope in self.scopes

    def has_all(self, permissions: frozenset[str]) -> bool:
        """Whether a session has these permissions. A session sees nothing that needs none; keys are not checked."""
        return self.permissions is None or (bool(permissions) and permissions <= self.permissions)

    @property
    def sees_payloads(self) -> bool:
        return self.has_all(frozenset({SEE_PAYLOADS}))

    def sees(self, project_slug: str) -> bool:
        """Whether things of this project are the caller's to see; things of no project are the platform's."""
        return self.project is None or self.project.slug == project_slug

    def visible(self, rows: QuerySet[M], field: str = "project") -> QuerySet[M]:
        """`rows` without those of other projects; `field` is the lookup of their project."""
        return rows if self.project is None else rows.filter(**{field: self.project})

    def __str__(self) -> str:
        return self.name


def caller_of(request: Request) -> Caller:
    """The caller of an authenticated request."""
    assert isinstance(request.auth, Caller)
    return request.auth


def _by_slug(slug: str) -> Project | None:
    return Project.objects.filter(slug=slug).first()


def resolve_project(
    request: Request, slug: str | None, *, required: bool = False, find: Callable[[str], Project | None] = _by_slug
) -> Project | None:
    """The project that a request is about: the one named, which `find` looks up, else the key's own.

    Raises `NotFound` where it does not exist or is not the caller's; `InvalidRequest` where `required` and a
    platform's caller names none.
    """
    caller = caller_of(request)
    if slug is None:
        if caller.project is None and required:
            raise InvalidRequest.at("#/project", "is required with a platform key")
        return caller.project
    if caller.sees(slug):
        found = caller.project or find(slug)
        if found is not None:
            return found
    raise unknown_project(slug, in_query=request.method == "GET")


def unknown_project(slug: str, *, in_query: bool = False) -> NotFound:
    """`in_query`: it was named by a parameter of the address, not by a member of the body."""
    detail = f"There is no project {slug[:80]!r}, or it is not yours."
    return NotFound(detail, "unknown-project", [FieldError("?project" if in_query else "/project", detail)])
