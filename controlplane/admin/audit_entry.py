"""The audit log: to read, never to change."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from unfold.contrib.filters.admin import FieldTextFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from controlplane.admin.targets import address_of
from controlplane.admin.utc_range import UtcRangeFilter
from controlplane.models import AuditEntry
from queues.admin.pretty_json import pretty
from quotas.admin.base import ReadOnlyAdmin

SHOWN = 90
"""Characters of a change or a reason in the list."""


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    empty_text = "Each change and action of a person or a key appears here, with its reason."
    list_display = ["at", "actor", "verb", "target", "project", "shown_change", "shown_reason"]
    list_filter = [("actor", FieldTextFilter), ("verb", FieldTextFilter), ("at", UtcRangeFilter)]
    list_filter_submit = True
    list_disable_select_all = True
    paginator = InfinitePaginator
    sortable_by = ()
    search_fields = ["target__startswith"]
    search_help_text = "Target prefix, such as `queue:batch`"
    actions = None
    fieldsets = [
        (None, {"fields": [("at", "actor"), ("verb", "shown_target"), ("project", "reason")]}),
        ("Change", {"fields": [("shown_before", "shown_after")]}),
    ]
    readonly_fields = ["shown_target", "shown_before", "shown_after"]

    @display(description="Target")
    def shown_target(self, row: AuditEntry) -> str:
        """With a link to the object, as long as there is one."""
        address = address_of(row.target)
        return format_html('<a class="sl-link" href="{}">{}</a>', address, row.target) if address else row.target

    @display(description="Change")
    def shown_change(self, row: AuditEntry) -> str:
        before, after = row.before or {}, row.after or {}
        changes = [
            f"{name}: {_text(before[name])} → {_text(after.get(name))}"
            for name in before
            if before[name] != after.get(name)
        ]
        changes += [f"{name}: {_text(value)}" for name, value in after.items() if name not in before]
        return _cut(", ".join(changes))

    @display(description="Reason")
    def shown_reason(self, row: AuditEntry) -> str:
        return _cut(row.reason)

    @display(description="Before")
    def shown_before(self, row: AuditEntry) -> str:
        return pretty(row.before)

    @display(description="After")
    def shown_after(self, row: AuditEntry) -> str:
        return pretty(row.after)


def _cut(text: str) -> str:
    """Two or three lines of the list; the entry's own page has all of it."""
    return text[:SHOWN] + ("…" if len(text) > SHOWN else "")


def _text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
