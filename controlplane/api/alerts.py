"""`/api/v1/alerts`: open and past alerts, acknowledge and resolve."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.alerts import records
from controlplane.alerts.kinds import KINDS
from controlplane.alerts.presenter import AlertBody, AlertPage, alert_shape
from controlplane.models import Alert
from quotas.rest.fields import ReasonField
from quotas.rest.openapi import described
from quotas.rest.pagination import PageQuery, page
from quotas.rest.problems import NotFound, ProblemError
from quotas.rest.serializers import StrictSerializer
from quotas.rest.views import ApiView


class AlertsQuery(PageQuery):
    kind = serializers.ChoiceField(choices=tuple(KINDS), required=False)
    severity = serializers.ChoiceField(choices=("info", "warning", "critical"), required=False)
    open = serializers.BooleanField(required=False, allow_null=True, default=None)


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

    @extend_schema(
        operation_id="list_alerts", parameters=[AlertsQuery], responses=described(AlertPage), summary="Alerts"
    )
    def get(self, request: Request) -> Response:
        query = self.query(AlertsQuery)
        rows = _rows(self).filter(**{name: query[name] for name in ("kind", "severity") if name in query})
        if query["open"] is not None:
            rows = rows.filter(resolved_at__isnull=query["open"])
        return Response(page(rows, query, alert_shape))


class AlertView(ApiView):
    """One alert."""

    scopes = {"GET": "read"}
    session_needs = frozenset({"controlplane.view_alert"})

    @extend_schema(operation_id="get_alert", responses=described(AlertBody), summary="One alert")
    def get(self, request: Request, uid: str) -> Response:
        self.query()
        return Response(alert_shape(_find(self, uid)))


def alert_action(verb: str) -> type[ApiView]:
    """The view of one verb, `acknowledge` or `resolve`."""

    class AlertActionView(ApiView):
        scopes = {"POST": "operate"}

        @extend_schema(
            operation_id=f"{verb}_alert",
            request=Why,
            responses=described(AlertBody),
            summary=f"{verb.capitalize()} an alert",
        )
        def post(self, request: Request, uid: str) -> Response:
            body = self.body(Why)
            alert = _find(self, uid)
            act = records.acknowledge if verb == "acknowledge" else records.resolve
            if not act(alert, actor=self.caller.name, reason=body["reason"]):
                raise ProblemError("alert-over", "Nothing to do", 409, "The alert is over, or acknowledged already.")
            return Response(alert_shape(alert))

    return AlertActionView
