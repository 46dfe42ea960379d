"""Use of limits now and over time, and resetting counters."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from quotas.api.check_body import ResetBody
from quotas.api.presenters import usage as shapes
from quotas.api.presenters.limits import Reset
from quotas.errors import LimiterUnavailable
from quotas.models import UsageRollup
from quotas.rest import decisions
from quotas.rest.caller import caller_of, resolve_project
from quotas.rest.openapi import described
from quotas.rest.pagination import PageQuery, page
from quotas.rest.problems import NotFound
from quotas.rest.serializers import QuerySerializer
from quotas.rest.views import ApiView
from quotas.services import adaptive
from quotas.services import usage as usage_service
from quotas.services.usage import Selection


class UsageQuery(QuerySerializer):
    policy = serializers.CharField(required=False, max_length=63)
    scope = serializers.ChoiceField(
        required=False, choices=["ip", "user", "project", "endpoint", "queue", "custom", "global"]
    )
    key = serializers.CharField(required=False, max_length=1024, trim_whitespace=False)
    project = serializers.CharField(required=False, max_length=63)
    limit = serializers.IntegerField(default=1000, min_value=1, max_value=10_000)


class UsageView(ApiView):
    """Used, limit and remaining of each key, from the same counters that enforce."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"quotas.view_policy"})

    @extend_schema(
        operation_id="usage",
        parameters=[UsageQuery],
        responses=described(shapes.Usage),
        summary="Used, limit, remaining",
    )
    def get(self, request: Request) -> Response:
        query = self.query(UsageQuery)
        try:
            states = usage_service.usage(_selection(request, query), most=query["limit"])
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        standings = adaptive.standings()
        return Response(
            shapes.Usage.of(results=[shapes.usage_row(state, standings.get(state.policy)) for state in states])
        )


class HistoryQuery(PageQuery):
    policy = serializers.CharField(required=False, max_length=63)
    scope = serializers.ChoiceField(
        required=False, choices=["ip", "user", "project", "endpoint", "queue", "custom", "global"]
    )
    key = serializers.CharField(required=False, max_length=1024, trim_whitespace=False)
    project = serializers.CharField(required=False, max_length=63)
    resolution = serializers.ChoiceField(choices=["minute", "hour", "day"], default="hour")

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        fields["from"] = serializers.DateTimeField(required=False)
        fields["to"] = serializers.DateTimeField(required=False)
        return fields

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "from" in attrs and "to" in attrs and attrs["from"] >= attrs["to"]:
            raise serializers.ValidationError({"to": "Must be after `from`."})
        return attrs


class HistoryView(ApiView):
    """The highest use of each key in each minute, hour or day and how often it was refused, newest first."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"quotas.view_policy"})

    @extend_schema(
        operation_id="usage_history",
        parameters=[HistoryQuery],
        responses=described(shapes.History),
        summary="Use over time",
    )
    def get(self, request: Request) -> Response:
        query = self.query(HistoryQuery)
        selection = _selection(request, query)
        rows = UsageRollup.objects.select_related("policy").filter(
            resolution=query["resolution"], policy__name__in=[policy.name for policy in selection.policies()]
        )
        if selection.key is not None:
            address = Q(policy__scope="ip", key=selection.subject("ip"))
            rows = rows.filter(address | Q(key=selection.key))
        if selection.project is not None:
            bound = [policy.name for policy in selection.policies() if policy.project == selection.project]
            rows = rows.filter(Q(project=selection.project) | Q(project="", policy__name__in=bound))
        if "from" in query:
            rows = rows.filter(start__gte=query["from"])
        if "to" in query:
            rows = rows.filter(start__lt=query["to"])
        return Response(page(rows, query, shapes.history_row))


class ResetView(ApiView):
    """Clear counters; audited."""

    scopes = {"POST": "operate"}

    @extend_schema(request=ResetBody, responses=described(Reset), summary="Clear counters")
    def post(self, request: Request) -> Response:
        body = self.body(ResetBody)
        selection = _selection(request, body)
        if selection.policy is not None and not selection.policies():
            raise NotFound(f"There is no policy {selection.policy!r}, or it is not yours.", "unknown-policy")
        try:
            cleared = usage_service.reset(selection, actor=self.caller.name, reason=body["reason"])
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        return Response(Reset.of(reset=cleared))


def _selection(request: Request, named: dict[str, Any]) -> Selection:
    project = resolve_project(request, named.get("project"))
    slug = project.slug if project is not None else None
    bound = caller_of(request).project is not None
    return Selection(
        policy=named.get("policy"),
        scope=named.get("scope"),
        key=named.get("key"),
        project=slug,
        visible_to=slug if bound else None,
    )
