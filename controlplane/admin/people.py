"""People who sign in, and the roles that they have."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.http import HttpRequest
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from quotas import events
from quotas.admin.audit import actor_of, changes
from quotas.admin.deletion import DeletesWithReason
from quotas.admin.reason import ReasonField

admin.site.unregister(User)
admin.site.unregister(Group)


def facts(row: Model) -> dict[str, Any]:
    """The members of a person or role that the audit log stores; never a password."""
    if isinstance(row, User):
        return {
            "username": row.username,
            "email": row.email,
            "name": row.get_full_name(),
            "active": row.is_active,
            "staff": row.is_staff,
            "superuser": row.is_superuser,
            "roles": sorted(row.groups.values_list("name", flat=True)),
            "permissions": sorted(row.user_permissions.values_list("codename", flat=True)),
        }
    assert isinstance(row, Group)
    return {"name": row.name, "permissions": sorted(row.permissions.values_list("codename", flat=True))}


class PersonAddForm(UserCreationForm):
    reason = ReasonField(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["is_staff"].initial = True  # a person who can't sign in to this site is of no use


class PersonChangeForm(UserChangeForm):
    reason = ReasonField(required=False)


class RoleForm(forms.ModelForm):
    reason = ReasonField(required=False)


class AuditedAdmin(DeletesWithReason):
    """Changes of permissions are recorded in the audit log, with before, after and reason."""

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        request._sluice_before = facts(self.model._default_manager.get(pk=obj.pk)) if change else None  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """The entry is written here, when roles and permissions are saved too."""
        super().save_related(request, form, formsets, change)
        before, after = request._sluice_before, facts(form.instance)  # type: ignore[attr-defined]
        if before is None or before != after:
            self.record(
                request, form.instance, "change" if change else "create", before, after, form.cleaned_data["reason"]
            )

    def record_delete(self, request: HttpRequest, obj: Any, reason: str) -> None:
        self.record(request, obj, "delete", facts(obj), None, reason)

    def record(self, request: HttpRequest, obj: Any, verb: str, before: Any, after: Any, reason: str) -> None:
        noun = obj._meta.model_name
        before, after = changes(before, after)
        events.emit(events.OperatorActed(actor_of(request), f"{noun}.{verb}", f"{noun}:{obj}", before, after, reason))


@admin.register(User)
class UserAdmin(AuditedAdmin, DjangoUserAdmin):
    form = PersonChangeForm
    add_form = PersonAddForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_staff", "is_superuser", "last_login")
    list_filter = ("is_active", "is_staff", "groups")
    # Named here, since the theme's own empty `add_fieldsets` would hide Django's.
    add_fieldsets = (
        (None, {"fields": ("username", "password1", "password2")}),
        ("Access", {"fields": ("is_staff", "groups")}),
        ("Audit", {"fields": ("reason",)}),
    )
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Personal details", {"fields": (("first_name", "last_name"), "email")}),
        ("Access", {"fields": (("is_active", "is_staff"), "is_superuser", "groups", "user_permissions")}),
        ("Dates", {"fields": (("last_login", "date_joined"),)}),
        ("Audit", {"fields": ("reason",)}),
    )
    readonly_fields = ("last_login", "date_joined")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Only a superuser can create superusers or grant single permissions."""
        found = tuple(super().get_readonly_fields(request, obj))
        return found if request.user.is_superuser else (*found, "is_superuser", "user_permissions")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False
        return super().has_delete_permission(request, obj)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        if not hasattr(request, "_sluice_before"):  # Django's page for a new password, which saves by itself
            self.record(request, obj, "change", {"password": "set"}, {"password": "replaced"}, "")
        return super().log_change(request, obj, message)


@admin.register(Group)
class GroupAdmin(AuditedAdmin, DjangoGroupAdmin):
    form = RoleForm
    fieldsets = ((None, {"fields": ("name", "permissions")}), ("Audit", {"fields": ("reason",)}))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only a superuser can change what a role may do."""
        return request.user.is_superuser

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser
