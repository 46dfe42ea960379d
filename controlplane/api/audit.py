"""`GET /api/v1/audit`: who did what, before, after and why."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.models import AuditEntry
from quotas.rest.fields import MomentField
from quotas.rest.pagination import PageQuery, page
from quotas.rest.views import ApiView


class AuditQuery(PageQuery):
    actor = serializers.CharField(required=False, max_length=200)
    verb = serializers.CharField(required=False, max_length=64)
    target = serializers.CharField(required=False, max_length=300)


class Entry(serializers.Serializer[Any]):
    at = MomentField()
    actor = serializers.CharField()
    verb = serializers.CharField()
    target = serializers.CharField()
    project = serializers.CharField()
    before = serializers.DictField(allow_null=True)
    after = serializers.DictField(allow_null=True)
    reason = serializers.CharField()


class Entries(serializers.Serializer[Any]):
    results = Entry(many=True)
    next = serializers.CharField(allow_null=True)


class AuditView(ApiView):
    """The audit trail, newest first; a project's key sees its project's."""

    scopes = {"GET": "admin"}
    session_needs = frozenset({"controlplane.view_auditentry"})

    @extend_schema(operation_id="list_audit", parameters=[AuditQuery], responses=Entries, summary="The audit trail")
    def get(self, request: Request) -> Response:
        query = self.query(AuditQuery)
        rows = AuditEntry.objects.all()
        if self.caller.project is not None:
            rows = rows.filter(project=self.caller.project.slug)
        rows = rows.filter(**{name: query[name] for name in ("actor", "verb", "target") if name in query})
        return Response(page(rows, query, lambda row: Entry(row).data))
