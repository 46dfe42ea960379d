"""API keys: made, given a new secret, revoked. A secret is shown once, on the page after it was made."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from quotas.admin.audit import actor_of
from quotas.admin.base import ReasonForm, SluiceAdmin
from quotas.admin.bulk import Refused, bulk_action
from quotas.admin.dialogs import ReasonDialog, why
from quotas.admin.reason_action import reason_action
from quotas.models import ApiKey
from quotas.models.api_key import SCOPES
from quotas.services import api_keys
from quotas.services.api_keys import AlreadyRotated
from quotas.services.row_actions import of

MEANINGS = {
    "check": "check: evaluate limits",
    "submit": "submit: jobs, and calls through account pools",
    "call": "call: send requests through the gateway",
    "read": "read: status, usage and results",
    "operate": "operate: pause, replay and reset",
    "admin": "admin: read the audit log",
    "bypass": "bypass: skip limits (audited)",
}


class KeyForm(ReasonForm):
    scopes = forms.MultipleChoiceField(
        choices=[(scope, MEANINGS[scope]) for scope in SCOPES], widget=UnfoldAdminCheckboxSelectMultipleWidget
    )

    class Meta:
        model = ApiKey
        fields = ["name", "project", "scopes", "expires_at"]


def _revoke(request: HttpRequest, key: ApiKey, reason: str) -> None:
    if not api_keys.revoke(key, actor=actor_of(request), reason=reason):
        raise Refused("already revoked")


def _show_once(request: HttpRequest, token: str) -> None:
    messages.success(
        request,
        format_html("Copy the key now. It is not shown again: <code class='sl-secret' id='new-key'>{}</code>", token),
    )


class RotateDialog(ReasonDialog):
    """Dialog: why, and which secret it is about: a form that is sent twice must not void the secret that was just shown."""

    present = forms.CharField(widget=forms.HiddenInput)

    def __init__(self, request: HttpRequest, object_id: str | int | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, object_id, *args, **kwargs)
        key = ApiKey.objects.filter(pk=object_id or 0).first()
        self.fields["present"].initial = api_keys.mark(key) if key is not None else ""


def _rotate(request: HttpRequest, key: ApiKey, dialog: Any) -> None:
    try:
        if dialog.cleaned_data["present"] != api_keys.mark(key):
            raise AlreadyRotated
        _show_once(request, api_keys.rotate(key, actor=actor_of(request), reason=why(dialog)))
    except AlreadyRotated as error:
        raise Refused(str(error)) from None


@admin.register(ApiKey)
class ApiKeyAdmin(SluiceAdmin):
    empty_text = "An API key lets a service check limits and submit jobs."
    project_lookup = "project"
    form = KeyForm
    list_display = ["name", "shown_prefix", "project", "shown_scopes", "state", "expires_at", "last_used_at"]
    list_filter = [("project", AutocompleteSelectFilter)]
    list_select_related = ["project"]
    search_fields = ["name", "prefix"]
    autocomplete_fields = ["project"]
    actions_detail = ["rotate", "revoke"]
    readonly_when_made = ("name", "project", "shown_prefix", "shown_scopes", "expires_at", "state", "last_used_at")
    actions = [
        bulk_action(
            of(ApiKey, "revoke"), question="Revoke {count} {noun}? Requests with them get 401 within a second.",
            done="{count} {noun} revoked.", permission="delete", danger=True,
        ),
    ]  # fmt: skip

    rotate = reason_action(
        "rotate", "Rotate secret", icon="autorenew", permission="delete",
        form=RotateDialog, act=lambda request, key, dialog: _rotate(request, key, dialog), question="Rotate this key's secret?",
        detail="The old secret is refused within a second.",
    )  # fmt: skip
    revoke = reason_action(
        "revoke", "Revoke", icon="block", variant=ActionVariant.DANGER, permission="delete",
        act=lambda request, key, dialog: _revoke(request, key, why(dialog)), done="{row} is revoked.",
        question="Revoke this key?", detail="Requests with it get 401 within a second, permanently.",
    )  # fmt: skip

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None:
            return [(None, {"fields": self.readonly_when_made})]
        return [(None, {"fields": ["name", "project", "scopes", "expires_at"]}), ("Audit", {"fields": ["reason"]})]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.readonly_when_made if obj is not None else ()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a key is revoked and made anew; what it may do never changes under its holder

    def get_actions(self, request: HttpRequest) -> Any:
        found = super().get_actions(request)
        found.pop("delete_selected", None)
        return found

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        given = form.cleaned_data
        key, token = api_keys.create(
            given["name"],
            given["scopes"],
            project=given["project"],
            expires_at=given["expires_at"],
            actor=actor_of(request),
            reason=given["reason"],
        )
        obj.pk = key.pk
        _show_once(request, token)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Nothing hangs on a key."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("project")

    @display(description="Key")
    def shown_prefix(self, row: ApiKey) -> str:
        return f"sl_{row.prefix}_…"

    @display(description="Scopes")
    def shown_scopes(self, row: ApiKey) -> str:
        return ", ".join(row.scopes)

    @display(description="State", label={"active": "success", "revoked": "danger", "expired": "warning"})
    def state(self, row: ApiKey) -> str:
        if row.revoked_at:
            return "revoked"
        return "expired" if row.expires_at and row.expires_at <= timezone.now() else "active"
