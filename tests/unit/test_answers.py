"""Answers and exceptions of HTTP clients, as they are: httpx, urllib, urllib3, requests-like ones and odd objects."""

from __future__ import annotations

import email.message
import http.client
import io
import socket
import urllib.error
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import urllib3

from quotas import answers
from quotas.engine import headers as dialects

REQUEST = httpx.Request("POST", "http://127.0.0.1/")


def urllib_error(status: int, fields: dict[str, str]) -> urllib.error.HTTPError:
    headers = email.message.Message()
    for name, value in fields.items():
        headers[name] = value
    return urllib.error.HTTPError("http://127.0.0.1/", status, "no", headers, io.BytesIO(b"{}"))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (httpx.Response(429), 429),
        (urllib3.HTTPResponse(status=503), 503),
        (urllib_error(429, {}), 429),
        (SimpleNamespace(status_code=HTTPStatus.TOO_MANY_REQUESTS), 429),
        (SimpleNamespace(status="429"), 429),
        (SimpleNamespace(status_code=None, status=200), 200),
        (SimpleNamespace(status="completed"), None),
        (SimpleNamespace(status_code=True), None),
        (SimpleNamespace(status=0), None),
        (SimpleNamespace(status="４２９"), None),
        ("text", None),
        (None, None),
    ],
)
def test_status(answer: object, status: int | None) -> None:
    assert answers.status_of(answer) == status


@pytest.mark.parametrize("error", [urllib_error(429, {"Retry-After": "7"}), urllib_error(429, {"retry-after": "7"})])
def test_urllibs_fields_are_read(error: urllib.error.HTTPError) -> None:
    assert dialects.read("openai", 429, answers.headers_of(error)).retry_after == 7.0


class Raises:
    """Every property raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_bodies_are_taken_where_they_were_read_and_streams_are_left_alone() -> None:
    assert answers.body_of(httpx.Response(400, content=b"read")) == b"read"
    assert answers.body_of(httpx.Response(200, stream=httpx.ByteStream(b"x"))) is None
    assert answers.body_of(urllib3.HTTPResponse(b"read", status=400)) == b"read"
    stream = io.BytesIO(b"unread")
    unread = urllib3.HTTPResponse(stream, status=200, preload_content=False)
    assert answers.body_of(unread) is None
    assert stream.tell() == 0
    assert answers.body_of(SimpleNamespace(_content=False, content=b"requests, streamed")) is None
    assert answers.body_of(SimpleNamespace(_content=b"r", content=b"requests, read")) == b"requests, read"
    assert answers.body_of(SimpleNamespace(text=lambda: "a method")) is None
    assert answers.body_of(Raises()) is None and answers.headers_of(Raises()) is None


def test_a_consumed_stream_has_no_body_that_can_be_had() -> None:
    response = httpx.Response(200, stream=httpx.ByteStream(b"x"))
    assert list(response.iter_raw()) == [b"x"]
    assert answers.body_of(response) is None and answers.latency_of(response) is None


def test_what_an_exception_is_about() -> None:
    response = httpx.Response(429, request=REQUEST)
    try:
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        assert answers.answer_in(error) is response
    refused = urllib_error(503, {})
    assert answers.answer_in(refused) is refused
    assert answers.answer_in(KeyError("x")) is None
    assert answers.answer_in(httpx.ConnectError("no", request=REQUEST)) is None


class APIConnectionError(Exception):
    """As the SDKs of OpenAI and Anthropic name it."""


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (httpx.ConnectError("x"), "network"),
        (httpx.ReadError("x"), "network"),
        (httpx.RemoteProtocolError("x"), "network"),
        (httpx.ReadTimeout("x"), "timeout"),
        (httpx.ConnectTimeout("x"), "timeout"),
        (urllib.error.URLError(ConnectionRefusedError()), "network"),
        (urllib.error.URLError(TimeoutError()), "timeout"),
        (urllib.error.URLError("unknown url type"), ""),
        (http.client.IncompleteRead(b""), "network"),
        (http.client.RemoteDisconnected(), "network"),
        (socket.gaierror(), "network"),
        (APIConnectionError(), "network"),
        (FileNotFoundError(), ""),
        (KeyError(), ""),
    ],
)
def test_what_kind_of_fault_an_exception_means(error: Exception, word: str) -> None:
    assert answers.fault_of(error) == word
