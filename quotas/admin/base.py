"""What all pages have in common: whose rows are shown, who may act, and that every change is in the audit trail."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib.admin.utils import flatten_fieldsets
from django.db.models import JSONField, Model, Q, QuerySet, URLField
from django.http import Http404, HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from quotas.admin import audit
from quotas.admin.deletion import DeletesWithReason
from quotas.admin.reason import ReasonField
from quotas.admin.visibility import chosen_project, project_ids, visible
from quotas.models import Project
from quotas.permissions import may_see_payloads
from quotas.services import in_use

RENAMED = {"name", "slug"}
"""Fields by which other parts of the configuration and jobs name a row."""


class ReasonForm(forms.ModelForm):
    """A form that also requires a reason, and refuses another name where something needs the present one."""

    reason = ReasonField(required=False)

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        for name in RENAMED & set(self.changed_data) & set(given):
            stored = type(self.instance)._default_manager.filter(pk=self.instance.pk).first()
            found = in_use.naming(stored) if stored is not None else []
            if found:
                why = ", ".join(use.what for use in found)
                self.add_error(name, f"Can't be renamed while it is used under its name: {why}.")
        return given


class SluiceAdmin(DeletesWithReason):
    """`project_lookup` leads from a row to its project. None: the rows belong to the platform and members of projects
    don't see them, unless `shared` says that everybody may.
    """

    form: type[forms.ModelForm] = ReasonForm
    project_lookup: str | None = None
    shared = False
    operate_permission = ""
    """The permission for the page's actions; empty if it has no actions besides changing the row."""
    payload_fields: frozenset[str] = frozenset()
    """Fields that are shown only to people who may see payloads."""
    lists: tuple[str, ...] = ("_changelist",)
    """Ends of the names of addresses that show many rows: they show those of the project that the person has chosen."""
    empty_text = ""
    """What an empty list says that it is for."""
    list_fullwidth = True
    list_filter_sheet = True
    compressed_fields = True
    warn_unsaved_form = True
    show_full_result_count = False
    empty_value_display = "–"

    # Whose rows

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        if self.project_lookup is not None:
            return self._of_chosen_project(request, visible(request.user, rows, self.project_lookup))
        return rows if self.shared or project_ids(request.user) is None else rows.none()

    def _of_chosen_project(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        """A list shows the project that the person has chosen, and what applies to every project."""
        match = request.resolver_match
        if self.model is Project or match is None or not str(match.url_name).endswith(self.lists):
            return rows
        chosen, lookup = chosen_project(request), self.project_lookup
        return (
            rows
            if chosen is None or lookup is None
            else rows.filter(Q(**{lookup: chosen}) | Q(**{f"{lookup}__isnull": True}))
        )

    def _hidden(self, request: HttpRequest) -> bool:
        return self.project_lookup is None and not self.shared and project_ids(request.user) is not None

    def has_module_permission(self, request: HttpRequest) -> bool:
        return not self._hidden(request) and super().has_module_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return not self._hidden(request) and super().has_view_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_configure(request) and super().has_change_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return self._may_configure(request) and super().has_add_permission(request, *args)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may_configure(request) and super().has_delete_permission(request, obj)

    def _may_configure(self, request: HttpRequest) -> bool:
        """Who is bound to projects looks and operates; configuration is the platform's."""
        return project_ids(request.user) is None

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Named by actions as the permission `operate`."""
        needed = self.operate_permission
        return bool(needed) and not self._hidden(request) and request.user.has_perm(needed)

    def has_payload_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Named by actions as the permission `payload`."""
        return may_see_payloads(request.user)

    def row(self, request: HttpRequest, object_id: str | int) -> Any:
        """The row that a button is about, if the person may see it; else 404."""
        found = self.get_object(request, str(object_id))
        if found is None:
            raise Http404
        return found

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.remote_field.model is Project and "queryset" not in kwargs:
            kwargs["queryset"] = visible(request.user, Project.objects.all(), "pk")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if isinstance(db_field, JSONField) and "widget" not in kwargs:
            kwargs["widget"] = UnfoldAdminTextareaWidget(attrs={"rows": 2})
        if isinstance(db_field, URLField):
            kwargs.setdefault("assume_scheme", "https")  # a credential may be sent there
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    # What is changed

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        sets = [*super().get_fieldsets(request, obj)]
        if self.payload_fields and not self.has_payload_permission(request):
            sets = [
                (title, {**options, "fields": self._without_payloads(options["fields"])}) for title, options in sets
            ]
        may = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        if may and "reason" not in flatten_fieldsets(sets) and "reason" in self.form.base_fields:
            sets.append(("Audit", {"fields": ["reason"]}))
        return sets

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        # The reason is no column: without permission to write there is nothing to show for it.
        form = super().get_form(request, obj, change, **kwargs)
        if not (self.has_change_permission(request, obj) if change else self.has_add_permission(request)):
            form.base_fields.pop("reason", None)
        return form

    def _without_payloads(self, fields: Iterable[Any]) -> list[Any]:
        """The same fields, with one that says why the payload is missing instead of those that show it."""
        kept = [one for one in fields if one not in self.payload_fields]
        return kept if len(kept) == len(list(fields)) else [*kept, "hidden_payload"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        found = super().get_readonly_fields(request, obj)
        return [*found, "hidden_payload"] if self.payload_fields else found

    @display(description="Payload")
    def hidden_payload(self, row: Any) -> str:
        return "Hidden: your roles don't include seeing payloads."

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Without the form's own reason; a row's column of that name is shown."""
        columns = {field.name for field in self.model._meta.fields}
        return [name for name in super().get_fields(request, obj) if name != "reason" or name in columns]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        stored = self.model._default_manager
        before = audit.facts(stored.get(pk=obj.pk)) if change else None
        super().save_model(request, obj, form, change)
        reason = form.cleaned_data.get("reason", "")
        audit.record(request, "change" if change else "create", obj, before, audit.facts(stored.get(pk=obj.pk)), reason)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        reason = form.cleaned_data.get("reason", "")
        model: type[Model] = formset.model
        before = {
            row.pk: audit.facts(row)
            for row in model._default_manager.filter(pk__in=[f.instance.pk for f in formset.initial_forms])
        }
        super().save_formset(request, form, formset, change)
        for row in formset.new_objects:
            audit.record(request, "create", row, None, audit.facts(row), reason or getattr(row, "reason", ""))
        for row, _ in formset.changed_objects:
            own = reason or getattr(row, "reason", "")
            audit.record(request, "change", row, before.get(row.pk), audit.facts(row), own)
        for row in formset.deleted_objects:
            audit.record(request, "delete", row, audit.facts(row), None, reason)

    def record_delete(self, request: HttpRequest, obj: Any, reason: str) -> None:
        audit.record(request, "delete", obj, audit.facts(obj), None, reason)


class ReadOnlyAdmin(SluiceAdmin):
    """Rows that the product writes: to look at, and to act on by buttons."""

    form = forms.ModelForm
    warn_unsaved_form = False

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
