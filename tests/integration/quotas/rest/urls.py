"""A small API on the shared plumbing, for the tests beside."""

from django.urls import path, re_path
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from quotas.models import Tier
from quotas.rest import problems
from quotas.rest.caller import resolve_project
from quotas.rest.fields import CostField, SecondsField, StrictBooleanField, StrictCharField, SubjectsField
from quotas.rest.pagination import PageQuery, page
from quotas.rest.serializers import StrictSerializer
from quotas.rest.views import ApiView


class Thing(StrictSerializer):
    name = StrictCharField(max_length=10)
    cost = CostField(required=False)
    keys = SubjectsField(required=False)
    wait = SecondsField(default=0, max_value=30)
    dry_run = StrictBooleanField(default=False)
    project = StrictCharField(required=False)


class TierQuery(PageQuery):
    name = serializers.CharField(required=False)


class Things(ApiView):
    scopes = {"GET": "read", "POST": "check"}
    session_needs = frozenset({"quotas.view_project"})

    def get(self, request: Request) -> Response:
        return Response(page(Tier.objects.all(), self.query(TierQuery), lambda tier: tier.name))

    def post(self, request: Request) -> Response:
        body = self.body(Thing)
        project = resolve_project(request, body.get("project"))
        return Response({**body, "project": project and project.slug})


class Faulty(ApiView):
    scopes = {"GET": "read", "DELETE": "nobody-has-it"}

    def get(self, request: Request) -> Response:
        raise ValueError("the secret of the house")

    def put(self, request: Request) -> Response:
        return Response({})


urlpatterns = [
    path("api/things", Things.as_view()),
    path("api/faulty", Faulty.as_view()),
    re_path(r"^api(?:/|$)", problems.no_such_path),
]
