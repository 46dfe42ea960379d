"""`/api/v1/jobs`: submit, list, get, cancel, retry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db.models import Q
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from queues import config
from queues.api import requests
from queues.api.problems import QueuesView
from queues.api.readable import readable
from queues.errors import FieldError, InvalidJob
from queues.models import Job
from queues.presenters import jobs as shapes
from queues.presenters.batches import BulkAnswer, bulk_answer
from queues.presenters.jobs import JobAnswer, job_new, job_row, job_whole
from queues.selectors.explanation import explain
from queues.selectors.jobs import created_after
from queues.selectors.timeline import timeline
from queues.selectors.wait_history import spans_of, waits_in
from queues.services import batches, cancel, dead_letters
from queues.services.callbacks import check_url
from queues.services.submission import Accepted
from queues.services.submit import submit_one
from queues.specs import JobSpec, read_bulk, read_job
from queues.states import Status
from quotas.models import Project
from quotas.rest.caller import resolve_project
from quotas.rest.fields import StrictCharField
from quotas.rest.fingerprints import fingerprint
from quotas.rest.idempotency import idempotency_key
from quotas.rest.openapi import described
from quotas.rest.pagination import PageQuery, page
from quotas.rest.problems import InvalidRequest, NotFound
from quotas.rest.serializers import StrictSerializer
from quotas.rest.views import ApiView


class Reason(StrictSerializer):
    """An optional word for the timeline or the audit trail."""

    reason = StrictCharField(required=False, allow_blank=True, max_length=500, default="")


class JobsQuery(PageQuery):
    status = serializers.ChoiceField(choices=Status.choices, required=False)
    queue = serializers.CharField(required=False, max_length=63)
    project = serializers.CharField(required=False, max_length=63)
    type = serializers.CharField(required=False, max_length=200)
    batch = serializers.CharField(required=False, max_length=64)
    created_after = serializers.DateTimeField(required=False)
    q = serializers.CharField(required=False, max_length=200)


def job_of(view: ApiView, uid: str) -> Job:
    """The caller's job, or 404."""
    rows = view.caller.visible(Job.objects.select_related("project", "queue", "batch"))
    job = rows.filter(uid=uid).first()
    if job is None:
        raise NotFound("There is no such job, or it is not yours.")
    return job


def _shown(accepted: Accepted, spec: JobSpec) -> dict[str, Any]:
    """The job as JSON. A new one that waits for nothing is as it was inserted, so that nothing is read."""
    job = accepted.job
    if not accepted.created or spec.after or spec.batch is not None:
        return job_whole(Job.objects.select_related("project", "queue", "batch").get(pk=job.pk))
    return job_new(job, config.current().queues[job.queue_id].name)


def _project_of(request: Request, spec: JobSpec) -> Project:
    project = resolve_project(request, spec.project, required=True)
    assert project is not None
    return project


class Jobs(QueuesView):
    scopes = {"GET": "read", "POST": "submit"}
    session_needs = frozenset({"queues.view_job"})

    @extend_schema(
        operation_id="submit_job", request=requests.JobRequest, responses={202: described(JobAnswer), 200: described(JobAnswer)},
        parameters=[requests.IDEMPOTENCY_KEY], summary="Submit a job",
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Accepted with 202: from then on the job is in SQL and is not lost. The same key and body: 200, the same job."""
        spec = read_job(request.data)
        header = idempotency_key(request)
        if header is not None:
            if spec.idempotency_key not in (None, header):
                raise InvalidRequest.at("#/idempotency_key", "differs from the header Idempotency-Key")
            spec = replace(spec, idempotency_key=header)
        known = resolve_project(request, spec.project, required=True, find=config.project_row)
        if spec.callback_url:
            check_url(spec.callback_url, "/callback_url")
        accepted = submit_one(spec, known, lambda: _project_of(request, spec))
        location = f"/api/v1/jobs/{accepted.job.uid}"
        return Response(_shown(accepted, spec), 202 if accepted.created else 200, headers={"Location": location})

    @extend_schema(
        operation_id="list_jobs", parameters=[JobsQuery], responses=described(shapes.JobPage), summary="List jobs"
    )
    def get(self, request: Request) -> Response:
        """Newest first, complete and without doubles while jobs are added."""
        query = self.query(JobsQuery)
        rows = self.caller.visible(Job.objects.select_related("project", "queue", "batch"))
        for name, lookup in {"status": "status", "queue": "queue__name", "type": "type"}.items():
            if name in query:
                rows = rows.filter(**{lookup: query[name]})
        if "project" in query:
            rows = rows.filter(project=resolve_project(request, query["project"]))
        if "batch" in query:
            rows = rows.filter(batch__uid=query["batch"])
        if "created_after" in query:
            rows = created_after(rows, query["created_after"])
        if "q" in query:
            rows = rows.filter(Q(uid__startswith=query["q"]) | Q(type__icontains=query["q"]) | Q(user=query["q"]))
        return Response(page(rows, query, job_row, order="id"))


class JobDetail(QueuesView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_job"})

    @extend_schema(operation_id="get_job", responses=described(JobAnswer), summary="Look at a job")
    def get(self, request: Request, uid: str) -> Response:
        self.query()
        shown = job_whole(job_of(self, uid))
        return Response(shown if self.caller.permissions is None else readable(shown, self.caller.sees_payloads))


class JobTimeline(QueuesView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_job"})

    @extend_schema(
        operation_id="get_job_timeline", responses=described(shapes.Timeline), summary="Every step of a job's life"
    )
    def get(self, request: Request, uid: str) -> Response:
        self.query()
        job = job_of(self, uid)
        spans = spans_of(job)
        return Response(shapes.Timeline.of(results=timeline(job, spans), waits=waits_in(spans)))


class JobExplain(QueuesView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_job"})

    @extend_schema(
        operation_id="explain_job", responses=described(shapes.Explanation), summary="What a job waits for, until when"
    )
    def get(self, request: Request, uid: str) -> Response:
        self.query()
        return Response(shapes.explained(explain(job_of(self, uid))))


class JobCancel(QueuesView):
    scopes = {"POST": "submit"}

    @extend_schema(
        operation_id="cancel_job",
        request=Reason,
        responses=described(JobAnswer),
        summary="Cancel a job, a running one too",
    )
    def post(self, request: Request, uid: str) -> Response:
        reason = self.body(Reason)["reason"]
        job = job_of(self, uid)
        cancel.cancel(job.pk, actor=self.caller.name, reason=reason, audited=self.caller.may("operate"))
        return Response(job_whole(job_of(self, uid)))


class JobRetry(QueuesView):
    scopes = {"POST": "operate"}

    @extend_schema(
        operation_id="retry_job", request=Reason, responses=described(JobAnswer), summary="Replay a dead job"
    )
    def post(self, request: Request, uid: str) -> Response:
        reason = self.body(Reason)["reason"]
        dead_letters.retry(job_of(self, uid), actor=self.caller.name, reason=reason)
        return Response(job_whole(job_of(self, uid)))


class JobsBulk(QueuesView):
    scopes = {"POST": "submit"}

    @extend_schema(
        operation_id="submit_jobs", request=requests.BulkRequest,
        responses={202: described(BulkAnswer), 200: described(BulkAnswer)},
        parameters=[requests.IDEMPOTENCY_KEY], summary="Submit up to 10,000 jobs as one batch, all or nothing",
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        bulk = read_bulk(request.data)
        project = resolve_project(request, bulk.project, required=True)
        assert project is not None
        check_url(bulk.callback_url, "/batch/callback_url")
        check_url(bulk.then.callback_url if bulk.then else "", "/batch/then/callback_url")
        key = idempotency_key(request)
        made, ids, created = batches.submit_bulk(
            project,
            self._bound(bulk.jobs, project),
            name=bulk.name,
            uid=bulk.batch,
            stays_open=bulk.open,
            callback_url=bulk.callback_url,
            then=bulk.then,
            idempotency_key=key,
            request_hash=fingerprint(request.data) if key is not None else "",
        )
        return Response(bulk_answer(made, ids), 202 if created else 200)

    @staticmethod
    def _bound(jobs: list[JobSpec], project: Project) -> list[JobSpec]:
        for position, spec in enumerate(jobs):
            check_url(spec.callback_url, f"/jobs/{position}/callback_url")
            if spec.batch is not None:
                raise InvalidJob([FieldError(f"/jobs/{position}/batch", "The batch stands at the top.")])
        return jobs
