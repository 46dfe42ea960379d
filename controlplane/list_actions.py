"""Actions on many alerts, alert rules, people and roles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.contrib.auth.models import Group, User
from django.db.models import Q, QuerySet

from controlplane import people
from controlplane.alerts import records
from controlplane.models import Alert, AlertRule
from quotas.models import Project
from quotas.permissions import may_act
from quotas.services import deletion, row_actions, switches
from quotas.services.membership import project_ids
from quotas.services.row_actions import Refused, RowAction


def alerts_of(user: Any) -> QuerySet[Alert]:
    """The alerts that a person sees: members those with their projects."""
    mine = project_ids(user)
    rows = Alert.objects.all()
    return rows if mine is None else rows.filter(project__in=Project.objects.filter(pk__in=mine).values("slug"))


def _acknowledge(alert: Alert, *, actor: str, reason: str) -> None:
    if not records.acknowledge(alert, actor=actor, reason=reason):
        raise Refused("already acknowledged or resolved")


def _resolve(alert: Alert, *, actor: str, reason: str) -> None:
    if not records.resolve(alert, actor=actor, reason=reason):
        raise Refused("already resolved")


def _activate(user: User, *, actor: str, reason: str) -> None:
    people.set_active(user, True, actor=actor, reason=reason)


def _deactivate(user: User, *, actor: str, reason: str) -> None:
    people.set_active(user, False, actor=actor, reason=reason)


def _may_change_people(user: Any) -> bool:
    return bool(user.has_perm("auth.change_user"))


def _person(name: str, title: str, act: Any, **more: Any) -> RowAction:
    return RowAction(
        model=User, name=name, title=title, act=act, allowed=_may_change_people,
        seen=lambda user: User.objects.all(), refusal=people.refusal, **more,
    )  # fmt: skip


def _access(model: Any, allowed: Any, refusal: Any = None) -> RowAction:
    """Deleting people or roles, also by people who are members of projects."""
    action = deletion.action(model, facts=people.facts, refusal=refusal)
    return replace(action, allowed=allowed, seen=lambda user: model.objects.all())


def connect() -> None:
    row_actions.register(
        RowAction(
            model=Alert, name="acknowledge", title="Acknowledge alerts", act=_acknowledge, allowed=may_act,
            seen=alerts_of, only=Q(acknowledged_at=None, resolved_at=None),
            others="already acknowledged or resolved",
        ),
        RowAction(
            model=Alert, name="resolve", title="Resolve alerts", act=_resolve, allowed=may_act, seen=alerts_of,
            only=Q(resolved_at=None), others="already resolved",
        ),
        _person("activate", "Activate people", _activate, only=Q(is_active=False), others="already active"),
        _person("deactivate", "Deactivate people", _deactivate, only=Q(is_active=True), others="already inactive"),
        _access(User, lambda user: user.has_perm("auth.delete_user"), people.refusal),
        _access(Group, lambda user: user.is_superuser),
        *switches.actions(AlertRule),
        deletion.action(AlertRule),
    )  # fmt: skip
