"""Pages of batches: their progress and their estimated end."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display

from queues.admin import job_life
from queues.models import Batch
from queues.selectors import wait_history
from queues.selectors.batches import batch_progress
from queues.states import FINAL
from quotas.admin.base import ReadOnlyAdmin


@admin.register(Batch)
class BatchAdmin(ReadOnlyAdmin):
    empty_text = "A batch appears here once jobs are submitted together with POST /api/v1/jobs/bulk."
    project_lookup = "project"
    list_display = ["shown_name", "project", "state", "created_at", "finished_at"]
    list_filter = [("project", AutocompleteSelectFilter)]
    list_select_related = ["project"]
    search_fields = ["uid__exact", "name"]
    fieldsets = [
        (
            None,
            {
                "fields": [
                    ("uid", "name"),
                    ("project", "open"),
                    ("created_at", "finished_at"),
                    "callback_url",
                    "jobs_link",
                ]
            },
        )
    ]
    readonly_fields = ["jobs_link"]
    change_form_outer_after_template = "admin/sluice/batch_progress.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("project")

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> Any:
        batch = self.get_object(request, object_id)
        if batch is not None:
            progress = batch_progress(batch)
            done = sum(progress.totals[status] for status in FINAL)
            kwargs["extra_context"] = {
                **(kwargs.get("extra_context") or {}),
                "facts": progress,
                "waits": job_life.sums(wait_history.of_batch(batch)),
                "share": 100 * done // progress.total if progress.total else 0,
                "title": f"Batch {batch}",
            }
        return super().change_view(request, object_id, *args, **kwargs)

    @display(description="Batch")
    def shown_name(self, row: Batch) -> str:
        return str(row)

    @display(description="State", label={"done": "success", "open": "info", "running": "warning"})
    def state(self, row: Batch) -> str:
        return "done" if row.finished_at else "open" if row.open else "running"

    @display(description="Jobs")
    def jobs_link(self, row: Batch) -> str:
        return format_html(
            '<a class="sl-link" href="{}?batch__id__exact={}">Show its jobs</a>',
            reverse("admin:queues_job_changelist"),
            row.pk,
        )
