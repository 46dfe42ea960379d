"""Roles: abilities that a role may include, and the three standard roles, viewer, operator and administrator.

An ability is a set of Django's permissions that belong together. The standard roles are groups, created and updated
after each migration; whether they include seeing payloads is left as it is in an existing installation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Q

from quotas.permissions import ACT_ON_ACCOUNTS, ACT_ON_JOBS, ACT_ON_LIMITS, ACT_ON_QUEUES, SEE_PAYLOADS

OURS = ("quotas", "queues", "controlplane")
AUDIT = Q(content_type__app_label="controlplane", content_type__model="auditentry")
ACCESS = Q(content_type__app_label="quotas", content_type__model="apikey") | Q(
    content_type__app_label="controlplane", content_type__model="alertrule"
)
"""Models that only administrators change: API keys and alert rules."""
PEOPLE = Q(content_type__app_label="auth", content_type__model="user") | Q(
    content_type__app_label="auth", codename="view_group"
)
_ROWS = Q(content_type__app_label__in=OURS)
_VIEW = Q(codename__startswith="view_")
_WRITE = Q(codename__startswith="add_") | Q(codename__startswith="change_") | Q(codename__startswith="delete_")


def _single(permission: str) -> Q:
    app, _, codename = permission.partition(".")
    return Q(content_type__app_label=app, codename=codename)


@dataclass(frozen=True)
class Ability:
    name: str
    label: str
    help: str
    chosen: Q
    """The permissions that belong to it."""

    def permissions(self) -> set[int]:
        return set(Permission.objects.filter(self.chosen).values_list("pk", flat=True))


ABILITIES = (
    Ability("see", "See", "every page and figure, but the audit log, payloads and results", _ROWS & _VIEW & ~AUDIT),
    Ability("see_payloads", "See payloads", "payloads and results of jobs, without secrets", _single(SEE_PAYLOADS)),
    Ability("see_audit", "See the audit log", "who did what, before, after and why", AUDIT & _VIEW),
    Ability("act_on_jobs", "Act on jobs", "cancel, retry, replay, discard", _single(ACT_ON_JOBS)),
    Ability("act_on_queues", "Act on queues", "pause, resume, drain", _single(ACT_ON_QUEUES)),
    Ability("act_on_limits", "Act on limits", "reset counters", _single(ACT_ON_LIMITS)),
    Ability(
        "act_on_accounts",
        "Act on accounts",
        "clear cooldowns, trip and close breakers, enable and disable accounts, pause pools",
        _single(ACT_ON_ACCOUNTS),
    ),
    Ability(
        "edit",
        "Edit",
        "add, change and delete projects, policies, queues, pools, accounts and the rest of the configuration",
        _ROWS & _WRITE & ~ACCESS & ~AUDIT,
    ),
    Ability("administer", "Administer", "people, API keys and alert rules", PEOPLE | (ACCESS & _WRITE)),
)
VIEWER = ("see",)
OPERATOR = (
    *VIEWER,
    "see_payloads",
    "see_audit",
    "act_on_jobs",
    "act_on_queues",
    "act_on_limits",
    "act_on_accounts",
)
STANDARD = {"viewer": VIEWER, "operator": OPERATOR, "administrator": (*OPERATOR, "edit", "administer")}
"""The abilities of the standard roles when they are created."""
LEFT_ALONE = "see_payloads"
"""Each installation decides on this ability: it is not changed in an existing role."""


def abilities_of(permissions: set[int]) -> list[str]:
    """The abilities that these permissions (primary keys) include whole."""
    return [one.name for one in ABILITIES if (found := one.permissions()) and found <= permissions]


def permissions_of(names: Any) -> set[int]:
    """The primary keys of all permissions of these abilities."""
    return {pk for one in ABILITIES if one.name in names for pk in one.permissions()}


def make_roles(**kwargs: Any) -> None:
    """A receiver of `post_migrate`."""
    if kwargs.get("using", DEFAULT_DB_ALIAS) != DEFAULT_DB_ALIAS:
        return
    ContentType.objects.clear_cache()
    for label in (*OURS, "auth"):
        create_permissions(apps.get_app_config(label), verbosity=0)
    for name, abilities in STANDARD.items():
        group, created = Group.objects.get_or_create(name=name)
        wanted = permissions_of(abilities)
        if not created:
            chosen = permissions_of([LEFT_ALONE])
            present = set(group.permissions.values_list("pk", flat=True))
            wanted = (wanted - chosen) | (present & chosen)
        group.permissions.set(wanted)
