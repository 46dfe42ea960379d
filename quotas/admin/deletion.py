"""Deleting rows: what uses them is listed before, a reason is required, and the audit log has both."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import models
from django.http import HttpRequest, HttpResponse, QueryDict
from unfold.admin import ModelAdmin

from quotas.admin.bulk import bulk_action
from quotas.admin.reason import ReasonField
from quotas.services import row_actions
from quotas.services.deletion import DELETE, related, users_of


class DeleteForm(forms.Form):
    reason = ReasonField()


class DeletesWithReason(ModelAdmin):
    """Rows that others need can't be deleted, and their pages don't offer it."""

    delete_confirmation_template: Any = "admin/sluice/delete.html"

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Counts instead of Django's list of each row: a project may have a million jobs. Who may delete a row
        may delete what belongs to it."""
        rows = list(objs)
        return list(related(rows, models.CASCADE)), {}, set(), [why for row in rows for why in users_of(row)]

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

    def record_delete(self, request: HttpRequest, obj: Any, reason: str) -> None:
        """Write the audit entry, inside the transaction of the deletion."""
        raise NotImplementedError

    def response_action(self, request: HttpRequest, queryset: Any, *args: Any, **kwargs: Any) -> HttpResponse | None:
        """A selection that is no list of keys (an address that was edited, a form of an older page) selects nothing."""
        chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if not all(one.isascii() and one.isdecimal() and int(one) < 2**63 for one in chosen):
            messages.warning(request, "Nothing was done: the selection can't be read. Select the rows again.")
            return None
        answer: HttpResponse | None = super().response_action(request, queryset, *args, **kwargs)
        return answer

    def get_actions(self, request: HttpRequest) -> Any:
        found = super().get_actions(request)
        on = row_actions.find(self.model._meta.label_lower, DELETE)
        if found.pop("delete_selected", None) is not None and on is not None and self.has_delete_permission(request):
            action = bulk_action(
                on,
                question="Delete {count} {noun}?",
                done="{count} {noun} deleted.",
                permission="delete",
                danger=True,
                name="delete_selected",
            )
            found["delete_selected"] = (action, "delete_selected", on.title)
        return found
