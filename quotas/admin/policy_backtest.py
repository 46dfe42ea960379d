"""What the policy in the form would have denied in recorded traffic, before it is saved."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from quotas import clock
from quotas.models import Policy
from quotas.services import backtest
from quotas.snapshot.policies import OVERRIDE_COLUMNS, CompiledPolicy

SPANS = {"1h": timedelta(hours=1), "6h": timedelta(hours=6), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
NOUNS = {
    "ip": "addresses", "user": "users", "project": "projects", "endpoint": "endpoints", "queue": "queues",
    "custom": "keys", "global": "counters",
}  # fmt: skip
SHOWN = 5


def field(policy: Policy | None) -> str:
    """The slider and the element for the answer, for the policy's form. Every change of the form sends another request."""
    address = reverse("admin:quotas_policy_backtest")
    return format_html(
        '<div id="backtest"><input type="range" min="0" step="1" data-slides="id_limit" aria-label="Limit to try">'
        '<div hx-post="{}" hx-trigger="load delay:100ms, tick, change from:closest form delay:300ms, '
        'input from:#id_limit delay:250ms" hx-swap="innerHTML" data-period aria-live="polite">'
        '<p class="sl-dim">Computing …</p></div></div>',
        f"{address}?pk={policy.pk}" if policy is not None and policy.pk else address,
    )


def view(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """The answer for the posted form. Nothing is saved."""
    pk = request.GET.get("pk", "")
    stored = model_admin.row(request, pk) if pk else None
    may = model_admin.has_change_permission(request, stored) if pk else model_admin.has_add_permission(request)
    if not may:
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    form = model_admin.get_form(request, stored, change=stored is not None)(request.POST, instance=stored)
    context = _answer(form, request.POST.get("period", "")) if form.is_valid() else {"missing": _missing(form)}
    return TemplateResponse(request, "admin/sluice/backtest.html", context)


def _missing(form: Any) -> list[str]:
    """What is wrong with the form, one line for each field."""
    names = {name: capfirst(form.fields[name].label or name) for name in form.errors if name in form.fields}
    return [
        f"{names[name]}: {' '.join(errors)}" if name in names else " ".join(errors)
        for name, errors in form.errors.items()
    ]


def _answer(form: Any, span: str) -> dict[str, Any]:
    policy: Policy = form.instance
    if policy.pk is None:
        policy.pk = 0
    overrides = [] if not policy.pk else list(policy.overrides.values_list(*OVERRIDE_COLUMNS))
    end = clock.now()
    span = span if span in SPANS else "1h"
    compiled = CompiledPolicy.of(policy, overrides, settings.IPV6_PREFIX)
    try:
        found = backtest.backtest(compiled, end - SPANS[span], end)
    except backtest.NothingRecorded:
        return {"nothing": True}
    except backtest.TooMuchRecorded:
        return {"too_much": True, "span": span}
    denied = [one for one in found.subjects if one.denied]
    return {
        "span": span,
        "unit": policy.unit,
        "noun": NOUNS[policy.scope],
        "shadow": policy.mode == "shadow",
        "source": found.source,
        "demand": sum(one.demand for one in found.subjects),
        "denied": sum(one.denied for one in found.subjects),
        "recorded": sum(one.recorded_denied for one in found.subjects),
        "subjects": len(found.subjects),
        "subjects_denied": len(denied),
        "worst": denied[:SHOWN],
        "approximate": found.approximate,
    }
