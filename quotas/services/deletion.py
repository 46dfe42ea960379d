"""Deleting rows of the configuration: not while something uses them, and with all their columns in the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import Model

from quotas.services import in_use, row_facts
from quotas.services.row_actions import Refused, RowAction, has

MAX_COUNTED = 1000
"""Rows that are counted at most."""
DELETE = "delete"


def users_of(row: Model) -> list[str]:
    """Why `row` can't be deleted, such as `3 queues use it`; empty where it can."""
    found = [f"in use by {what}" for what in related([row], models.PROTECT)]
    return [*found, *(use.what for use in in_use.uses(row) if use.what)]


def related(rows: Iterable[Model], on_delete: Any) -> Iterator[str]:
    """What refers to the rows, such as `3 queues`, by foreign keys with this `on_delete`."""
    found = list(rows)
    for relation in found[0]._meta.related_objects if found else ():
        if getattr(relation, "on_delete", None) is not on_delete:
            continue
        model = relation.related_model
        others = model._base_manager.filter(**{f"{relation.field.name}__in": found}).order_by()
        count = others[: MAX_COUNTED + 1].count()
        if count:
            yield counted(count, model)


def counted(count: int, model: type[Model], most: int = MAX_COUNTED) -> str:
    """`1 queue`, `3 queues`, `1,000+ jobs`."""
    noun = model._meta.verbose_name if count == 1 else model._meta.verbose_name_plural
    return f"{most:,}+ {noun}" if count > most else f"{count:,} {noun}"


def delete(row: Model, *, actor: str, reason: str, facts: Callable[[Any], dict[str, Any]] = row_facts.facts) -> None:
    """Delete one row, with its audit entry. Raises `Refused` where something uses it."""
    try:
        with transaction.atomic():
            if users := users_of(row):
                raise Refused(", ".join(users))
            row_facts.record(actor, DELETE, row, facts(row), None, reason)
            row.delete()
    except IntegrityError:  # a row that refers to it was written meanwhile
        raise Refused("in use") from None


def action(
    model: type[Model],
    *,
    facts: Callable[[Any], dict[str, Any]] = row_facts.facts,
    refusal: Callable[[Any, Any], str] | None = None,
) -> RowAction:
    """Deleting rows of `model`. `facts` are what the audit trail keeps; `refusal` comes before the check of uses."""

    def act(row: Model, *, actor: str, reason: str) -> None:
        delete(row, actor=actor, reason=reason, facts=facts)

    def why_not(user: Any, row: Model) -> str:
        return (refusal(user, row) if refusal is not None else "") or ", ".join(users_of(row))

    options = model._meta
    return RowAction(
        model=model,
        name=DELETE,
        title=f"Delete {options.verbose_name_plural}",
        act=act,
        allowed=has(f"{options.app_label}.delete_{options.model_name}"),
        refusal=why_not,
    )
