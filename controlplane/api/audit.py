"""`GET /api/v1/audit`: who did what, before, after and why."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.models import AuditEntry
from quotas.rest.openapi import described
from quotas.rest.pagination import PageQuery, page
from quotas.rest.views import ApiView
from quotas.shapes import Page, Shape


class AuditQuery(PageQuery):
    actor = serializers.CharField(required=False, max_length=200)
    verb = serializers.CharField(required=False, max_length=64)
    target = serializers.CharField(required=False, max_length=300)


class Entry(Shape):
    at: datetime
    actor: str
    verb: str
    target: str
    project: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    reason: str


class Entries(Page):
    results: list[Entry]


class AuditView(ApiView):
    """The audit trail, newest first; a project's key sees its project's."""

    scopes = {"GET": "admin"}
    session_needs = frozenset({"controlplane.view_auditentry"})

    @extend_schema(
        operation_id="list_audit", parameters=[AuditQuery], responses=described(Entries), summary="The audit trail"
    )
    def get(self, request: Request) -> Response:
        query = self.query(AuditQuery)
        rows = AuditEntry.objects.all()
        if self.caller.project is not None:
            rows = rows.filter(project=self.caller.project.slug)
        rows = rows.filter(**{name: query[name] for name in ("actor", "verb", "target") if name in query})
        return Response(page(rows, query, Entry.of))
