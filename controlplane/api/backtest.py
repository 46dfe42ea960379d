"""`POST /api/v1/limits/backtest`: what a policy would have denied in recorded traffic."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.config.document import Mistake, Node
from controlplane.config.kinds.policies import Policies
from controlplane.config.records import Item, Mistakes
from quotas.models import Override, Policy, Project, Tier
from quotas.rest.caller import Caller, unknown_project
from quotas.rest.pointers import FieldError, pointer
from quotas.rest.problems import InvalidRequest, ProblemError
from quotas.rest.serializers import StrictSerializer
from quotas.rest.views import ApiView
from quotas.services import backtest
from quotas.snapshot.policies import CompiledPolicy
from quotas.times import rfc3339

MOST = 1000
"""The most subjects in an answer; the totals cover all."""


class MomentField(serializers.DateTimeField):
    """ISO 8601 as JSON text."""

    def to_internal_value(self, value: Any) -> datetime:
        if not isinstance(value, str):
            raise serializers.ValidationError("Must be a time as text, such as 2026-01-31T00:00:00Z.")
        moment: datetime = super().to_internal_value(value)
        return moment


class BacktestBody(StrictSerializer):
    policy = serializers.DictField(help_text="A policy as in the configuration file.")

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {**super().get_fields(), "from": MomentField(), "to": MomentField()}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["from"] >= attrs["to"]:
            raise serializers.ValidationError({"to": "Must be after `from`."})
        return attrs


class HeldSubject(serializers.Serializer[Any]):
    project = serializers.CharField(allow_null=True)
    key = serializers.CharField()
    limit = serializers.IntegerField(allow_null=True, help_text="An override's where there is one.")
    demand = serializers.IntegerField(help_text="Units that were asked for: admitted, and refused where those count.")
    denied = serializers.IntegerField(help_text="Units that the policy would have denied.")
    recorded_denied = serializers.IntegerField(help_text="Checks that the recorded policy refused.")
    first_denied_at = serializers.DateTimeField(allow_null=True, help_text="Start of the minute, hour or day.")


class BacktestTotal(serializers.Serializer[Any]):
    subjects = serializers.IntegerField()
    subjects_denied = serializers.IntegerField()
    demand = serializers.IntegerField()
    denied = serializers.IntegerField()
    recorded_denied = serializers.IntegerField()


class BacktestAnswer(serializers.Serializer[Any]):
    policy = serializers.CharField()
    unit = serializers.CharField()
    resolution = serializers.ChoiceField(choices=["minute", "hour", "day"])
    to = serializers.DateTimeField()
    total = BacktestTotal()
    results = HeldSubject(many=True, help_text=f"Most denied first, at most {MOST}.")
    approximate = serializers.ListField(child=serializers.CharField(), help_text="What is not exact, in words.")

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # A serializer has an attribute `source` already, and `from` is a word of the language.
        source = serializers.CharField(help_text="The stored policy whose roll-ups are the traffic.")
        return {**super().get_fields(), "source": source, "from": serializers.DateTimeField()}


class BacktestView(ApiView):
    """Say what a policy would have denied in recorded traffic, before it is saved."""

    scopes = {"POST": "operate"}

    @extend_schema(
        operation_id="backtest",
        request=BacktestBody,
        responses=BacktestAnswer,
        summary="What would this policy have denied?",
    )
    def post(self, request: Request) -> Response:
        body = self.body(BacktestBody)
        policy = _compiled(_item(body["policy"]), self.caller)
        visible_to = self.caller.project_slug or None
        try:
            found = backtest.backtest(policy, body["from"], body["to"], visible_to)
        except backtest.NothingRecorded as error:
            raise ProblemError("nothing-recorded", "Nothing recorded", 422, str(error)) from None
        except backtest.TooMuchRecorded as error:
            raise ProblemError("too-much-recorded", "Too much recorded", 422, str(error)) from None
        return Response(_answer(policy, found))


def _item(given: dict[str, Any]) -> Item:
    """The policy as the configuration file's own readers understand it. Raises `InvalidRequest`."""
    try:
        item: Item = Policies.record.read(_node(given, "policy"))
        return item
    except Mistake as mistake:
        mistakes = [mistake]
    except Mistakes as several:
        mistakes = several.mistakes
    raise InvalidRequest.of([FieldError(mistake.path, mistake.message) for mistake in mistakes])


def _node(value: Any, *path: str | int) -> Node:
    """A JSON value as the configuration's tree, with pointers for paths."""
    data = value
    if isinstance(value, dict):
        data = {name: _node(inner, *path, name) for name, inner in value.items()}
    elif isinstance(value, list):
        data = [_node(inner, *path, place) for place, inner in enumerate(value)]
    return Node(1, pointer(*path), data)


def _compiled(item: Item, caller: Caller) -> CompiledPolicy:
    """The policy as checks would use it, never saved. Overrides of a stored policy apply. A project's key tries a policy of its own project."""
    columns = {**item, "project": caller.project, "tier": None}
    if item["project"] is not None:
        columns["project"] = Project.objects.filter(slug=item["project"]).first()
        if columns["project"] is None or not caller.sees(item["project"]):
            raise unknown_project(item["project"])
    if item["tier"] is not None:
        columns["tier"] = Tier.objects.filter(name=item["tier"]).first()
        if columns["tier"] is None:
            raise InvalidRequest.at("#/policy/tier", "There is no such tier.")
    stored = Policy.objects.filter(name=item["name"]).first()
    policy = Policy(pk=stored.pk if stored is not None else 0, **columns)
    overrides = list(Override.objects.select_related("project").filter(policy__name=item["name"]))
    return CompiledPolicy.of(policy, overrides, settings.IPV6_PREFIX)


def _answer(policy: CompiledPolicy, found: backtest.Backtest) -> dict[str, Any]:
    return {
        "policy": policy.name,
        "unit": policy.unit,
        "source": found.source,
        "resolution": found.resolution,
        "from": rfc3339(found.begin),
        "to": rfc3339(found.end),
        "total": {
            "subjects": len(found.subjects),
            "subjects_denied": sum(1 for subject in found.subjects if subject.denied),
            "demand": sum(subject.demand for subject in found.subjects),
            "denied": sum(subject.denied for subject in found.subjects),
            "recorded_denied": sum(subject.recorded_denied for subject in found.subjects),
        },
        "results": [
            {
                "project": subject.project or None,
                "key": subject.key,
                "limit": subject.limit,
                "demand": subject.demand,
                "denied": subject.denied,
                "recorded_denied": subject.recorded_denied,
                "first_denied_at": rfc3339(subject.first_denied),
            }
            for subject in found.subjects[:MOST]
        ],
        "approximate": found.approximate,
    }
