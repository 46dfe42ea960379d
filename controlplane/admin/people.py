"""People who sign in."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from controlplane import people
from controlplane.admin import invitation
from controlplane.admin.access_log import AuditedAdmin
from controlplane.rank import grantable, outranks
from quotas.admin.audit import actor_of
from quotas.admin.bulk import bulk_action
from quotas.admin.dialogs import why
from quotas.admin.reason import ReasonField
from quotas.admin.reason_action import reason_action
from quotas.services.row_actions import Refused, of
from quotas.services.row_facts import record

admin.site.unregister(User)


class PersonAddForm(UserCreationForm):
    """If no password is entered, the person gets a one-time link to choose one."""

    reason = ReasonField(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["is_staff"].initial = True  # a person who can't sign in to this site is of no use
        for name in ("password1", "password2"):
            self.fields[name].required = False
        self.fields["password1"].help_text = "Leave both blank to get a link by which the person chooses a password."

    def validate_passwords(self, *args: Any, **kwargs: Any) -> None:
        if not self.cleaned_data.get("password1") and not self.cleaned_data.get("password2"):
            self.cleaned_data["usable_password"] = "false"
        super().validate_passwords(*args, **kwargs)


class PersonChangeForm(UserChangeForm):
    reason = ReasonField(required=False)


def _invite(request: HttpRequest, user: User, reason: str) -> None:
    if user.pk == request.user.pk:
        raise Refused("Change your own password with the menu at the bottom of the navigation.")
    if not user.is_active:
        raise Refused(f"{user} is not active: activate the account first.")
    invitation.show(request, user)
    record(actor_of(request), "invite", user, None, {"password": "replaced by a one-time link"}, reason)


def _set_active(request: HttpRequest, user: User, active: bool, reason: str) -> None:
    if user.pk == request.user.pk:
        raise Refused("You can't deactivate yourself.")
    people.set_active(user, active, actor=actor_of(request), reason=reason)


@admin.register(User)
class UserAdmin(AuditedAdmin, DjangoUserAdmin):
    form = PersonChangeForm
    add_form = PersonAddForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_staff", "is_superuser", "last_login")
    list_filter = ("is_active", "is_staff", "groups")
    actions_detail = ["invite", "deactivate", "activate"]
    actions = [
        bulk_action(
            of(User, "activate"), question="Activate {count} {noun}? They can sign in again.", done="{count} {noun} activated.",
            permission="change",
        ),
        bulk_action(
            of(User, "deactivate"), question="Deactivate {count} {noun}? Their sessions end at once.",
            done="{count} {noun} deactivated.", permission="change", danger=True,
        ),
    ]  # fmt: skip
    # Named here, since the theme's own empty `add_fieldsets` would hide Django's.
    add_fieldsets = (
        (None, {"fields": ("username", "email", "password1", "password2")}),
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

    invite = reason_action(
        "invite", "New sign-in link", icon="link", permission="change", submit="Make the link",
        act=lambda request, user, dialog: _invite(request, user, why(dialog)),
        question="Make a one-time link?",
        detail="The person chooses a password with it. The present password and earlier links stop working at once.",
    )  # fmt: skip
    deactivate = reason_action(
        "deactivate", "Deactivate", icon="person_off", permission="change", variant=ActionVariant.DANGER,
        act=lambda request, user, dialog: _set_active(request, user, False, why(dialog)), done="{row} is deactivated.",
        question="Deactivate this person?", detail="Sessions end at once. The audit log keeps the name.",
    )  # fmt: skip
    activate = reason_action(
        "activate", "Activate", icon="person", permission="change", variant=ActionVariant.SUCCESS,
        act=lambda request, user, dialog: _set_active(request, user, True, why(dialog)), done="{row} is active.",
        question="Activate this person?", detail="The person can sign in again with the same password and roles.",
    )  # fmt: skip

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Only the buttons that would change something."""
        row = self.get_object(request, str(object_id))
        idle = set() if row is None else {"activate"} if row.is_active else {"deactivate", "invite"}
        if row is not None and (row.pk == request.user.pk or outranks(row, request.user)):
            idle |= {"deactivate", "activate", "invite"}
        return [
            one
            for one in super().get_actions_detail(request, object_id)
            if one.action_name.rpartition("_")[2] not in idle
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Only a superuser can create superusers or grant single permissions; users can't deactivate themselves."""
        found = tuple(super().get_readonly_fields(request, obj))
        if obj is not None and obj.pk == request.user.pk:
            found = (*found, "is_active", "is_staff")
        return found if request.user.is_superuser else (*found, "is_superuser", "user_permissions")

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "groups":
            kwargs |= {
                "queryset": grantable(request.user),
                "label": "Roles",
                "help_text": "What the person may see and do.",
            }
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._reaches(request, obj) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._reaches(request, obj) and super().has_delete_permission(request, obj)

    def _reaches(self, request: HttpRequest, obj: Any) -> bool:
        return obj is None or not outranks(obj, request.user)

    def response_add(self, request: HttpRequest, obj: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        if not obj.has_usable_password():
            invitation.show(request, obj)
        answer: HttpResponse = super().response_add(request, obj, *args, **kwargs)
        return answer

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        if not hasattr(request, "_sluice_before"):  # Django's page for a new password, which saves by itself
            self.record(request, obj, "change", {"password": "set"}, {"password": "replaced"}, "")
        return super().log_change(request, obj, message)
