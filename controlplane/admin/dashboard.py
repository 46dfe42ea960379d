"""The dashboard, and its fragments, which a page loads again every few seconds.

A fragment is computed at most once in `FRESH` seconds for all people who see the same rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
import structlog
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme

from controlplane.admin.panels import (
    account,
    accounts,
    alerts,
    calls,
    dead_letters,
    limits,
    performance,
    policy,
    pool,
    queue,
    queues,
    recent_activity,
    summary,
    throughput,
    worker,
    workers,
)
from controlplane.admin.periods import Period, period_of
from quotas.admin.visibility import choose_project, project_ids, shown_projects
from quotas.errors import LimiterUnavailable
from quotas.permissions import ACT_ON_LIMITS, ACT_ON_QUEUES

log = structlog.get_logger(__name__)
FRESH = 1.5
KEPT = 200


@dataclass(frozen=True)
class Panel:
    """`figures(projects, pk)`, or `figures(projects, pk, period)` of a `timed` one, returns the template's context;
    `projects` are the primary keys of the visible projects, or None for all.

    `permission`: needed to see it. `platform`: hidden from members of projects.
    """

    figures: Callable[..., dict[str, Any]]
    permission: str
    platform: bool = False
    title: str = ""
    column: str = ""
    """Its position on the dashboard: `top`, `left`, `right`, `bottom`."""
    template: str = ""
    """Of which panel it has the template; empty: of its own."""
    timed: bool = False
    """Whether it shows the chosen period."""
    full: bool = False
    """Whether its template shows all columns."""
    on: str = ""
    """The families of live events after which it is loaded again: the parts of their names before the dot."""


PANELS: dict[str, Panel] = {
    "pulse": Panel(summary.figures, "queues.view_job", column="top", on="job jobs account breaker"),
    "alerts": Panel(alerts.figures, "controlplane.view_alert", title="Open alerts", column="top", on="alert"),
    "throughput": Panel(
        throughput.figures, "queues.view_job", title="Finished jobs", column="left", timed=True, on="job"
    ),
    "performance": Panel(
        performance.figures, "queues.view_job", title="Wait and run time", column="left", timed=True, on="job"
    ),
    "queues": Panel(
        queues.figures,
        "queues.view_queue",
        title="Queue depth by priority",
        column="right",
        timed=True,
        on="job jobs queue",
    ),
    "all_queues": Panel(queues.figures, "queues.view_queue", template="queues", timed=True, full=True),
    "limits": Panel(limits.figures, "quotas.view_policy", title="Quota usage", column="left", on="job limit"),
    "accounts": Panel(
        accounts.figures,
        "quotas.view_account",
        platform=True,
        title="Accounts",
        column="right",
        on="account breaker call",
    ),
    "letters": Panel(
        dead_letters.figures, "queues.view_deadletter", title="Open dead letters", column="left", on="job"
    ),
    "workers": Panel(
        workers.figures, "queues.view_workerprocess", platform=True, title="Workers", column="right", on="job"
    ),
    "lately": Panel(
        recent_activity.figures,
        "controlplane.view_auditentry",
        platform=True,
        title="Recent activity",
        column="bottom",
        on="queue account",
    ),
    "calls": Panel(calls.of_all, "quotas.view_pool", title="Recent gateway calls"),
    "pool_calls": Panel(calls.of_pool, "quotas.view_pool", template="calls"),
    "project_calls": Panel(calls.of_project, "quotas.view_project", template="calls"),
    "account": Panel(account.figures, "quotas.view_account", platform=True, timed=True),
    "pool": Panel(pool.figures, "quotas.view_pool", platform=True, timed=True),
    "policy": Panel(policy.figures, "quotas.view_policy", timed=True),
    "queue": Panel(queue.figures, "queues.view_queue", timed=True),
    "worker": Panel(worker.figures, "queues.view_workerprocess", platform=True),
}

_lock = threading.Lock()
_worked_out: dict[tuple[Any, ...], tuple[float, dict[str, Any]]] = {}


def context(request: HttpRequest, given: dict[str, Any]) -> dict[str, Any]:
    """The panels that this person may see, for the index page."""
    panels = [(name, panel) for name, panel in PANELS.items() if panel.column and _may(request, panel)]
    return {**given, "panels": panels, "title": "Dashboard"}


def live(request: HttpRequest, name: str) -> HttpResponse:
    """One fragment; `?pk=` names its row, if it has one."""
    panel = PANELS.get(name)
    if panel is None:
        raise Http404
    if not _may(request, panel):
        raise PermissionDenied
    pk = request.GET.get("pk", "")
    try:
        period = period_of(request.GET.get("period")) if panel.timed else None
        figures = _figures(name, panel, shown_projects(request), int(pk) if pk.isdecimal() else None, period)
    except (redis.RedisError, LimiterUnavailable) as error:
        log.warning("dashboard.panel_failed", panel=name, error=type(error).__name__)
        return TemplateResponse(request, "admin/live/unavailable.html", {})
    # Members of projects reset through the API, with a project's key.
    may_reset = project_ids(request.user) is None and request.user.has_perm(ACT_ON_LIMITS)
    may_tune = project_ids(request.user) is None and request.user.has_perm("queues.change_queue")
    may_stop = project_ids(request.user) is None and request.user.has_perm(ACT_ON_QUEUES)
    may = {"may_reset": may_reset, "may_tune": may_tune, "may_stop": may_stop}
    given = {**figures, **may, "user": request.user, "full": panel.full}
    response = TemplateResponse(request, f"admin/live/{panel.template or name}.html", given)
    response["Cache-Control"] = "no-store"
    return response


def _may(request: HttpRequest, panel: Panel) -> bool:
    return request.user.has_perm(panel.permission) and not (panel.platform and project_ids(request.user) is not None)


def _figures(
    name: str, panel: Panel, projects: list[int] | None, pk: int | None, period: Period | None
) -> dict[str, Any]:
    # Charts are labelled in the time zone of the person.
    key = (name, tuple(projects) if projects is not None else None, pk, period, timezone.get_current_timezone_name())
    known = _worked_out.get(key)
    if known is not None and time.monotonic() - known[0] < FRESH:
        return known[1]
    figures = panel.figures(projects, pk) if period is None else panel.figures(projects, pk, period)
    with _lock:
        if len(_worked_out) > KEPT:
            _worked_out.clear()
        _worked_out[key] = (time.monotonic(), figures)
    return figures


live_view = admin.site.admin_view(live)


def calls_page(request: HttpRequest) -> HttpResponse:
    """The recent calls through the gateway, on a page of their own."""
    if not _may(request, PANELS["calls"]):
        raise PermissionDenied
    given = {**admin.site.each_context(request), "title": "Gateway calls"}
    return TemplateResponse(request, "admin/sluice/calls.html", given)


calls_view = admin.site.admin_view(calls_page)


def project_page(request: HttpRequest) -> HttpResponse:
    """Note the chosen project in the session, and return to the page."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    choose_project(request, request.POST.get("project", ""))
    there = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(there, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    return redirect(there if safe else "admin:index")


project_view = admin.site.admin_view(project_page)


def forget() -> None:
    """Compute everything anew."""
    with _lock:
        _worked_out.clear()
        policy.forget()
