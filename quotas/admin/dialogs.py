"""Buttons with a dialog before the action."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.dataclasses import ActionDialog
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from quotas.admin.reason import ReasonField


class ReasonDialog(BaseDialogForm):
    """Dialog: the reason."""

    reason = ReasonField()


class ResetDialog(ReasonDialog):
    """Dialog: whose counters, and why."""

    key = forms.CharField(
        required=False,
        max_length=1024,
        strip=False,
        help_text="A user, an address, a project or a key's value. Leave blank for every subject.",
        widget=UnfoldAdminTextInputWidget,
    )
    project = forms.CharField(
        required=False,
        max_length=63,
        help_text="A project's slug. Leave blank for every project.",
        widget=UnfoldAdminTextInputWidget,
    )
    field_order = ["key", "project", "reason"]

    def __init__(self, request: HttpRequest, object_id: str | int | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, object_id, *args, **kwargs)
        for name in ("key", "project"):
            self.fields[name].initial = request.GET.get(name, "")
        if used := request.GET.get("used"):
            self.fields["key"].help_text = f"Used now: {used}. Leave blank for every subject."


class PayloadDialog(BaseDialogForm):
    """Dialog: another payload, and why. It starts with the job's own."""

    payload = forms.JSONField(widget=UnfoldAdminTextareaWidget(attrs={"rows": 12}))
    reason = ReasonField()


def asking(title: str, description: str, submit: str, form: type[BaseDialogForm] = ReasonDialog) -> ActionDialog:
    """For the `dialog` of an action."""
    return ActionDialog(title=title, description=description, form_class=form, form_submit_text=submit)


def dialog_link(address: str, text: str, name: str) -> str:
    """A link in a list that opens the dialog at `address`; `name` is what a screen reader says."""
    return format_html(
        '<a class="sl-link" href="#" hx-get="{}" hx-target="#modal-content" hx-select="#dialog" '
        'x-on:htmx:after-on-load="openModal = true" aria-label="{}">{}</a>',
        address, name, text,
    )  # fmt: skip


def back(request: HttpRequest, fallback: str) -> HttpResponse:
    """Reload the page that the dialog was opened on."""
    return HttpResponse(headers={"HX-Redirect": request.headers.get("HX-Current-URL") or fallback})


def why(form: Any) -> str:
    """The reason that was given."""
    return str(form.cleaned_data["reason"])
