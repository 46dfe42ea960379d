"""Traces, as the code that takes part in one sees them: nothing happens until a tracer is installed.

The tracer of OpenTelemetry is `controlplane.observability.tracing`; nothing of it is imported here. A trace leads from a
request over the job that it submitted to the call that the job made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Literal, Protocol

Kind = Literal["server", "client", "consumer"]
Attributes = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """Part of a trace, open while its `with` block runs."""

    def note(self, attributes: Attributes, *, error: str = "") -> None:
        """Add attributes; `error` is the category of a failure. Never a message: it may contain a secret."""
        ...


class Tracer(Protocol):
    def span(
        self, name: str, kind: Kind, attributes: Attributes, parent: Mapping[str, str]
    ) -> AbstractContextManager[Span]:
        """A child of the present span; with header fields as `parent`, of the caller's."""
        ...

    def of_job(self, job: str, name: str, attributes: Attributes, since: datetime) -> AbstractContextManager[Span]:
        """A job's run, in the trace of the request that submitted it `since` then."""
        ...

    def submitted(self, jobs: Sequence[str]) -> None:
        """These jobs belong to the present trace. Called before any worker can know them."""
        ...

    def headers(self) -> dict[str, str]:
        """Header fields by which a call continues the present trace (W3C Trace Context)."""
        ...

    def ids(self) -> dict[str, str]:
        """`trace_id` and `span_id` of the present span, for logs; empty where there is none."""
        ...


class _Off:
    """A span while nothing is traced."""

    def note(self, attributes: Attributes, *, error: str = "") -> None:
        return


_OFF: Span = _Off()
_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Trace from now on; None: no longer."""
    global _tracer
    _tracer = tracer


def is_on() -> bool:
    return _tracer is not None


def span(
    name: str, kind: Kind, attributes: Attributes | None = None, parent: Mapping[str, str] | None = None
) -> AbstractContextManager[Span]:
    """See `Tracer.span`."""
    return nullcontext(_OFF) if _tracer is None else _tracer.span(name, kind, attributes or {}, parent or {})


def of_job(job: str, name: str, attributes: Attributes, since: datetime) -> AbstractContextManager[Span]:
    """See `Tracer.of_job`."""
    return nullcontext(_OFF) if _tracer is None else _tracer.of_job(job, name, attributes, since)


def submitted(jobs: Sequence[str]) -> None:
    """See `Tracer.submitted`."""
    if _tracer is not None:
        _tracer.submitted(jobs)


def headers() -> dict[str, str]:
    """See `Tracer.headers`."""
    return {} if _tracer is None else _tracer.headers()


def ids() -> dict[str, str]:
    """See `Tracer.ids`."""
    return {} if _tracer is None else _tracer.ids()
