"""The three roles, as groups: viewer, operator, administrator. Created and updated after each migration."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS

from quotas.models import Project

OURS = ("quotas", "queues", "controlplane")
SECRETIVE = ("auditentry",)
"""The audit log is hidden from viewers."""


def make_roles(**kwargs: Any) -> None:
    """A receiver of `post_migrate`."""
    if kwargs.get("using", DEFAULT_DB_ALIAS) != DEFAULT_DB_ALIAS:
        return
    for label in (*OURS, "auth"):
        create_permissions(apps.get_app_config(label), verbosity=0)
    operate, _ = Permission.objects.get_or_create(
        codename="operate",
        content_type=ContentType.objects.get_for_model(Project),
        defaults={"name": "Can operate: pause, replay, reset"},
    )
    ours = Permission.objects.filter(content_type__app_label__in=OURS)
    look = ours.filter(codename__startswith="view_")
    viewer = look.exclude(content_type__model__in=SECRETIVE)
    people = Permission.objects.filter(content_type__app_label="auth", content_type__model="user")
    groups = Permission.objects.filter(codename="view_group")
    roles = {
        "viewer": list(viewer),
        "operator": [*look, operate],
        "administrator": [*ours, *people, *groups, operate],
    }
    for name, permissions in roles.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.set(permissions)
