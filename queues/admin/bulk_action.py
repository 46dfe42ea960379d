"""Pages of bulk actions on dead letters, which run in the background."""

from __future__ import annotations

from django.contrib import admin
from unfold.decorators import display

from queues.models import BulkAction
from quotas.admin.base import ReadOnlyAdmin


@admin.register(BulkAction)
class BulkActionAdmin(ReadOnlyAdmin):
    empty_text = "Replays and discards of many dead letters appear here with their progress."
    project_lookup = "project"
    list_display = ["verb", "filter", "progress", "actor", "reason", "created_at", "finished_at"]
    list_select_related = ["project"]
    fields = ["uid", "verb", "filter", "project", "actor", "reason", "progress", "created_at", "finished_at"]
    readonly_fields = ["progress"]

    @display(description="Progress")
    def progress(self, row: BulkAction) -> str:
        skipped = f", {row.skipped:,} skipped" if row.skipped else ""
        return f"{row.done:,} of {row.total:,}{skipped}"
