"""Queues: depth, running jobs, and the buttons to control them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from queues.models import Queue
from queues.selectors.queues import QueueDepth, depths
from queues.services import queue_actions, uses
from quotas.admin.audit import actor_of
from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.admin.bulk import bulk_action
from quotas.admin.dialogs import ReasonDialog, why
from quotas.admin.reason_action import reason_action
from quotas.admin.visibility import project_ids
from quotas.permissions import ACT_ON_QUEUES
from quotas.services.row_actions import of


def _without_pool(field: Any) -> Any:
    return tuple(name for name in field if name != "pool") if isinstance(field, tuple) else field


class QueueForm(ReasonForm):
    """Jobs that wait for an account of the queue's pool would not run, and fail, without it."""

    def clean_pool(self) -> Any:
        pool = self.cleaned_data["pool"]
        stored = Queue.objects.filter(pk=self.instance.pk).first()
        if pool is None and stored is not None and stored.pool_id is not None:
            waiting = ", ".join(use.what for use in uses.waiting_for_queues_pool(stored))
            if waiting:
                raise forms.ValidationError(f"Can't be removed: {waiting} may need it. Let them finish or cancel them.")
        return pool


class ConcurrencyDialog(ReasonDialog):
    """Dialog: how many jobs may run at once, and why; the present number is filled in."""

    concurrency = forms.IntegerField(
        required=False,
        min_value=0,
        help_text="0 runs none. Leave blank to limit it by the workers' slots only.",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    field_order = ["concurrency", "reason"]

    def __init__(self, request: HttpRequest, object_id: str | int | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, object_id, *args, **kwargs)
        queue = Queue.objects.filter(pk=object_id or 0).first()
        self.fields["concurrency"].initial = queue.concurrency if queue is not None else None


def _set_concurrency(request: HttpRequest, queue: Queue, dialog: Any) -> str:
    number = dialog.cleaned_data["concurrency"]
    queue_actions.set_concurrency(queue, number, actor=actor_of(request), reason=why(dialog))
    return f"{queue}: {'no limit' if number is None else f'at most {number:,} jobs'} at once."


@admin.register(Queue)
class QueueAdmin(SluiceAdmin):
    operate_permission = ACT_ON_QUEUES
    empty_text = "Jobs wait in a queue until their limits, an account and a worker slot are available."
    form = QueueForm
    shared = True
    list_display = ["name", "state", "waiting", "running", "lane", "most_at_once", "pool", "retry_policy", "timeout"]
    list_filter = ["lane"]
    list_select_related = ["pool", "retry_policy"]
    search_fields = ["name"]
    autocomplete_fields = ["pool", "retry_policy"]
    readonly_fields = ["state", "paused_reason", "draining_reason"]
    actions_detail = ["pause", "resume", "drain", "set_concurrency"]
    list_before_template = "admin/sluice/queue_list.html"
    change_form_outer_before_template = "admin/sluice/queue_live.html"
    fieldsets = [
        (None, {"fields": [("name", "lane"), ("max_size", "concurrency"), ("timeout", "priority_levels")]}),
        ("Execution", {"fields": [("retry_policy", "pool")]}),
        ("State", {"fields": ["state", ("paused_reason", "draining_reason")]}),
    ]
    actions = [
        bulk_action(
            of(Queue, "pause"), question="Pause {count} {noun}? New jobs are accepted but not started.",
            done="{count} {noun} paused.",
        ),
        bulk_action(of(Queue, "resume"), question="Resume {count} {noun}?", done="{count} {noun} resumed."),
    ]  # fmt: skip

    pause = reason_action(
        "pause", "Pause", icon="pause", verb=queue_actions.pause, done="{row} is paused.", question="Pause this queue?",
        detail="New jobs are accepted but not started. Running jobs continue.",
    )  # fmt: skip
    resume = reason_action(
        "resume", "Resume", icon="play_arrow", variant=ActionVariant.SUCCESS, verb=queue_actions.resume,
        done="{row} is resumed.", question="Resume this queue?", detail="It accepts and starts jobs again.",
    )  # fmt: skip
    drain = reason_action(
        "drain", "Drain", icon="water_drop", variant=ActionVariant.WARNING, verb=queue_actions.drain,
        done="{row} is draining.", question="Drain this queue?",
        detail="It finishes its jobs and refuses new ones with 503.",
    )  # fmt: skip

    set_concurrency = reason_action(
        "set_concurrency", "Set concurrency", path="concurrency", icon="tune", form=ConcurrencyDialog, submit="Set", permission="change",
        act=lambda request, queue, dialog: _set_concurrency(request, queue, dialog), question="How many of its jobs may run at once?",
        detail="It applies at once. Running jobs continue.",
    )  # fmt: skip

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
        found = depths() if mine is None else {}
        for row in changelist.result_list:
            row.depth = found.get(row.name)
        return changelist

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A queue is shared by all projects: who is bound to one does not stop it for the others."""
        return project_ids(request.user) is None and super().has_operate_permission(request, obj)

    @display(description="State", label={"running": "success", "paused": "warning", "draining": "info"})
    def state(self, row: Queue) -> str:
        return row.state

    @display(description="Queued: high · normal · low")
    def waiting(self, row: Any) -> str:
        depth: QueueDepth | None = row.depth
        return "–" if depth is None else f"{depth.high:,} · {depth.normal:,} · {depth.low:,}"

    @display(description="Concurrency", ordering="concurrency")
    def most_at_once(self, row: Queue) -> str:
        return "–" if row.concurrency is None else f"{row.concurrency:,}"

    @display(description="Running")
    def running(self, row: Any) -> str:
        depth: QueueDepth | None = row.depth
        return "–" if depth is None else f"{depth.in_flight:,}"

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Only the buttons that would change something."""
        found = super().get_actions_detail(request, object_id)
        row = self.get_object(request, str(object_id))
        if row is None:
            return found
        idle = {"running": {"resume"}, "paused": {"pause"}, "draining": {"drain"}}[row.state]
        return [one for one in found if one.action_name.rpartition("_")[2] not in idle]
