"""`/api/v1/calls`: the recent calls through the gateway, and why one of them was refused."""

from __future__ import annotations

from itertools import islice
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.observability import recent_calls
from controlplane.observability.recent_calls import CallBody
from quotas.engine.types import Admission
from quotas.rest.caller import resolve_project
from quotas.rest.openapi import described
from quotas.rest.pagination import PageQuery, decode, encode
from quotas.rest.problems import InvalidRequest, NotFound
from quotas.rest.views import ApiView
from quotas.services import accounts as pools
from quotas.shapes import Page, Shape, field
from quotas.snapshot import resolve

_FILTERS = ("pool", "user", "outcome")


class CallsQuery(PageQuery):
    pool = serializers.CharField(required=False, max_length=63)
    project = serializers.CharField(required=False, max_length=63)
    user = serializers.CharField(required=False, max_length=1024)
    outcome = serializers.CharField(required=False, max_length=32)


class CallPage(Page):
    results: list[CallBody]


class PresentAnswer(Shape):
    """What a pool would answer now."""

    allowed: bool
    retry_after: float | None
    account: str | None
    reasons: dict[str, int]


class CallExplanation(Shape):
    call: CallBody
    now: PresentAnswer | None = field(
        help="What the pool would answer to the same cost now; null for a pool that is gone."
    )


class CallsView(ApiView):
    """Recent calls, newest first; a project's key sees its project's. Bodies, queries and credentials are not kept."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"quotas.view_pool"})

    @extend_schema(
        operation_id="list_calls", parameters=[CallsQuery], responses=described(CallPage), summary="Recent calls"
    )
    def get(self, request: Request) -> Response:
        query = self.query(CallsQuery)
        project = resolve_project(request, query.get("project"))
        before = decode(query["cursor"]) if "cursor" in query else ""
        if before and not recent_calls.is_place(before):
            raise InvalidRequest("?cursor: is no cursor of this list")
        found = [
            (place, call)
            for place, call in islice(_matching(project.slug if project else None, before, query), query["limit"] + 1)
        ]
        shown = found[: query["limit"]]
        following = encode(shown[-1][0]) if len(found) > len(shown) else None
        return Response(CallPage.of(results=[call for _, call in shown], next=following))


def _matching(project: str | None, before: str, query: dict[str, Any]) -> Any:
    wanted = {name: query[name] for name in _FILTERS if name in query}
    for place, call in recent_calls.calls(project, before):
        if all(call[name] == value for name, value in wanted.items()):
            yield place, call


class CallView(ApiView):
    """One recent call."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"quotas.view_pool"})

    @extend_schema(operation_id="get_call", responses=described(CallBody), summary="One recent call")
    def get(self, request: Request, call: str) -> Response:
        self.query()
        return Response(_found(self, call))


class CallExplainView(ApiView):
    """Why a call was refused, and what the pool would answer now."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"quotas.view_pool"})

    @extend_schema(operation_id="explain_call", responses=described(CallExplanation), summary="Why a call was refused")
    def get(self, request: Request, call: str) -> Response:
        self.query()
        found = _found(self, call)
        return Response(CallExplanation.of(call=found, now=_now(found)))


def _found(view: ApiView, wanted: str) -> dict[str, Any]:
    project = view.caller.project_slug or None
    for _, call in recent_calls.calls(project):
        if call["id"] == wanted:
            return call
    raise NotFound("There is no such call, it is not yours, or it is no longer among the recent ones.", "unknown-call")


def _now(call: dict[str, Any]) -> Admission | None:
    if call["pool"] not in resolve.snapshot().pools:
        return None
    return pools.explain(call["pool"], call["cost"], model=call["model"], project=call["project"] or None).admission
