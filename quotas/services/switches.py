"""Switches rows of the configuration on and off by their column `enabled`."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import Model, Q

from quotas.services import row_facts
from quotas.services.row_actions import RowAction, has


def switch(row: Any, enabled: bool, *, actor: str, reason: str) -> None:
    """Set `enabled`, with an audit entry where it was different."""
    with transaction.atomic():
        row = type(row)._default_manager.select_for_update(of=("self",)).get(pk=row.pk)
        before = row_facts.facts(row)
        if row.enabled != enabled:
            row.enabled = enabled
            row.save()
            row_facts.record(actor, "change", row, before, row_facts.facts(row), reason)


def actions(model: type[Model], *also: str) -> tuple[RowAction, RowAction]:
    """Enabling and disabling rows of `model`, for people who may change them and have the permissions `also`."""
    options = model._meta
    needed = [has(one) for one in (f"{options.app_label}.change_{options.model_name}", *also)]

    def allowed(user: Any) -> bool:
        return all(check(user) for check in needed)

    def on(row: Model, *, actor: str, reason: str) -> None:
        switch(row, True, actor=actor, reason=reason)

    def off(row: Model, *, actor: str, reason: str) -> None:
        switch(row, False, actor=actor, reason=reason)

    nouns = options.verbose_name_plural
    return (
        RowAction(
            model=model, name="enable", title=f"Enable {nouns}", act=on, allowed=allowed, only=Q(enabled=False),
            others="already enabled",
        ),
        RowAction(
            model=model, name="disable", title=f"Disable {nouns}", act=off, allowed=allowed, only=Q(enabled=True),
            others="already disabled",
        ),
    )  # fmt: skip
