"""Queues: depth, running jobs, and the buttons to control them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from queues import selectors
from queues.models import Queue
from queues.services import queue_actions
from quotas.admin.base import SluiceAdmin
from quotas.admin.bulk import bulk_action
from quotas.admin.dialogs import asking, back, why
from quotas.admin.trail import actor_of
from quotas.admin.visibility import project_ids


def _without_pool(field: Any) -> Any:
    return tuple(name for name in field if name != "pool") if isinstance(field, tuple) else field


@admin.register(Queue)
class QueueAdmin(SluiceAdmin):
    shared = True
    list_display = ["name", "state", "waiting", "running", "lane", "concurrency", "pool", "retry_policy", "timeout"]
    list_filter = ["lane"]
    list_select_related = ["pool", "retry_policy"]
    search_fields = ["name"]
    autocomplete_fields = ["pool", "retry_policy"]
    readonly_fields = ["state", "paused_reason", "draining_reason"]
    actions_detail = ["pause", "resume", "drain"]
    change_form_outer_before_template = "admin/sluice/queue_live.html"
    fieldsets = [
        (None, {"fields": [("name", "lane"), ("max_size", "concurrency"), ("timeout", "priority_levels")]}),
        ("Execution", {"fields": [("retry_policy", "pool")]}),
        ("State", {"fields": ["state", ("paused_reason", "draining_reason")]}),
    ]
    actions = [
        bulk_action(
            "Pause queues",
            question="Pause {count} {noun}? New jobs are accepted but not started.",
            done="{count} {noun} paused.",
            act=lambda request, row, reason: queue_actions.pause(row, actor=actor_of(request), reason=reason),
        ),
        bulk_action(
            "Resume queues",
            question="Resume {count} {noun}?",
            done="{count} {noun} resumed.",
            act=lambda request, row, reason: queue_actions.resume(row, actor=actor_of(request), reason=reason),
        ),
    ]

    def get_list_display(self, request: HttpRequest) -> Any:
        """Pools are the platform's: a member of a project might not be allowed to use a queue's."""
        shown = super().get_list_display(request)
        return shown if project_ids(request.user) is None else [name for name in shown if name != "pool"]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        sets = super().get_fieldsets(request, obj)
        if project_ids(request.user) is None:
            return sets
        return [
            (title, {**options, "fields": [_without_pool(one) for one in options["fields"]]}) for title, options in sets
        ]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        mine = project_ids(request.user)
        depths = selectors.depths() if mine is None else {}
        for row in changelist.result_list:
            row.depth = depths.get(row.name)
        return changelist

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A queue is shared by all projects: who is bound to one does not stop it for the others."""
        return project_ids(request.user) is None and super().has_operate_permission(request, obj)

    @display(description="State", label={"running": "success", "paused": "warning", "draining": "info"})
    def state(self, row: Queue) -> str:
        return row.state

    @display(description="Queued: high · normal · low")
    def waiting(self, row: Any) -> str:
        return "–" if row.depth is None else f"{row.depth['high']:,} · {row.depth['normal']:,} · {row.depth['low']:,}"

    @display(description="Running")
    def running(self, row: Any) -> str:
        return "–" if row.depth is None else f"{row.depth['in_flight']:,}"

    @action(
        description="Pause",
        url_path="pause",
        icon="pause",
        permissions=["operate"],
        dialog=asking("Pause this queue?", "New jobs are accepted but not started. Running jobs continue.", "Pause"),
    )
    def pause(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        row = queue_actions.pause(self.row(request, object_id), actor=actor_of(request), reason=why(form))
        messages.success(request, f"{row.name} is paused.")
        return self._back(request, row)

    @action(
        description="Resume",
        url_path="resume",
        icon="play_arrow",
        variant=ActionVariant.SUCCESS,
        permissions=["operate"],
        dialog=asking("Resume this queue?", "It accepts and starts jobs again.", "Resume"),
    )
    def resume(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        row = queue_actions.resume(self.row(request, object_id), actor=actor_of(request), reason=why(form))
        messages.success(request, f"{row.name} is resumed.")
        return self._back(request, row)

    @action(
        description="Drain",
        url_path="drain",
        icon="water_drop",
        variant=ActionVariant.WARNING,
        permissions=["operate"],
        dialog=asking("Drain this queue?", "It finishes its jobs and refuses new ones with 503.", "Drain"),
    )
    def drain(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        row = queue_actions.drain(self.row(request, object_id), actor=actor_of(request), reason=why(form))
        messages.success(request, f"{row.name} is draining.")
        return self._back(request, row)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Only the buttons that would change something."""
        found = super().get_actions_detail(request, object_id)
        row = self.get_object(request, str(object_id))
        if row is None:
            return found
        idle = {"running": {"resume"}, "paused": {"pause"}, "draining": {"drain"}}[row.state]
        return [one for one in found if one.action_name.rpartition("_")[2] not in idle]

    def _back(self, request: HttpRequest, row: Queue) -> HttpResponse:
        return back(request, reverse("admin:queues_queue_change", args=[row.pk]))
