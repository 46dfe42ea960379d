"""Pages of people and roles: each change is in the audit log, with before, after and reason."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest

from controlplane.people import facts
from quotas.admin.audit import actor_of
from quotas.admin.deletion import DeletesWithReason
from quotas.services import row_facts


class AuditedAdmin(DeletesWithReason):
    """Changes of permissions are recorded in the audit log, with before, after and reason."""

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        request._sluice_before = facts(self.model._default_manager.get(pk=obj.pk)) if change else None  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Write the entry here, after roles and permissions are saved."""
        super().save_related(request, form, formsets, change)
        self.save_abilities(form)
        before, after = request._sluice_before, facts(form.instance)  # type: ignore[attr-defined]
        if before is None or before != after:
            self.record(
                request, form.instance, "change" if change else "create", before, after, form.cleaned_data["reason"]
            )

    def save_abilities(self, form: Any) -> None:
        """What is saved after the form's own permissions."""

    def record_delete(self, request: HttpRequest, obj: Any, reason: str) -> None:
        self.record(request, obj, "delete", facts(obj), None, reason)

    def record(self, request: HttpRequest, obj: Any, verb: str, before: Any, after: Any, reason: str) -> None:
        row_facts.record(actor_of(request), verb, obj, before, after, reason)

    def row(self, request: HttpRequest, object_id: str | int) -> Any:
        """The row that a button is about; else 404."""
        found = self.get_object(request, str(object_id))
        if found is None:
            raise Http404
        return found
