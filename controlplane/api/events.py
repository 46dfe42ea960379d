"""`GET /api/v1/events`: live events as a stream (Server-Sent Events, WHATWG HTML 9.2).

The view decides who may listen and from which position. `controlplane.http.sse` streams, because a WSGI server would
need a thread per listener.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from django.http import HttpResponse
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from quotas.rest.authentication import ApiKeyAuthentication, MembersSession
from quotas.rest.caller import resolve_project
from quotas.rest.problems import InvalidRequest, ProblemError
from quotas.rest.serializers import QuerySerializer
from quotas.rest.views import ApiView

STREAMS = "sluice.streams"
"""In the WSGI environment: whether the server in front can stream."""
_ID = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?", re.ASCII)

Position = tuple[int, int]
"""A stream id: milliseconds and a number."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which events a listener receives. `projects`: slugs; None: all events. `after` None: from now on."""

    projects: frozenset[str] | None
    after: Position | None


class EventStream(HttpResponse):
    """A response whose body the ASGI application streams."""

    def __init__(self, subscription: Subscription) -> None:
        super().__init__(content_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self.subscription = subscription


class EventsQuery(QuerySerializer):
    since = serializers.CharField(required=False, max_length=64, help_text="An event's id, or a time (ISO 8601).")
    project = serializers.CharField(required=False, max_length=63, help_text="Only this project's events.")


class EventsView(ApiView):
    """Live events; a project's key receives those of its own project only, a member those of all own projects."""

    authentication_classes = [ApiKeyAuthentication, MembersSession]
    scopes = {"GET": "read"}
    session_needs = frozenset(
        {"queues.view_job", "queues.view_queue", "quotas.view_policy", "quotas.view_account", "controlplane.view_alert"}
    )

    @extend_schema(
        operation_id="events",
        parameters=[EventsQuery],
        responses={(200, "text/event-stream"): OpenApiTypes.STR},
        summary="Live events (Server-Sent Events)",
    )
    def get(self, request: Request) -> HttpResponse:
        query = self.query(EventsQuery)
        after = None
        if "since" in query:
            after = _position(query["since"], "?since")
        last = request.headers.get("Last-Event-ID")
        if last:  # a browser that reconnects: later than the time in its address
            after = _position(last, "Last-Event-ID")
        projects = self._projects(query.get("project"))
        if not request.META.get(STREAMS):
            raise ProblemError(
                "streaming-unavailable", "Streaming unavailable", 503, "Live events need the ASGI server."
            )
        return EventStream(Subscription(projects, after))

    def _projects(self, named: str | None) -> frozenset[str] | None:
        found = resolve_project(self.request, named)
        return self.caller.projects or (frozenset({found.slug}) if found is not None else None)


def _position(text: str, place: str) -> Position:
    found = _ID.fullmatch(text)
    if found is not None:
        return min(int(found[1]), 2**63), min(int(found[2] or 0), 2**63)
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidRequest.at(place, "must be an event's id or a time with its zone (ISO 8601)")
    return max(0, int(moment.timestamp() * 1000) - 1), 2**63
