"""Whose rows a person sees: members of projects see theirs, everybody else who may look sees all.

The same rule as the API's for the admin's session (`quotas.rest.authentication.AdminSession`).
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.contrib.auth import get_user_model
from django.db.models import Model, Q, QuerySet

from quotas import clock
from quotas.models import ApiKey

M = TypeVar("M", bound=Model)
PERSON, KEY = "user:", "key:"
"""Before a person's and a key's name in the audit trail."""
_NOTED = "_sluice_project_ids"


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


def person_of(actor: str) -> Any:
    """The active person whom the audit trail names `actor`, with the present permissions; None if there is none."""
    users: Any = get_user_model()._default_manager
    return users.filter(username=actor.removeprefix(PERSON), is_active=True, is_staff=True).first()


def key_may(actor: str, scope: str) -> bool:
    """Whether a key that the audit trail names `actor` is in force and has the scope."""
    valid = Q(expires_at=None) | Q(expires_at__gt=clock.now())
    rows = ApiKey.objects.filter(valid, name=actor.removeprefix(KEY), revoked_at=None)
    return any(scope in scopes for scopes in rows.values_list("scopes", flat=True))
