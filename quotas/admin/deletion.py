"""Deleting rows: what uses them is listed before, a reason is required, and the audit log has both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django import forms
from django.db import models
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from unfold.admin import ModelAdmin

from quotas.admin.bulk import Refused, bulk_action
from quotas.admin.reason import ReasonField
from quotas.services import in_use

MAX_COUNTED = 1000
"""Rows that are counted at most."""


class DeleteForm(forms.Form):
    reason = ReasonField()


def users_of(row: Model) -> list[str]:
    """Why `row` can't be deleted, such as `3 queues use it`; empty where it can."""
    related = [f"in use by {what}" for what in _related([row], models.PROTECT)]
    return [*related, *(use.what for use in in_use.uses(row) if use.what)]


def _related(rows: Iterable[Model], on_delete: Any) -> Iterator[str]:
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


class DeletesWithReason(ModelAdmin):
    """Rows that others need can't be deleted, and their pages don't offer it."""

    delete_confirmation_template: Any = "admin/sluice/delete.html"

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Counts instead of Django's list of each row: a project may have a million jobs. Who may delete a row
        may delete what belongs to it."""
        rows = list(objs)
        return list(_related(rows, models.CASCADE)), {}, set(), [why for row in rows for why in users_of(row)]

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        form = DeleteForm(request.POST if request.method == "POST" else None)
        if request.method == "POST" and not form.is_valid():
            request.method, request.POST = "GET", QueryDict()
        context = {**(extra_context or {}), "reason_form": form}
        answer: HttpResponse = super().delete_view(request, object_id, context)
        return answer

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        row = kwargs.get("obj")
        if row is not None and context.get("has_delete_permission", True) and users_of(row):
            context["show_delete"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.record_delete(request, obj, request.POST.get("reason", "")[:500])
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        # One by one: each outdates the snapshots and has its own entry.
        for row in queryset:
            self.delete_model(request, row)

    def record_delete(self, request: HttpRequest, obj: Any, reason: str) -> None:
        """Write the audit entry, inside the transaction of the deletion."""
        raise NotImplementedError

    def get_actions(self, request: HttpRequest) -> Any:
        found = super().get_actions(request)
        if found.pop("delete_selected", None) is not None and self.has_delete_permission(request):
            action = _delete_action(self)
            found["delete_selected"] = (action, "delete_selected", action.short_description)
        return found


def _delete_action(model_admin: DeletesWithReason) -> Any:
    def act(request: HttpRequest, row: Model, reason: str) -> None:
        if not model_admin.has_delete_permission(request, row):
            raise Refused("not allowed")
        if users := users_of(row):
            raise Refused(", ".join(users))
        model_admin.delete_model(request, row)

    options = model_admin.opts
    return bulk_action(
        f"Delete {options.verbose_name_plural}",
        question="Delete {count} {noun}?",
        done="{count} {noun} deleted.",
        act=act,
        permission="delete",
        danger=True,
        name="delete_selected",
    )
