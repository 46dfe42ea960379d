"""`/api/v1/forecast`: when jobs will be done, when a quota is used up, and what a change would make of that."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from queues.api.batches import batch_of
from queues.api.forecast_body import SELECTORS, ForecastBody, ForecastQuery, change_of
from queues.api.jobs import job_of
from queues.api.problems import QueuesView
from queues.api.queues import queue_named
from queues.errors import InvalidJob
from queues.presenters.forecast import ForecastAnswer, forecast_answer
from queues.selectors.forecast import Forecast
from queues.selectors.what_if import NO_CHANGE, Change
from queues.services import forecast
from queues.specs import JobSpec, read_job
from queues.transactions import in_turns
from quotas.errors import LimiterUnavailable
from quotas.models import Project
from quotas.rest import decisions
from quotas.rest.caller import resolve_project
from quotas.rest.openapi import described
from quotas.rest.pointers import FieldError
from quotas.rest.problems import InvalidRequest, NotFound
from quotas.services.usage import Selection
from quotas.snapshot import resolve


class ForecastView(QueuesView):
    scopes = {"GET": "read", "POST": "read"}
    session_needs = frozenset({"queues.view_job"})

    @extend_schema(
        operation_id="forecast",
        parameters=[ForecastQuery],
        responses=described(ForecastAnswer),
        summary="When will it be done?",
    )
    def get(self, request: Request) -> Response:
        """Of a queue, batch, job, policy or pool: exactly one of them."""
        return self._answer(request, self.query(ForecastQuery), NO_CHANGE, "?")

    @extend_schema(
        operation_id="forecast_what_if",
        request=ForecastBody,
        responses=described(ForecastAnswer),
        summary="When would it be done?",
    )
    def post(self, request: Request) -> Response:
        """As GET, with changes to try; or of `jobs` that have not been submitted. Nothing is stored."""
        body = self.body(ForecastBody)
        forecast.renew()
        change = change_of(body.pop("what_if", None) or {}, self.caller)
        return self._answer(request, body, change, "/")

    def _answer(self, request: Request, asked: dict[str, Any], change: Change, place: str) -> Response:
        _check(asked, place)
        forecast.renew()
        try:
            found = self._found(request, asked, change, place)
        except LimiterUnavailable as error:
            raise decisions.refusal(error) from None
        return Response(forecast_answer(found))

    def _found(self, request: Request, asked: dict[str, Any], change: Change, place: str) -> Forecast:
        if "jobs" in asked:
            return forecast.of_planned(self._jobs(request, asked["jobs"]), change)
        project = resolve_project(request, asked.get("project"))
        if "batch" in asked or "job" in asked:
            one = batch_of(self, asked["batch"]) if "batch" in asked else job_of(self, asked["job"])
            if project is not None and one.project_id != project.pk:
                raise NotFound("It is another project's.")
            return forecast.of_jobs(one, None, change)
        if "queue" in asked:
            return forecast.of_jobs(queue_named(asked["queue"]), project, change)
        if "pool" in asked:
            self._need("quotas.view_pool")
            config = resolve.snapshot().pools.get(asked["pool"])
            if config is None or not config.is_open_to(self.caller.project_slug or None):
                raise NotFound(f"There is no pool {asked['pool'][:80]!r}, or it is not yours.", "unknown-pool")
            return forecast.of_pool(asked["pool"], project, change)
        self._need("quotas.view_policy")
        return self._of_policy(asked, project, change, place)

    def _need(self, permission: str) -> None:
        """Of a person, as the pages about it need it."""
        if not self.caller.has_all(frozenset({permission})):
            raise PermissionDenied("Your roles don't include seeing this.")

    def _of_policy(self, asked: dict[str, Any], project: Project | None, change: Change, place: str) -> Forecast:
        selection = Selection(policy=asked["policy"], key=asked.get("key"), visible_to=self.caller.project_slug or None)
        policies = selection.policies()
        if not policies:
            raise NotFound(f"There is no policy {asked['policy'][:80]!r}, or it is not yours.", "unknown-policy")
        policy, slug = policies[0], project.slug if project is not None else ""
        subject = selection.subject(policy.scope)
        if subject is None:
            subject = {"global": "*", "project": slug or policy.project, "endpoint": policy.match}.get(
                policy.scope
            ) or ""
        if not subject:
            raise InvalidRequest.at(f"{place}key", f"is required for a policy of the scope {policy.scope}")
        if policy.scope == "project" and slug and subject != slug:
            raise NotFound(f"There is no project {subject[:80]!r}, or it is not yours.", "unknown-project")
        partition = forecast.partition_of(policy, subject, slug)
        if partition is None:
            raise InvalidRequest.at(f"{place}project", f"is required for a policy of the scope {policy.scope}")
        return forecast.of_limit(policy, subject, partition, project, change)

    def _jobs(self, request: Request, given: list[Any]) -> list[tuple[Project, JobSpec]]:
        specs: list[JobSpec] = []
        errors: list[FieldError] = []
        for position, item in enumerate(in_turns(given)):
            try:
                specs.append(read_job(item, f"/jobs/{position}"))
            except InvalidJob as error:
                errors += error.errors
        if errors:
            raise InvalidJob(errors)
        projects: dict[str | None, Project] = {}
        for position, spec in enumerate(specs):
            if spec.project not in projects:
                projects[spec.project] = self._project(request, spec.project, f"/jobs/{position}/project")
        return [(projects[spec.project], spec) for spec in specs]

    @staticmethod
    def _project(request: Request, slug: str | None, pointer: str) -> Project:
        try:
            found = resolve_project(request, slug)
        except NotFound as error:
            raise NotFound(error.detail, error.slug, [FieldError(pointer, error.detail)]) from None
        if found is None:
            raise InvalidRequest.at(pointer, "is required with a platform key")
        return found


def _check(asked: dict[str, Any], place: str) -> None:
    """Exactly one thing is named, and nothing that has no meaning for it. Raises `InvalidRequest`."""
    names = [*SELECTORS, "jobs"] if place == "/" else list(SELECTORS)
    given = [name for name in names if name in asked]
    if len(given) != 1:
        listed = ", ".join(f"`{name}`" for name in names)
        wrong = f"{place}{given[1]}" if given else ("" if place == "/" else f"{place}{names[0]}")
        raise InvalidRequest.at(wrong, f"Give exactly one of {listed}.")
    if "key" in asked and given[0] != "policy":
        raise InvalidRequest.at(f"{place}key", "Has a meaning only with `policy`.")
    if "project" in asked and given[0] == "jobs":
        raise InvalidRequest.at(f"{place}project", "Name the project in each of the jobs.")
