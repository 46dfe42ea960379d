"""What can be done to many rows of a list: one registered function for each action and kind of row.

A list of the admin offers such an action. The confirmation is answered by a bulk action: an object with progress, which the
leading dispatcher works off row by row. So everything that it needs is registered here and imports no page: which rows the person
sees, whether the person may, whether the row is in a state for it, and the act, which writes the row's own audit entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, Q, QuerySet

from quotas.services.membership import project_ids


class Refused(Exception):
    """A row was not in a state for the action; its text is shown."""


def has(permission: str) -> Callable[[Any], bool]:
    """Whether a person has the permission, and is not bound to projects: the row belongs to the platform."""
    return lambda user: project_ids(user) is None and bool(user.has_perm(permission))


def never(user: Any, row: Any) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowAction:
    model: type[Model]
    name: str
    """Its name in the bulk action and the audit trail, such as `disable`."""
    title: str
    """What the list of actions calls it."""
    act: Callable[..., object]
    """`act(row, actor=, reason=)`. Raises `Refused`."""
    allowed: Callable[[Any], bool]
    """Whether a person may do it; asked again for each part of the rows."""
    only: Q = Q()
    """The rows that it would change."""
    others: str = ""
    """Why other rows are not included, such as `already paused`."""
    seen: Callable[[Any], QuerySet[Any]] | None = None
    """The rows that a person sees. None: all, for people who are not bound to projects."""
    refusal: Callable[[Any, Any], str] = never
    """Why a person can't do it to a row, where a query can't say; empty where nothing is in the way."""

    @property
    def target(self) -> str:
        """The kind of row in the bulk action."""
        return self.model._meta.label_lower

    def rows(self, user: Any) -> QuerySet[Any]:
        """The rows that the person sees."""
        if self.seen is not None:
            return self.seen(user)
        rows: QuerySet[Any] = self.model._default_manager.all()
        return rows if project_ids(user) is None else rows.none()


_known: dict[tuple[str, str], RowAction] = {}


def register(*actions: RowAction) -> None:
    for action in actions:
        _known[action.target, action.name] = action


def find(target: str, name: str) -> RowAction | None:
    """None: no app registers such an action."""
    return _known.get((target, name))


def of(model: type[Model], name: str) -> RowAction:
    """The registered action of this name on rows of `model`."""
    return _known[model._meta.label_lower, name]
