"""The columns of a row, for the audit trail."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from django.db.models import Model

from quotas import events
from quotas.models.encrypted import EncryptedTextField

OMITTED = {"created_at", "updated_at", "generation", "counted_since", "space"}


def facts(row: Model) -> dict[str, Any]:
    """The stored row's columns in a form that JSON takes. Of a credential only that it is set, and when to another."""
    columns: dict[str, Any] = {}
    for field in row._meta.concrete_fields:
        if field.primary_key or field.name in OMITTED or not field.editable:
            continue
        value = field.value_from_object(row)
        if isinstance(field, EncryptedTextField):
            columns[field.name] = f"set ({_mark(value)})" if value else ""
        elif field.is_relation:
            related = getattr(row, field.name)
            columns[field.name] = str(related) if related is not None else None
        elif value is None or isinstance(value, (bool, int, float, str, list, dict)):
            columns[field.name] = value
        elif isinstance(value, datetime):
            columns[field.name] = str(value.astimezone(UTC))  # a form gives it in the person's time zone
        else:
            columns[field.name] = str(value)
    return columns


def _mark(encrypted: Any) -> str:
    """Another one with each encryption; it says nothing of what is encrypted."""
    return blake2b(str(encrypted).encode(), digest_size=4).hexdigest()


def changes(before: dict[str, Any] | None, after: dict[str, Any] | None) -> tuple[Any, Any]:
    """Of a row that was changed only what differs; of one that is new or gone everything."""
    if before is None or after is None:
        return before, after
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def record(
    actor: str, verb: str, row: Model, before: dict[str, Any] | None, after: dict[str, Any] | None, reason: str
) -> None:
    """One entry, with what differs; inside the transaction of the change itself."""
    if before is not None and after is not None:
        before, after = changes(before, after)
        if not after:
            return
    noun = row._meta.model_name
    project = getattr(getattr(row, "project", None), "slug", "")
    events.emit(events.OperatorActed(actor, f"{noun}.{verb}", f"{noun}:{row}", before, after, reason, project=project))
