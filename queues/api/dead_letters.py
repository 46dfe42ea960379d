"""`/api/v1/dead-letters`: list, group, replay, discard."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from queues.api.jobs import Reason
from queues.api.problems import QueuesView
from queues.models import BulkAction, DeadLetter, Job
from queues.presenters import dead_letters as shapes
from queues.presenters.jobs import JobAnswer, job_whole
from queues.selectors.dead_letters import dead_letter_groups
from queues.services import bulk_actions, dead_letters
from quotas.engine.categories import OF_DEAD_JOBS
from quotas.rest.caller import resolve_project
from quotas.rest.fields import ReasonField, StrictBooleanField, StrictCharField
from quotas.rest.openapi import described
from quotas.rest.pagination import PageQuery, encode, page, position
from quotas.rest.problems import InvalidRequest, NotFound
from quotas.rest.serializers import QuerySerializer, StrictSerializer
from quotas.rest.views import ApiView

SEVERITIES = ("info", "warning", "critical")


class DeadLetterFilters(QuerySerializer):
    category = serializers.ChoiceField(choices=OF_DEAD_JOBS, required=False)
    severity = serializers.ChoiceField(choices=SEVERITIES, required=False)
    fingerprint = serializers.CharField(required=False, max_length=32)
    project = serializers.CharField(required=False, max_length=63)
    queue = serializers.CharField(required=False, max_length=63)
    handled = serializers.BooleanField(required=False, default=False)


class DeadLettersQuery(PageQuery, DeadLetterFilters):
    """Filters and page."""


class ReplayOne(Reason):
    payload = serializers.JSONField(required=False)

    def validate_payload(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise serializers.ValidationError("Must be an object.")
        return value


class BulkFilter(StrictSerializer):
    category = serializers.ChoiceField(choices=OF_DEAD_JOBS, required=False)
    severity = serializers.ChoiceField(choices=SEVERITIES, required=False)
    fingerprint = StrictCharField(required=False, max_length=32)
    project = StrictCharField(required=False, max_length=63)
    queue = StrictCharField(required=False, max_length=63)
    type = StrictCharField(required=False, max_length=200)


class ReplayMany(StrictSerializer):
    filter = BulkFilter()
    reason = ReasonField()
    dry_run = StrictBooleanField(required=False, default=False)


def letters(view: ApiView, query: dict[str, Any]) -> QuerySet[DeadLetter]:
    """The caller's letters that `query` means; handled ones only if the query selects them."""
    rows = view.caller.visible(DeadLetter.objects.select_related("job", "project", "queue"))
    rows = rows.filter(handled_at__isnull=not query["handled"])
    for name, lookup in {
        "category": "category",
        "severity": "severity",
        "fingerprint": "fingerprint",
        "queue": "queue__name",
    }.items():
        if name in query:
            rows = rows.filter(**{lookup: query[name]})
    if "project" in query:
        rows = rows.filter(project=resolve_project(view.request, query["project"]))
    return rows


def letter_of(view: ApiView, uid: str) -> DeadLetter:
    letter = view.caller.visible(DeadLetter.objects.select_related("job", "project", "queue")).filter(uid=uid).first()
    if letter is None:
        raise NotFound("There is no such dead letter, or it is not yours.")
    return letter


class DeadLetters(QueuesView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_deadletter"})

    @extend_schema(
        operation_id="list_dead_letters",
        parameters=[DeadLettersQuery],
        responses=described(shapes.DeadLetterPage),
        summary="Dead letters, newest first",
    )
    def get(self, request: Request) -> Response:
        query = self.query(DeadLettersQuery)
        return Response(page(letters(self, query), query, shapes.DeadLetterAnswer.of, order="id"))


class DeadLetterGroups(QueuesView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_deadletter"})

    @extend_schema(
        operation_id="list_dead_letter_groups",
        parameters=[DeadLettersQuery],
        responses=described(shapes.DeadLetterGroupPage),
        summary="Dead letters that failed alike",
    )
    def get(self, request: Request) -> Response:
        """Newest group first, by the first letter of each, so that the order is stable while groups grow."""
        query = self.query(DeadLettersQuery)
        rows, limit = letters(self, query), query["limit"]
        groups = dead_letter_groups(rows, below=position(rows, query, "id"), count=limit + 1)
        following = encode(str(groups[limit - 1].first)) if len(groups) > limit else None
        return Response(shapes.DeadLetterGroupPage.of(results=groups[:limit], next=following))


class DeadLetterDetail(QueuesView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_deadletter"})

    @extend_schema(
        operation_id="get_dead_letter", responses=described(shapes.DeadLetterWhole), summary="One dead letter"
    )
    def get(self, request: Request, uid: str) -> Response:
        self.query()
        letter = letter_of(self, uid)
        return Response(shapes.dead_letter_whole(letter))


class DeadLetterReplay(QueuesView):
    scopes = {"POST": "operate"}

    @extend_schema(
        operation_id="replay_dead_letter",
        request=ReplayOne,
        responses=described(JobAnswer),
        summary="Run its job again, edited or not",
    )
    def post(self, request: Request, uid: str) -> Response:
        body = self.body(ReplayOne)
        letter = letter_of(self, uid)
        job = dead_letters.replay(letter.pk, actor=self.caller.name, reason=body["reason"], payload=body.get("payload"))
        return Response(job_whole(Job.objects.select_related("project", "queue", "batch").get(pk=job.pk)))


class DeadLetterDiscard(QueuesView):
    scopes = {"POST": "operate"}

    @extend_schema(
        operation_id="discard_dead_letter",
        request=Reason,
        responses=described(shapes.DeadLetterAnswer),
        summary="Settle it without another run",
    )
    def post(self, request: Request, uid: str) -> Response:
        reason = self.body(Reason)["reason"]
        letter = letter_of(self, uid)
        dead_letters.discard(letter.pk, actor=self.caller.name, reason=reason)
        return Response(shapes.DeadLetterAnswer.of(letter_of(self, uid)))


class DeadLettersReplay(QueuesView):
    scopes = {"POST": "operate"}

    @extend_schema(
        operation_id="replay_dead_letters",
        request=ReplayMany,
        responses={202: described(shapes.BulkAction), 200: described(shapes.BulkPreview)},
        summary="Replay all that match, in the background",
    )
    def post(self, request: Request) -> Response:
        body = self.body(ReplayMany)
        filter = dict(body["filter"])
        if not filter:
            raise InvalidRequest.at(
                "#/filter", "Must name at least one of category, severity, fingerprint, project, queue, type."
            )
        if "project" in filter:
            resolve_project(request, filter["project"])
        if body["dry_run"]:
            return Response(
                shapes.BulkPreview.of(dry_run=True, total=bulk_actions.matching(filter, self.caller.project).count())
            )
        action = bulk_actions.begin(
            "replay", filter, project=self.caller.project, actor=self.caller.name, reason=body["reason"]
        )
        return Response(
            shapes.BulkAction.of(action), 202, headers={"Location": f"/api/v1/dead-letters/actions/{action.uid}"}
        )


class BulkActionDetail(QueuesView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_bulkaction"})

    @extend_schema(
        operation_id="get_bulk_action", responses=described(shapes.BulkAction), summary="Progress of a bulk replay"
    )
    def get(self, request: Request, uid: str) -> Response:
        self.query()
        action = self.caller.visible(BulkAction.objects.all()).filter(uid=uid).first()
        if action is None:
            raise NotFound("There is no such action, or it is not yours.")
        return Response(shapes.BulkAction.of(action))
