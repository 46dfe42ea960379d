"""Pages of bulk actions: what is done to many rows of a list, with its progress."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import path, reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.enums import ActionVariant

from queues.admin.dead_letter_actions import undo_button
from queues.admin.pretty_json import pretty
from queues.errors import AlreadyFinished
from queues.models import BulkAction
from queues.services import bulk_records
from quotas.admin.audit import actor_of
from quotas.admin.base import ReadOnlyAdmin
from quotas.admin.bulk import Refused
from quotas.admin.dialogs import back, why
from quotas.admin.reason_action import reason_action
from quotas.admin.visibility import project_ids
from quotas.permissions import ACT_ON_JOBS
from quotas.services import row_actions


def _stop(request: HttpRequest, action: BulkAction, reason: str) -> None:
    try:
        bulk_records.stop(action, actor=actor_of(request), reason=reason)
    except AlreadyFinished as error:
        raise Refused(str(error)) from None


@admin.register(BulkAction)
class BulkActionAdmin(ReadOnlyAdmin):
    operate_permission = ACT_ON_JOBS
    empty_text = "Actions on many rows of a list appear here with their progress."
    project_lookup = "project"
    list_display = ["what", "progress", "state", "actor", "reason", "created_at", "finished_at"]
    list_select_related = ["project"]
    fields = ["uid", "what", "shown_filter", "project", "actor", "reason", "created_at", "finished_at", "stopped_by"]
    readonly_fields = ["what", "shown_filter"]
    change_form_outer_before_template = "admin/sluice/bulk_progress.html"
    actions_detail = ["stop"]

    stop = reason_action(
        "stop", "Stop", icon="stop_circle", variant=ActionVariant.DANGER, done="Stopped.", submit="Stop the action",
        act=lambda request, row, dialog: _stop(request, row, why(dialog)), question="Stop this bulk action?",
        detail="What it has done stays done; the rest is left as it is.",
    )  # fmt: skip

    def get_urls(self) -> Any:
        guarded = self.admin_site.admin_view(lambda request, object_id: self.undo(request, object_id))
        return [path("<path:object_id>/undo/", guarded, name="queues_bulkaction_undo"), *super().get_urls()]

    def undo(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The button beside the message that an action was begun, and on its page."""
        row = self.row(request, object_id)
        if not self.has_operate_permission(request, row):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        try:
            bulk_records.undo(row, actor=actor_of(request))
            messages.success(request, f"Undone: {self.what(row)}. Nothing was changed.")
        except AlreadyFinished as error:
            messages.warning(request, str(error))
        return back(request, reverse("admin:queues_bulkaction_change", args=[row.pk]))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Of a member's projects, and those that the member began: they may span several projects."""
        mine = project_ids(request.user)
        rows = BulkAction.objects.select_related("project").defer("filter")
        return rows if mine is None else rows.filter(Q(project__in=mine) | Q(project=None, actor=actor_of(request)))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            row.page_title = self.what(row)
        return row

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> Any:
        row = self.get_object(request, object_id)
        if row is not None:
            kwargs["extra_context"] = {
                **(kwargs.get("extra_context") or {}),
                "bulk": row,
                "share": _share(row),
                "undo": undo_button(request, row) if self._may_undo(request, row) else "",
                "left": max(0, row.total - row.done - row.skipped),
                "unnamed": row.skipped - len(row.refused),
                "title": f"Bulk action: {self.what(row)}",
            }
        return super().change_view(request, object_id, *args, **kwargs)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        row = self.get_object(request, str(object_id))
        return [] if row is None or row.finished_at else super().get_actions_detail(request, object_id)

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """To stop or undo an action takes the permission to begin it."""
        row = obj if isinstance(obj, BulkAction) or obj is None else self.get_object(request, str(obj))
        if row is None or row.target in (bulk_records.LETTERS, bulk_records.JOBS):
            return super().has_operate_permission(request)
        kind = row_actions.find(row.target, row.verb)
        return kind is not None and kind.allowed(request.user)

    def _may_undo(self, request: HttpRequest, row: BulkAction) -> bool:
        return bulk_records.can_be_undone(row) and self.has_operate_permission(request, row)

    @display(description="Action")
    def what(self, row: BulkAction) -> str:
        kind = row_actions.find(row.target, row.verb)
        if kind is not None:
            return f"{kind.title[0].lower()}{kind.title[1:]}"
        return f"{row.verb} {'dead letters' if row.target == bulk_records.LETTERS else row.target}"

    @display(description="Filter")
    def shown_filter(self, row: BulkAction) -> str:
        return f"{len(row.filter['rows']):,} chosen" if "rows" in row.filter else pretty(row.filter)

    @display(description="State", label={"running": "info", "finished": "success", "stopped": "warning"})
    def state(self, row: BulkAction) -> str:
        if row.finished_at is None:
            return "running"
        return "stopped" if row.stopped_by or row.stopped_why else "finished"

    @display(description="Progress")
    def progress(self, row: BulkAction) -> str:
        skipped = f", {row.skipped:,} skipped" if row.skipped else ""
        text = f"{row.done:,} of {row.total:,}{skipped}"
        return format_html('<span class="sl-meter"><i style="width:{}%"></i></span>{}', _share(row), text)


def _share(row: BulkAction) -> int:
    return min(100, round(100 * (row.done + row.skipped) / row.total)) if row.total else 100
