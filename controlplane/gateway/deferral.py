"""`Prefer: respond-async`: a call that can't be made now becomes a job of the type `http.request`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.gateway.call import Call
from controlplane.gateway.encodings import is_plain
from controlplane.http.response import Answer, rendered
from queues import config
from queues.api.problems import problem_of
from queues.errors import QueueError
from queues.job_types.http_request import HEADER_NAME, METHODS, OWN_HEADERS
from queues.models import Job
from queues.presenters.jobs import job_whole
from queues.services.submit import submit_specs
from queues.specs import read_job
from quotas.models import Project
from quotas.rest.caller import Caller
from quotas.rest.problems import InvalidRequest, ProblemError

_MAX_VALUE = 8000
_LEFT_OUT = OWN_HEADERS | {"content-encoding", "traceparent", "tracestate", "baggage", "user-agent"}
"""Fields that a repeated request has with other values, besides those that a job sets itself: with them, the same
idempotency key would stand for another request."""


def known(call: Call, caller: Caller) -> Answer | None:
    """The job that an earlier call with the same idempotency key has become: the call is not made in addition.

    Reads SQL. Raises a problem for a queue that does not exist, before anything is charged.
    """
    if call.wishes.queue and call.wishes.queue not in config.current().queue_named:
        config.snapshot.expire()
        if call.wishes.queue not in config.current().queue_named:
            raise InvalidRequest(f"Sluice-Queue: there is no queue {call.wishes.queue!r}.")
    if not call.idempotency_key:
        return None
    jobs = Job.objects.filter(project__slug=call.project, idempotency_key=call.idempotency_key)
    if not jobs.exists():
        return None
    return _submitted(call, caller)


def submitted(call: Call, caller: Caller, refusal: ProblemError) -> Answer:
    """The job that the call becomes, as an answer; uses SQL. Raises `refusal` for a call that no job can stand for,
    and a problem where the queue does not take it."""
    if not _fits(call):
        raise refusal
    return _submitted(call, caller)


def _fits(call: Call) -> bool:
    """Whether a job can send the same request: its body is kept, and is text."""
    if call.method not in METHODS or not call.body.is_whole or call.project is None:
        return False
    return call.document is not None or is_plain(call.encoding) and _text_of(call.body.first) is not None


def _submitted(call: Call, caller: Caller) -> Answer:
    data: dict[str, Any] = {
        "type": "http.request", "queue": call.wishes.queue or _queue_of(call.target.pool), "payload": _payload(call),
        "priority": call.wishes.priority, "user": call.user, "keys": dict(call.wishes.keys), "cost": dict(call.cost),
    }  # fmt: skip
    if call.idempotency_key:
        data["idempotency_key"] = call.idempotency_key
    project = Project.objects.get(slug=call.project)
    try:
        spec = read_job({name: value for name, value in data.items() if value is not None})
        accepted = submit_specs(project, [spec])[0]
    except QueueError as error:
        raise problem_of(error, caller) from None
    job = Job.objects.select_related("project", "queue", "batch").get(pk=accepted.job.pk)
    fields = {
        "Location": f"/api/v1/jobs/{job.uid}", "Sluice-Request-Id": call.id,
        "Preference-Applied": ", ".join(filter(None, ("respond-async", call.wishes.preferred))),
    }  # fmt: skip
    return Answer(202 if accepted.created else 200, rendered(job_whole(job)), headers=fields.items())


def _queue_of(pool: str) -> str | None:
    """The queue that sends its jobs through the pool, the first by name; None: the type's own."""
    return min((spec.name for spec in config.current().queue_named.values() if spec.pool == pool), default=None)


def _payload(call: Call) -> Mapping[str, Any]:
    path = f"{call.target.path}?{call.target.query}" if call.target.query else call.target.path
    headers = {
        name: value
        for name, value in call.headers
        if name.lower() not in _LEFT_OUT
        and not name.lower().startswith("x-stainless-")
        and HEADER_NAME.match(name)
        and value.isascii()
        and value.isprintable()
        and len(value) <= _MAX_VALUE
    }
    payload: dict[str, Any] = {"pool": call.target.pool, "method": call.method, "path": path, "headers": headers}
    if call.document is not None:
        payload["json"] = call.document
    elif call.body.first:
        payload["body"] = _text_of(call.body.first)
    return payload


def _text_of(body: bytes) -> str | None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text
