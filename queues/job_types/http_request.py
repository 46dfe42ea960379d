"""`http.request`: one HTTP call through an account of a pool. No user's code runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3

from queues.errors import FieldError
from queues.job_types.http_answer import read, result_of
from queues.registry import JobContext, JobType, RunResult
from queues.request_fields import Choice, Field, Fields, Report, Text
from queues.request_fields import read as read_fields
from queues.states import AttemptOutcome
from quotas import tracing
from quotas.engine.dialects import resources
from quotas.engine.types import CallOutcome
from quotas.services import estimates
from quotas.snapshot import resolve
from quotas.upstream import response as answers
from quotas.upstream.endpoint import AccountEndpoint

MAX_MODEL = 200
MODEL_IN_PATH = re.compile(r"/(?:models|deployments)/([^/:?]+)")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OWN_HEADERS = frozenset(
    {
        "authorization", "connection", "content-length", "host", "idempotency-key", "keep-alive", "proxy-authorization",
        "te", "trailer", "transfer-encoding", "upgrade", "x-request-id",
    }
)  # fmt: skip
HEADER_NAME = re.compile(r"\A[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}\Z")
_PATH = re.compile(r"^/(?!/)[!\"$-\[\]-~]{0,8000}$")
"""A path and a query of printable ASCII, without backslashes and fragments."""
MAX_HEADER = 8000
MAX_BODY = 64 * 1024 * 1024
"""Characters; what a request or a command may send as a whole is less."""
MIN_KEPT = 128
"""Idle connections to a host that are kept for the next call, at least."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Header fields that a call may set: strings by name."""

    def read(self, value: Any, pointer: str, report: Report) -> Mapping[str, str] | None:
        if not isinstance(value, Mapping):
            report(FieldError(pointer, "Must be an object of strings."))
            return None
        for name, text in value.items():
            if not HEADER_NAME.match(name):
                report(FieldError(pointer, "A header's name may contain letters, digits and dashes only."))
            elif name.lower() in OWN_HEADERS:
                report(FieldError(f"{pointer}/{name}", "This header is set by the call itself."))
            elif not isinstance(text, str) or not text.isprintable() or not text.isascii() or len(text) > MAX_HEADER:
                report(FieldError(f"{pointer}/{name}", "Must be a string of printable ASCII."))
        return value


@dataclass(frozen=True, slots=True)
class Matching:
    """A string that matches `pattern` whole; `rule` says so in words."""

    pattern: re.Pattern[str]
    rule: str

    def read(self, value: Any, pointer: str, report: Report) -> str | None:
        if isinstance(value, str) and self.pattern.fullmatch(value):
            return value
        report(FieldError(pointer, self.rule))
        return None


@dataclass(frozen=True, slots=True)
class Wholes:
    """A list of whole numbers, with at least one."""

    low: int
    high: int

    def read(self, value: Any, pointer: str, report: Report) -> list[int] | None:
        if (
            isinstance(value, list)
            and value
            and all(type(one) is int and self.low <= one <= self.high for one in value)
        ):
            return value
        report(FieldError(pointer, f"Must be a list of whole numbers from {self.low} to {self.high}."))
        return None


@dataclass(frozen=True, slots=True)
class Json:
    """Any JSON."""

    def read(self, value: Any, pointer: str, report: Report) -> Any:
        return value


FIELDS = Fields.of(
    Field(
        "pool", Text(63, empty=False), "The pool whose account makes the call; default: the queue's.", nullable=False
    ),
    Field("method", Choice(METHODS), "Default: `GET`.", "GET", nullable=False),
    Field(
        "path",
        Matching(_PATH, "Must begin with a single / and contain printable ASCII only; an absolute URL is refused."),
        "Path and query behind the pool's base URL.",
        required=True,
        nullable=False,
    ),
    Field("headers", Headers(), "Further header fields.", dict, nullable=False),
    Field("json", Json(), "The body as JSON.", nullable=False),
    Field("body", Text(MAX_BODY), "The body as text, instead of `json`.", nullable=False),
    Field("expect", Wholes(100, 599), "Statuses that count as success; default: any 2xx.", nullable=False),
)


_connections = urllib3.PoolManager(
    num_pools=50,
    maxsize=MIN_KEPT,
    block=False,
    retries=False,
    headers={"User-Agent": "sluice", "Accept-Encoding": "identity"},
)


def keep_connections(calls: int) -> None:
    """Keep as many idle connections to a host as this process has calls at once. Before its first call."""
    _connections.connection_pool_kw["maxsize"] = max(calls, MIN_KEPT)


def _headers_and_body(
    job: JobContext, payload: Mapping[str, Any], lease: AccountEndpoint
) -> tuple[dict[str, str], bytes | None]:
    """What is sent: the payload's header fields, except those that carry the credential, and ours."""
    credential_headers = lease.auth_headers
    secret = {name.lower() for name in credential_headers}
    given = {name: value for name, value in payload.get("headers", {}).items() if name.lower() not in secret}
    sent = {"X-Request-Id": f"{job.id}.{job.attempt}", **given, **credential_headers}
    if payload.get("method", "GET") != "GET":
        sent["Idempotency-Key"] = job.idempotency_key
    if "json" in payload:
        sent.setdefault("Content-Type", "application/json")
        return sent, json.dumps(payload["json"], separators=(",", ":")).encode()
    return sent, payload["body"].encode() if "body" in payload else None


def _not_sent(error: str) -> RunResult:
    """A failed attempt whose call was not made."""
    return RunResult(AttemptOutcome.FAILED, category="validation", error=error, upstream=CallOutcome("unused"))


class HttpRequest(JobType):
    """Its payload is described by `FIELDS`."""

    name = "http.request"
    needs_pool = True
    queue = "batch"
    trusted = True

    def validate(self, payload: Mapping[str, Any], pointer: str) -> list[FieldError]:
        errors: list[FieldError] = []
        read_fields(FIELDS, payload, pointer, errors.append)
        if "json" in payload and "body" in payload:
            errors.append(FieldError(f"{pointer}/body", "Give either `json` or `body`."))
        return errors

    def pool(self, payload: Mapping[str, Any]) -> str | None:
        return payload.get("pool")

    def model(self, payload: Mapping[str, Any], pool: str | None = None) -> str:
        """The model that it requests; the resource, if the pool's provider limits resources separately."""
        config = resolve.snapshot().pools.get(pool) if pool else None
        resource = resources.of_path(config.spec.dialect, str(payload.get("path", ""))) if config else ""
        return resource or self._named_model(payload)

    @staticmethod
    def _named_model(payload: Mapping[str, Any]) -> str:
        """The body's member `model`, or the path's part behind `models/` or `deployments/`."""
        body = payload.get("json")
        named = body.get("model") if isinstance(body, Mapping) else None
        if isinstance(named, str):
            return named[:MAX_MODEL]
        found = MODEL_IN_PATH.search(str(payload.get("path", "")))
        return found[1][:MAX_MODEL] if found else ""

    def cost(self, payload: Mapping[str, Any]) -> Mapping[str, int]:
        return {"requests": 1}

    def complete_cost(self, payload: Mapping[str, Any], pool: str | None, cost: Mapping[str, int]) -> dict[str, int]:
        """`cost` with the tokens of the payload's prompt, if the pool or a policy counts tokens."""
        body = payload["json"] if "json" in payload else payload.get("body")
        return estimates.fill(cost, pool, body, str(payload.get("path", "")))

    def run(self, job: JobContext, payload: Mapping[str, Any]) -> RunResult:
        lease = job.lease
        if lease is None:
            raise ValueError("An http.request needs an account.")
        method = payload.get("method", "GET")
        sent, body = _headers_and_body(job, payload, lease)
        url = lease.base_url.rstrip("/") + payload["path"]
        # Whatever the path contains, the call goes to the provider's own host or is not made.
        if urlsplit(url).netloc != urlsplit(lease.base_url).netloc:
            return _not_sent("The path leaves the provider's host.")
        timeout = min(job.timeout, lease.timeout)
        connect = min(timeout, 10.0)
        started = time.perf_counter()
        try:
            facts = {
                "http.request.method": method,
                "server.address": urlsplit(url).hostname or "",
                "pool.name": lease.pool,
            }
            with tracing.span(method, "client", facts) as span:
                response = _connections.request(
                    method, url, body=body, headers={**sent, **tracing.headers()}, redirect=False, preload_content=False,
                    timeout=urllib3.Timeout(connect=connect, read=timeout),
                )  # fmt: skip
                error = str(response.status) if response.status >= 400 else ""
                span.note({"http.response.status_code": response.status}, error=error)
                with response:
                    content, tail = read(response)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if answers.fault_of(error) == "timeout":
                waited = connect if isinstance(error, urllib3.exceptions.ConnectTimeoutError) else timeout
                # A deadline of the job that is shorter than the provider's says nothing of the account.
                own_deadline = job.timeout <= waited and job.timeout < lease.timeout
                return self._unanswered("timeout", f"No answer within {waited:g} s.", waited, own_deadline=own_deadline)
            return self._unanswered("network", type(error).__name__)
        except ValueError as error:
            # It could not even be written, as with a line break in the credential. The message would show it.
            return _not_sent(f"The request can't be sent: {type(error).__name__}.")
        return result_of(response, content, payload, lease, time.perf_counter() - started, job.project, tail)

    @staticmethod
    def _unanswered(
        category: str, error: str, latency: float | None = None, *, own_deadline: bool = False
    ) -> RunResult:
        # The library's message may contain the URL, and with it a credential: only its kind is kept.
        return RunResult(
            AttemptOutcome.FAILED,
            category=category,
            error=error,
            upstream=CallOutcome("unknown") if own_deadline else CallOutcome(category, error=error, latency=latency),
        )
