"""`/api/v1/queues` and `/api/v1/queue`: state, statistics, pause, resume, drain; `/api/v1/workers`."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from queues import liveness
from queues.models import Job, Queue, WorkerProcess
from queues.presenters import queues as shapes
from queues.presenters.jobs import RecentPage, recent_job
from queues.presenters.queues import queue_shape, worker_shape
from queues.selectors.dead_letters import open_dead_letters
from queues.selectors.jobs import job_counts
from queues.selectors.queues import depths, queue_facts
from queues.services import queue_actions
from queues.states import Status
from quotas import clock
from quotas.rest.fields import ReasonField
from quotas.rest.openapi import described
from quotas.rest.pagination import PageQuery, page
from quotas.rest.problems import NotFound, ProblemError
from quotas.rest.serializers import StrictSerializer
from quotas.rest.views import ApiView


class NeededReason(StrictSerializer):
    reason = ReasonField()


def queue_named(name: str) -> Queue:
    queue = Queue.objects.select_related("pool", "retry_policy").filter(name=name).first()
    if queue is None:
        raise NotFound(f"There is no queue {name[:80]!r}.")
    return queue


class Queues(ApiView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_queue"})

    @extend_schema(
        operation_id="list_queues",
        parameters=[PageQuery],
        responses=described(shapes.QueuePage),
        summary="Queues with their depth",
    )
    def get(self, request: Request) -> Response:
        rows = Queue.objects.select_related("pool", "retry_policy")
        return Response(page(rows, self.query(PageQuery), self._shown, order="id"))

    def _shown(self, row: Queue) -> dict[str, Any]:
        return queue_shape(row, queue_facts(row, self.caller.project), self.caller.project)


class QueueDetail(ApiView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_queue"})

    @extend_schema(operation_id="get_queue", responses=described(shapes.QueueAnswer), summary="One queue")
    def get(self, request: Request, name: str) -> Response:
        self.query()
        queue = queue_named(name)
        return Response(queue_shape(queue, queue_facts(queue, self.caller.project), self.caller.project))


class _Steer(ApiView):
    """A verb on a queue. Queues are shared by all projects, so a project's key steers none."""

    scopes = {"POST": "operate"}

    @extend_schema(request=NeededReason, responses=described(shapes.QueueAnswer))
    def post(self, request: Request, name: str) -> Response:
        reason = self.body(NeededReason)["reason"]
        if not self.caller.is_platform:
            raise ProblemError("forbidden", "Forbidden", 403, "Queues are shared: only a platform key steers them.")
        queue = queue_named(name)
        self.act(queue, actor=self.caller.name, reason=reason)
        queue = queue_named(name)
        return Response(queue_shape(queue, queue_facts(queue)))

    def act(self, queue: Queue, *, actor: str, reason: str) -> Any:
        raise NotImplementedError


class QueuePause(_Steer):
    def act(self, queue: Queue, *, actor: str, reason: str) -> Any:
        return queue_actions.pause(queue, actor=actor, reason=reason)


class QueueResume(_Steer):
    def act(self, queue: Queue, *, actor: str, reason: str) -> Any:
        return queue_actions.resume(queue, actor=actor, reason=reason)


class QueueDrain(_Steer):
    def act(self, queue: Queue, *, actor: str, reason: str) -> Any:
        return queue_actions.drain(queue, actor=actor, reason=reason)


class QueueStatus(ApiView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_queue"})

    @extend_schema(
        operation_id="queue_status",
        responses=described(shapes.QueueStatus),
        summary="Counts of waiting, running and ended jobs",
    )
    def get(self, request: Request) -> Response:
        self.query()
        counts = job_counts(self.caller.project)
        found = depths(self.caller.project)
        places = liveness.alive(clock.now()).values_list("places", flat=True)
        return Response(shapes.queue_status(counts, found, sum(places)))


class QueueStats(ApiView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_queue"})

    @extend_schema(
        operation_id="queue_stats",
        responses=described(shapes.QueueStats),
        summary="Depth by priority, retries, dead letters",
    )
    def get(self, request: Request) -> Response:
        self.query()
        found = depths(self.caller.project)
        letters = open_dead_letters(self.caller.project)
        dead = self.caller.visible(Job.objects.filter(status=Status.DEAD)).count()
        return Response(shapes.queue_stats(found, letters, dead))


class QueueRequests(ApiView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_job"})

    @extend_schema(
        operation_id="queue_requests",
        parameters=[PageQuery],
        responses=described(RecentPage),
        summary="Recent jobs, newest first",
    )
    def get(self, request: Request) -> Response:
        rows = self.caller.visible(Job.objects.select_related("project", "queue"))
        return Response(page(rows, self.query(PageQuery), recent_job, order="id"))


class Workers(ApiView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_workerprocess"})

    @extend_schema(
        operation_id="list_workers",
        parameters=[PageQuery],
        responses=described(shapes.WorkerPage),
        summary="Worker processes, newest first",
    )
    def get(self, request: Request) -> Response:
        now = clock.now()
        rows = WorkerProcess.objects.all()
        query = self.query(PageQuery)
        return Response(page(rows, query, lambda row: worker_shape(row, alive=liveness.is_alive(row, now)), order="id"))
