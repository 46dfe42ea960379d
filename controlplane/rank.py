"""Who may change whom: a user can't change a person, or assign a role, with a permission that the user lacks."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group, Permission, User
from django.db.models import QuerySet


def outranks(other: Any, user: Any) -> bool:
    """Whether `other` (a user, or the primary key of one) has more permissions than `user`; an inactive one as if active."""
    if user.is_superuser:
        return False
    found = other if isinstance(other, User) else User.objects.filter(pk=other).first()
    if found is None:
        return False
    if found.is_superuser:
        return True
    rows = Permission.objects.filter(group__user=found) | Permission.objects.filter(user=found)
    return bool(_names(rows) - user.get_all_permissions())


def grantable(user: Any) -> QuerySet[Group]:
    """The roles that `user` may give."""
    rows = Group.objects.order_by("name")
    if user.is_superuser:
        return rows
    mine = user.get_all_permissions()
    return rows.filter(
        pk__in=[group.pk for group in rows.prefetch_related("permissions__content_type")
                if _names(group.permissions.all()) <= mine]
    )  # fmt: skip


def _names(rows: Any) -> set[str]:
    return {f"{row.content_type.app_label}.{row.codename}" for row in rows.select_related("content_type")}
