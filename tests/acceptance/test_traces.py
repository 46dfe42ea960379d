"""Traces: from a request over its job to the call at the provider as one tree, sent to a real receiver of OTLP."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.integration.controlplane.simulator.process import Simulator
from tests.support.instance import wait_until
from tests.support.shapes import EMBEDDED, Deployment, Plan, deployed

pytest.importorskip("opentelemetry.sdk", reason="the extra sluice[otel] is not installed")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra sluice[otel] is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = CALLER.split("-")[1]
CONFIGURATION = """
version: 1
projects: [{{slug: acme}}]
providers: [{{name: sim, dialect: openai, base_url: "{provider}"}}]
pools: [{{name: llm, provider: sim, accounts: [{{name: a1, credential_env: SIM_KEY}}]}}]
queues: [{{name: imports}}, {{name: heavy, lane: cpu}}]
"""


@dataclass(frozen=True)
class Span:
    id: str
    parent: str
    trace: str
    name: str
    attributes: dict[str, Any]
    log: str


class Collector:
    """Receives what the SDK exports."""

    def __init__(self) -> None:
        self.spans: dict[str, Span] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, request: Any) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    values = {one.key: one.value for one in span.attributes}
                    attributes = {
                        name: value.string_value or value.int_value or value.double_value
                        for name, value in values.items()
                    }
                    found = Span(
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.trace_id.hex(),
                        span.name,
                        attributes,
                        str(span),
                    )
                    self.spans[found.id] = found

    def path(self, name: str, trace: str) -> list[str]:
        """The names from the span of this name up to its root."""
        here = next((span for span in self.spans.values() if span.trace == trace and span.name == name), None)
        names = []
        while here is not None:
            names.append(here.name)
            here = self.spans.get(here.parent)
        return names


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, args=(0.05,))
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[tuple[Deployment, Simulator]]:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200", "SIM_KEY": "sk-hush-hush",
        "SLUICE_LOG_FORMAT": "json",
        "SLUICE_TASK_MODULES": "tests.acceptance.tasks",
    }  # fmt: skip
    with Simulator("--rpm", "6000") as simulator, deployed(EMBEDDED, Plan(environ=environ)) as deployment:
        environ_of = deployment.instance.environ
        environ_of["SIM_KEY"] = environ["SIM_KEY"]
        deployment.apply(CONFIGURATION.format(provider=simulator.base_url))
        yield deployment, simulator


PAYLOAD = {
    "pool": "llm",
    "method": "POST",
    "path": "/v1/chat/completions?hush=1",
    "json": {"model": "m", "messages": [{"role": "user", "content": "x"}]},
}


def submitted(deployment: Deployment, caller: str = CALLER, **fields: Any) -> str:
    body = {"type": "http.request", "project": "acme", "queue": "imports", "payload": PAYLOAD, **fields}
    answer = deployment.product.http.post("/api/v1/jobs", json=body, headers={"traceparent": caller})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_a_job_continues_the_trace_of_its_request(traced: tuple[Deployment, Simulator], collector: Collector) -> None:
    deployment, _ = traced
    uid = submitted(deployment)
    deployment.product.wait(uid)
    wait_until(
        lambda: len(collector.path("POST", TRACE)) > 3,
        30,
        lambda: str([(span.name, span.trace) for span in collector.spans.values()]),
    )
    names = collector.path("POST", TRACE)
    assert names == ["POST", "run", "http.request", "POST /api/v1/jobs"]
    root = next(span for span in collector.spans.values() if span.name == "POST /api/v1/jobs")
    assert root.parent == CALLER.split("-")[2], "it continues the caller's own span"
    job = next(span for span in collector.spans.values() if span.name == "http.request")
    assert job.attributes["job.id"] == uid and job.attributes["job.attempt"] == 1
    assert any(span.name == "wait" and span.parent == job.id for span in collector.spans.values())
    assert not [span for span in collector.spans.values() if "hush" in span.log], "no query and no credential"


def test_a_call_of_the_gateway_is_one_tree(traced: tuple[Deployment, Simulator], collector: Collector) -> None:
    deployment, _ = traced
    own = CALLER.replace(TRACE, "1" * 32)
    answer = deployment.product.http.post(
        f"{deployment.instance.url}/gateway/llm/v1/chat/completions", json=PAYLOAD["json"],
        headers={"traceparent": own, "Sluice-Project": "acme"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    wait_until(
        lambda: len(collector.path("POST", "1" * 32)) > 1,
        30,
        lambda: str([(span.name, span.trace) for span in collector.spans.values()]),
    )
    assert collector.path("POST", "1" * 32) == ["POST", "POST /gateway/llm/v1"]


def test_a_forked_job_sends_its_spans_before_its_process_ends(
    traced: tuple[Deployment, Simulator], collector: Collector
) -> None:
    deployment, _ = traced
    own = CALLER.replace(TRACE, "2" * 32)
    uid = submitted(deployment, own, type="t.echo", queue="heavy", payload={})
    deployment.product.wait(uid)
    wait_until(
        lambda: len(collector.path("run", "2" * 32)) > 2,
        30,
        lambda: str([(span.name, span.trace) for span in collector.spans.values()]),
    )
    assert collector.path("run", "2" * 32) == ["run", "t.echo", "POST /api/v1/jobs"]


def test_logs_have_the_trace(traced: tuple[Deployment, Simulator]) -> None:
    deployment, _ = traced
    submitted(deployment, CALLER.replace(TRACE, "4" * 32), type="t.log", queue="heavy", payload={})
    wait_until(lambda: _is_logged(deployment, "4" * 32), 30, "no line of any log has the trace's id")


def _is_logged(deployment: Deployment, trace: str) -> bool:
    logs = (deployment.instance.data_dir / "logs").glob("*.log")
    return any(f'"trace_id": "{trace}"' in path.read_text() for path in logs)
