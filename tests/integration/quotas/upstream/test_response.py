"""Answers and exceptions of any HTTP client, as they settle a lease."""

from __future__ import annotations

import http
from email.message import Message
from types import SimpleNamespace

import httpx
import pytest

from quotas import pools
from tests.integration.quotas.api.test_pools import SECRET, make_pool
from tests.integration.quotas.upstream.clients import Answer, Object


def message(**fields: str) -> Message:
    """Header fields as `http.client` and `urllib` have them."""
    found = Message()
    for name, value in fields.items():
        found[name.replace("_", "-")] = value
    return found


class Unreadable:
    """An answer whose body and fields can't be had any more."""

    status_code = 429

    @property
    def headers(self) -> object:
        raise RuntimeError("closed")

    content = headers


@pytest.mark.parametrize(
    ("answer", "category", "wait"),
    [
        (Answer("429", {"Retry-After": "7"}), "rate_limited", 7.0),  # type: ignore[arg-type]
        (Answer(429, message(Retry_After="8")), "rate_limited", 8.0),  # type: ignore[arg-type]
        (SimpleNamespace(status="200", headers=None), "ok", None),
        (SimpleNamespace(status_code=429, headers=[("Retry-After", "7")]), "rate_limited", 7.0),
        (SimpleNamespace(status=http.HTTPStatus.SERVICE_UNAVAILABLE, headers=Message()), "server", None),
        (SimpleNamespace(status_code="many", headers=3), "unknown", None),
        (Unreadable(), "rate_limited", None),
        (Object("completed"), "unknown", None),
        (Object(None), "unknown", None),
        (None, "unknown", None),
        ({"status_code": 429}, "unknown", None),
    ],
)
def test_odd_answers_settle_too(answer: object, category: str, wait: float | None) -> None:
    make_pool(accounts=1)
    with pools.get("llm").acquire() as lease:
        outcome = lease.settle_response(answer)
    assert (outcome.category, outcome.retry_after) == (category, wait)
    assert pools.get("llm").states()[0].in_flight == 0


def test_a_refusal_in_the_body_of_a_success_counts_and_its_echo_is_redacted() -> None:
    make_pool(accounts=1, dialect="slack")
    body = f'{{"ok": false, "error": "ratelimited", "message": "of {SECRET}-0"}}'.encode()
    with pools.get("llm").acquire() as lease:
        outcome = lease.settle_response(Answer(200, {"x-ratelimit-user": f"{SECRET}-0"}, body))
    assert outcome.category == "rate_limited"
    assert SECRET not in repr(outcome)


def test_body_that_is_still_a_stream_is_left_alone() -> None:
    class Streaming(Answer):
        _content = False  # as requests has it with stream=True

        @property
        def content(self) -> bytes:  # type: ignore[override]
            raise AssertionError("it was read")

        @content.setter
        def content(self, value: bytes) -> None:
            pass

    make_pool(accounts=1)
    with pools.get("llm").acquire() as lease:
        assert lease.settle_response(Streaming(200)).category == "ok"


class StatusError(Exception):
    """What `raise_for_status` raises."""

    def __init__(self, response: Answer) -> None:
        super().__init__("refused")
        self.response = response


def test_an_answer_that_a_client_turned_into_an_exception_counts() -> None:
    make_pool(accounts=1)
    with pytest.raises(StatusError), pools.get("llm").acquire():
        raise StatusError(Answer(429, {"Retry-After": "33"}))
    (state,) = pools.get("llm").states()
    assert state.state == "cooling_down" and state.errors == {"rate_limited": 1}
    assert state.until is not None and 30 < state.until < 37


def test_an_answers_use_replaces_the_estimate() -> None:
    make_pool(accounts=1)
    with pools.get("llm").acquire(tokens=800) as lease:
        outcome = lease.settle_response(httpx.Response(200, json={"usage": {"total_tokens": 12}}))
    assert outcome.usage == {"tokens": 12} and outcome.latency is not None
    with pools.get("llm").acquire(tokens=800) as lease:
        assert lease.settle_response(Answer(200), body=b'{"usage": {"total_tokens": 5}}').usage == {"tokens": 5}
