"""`POST /api/v1/limits/backtest`: what a policy would have denied in recorded traffic."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

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
from quotas.rest.openapi import described
from quotas.rest.pointers import FieldError, pointer
from quotas.rest.problems import InvalidRequest, ProblemError
from quotas.rest.serializers import StrictSerializer
from quotas.rest.views import ApiView
from quotas.services import backtest
from quotas.shapes import Shape, field
from quotas.snapshot.policies import OVERRIDE_COLUMNS, CompiledPolicy

MAX_SUBJECTS = 1000
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


class SubjectResult(Shape):
    project: str | None = field(blank_is_null=True)
    key: str
    limit: int | None = field(help="An override's where there is one.")
    demand: int = field(help="Units that were requested: admitted, and refused where those count.")
    denied: int = field(help="Units that the policy would have denied.")
    recorded_denied: int = field(help="Checks that the recorded policy refused.")
    first_denied_at: datetime | None = field("first_denied", help="Start of the minute, hour or day.")


class BacktestTotal(Shape):
    subjects: int
    subjects_denied: int
    demand: int
    denied: int
    recorded_denied: int


class BacktestAnswer(Shape):
    policy: str
    unit: str
    source: str = field(help="The stored policy whose roll-ups are the traffic.")
    resolution: Literal["minute", "hour", "day"]
    from_: datetime = field("begin", name="from")
    to: datetime = field("end")
    total: BacktestTotal
    results: list[SubjectResult] = field("subjects", help=f"Most denied first, at most {MAX_SUBJECTS}.")
    approximate: list[str] = field(help="What is not exact, in words.")


class BacktestView(ApiView):
    """Say what a policy would have denied in recorded traffic, before it is saved."""

    scopes = {"POST": "operate"}

    @extend_schema(
        operation_id="backtest",
        request=BacktestBody,
        responses=described(BacktestAnswer),
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
    overrides = Override.objects.filter(policy__name=item["name"]).values_list(*OVERRIDE_COLUMNS)
    return CompiledPolicy.of(policy, overrides, settings.IPV6_PREFIX)


def _answer(policy: CompiledPolicy, found: backtest.Backtest) -> dict[str, Any]:
    subjects = found.subjects
    total = BacktestTotal.of(
        subjects=len(subjects),
        subjects_denied=sum(1 for subject in subjects if subject.denied),
        demand=sum(subject.demand for subject in subjects),
        denied=sum(subject.denied for subject in subjects),
        recorded_denied=sum(subject.recorded_denied for subject in subjects),
    )
    return BacktestAnswer.of(found, policy=policy.name, unit=policy.unit, total=total, results=subjects[:MAX_SUBJECTS])
