"""Spans of requests: one for each, from its arrival to its last byte."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.http import HttpRequest, HttpResponse

from quotas import tracing

PARENT = b"traceparent"
Message = MutableMapping[str, Any]


async def traced(
    application: Callable[..., Awaitable[None]], scope: MutableMapping[str, Any], receive: Any, send: Any
) -> None:
    """The request in a span. Threads behind the application find it in the header field `traceparent`."""
    fields = [(name, value) for name, value in scope["headers"] if name != PARENT]
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == PARENT]
    parent = {"traceparent": given[0]} if given else {}
    attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
    with tracing.span(f"{scope['method']} {_route(scope['path'])}", "server", attributes, parent) as span:

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                error = str(status) if status >= 500 else ""
                span.note({"http.response.status_code": status}, error=error)
            await send(message)

        own = [(name.encode(), value.encode()) for name, value in tracing.headers().items()]
        await application({**scope, "headers": [*fields, *own]}, receive, sending)


def _route(path: str) -> str:
    """The beginning of a path, which is the same for many requests."""
    return "/".join(path.split("/")[:4])


class TraceMiddleware:
    """Continues the request's span in Django's thread. Installed only if requests are traced."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_TRACEPARENT", "")
        if not given:  # a probe or a scrape
            return self._get_response(request)
        with tracing.span("django", "server", {}, {"traceparent": given}):
            return self._get_response(request)
