"""Projects."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from quotas.admin.audit import actor_of
from quotas.admin.base import SluiceAdmin
from quotas.admin.dialogs import ReasonDialog, dialog_link, why
from quotas.admin.reason_action import reason_action
from quotas.models import Project
from quotas.services import projects


class WeightDialog(ReasonDialog):
    """Dialog: the weight, and why; the present one is filled in."""

    weight = forms.IntegerField(
        min_value=1,
        max_value=10_000,
        help_text="3 gets three times as many starts as 1.",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    field_order = ["weight", "reason"]

    def __init__(self, request: HttpRequest, object_id: str | int | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, object_id, *args, **kwargs)
        project = Project.objects.filter(pk=object_id or 0).first()
        self.fields["weight"].initial = project.weight if project is not None else 1


def _set_weight(request: HttpRequest, project: Project, dialog: Any) -> str:
    weight = dialog.cleaned_data["weight"]
    projects.set_weight(project, weight, actor=actor_of(request), reason=why(dialog))
    return f"{project}: weight {weight:,}."


@admin.register(Project)
class ProjectAdmin(SluiceAdmin):
    empty_text = "A project owns API keys, jobs and its own use of quotas."
    project_lookup = "pk"
    change_form_outer_before_template = "admin/sluice/project_live.html"
    ordering = ["slug"]  # named here, since the model's own is not used where rows are counted by group
    list_display = ["slug", "name", "weight", "tier", "keys_in_force", "created_at"]
    list_filter = ["tier"]
    search_fields = ["slug", "name"]
    autocomplete_fields = ["tier", "members"]
    fieldsets = [
        (None, {"fields": ["slug", "name", "weight", "tier"]}),
        (
            "Members",
            {
                "fields": ["members"],
                "description": "Members sign in here and see only this project. Give them the role viewer or operator as well.",
            },
        ),
    ]

    actions_detail = ["set_weight"]
    set_weight = reason_action(
        "set_weight", "Set weight", path="weight", icon="balance", form=WeightDialog, submit="Set", permission="change",
        act=lambda request, project, dialog: _set_weight(request, project, dialog), question="Which share of the workers?",
        detail="It applies to the next starts, while several projects have queued jobs.",
    )  # fmt: skip

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = super().get_list_display(request)
        may = self.has_change_permission(request)
        return ["weight_in_place" if name == "weight" and may else name for name in shown]

    @display(description="Weight", ordering="weight")
    def weight_in_place(self, row: Project) -> str:
        address = reverse("admin:quotas_project_set_weight", args=[row.pk])
        return format_html("{} {}", row.weight, dialog_link(address, "set", f"Set weight of {row.slug}"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        in_force = Count("api_keys", filter=Q(api_keys__revoked_at=None))
        rows: QuerySet[Any] = super().get_queryset(request).select_related("tier").annotate(in_force=in_force)
        return rows

    @display(description="API keys")
    def keys_in_force(self, row: Any) -> int:
        return int(row.in_force)
