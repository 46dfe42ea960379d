"""Answers `/healthz`, `/readyz` and `/metrics` before any other middleware.

Probes use an address instead of a host name, and must not depend on a session or a limit.
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse

from controlplane.health import readiness
from controlplane.observability import exposition


def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """200 if all parts work, else 503 that names the failing ones."""
    checks = readiness.check()
    parts = {check.name: check.problem or "ok" for check in checks}
    failing = [check for check in checks if check.problem]
    if not failing:
        return JsonResponse({"status": "ok", "checks": parts})
    body = {
        "type": "/problems/not-ready",
        "title": "Not ready",
        "status": 503,
        "detail": " ".join(f"{check.name}: {check.problem}" for check in failing),
        "failing": [check.name for check in failing],
        "checks": parts,
    }
    response = JsonResponse(body, status=503, content_type="application/problem+json")
    response._has_been_logged = True  # type: ignore[attr-defined]  # a probe's no is an answer, not an error of ours
    return response


ANSWERS: dict[str, Callable[[HttpRequest], HttpResponse]] = {
    "/healthz": healthz,
    "/readyz": readyz,
    "/metrics": exposition.metrics,
}


class ProbeMiddleware:
    """First in the list."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        answer = ANSWERS.get(request.path_info)
        if answer is None:
            return self.get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        response = answer(request)
        response["Cache-Control"] = "no-store"
        return response
