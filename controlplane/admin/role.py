"""Roles: what their people may do, as a list of abilities and, where these are too coarse, single permissions."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from controlplane.admin.access_log import AuditedAdmin
from controlplane.roles import ABILITIES, STANDARD, abilities_of, permissions_of
from quotas.admin.reason import ReasonField

admin.site.unregister(Group)

LABELS = {one.name: one.label for one in ABILITIES}


class RoleForm(forms.ModelForm):
    abilities = forms.MultipleChoiceField(
        choices=[(one.name, f"{one.label}: {one.help}") for one in ABILITIES],
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="Checked: the role has every permission that belongs to it.",
    )
    reason = ReasonField(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["abilities"].initial = abilities_of(_permissions(self.instance)) if self.instance.pk else []


class RoleNameForm(RoleForm):
    """The name of a standard role can't be changed."""

    def clean_name(self) -> str:
        return str(self.instance.name)


def _permissions(group: Group) -> set[int]:
    return set(group.permissions.values_list("pk", flat=True))


@admin.register(Group)
class GroupAdmin(AuditedAdmin, DjangoGroupAdmin):
    form = RoleForm
    list_display = ("name", "shown_abilities")
    fieldsets = (
        (None, {"fields": ("name", "abilities")}),
        ("Single permissions", {"fields": ("permissions",), "classes": ("collapse",)}),
        ("Audit", {"fields": ("reason",)}),
    )

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None and obj.name in STANDARD:
            kwargs["form"] = RoleNameForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None or self.has_change_permission(request, obj):
            return super().get_fieldsets(request, obj)
        return ((None, {"fields": ("name", "shown_abilities")}), ("Single permissions", {"fields": ("permissions",)}))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("shown_abilities",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only a superuser can change what a role may do."""
        return request.user.is_superuser

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def save_abilities(self, form: Any) -> None:
        """Set the abilities that were checked or unchecked; the form sets single permissions of the others."""
        if "abilities" not in form.changed_data:
            return
        before, after = set(form.fields["abilities"].initial or []), set(form.cleaned_data["abilities"])
        removed = permissions_of(before - after) - permissions_of(after)
        form.instance.permissions.set((_permissions(form.instance) - removed) | permissions_of(after - before))

    @display(description="Abilities")
    def shown_abilities(self, row: Group) -> str:
        return ", ".join(LABELS[name] for name in abilities_of(_permissions(row))) or "–"
