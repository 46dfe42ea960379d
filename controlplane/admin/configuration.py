"""The configuration file as a page: export it, see what a file would change, apply it."""

from __future__ import annotations

import hashlib
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldBooleanWidget

from controlplane import config
from controlplane.config import Change
from quotas.admin.audit import actor_of
from quotas.admin.reason import ReasonField
from quotas.admin.visibility import project_ids

NEEDED = (
    *(f"quotas.{verb}_{model}" for verb in ("add", "change", "delete") for model in ("project", "policy", "pool", "account")),
    *(f"queues.{verb}_queue" for verb in ("add", "change", "delete")),
    "controlplane.change_alertrule",
)  # fmt: skip
"""A file may change everything: applying one requires the permission to change each kind of row."""
LONGEST = 2_000_000


class FileForm(forms.Form):
    text = forms.CharField(
        label="Configuration",
        max_length=LONGEST,
        strip=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 18, "class": "sl-yaml", "spellcheck": "false"}),
    )
    prune = forms.BooleanField(
        required=False,
        label="Remove what its sections don't list",
        widget=UnfoldBooleanWidget,
    )
    reason = ReasonField(required=False)


def may_apply(request: HttpRequest) -> bool:
    return project_ids(request.user) is None and request.user.has_perms(NEEDED)


def configuration_page(request: HttpRequest) -> HttpResponse:
    """GET shows the present configuration; POST shows what the given one would change, or applies it."""
    if not may_apply(request):
        raise PermissionDenied
    if "download" in request.GET:
        headers = {"Content-Disposition": 'attachment; filename="sluice.yaml"'}
        return HttpResponse(config.export(), content_type="application/yaml", headers=headers)
    if request.method != "POST":
        return _page(request, FileForm(initial={"text": config.export()}))
    form = FileForm(request.POST)
    if not form.is_valid():
        return _page(request, form)
    given = {"text": form.cleaned_data["text"], "actor": actor_of(request), "prune": form.cleaned_data["prune"]}
    try:
        changes = config.apply(**given, dry_run=True)
        shown = request.POST.get("shown", "") == _digest(changes)
        if "apply" in request.POST and shown and changes:
            if not form.cleaned_data["reason"]:
                form.add_error("reason", "Say why.")
                return _page(request, form, changes)
            config.apply(**given, reason=form.cleaned_data["reason"])
            messages.success(request, f"Applied: {config.summary(changes)}.")
            return redirect("admin-configuration")
    except config.ConfigInvalid as invalid:
        return _page(request, form, mistakes=[str(mistake) for mistake in invalid.mistakes])
    if "apply" in request.POST and not shown:
        messages.warning(request, "Something has changed since. This is what would change now.")
    return _page(request, form, changes)


def _digest(changes: list[Change]) -> str:
    return hashlib.sha256("\n".join(map(str, changes)).encode()).hexdigest()


def _page(
    request: HttpRequest, form: FileForm, changes: list[Change] | None = None, mistakes: list[str] | None = None
) -> HttpResponse:
    given: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": "Configuration",
        "form": form,
        "changes": changes,
        "summary": config.summary(changes) if changes is not None else "",
        "shown": _digest(changes) if changes else "",
        "mistakes": mistakes,
    }
    return TemplateResponse(request, "admin/sluice/configuration.html", given)


configuration_view = admin.site.admin_view(configuration_page)
