"""`/api/v1/alerts`: open and past alerts, acknowledge and resolve."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.alerts import records
from controlplane.alerts.kinds import KINDS
from controlplane.alerts.outbox import shape
from controlplane.models import Alert
from quotas.rest.fields import ReasonField
from quotas.rest.pagination import PageQuery, page
from quotas.rest.problems import NotFound, ProblemError
from quotas.rest.serializers import StrictSerializer
from quotas.rest.views import ApiView


class AlertsQuery(PageQuery):
    kind = serializers.ChoiceField(choices=tuple(KINDS), required=False)
    severity = serializers.ChoiceField(choices=("info", "warning", "critical"), required=False)
    open = serializers.BooleanField(required=False, allow_null=True, default=None)


class AlertBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    kind = serializers.ChoiceField(choices=tuple(KINDS))
    subject = serializers.CharField()
    project = serializers.CharField(allow_blank=True)
    severity = serializers.ChoiceField(choices=("info", "warning", "critical"))
    summary = serializers.CharField()
    next = serializers.CharField(allow_blank=True, help_text="What to do about it.")
    url = serializers.CharField(allow_null=True, help_text="Its page, where SLUICE_PUBLIC_URL is set.")
    facts = serializers.DictField()
    opened_at = serializers.DateTimeField()
    last_seen = serializers.DateTimeField()
    count = serializers.IntegerField()
    acknowledged_at = serializers.DateTimeField(allow_null=True)
    acknowledged_by = serializers.CharField(allow_blank=True)
    resolved_at = serializers.DateTimeField(allow_null=True)
    resolved_by = serializers.CharField(allow_blank=True)


class AlertPage(serializers.Serializer[Any]):
    results = AlertBody(many=True)
    next = serializers.CharField(allow_null=True)


class Why(StrictSerializer):
    reason = ReasonField()


def _rows(view: ApiView) -> QuerySet[Alert]:
    caller = view.caller
    return Alert.objects.all() if caller.is_platform else Alert.objects.filter(project=caller.project_slug)


def _find(view: ApiView, uid: str) -> Alert:
    alert = _rows(view).filter(uid=uid[:32]).first()
    if alert is None:
        raise NotFound("There is no such alert, or it is not yours.", "unknown-alert")
    return alert


class AlertsView(ApiView):
    """Alerts, newest first; a project's key sees its project's."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"controlplane.view_alert"})

    @extend_schema(operation_id="list_alerts", parameters=[AlertsQuery], responses=AlertPage, summary="Alerts")
    def get(self, request: Request) -> Response:
        query = self.query(AlertsQuery)
        rows = _rows(self).filter(**{name: query[name] for name in ("kind", "severity") if name in query})
        if query["open"] is not None:
            rows = rows.filter(resolved_at__isnull=query["open"])
        return Response(page(rows, query, shape))


class AlertView(ApiView):
    """One alert."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"controlplane.view_alert"})

    @extend_schema(operation_id="get_alert", responses=AlertBody, summary="One alert")
    def get(self, request: Request, uid: str) -> Response:
        self.query()
        return Response(shape(_find(self, uid)))


def alert_action(verb: str) -> type[ApiView]:
    """The view of one verb, `acknowledge` or `resolve`."""

    class AlertActionView(ApiView):
        scopes = {"POST": "operate"}

        @extend_schema(
            operation_id=f"{verb}_alert", request=Why, responses=AlertBody, summary=f"{verb.capitalize()} an alert"
        )
        def post(self, request: Request, uid: str) -> Response:
            body = self.body(Why)
            alert = _find(self, uid)
            act = records.acknowledge if verb == "acknowledge" else records.resolve
            if not act(alert, actor=self.caller.name, reason=body["reason"]):
                raise ProblemError("alert-over", "Nothing to do", 409, "The alert is over, or acknowledged already.")
            return Response(shape(alert))

    return AlertActionView
