"""Pages of worker processes, with what they last reported."""

from __future__ import annotations

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from unfold.decorators import display

from queues.liveness import is_alive
from queues.models import WorkerProcess
from quotas import clock
from quotas.admin.base import ReadOnlyAdmin
from quotas.admin.spans import spell_span


@admin.register(WorkerProcess)
class WorkerAdmin(ReadOnlyAdmin):
    empty_text = "Workers appear here once they run. Start them with `python -m controlplane up`."
    list_display = [
        "name",
        "state",
        "host",
        "pid",
        "lane",
        "load",
        "shown_memory",
        "version",
        "jobs_done",
        "jobs_failed",
        "seen",
    ]
    change_form_outer_before_template = "admin/sluice/worker_live.html"
    list_filter = ["lane"]
    fieldsets = [
        (
            None,
            {
                "fields": [
                    ("host", "shown_pid"),
                    ("lane", "stopped_at"),
                    ("jobs_done", "jobs_failed"),
                    ("started_at", "seen_at"),
                ]
            },
        )
    ]
    readonly_fields = ["shown_pid"]
    ordering = ["stopped_at", "name"]
    search_fields = ["name", "host"]

    @display(description="State", label={"working": "success", "idle": "info", "lost": "danger", "stopped": "default"})
    def state(self, row: WorkerProcess) -> str:
        if row.stopped_at:
            return "stopped"
        if not is_alive(row, clock.now()):
            return "lost"
        return "working" if row.busy else "idle"

    @display(description="Process ID")
    def shown_pid(self, row: WorkerProcess) -> str:
        return str(row.pid)

    @display(description="Slots in use")
    def load(self, row: WorkerProcess) -> str:
        lost = f", {row.lost_places} stuck" if row.lost_places else ""
        return f"{row.busy} of {row.places}{lost}"

    @display(description="Memory", ordering="memory")
    def shown_memory(self, row: WorkerProcess) -> str:
        return filesizeformat(row.memory) if row.memory else "–"

    @display(description="Last seen")
    def seen(self, row: WorkerProcess) -> str:
        return f"{spell_span(timezone.now() - row.seen_at)} ago"
