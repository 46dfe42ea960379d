"""People who sign in, and the roles that they have."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from quotas import events
from quotas.admin.trail import actor_of

admin.site.unregister(User)
admin.site.unregister(Group)


class Audited(ModelAdmin):
    """Who may do what is changed in the audit trail, too."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self._tell(request, obj, "change", message)
        return super().log_change(request, obj, message)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self._tell(request, obj, "create", message)
        return super().log_addition(request, obj, message)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self._tell(request, obj, "delete", "")
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for row in queryset:
            self.delete_model(request, row)

    def _tell(self, request: HttpRequest, obj: Any, verb: str, message: Any) -> None:
        noun = obj._meta.model_name
        events.emit(events.OperatorActed(actor_of(request), f"{noun}.{verb}", f"{noun}:{obj}", None, self._facts(obj)))

    def _facts(self, obj: Any) -> dict[str, Any]:
        if isinstance(obj, User):
            groups = sorted(obj.groups.values_list("name", flat=True)) if obj.pk else []
            return {"active": obj.is_active, "staff": obj.is_staff, "superuser": obj.is_superuser, "roles": groups}
        return {"permissions": obj.permissions.count() if obj.pk else 0}


@admin.register(User)
class UserAdmin(Audited, DjangoUserAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_staff", "is_superuser", "last_login")
    list_filter = ("is_active", "is_staff", "groups")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Only a superuser makes superusers, or hands out single permissions."""
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


@admin.register(Group)
class GroupAdmin(Audited, DjangoGroupAdmin):
    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What a role may do is a superuser's to say."""
        return request.user.is_superuser

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser
