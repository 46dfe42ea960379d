"""What is done to people and roles, with before and after in the audit trail."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import Model

from controlplane.rank import outranks
from quotas.services import row_facts
from quotas.services.row_actions import Refused


def facts(row: Model) -> dict[str, Any]:
    """The fields of a person or role that the audit log stores; never a password."""
    if isinstance(row, User):
        return {
            "username": row.username,
            "email": row.email,
            "name": row.get_full_name(),
            "active": row.is_active,
            "staff": row.is_staff,
            "superuser": row.is_superuser,
            "roles": sorted(row.groups.values_list("name", flat=True)),
            "permissions": sorted(row.user_permissions.values_list("codename", flat=True)),
        }
    assert isinstance(row, Group)
    return {"name": row.name, "permissions": sorted(row.permissions.values_list("codename", flat=True))}


def set_active(row: User, active: bool, *, actor: str, reason: str) -> None:
    """Let a person sign in, or end the sessions and refuse the sign-in. Raises `Refused`."""
    with transaction.atomic():
        if not User.objects.filter(pk=row.pk, is_active=not active).update(is_active=active):
            raise Refused(f"{row} is {'active' if active else 'inactive'} already.")
        row_facts.record(actor, "change", row, {"active": not active}, {"active": active}, reason)
    row.is_active = active


def refusal(user: Any, row: Any) -> str:
    """Why `user` can't act on the person `row`; empty where nothing is in the way."""
    if row.pk == user.pk:
        return "this is you"
    return "has permissions that you don't have" if outranks(row, user) else ""
