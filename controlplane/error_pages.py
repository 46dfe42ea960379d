"""Responses where no view answers: problem documents below /api/, pages for people elsewhere."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from quotas.rest import problems


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_api(request):
        return problems.bad_request(request, exception)
    return _page(400, "Invalid request", "The request can't be read. Go back and try again.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page(403, "Not allowed", "Your roles don't allow this. Ask an administrator for access.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page(404, "Page not found", "There is nothing at this address, or it has been deleted.")


def server_error(request: HttpRequest) -> HttpResponse:
    if _is_api(request):
        return problems.server_error(request)
    return _page(500, "Server error", "The page could not be made. The log of the web process says why.")


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def _page(status: int, title: str, text: str) -> HttpResponse:
    """Without context processors: they may need what has failed."""
    return HttpResponse(render_to_string("error.html", {"status": status, "title": title, "text": text}), status=status)
