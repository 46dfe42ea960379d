"""`http.request` against a provider in a process of its own: streams, long answers, and refusals inside a 200."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from queues.job_types.http_answer import MAX_BODY
from queues.job_types.http_request import HttpRequest
from queues.lifecycle.fate import decide
from queues.models import Job
from queues.registry import RunResult
from quotas import clock
from quotas.models import Provider
from quotas.snapshot import resolve
from quotas.upstream.endpoint import endpoint
from tests.integration.controlplane.simulator.process import Simulator
from tests.integration.quotas.api.test_pools import make_pool


@pytest.fixture(scope="module")
def providers() -> Iterator[dict[str, Simulator]]:
    with Simulator("--dialect", "openai") as openai, Simulator("--dialect", "anthropic") as anthropic:
        yield {"openai": openai, "anthropic": anthropic}


def call(base_url: str, dialect: str, path: str, payload: dict[str, Any], **columns: Any) -> RunResult:
    pool = make_pool(dialect=dialect, **columns)
    Provider.objects.filter(pk=pool.provider_id).update(base_url=base_url, auth_header="x-api-key: {credential}")
    resolve.clear()
    account = endpoint(str(pool.accounts.order_by("pk")[0].pk))
    context = SimpleNamespace(lease=account, id="j", attempt=1, timeout=10.0, idempotency_key="j", project=None)
    return HttpRequest().run(context, {"method": "POST", "path": path, **payload})  # type: ignore[arg-type]


def chat(words: str = "one two three", **more: Any) -> dict[str, Any]:
    return {"json": {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": words}], **more}}


PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_use_of_a_streamed_answer(providers: dict[str, Simulator], dialect: str) -> None:
    base, path = providers[dialect].base_url, PATHS[dialect]
    streamed = call(base, dialect, path, chat(stream=True, stream_options={"include_usage": True}))
    assert (streamed.outcome, streamed.category) == ("succeeded", "")
    whole = call(base, dialect, path, chat(), name="other")
    assert whole.actual["tokens"] > 1
    assert streamed.actual == whole.actual == streamed.upstream.usage


def served(provider: Simulator, dialect: str, text: str, kind: str, name: str = "llm", **payload: Any) -> RunResult:
    provider.call("POST", "/_faults", {"body": text, "headers": {"content-type": kind}})
    try:
        return call(provider.base_url, dialect, PATHS[dialect], {**chat(), **payload}, name=name)
    finally:
        provider.call("POST", "/_faults", {})


def test_use_at_the_end_of_answers_longer_than_what_is_kept(providers: dict[str, Simulator]) -> None:
    events = [json.dumps({"choices": [{"delta": {"content": "x" * 500}}]})] * 2000
    events += [json.dumps({"choices": [], "usage": {"total_tokens": 4711}}), "[DONE]"]
    stream = "".join(f"data: {event}\n\n" for event in events)
    result = served(providers["openai"], "openai", stream, "text/event-stream")
    assert (result.outcome, result.actual) == ("succeeded", {"tokens": 4711})
    assert result.result["truncated"] and len(result.result["body"]) == MAX_BODY < len(stream)
    long = json.dumps({"data": ["x" * 900_000], "usage": {"total_tokens": 8}})
    document = served(providers["openai"], "openai", long, "application/json", name="other")
    assert document.actual == {"tokens": 8} and document.result["truncated"]


@pytest.mark.parametrize(
    ("dialect", "event", "outcome", "category"),
    [
        ("openai", {"error": {"message": "x", "type": "server_error"}}, "failed", "server"),
        ("openai", {"error": {"message": "x", "code": "rate_limit_exceeded"}}, "rate_limited", "rate_limited"),
        ("openai", {"error": {"message": "x", "type": "insufficient_quota"}}, "rate_limited", "quota_exhausted"),
        ("openai", {"error": {"message": "x", "code": "content_filter"}}, "failed", "validation"),
        ("anthropic", {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "failed", "server"),
    ],
)
@pytest.mark.parametrize("expect", [None, [200]])
def test_an_error_event_in_a_stream_fails_the_attempt(
    providers: dict[str, Simulator], dialect: str, event: Any, outcome: str, category: str, expect: list[int] | None
) -> None:
    text = f"data: {json.dumps({'choices': []})}\n\ndata: {json.dumps(event)}\n\n"
    more = {} if expect is None else {"expect": expect}
    result = served(providers[dialect], dialect, text, "text/event-stream", **more)
    assert (result.outcome, result.category, result.status) == (outcome, category, 200)
    assert result.counted == (outcome == "failed")
    assert result.result["body"] == text


@pytest.mark.parametrize(
    ("dialect", "status", "body"),
    [
        (
            "anthropic",
            400,
            {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to"}},
        ),
        ("openai", 400, {"error": {"message": "Billing hard limit.", "code": "billing_hard_limit_reached"}}),
    ],
)
def test_a_job_is_not_charged_for_an_account_without_money(
    providers: dict[str, Simulator], dialect: str, status: int, body: Any
) -> None:
    provider = providers[dialect]
    provider.call("POST", "/_faults", {"status": status, "body": json.dumps(body)})
    try:
        result = call(provider.base_url, dialect, PATHS[dialect], chat())
    finally:
        provider.call("POST", "/_faults", {})
    assert (result.outcome, result.category, result.counted) == ("rate_limited", "quota_exhausted", False)
    fate = decide(Job(account_lease="x"), result, clock.now(), cancelled="")
    assert not fate.final


def test_a_request_greater_than_the_whole_limit_dies_with_the_providers_words() -> None:
    with Simulator("--dialect", "openai", "--tpm", "1000") as small:
        result = call(small.base_url, "openai", PATHS["openai"], chat("word " * 6000))
    assert (result.outcome, result.category, result.status) == ("failed", "validation", 429)
    assert "Limit 1000" in result.error and "Requested" in result.error
    assert result.counted and result.retry_after is None


def test_a_providers_hint_is_bounded_by_the_pools_longest_cooldown(providers: dict[str, Simulator]) -> None:
    provider = providers["openai"]
    provider.call("POST", "/_faults", {"status": 503, "headers": {"retry-after-ms": "999999999"}})
    try:
        result = call(provider.base_url, "openai", PATHS["openai"], chat(), cooldown_max=120.0)
    finally:
        provider.call("POST", "/_faults", {})
    assert (result.category, result.retry_after) == ("server", 120.0)


def test_a_refused_connection_is_network_and_no_timeout() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = call(f"http://127.0.0.1:{port}", "openai", "/v1/models", {})
    assert (result.category, result.upstream.category) == ("network", "network")


def test_a_provider_that_does_not_answer_is_a_timeout() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        pool = make_pool()
        base = f"http://127.0.0.1:{silent.getsockname()[1]}"
        Provider.objects.filter(pk=pool.provider_id).update(base_url=base, timeout=1)
        resolve.clear()
        account = endpoint(str(pool.accounts.order_by("pk")[0].pk))
        context = SimpleNamespace(lease=account, id="j", attempt=1, timeout=30.0, idempotency_key="j", project=None)
        result = HttpRequest().run(context, {"method": "GET", "path": "/"})  # type: ignore[arg-type]
    assert (result.category, result.upstream.category) == ("timeout", "timeout")


def test_a_name_that_does_not_resolve_is_network() -> None:
    result = call("http://nowhere.invalid", "openai", "/v1/models", {})
    assert result.category == "network"
