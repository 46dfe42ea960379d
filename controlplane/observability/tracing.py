"""Traces by OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT is set and the extra `sluice[otel]` is installed.

    request (server) -> job (consumer): its wait, its run -> call to the provider (client)

Redis keeps the position of each submitted job's request in its trace for a week, so that the worker continues it. Losing
it costs the connection of the two and nothing else. Spans have no bodies, no addresses with queries, and no
messages of errors: those may contain secrets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import redis
import structlog
from django.conf import settings
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from quotas import events, tracing
from quotas.tracing import Attributes, Kind

log = structlog.get_logger(__name__)

KEPT = 7 * 86400
PARENT = "traceparent"
_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "consumer": SpanKind.CONSUMER}


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, attributes: Attributes, *, error: str = "") -> None:
        self._span.set_attributes(dict(attributes))
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))


class OpenTelemetryTracer:
    """See `quotas.tracing.Tracer`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("sluice")
        self._redis = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1.0, decode_responses=True)

    @contextmanager
    def span(self, name: str, kind: Kind, attributes: Attributes, parent: Mapping[str, str]) -> Iterator[_Span]:
        context = propagate.extract(parent) if parent else None
        with self._tracer.start_as_current_span(
            name, context, _KINDS[kind], dict(attributes), record_exception=False, set_status_on_exception=False
        ) as span:
            yield _Span(span)

    @contextmanager
    def of_job(self, job: str, name: str, attributes: Attributes, since: datetime) -> Iterator[_Span]:
        begun = _nanoseconds(since)
        context = propagate.extract(self._parent_of(job))
        with self._tracer.start_as_current_span(
            name, context, SpanKind.CONSUMER, dict(attributes), start_time=begun,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            self._tracer.start_span("wait", start_time=begun).end()
            with self._tracer.start_as_current_span("run", record_exception=False, set_status_on_exception=False):
                yield _Span(span)

    def headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        propagate.inject(found)
        return found

    def ids(self) -> dict[str, str]:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return {}
        return {
            "trace_id": trace.format_trace_id(context.trace_id),
            "span_id": trace.format_span_id(context.span_id),
        }

    def submitted(self, jobs: Sequence[str]) -> None:
        parent = self.headers().get(PARENT)
        if not parent:
            return
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for job in jobs:
                    pipe.set(_key(job), parent, ex=KEPT)
                pipe.execute()
        except redis.RedisError as error:
            log.warning("tracing.parent_not_kept", jobs=len(jobs), error=type(error).__name__)

    def _parent_of(self, job: str) -> dict[str, str]:
        try:
            found = self._redis.get(_key(job))
        except redis.RedisError as error:
            log.warning("tracing.parent_not_found", job=job, error=type(error).__name__)
            return {}
        return {PARENT: str(found)} if found else {}

    def finish(self) -> None:
        """Send the collected spans."""
        self._provider.force_flush(5000)


def _key(job: str) -> str:
    return f"{settings.REDIS_PREFIX}:trace:{job}"


def _nanoseconds(at: datetime) -> int:
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000) * 1000


def start() -> OpenTelemetryTracer:
    """Install the tracer in this process. The SDK reads its further settings from OTEL_* variables."""
    provider = TracerProvider(resource=Resource.create({"service.name": "sluice"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracer = OpenTelemetryTracer(provider)
    tracing.install(tracer)
    events.before_exit(tracer.finish)
    return tracer
